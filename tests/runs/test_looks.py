"""Counts without zeros say what they said with them."""

from __future__ import annotations

import numpy as np
import pytest

from certmix.runs import ImageRecord, Store
from certmix.runs.looks import SparseLooks


def test_sparse_looks_are_the_dense_ones():
    rng = np.random.default_rng(0)
    dense = {n: rng.multinomial(n, rng.dirichlet(np.full(200, 0.05))) for n in (100, 400, 10_000)}
    looks = SparseLooks(dense, 200)
    assert list(looks) == list(dense)
    assert len(looks) == 3
    assert 400 in looks and 500 not in looks
    for n, votes in dense.items():
        assert looks[n].dtype == np.int64
        assert (looks[n] == votes).all()
    with pytest.raises(KeyError):
        looks[500]
    assert SparseLooks({1: np.array([0, 2**40])}, 2)[1].tolist() == [0, 2**40]


def test_a_changed_look_changes_nothing_stored():
    looks = SparseLooks({5: np.array([5, 0])}, 2)
    looks[5][:] = 9
    assert looks[5].tolist() == [5, 0]


@pytest.mark.parametrize("classes", [3, 500])
def test_a_store_gives_back_what_it_took(classes):
    votes = np.zeros(classes, np.int64)
    votes[[0, classes - 1]] = [90, 10]
    store = Store(None, classes)
    store.write_image(ImageRecord(7, 0, "0" * 64, votes, {100: votes, 200: 2 * votes}))
    found = store.images()[7]
    store.write_image(found)
    again = store.images()[7]
    assert found.drawn == again.drawn == 200
    assert (again.estimation[200] == 2 * votes).all()
    store.close()
