"""Kernels: what is computed without numba is what it computes, and numba is left alone until it is needed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from certmix import kernels
from certmix.bounds import betting, clopper_pearson
from certmix.bounds.bound import selected_and_runner_up
from certmix.kernels import kernel

DRAWN = {
    "mixed": lambda rng, n: rng.random(n), "zeros": lambda rng, n: np.zeros(n), "ones": lambda rng, n: np.ones(n),
    "rare": lambda rng, n: (rng.random(n) < 0.01).astype(float), "rising": lambda rng, n: np.sort(rng.random(n)),
}  # fmt: skip


@pytest.fixture
def plainly(monkeypatch):
    """Compute as a process in which numba was not imported, or was."""

    def switch(on):
        monkeypatch.setattr(kernels, "sys", SimpleNamespace(modules={} if on else {"numba": None}))

    return switch


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("size", [1, 2, 50, 9000])
def test_a_betting_bound_is_the_same_without_numba(plainly, drawn, size):
    values, found = DRAWN[drawn](np.random.default_rng(size), size), []
    for on in (True, False):
        plainly(on)
        found.append([
            bound(values, delta, planned) for bound in (betting.lower_bound, betting.upper_bound)
            for delta in (0.025, 1e-80) for planned in (None, 10 * size)
        ])  # fmt: skip
    assert found[0] == found[1]


def test_a_binomial_bound_is_the_same_without_numba(plainly):
    trials = np.array([1, 2, 10, 1000, 100_000])
    successes, found = trials * np.arange(5)[:, None] // 4, []
    for on in (True, False):
        plainly(on)
        found.append(clopper_pearson.interval(successes, trials, 0.05))
    np.testing.assert_array_equal(*found)


@kernel()
def _square(x):
    """x squared."""
    return x * x


@kernel(few=2)
def _squares(values):
    """The sum of squares; from ten on 1 is added."""
    total = 0.0 if len(values) < 10 else 1.0
    for k in range(len(values)):
        total += _square(values[k])
    return total


def test_kernels_call_kernels():
    assert _squares(np.arange(12.0)) == 507.0
    assert _squares.__doc__.startswith("The sum")


def test_votes_of_the_selected_class_and_the_runner_up():
    counts = np.random.default_rng(0).integers(0, 9, (50, 4))
    selected = np.arange(50) % 4
    votes, rivals = selected_and_runner_up(counts, selected)
    for row, own, vote, rival in zip(counts, selected, votes, rivals, strict=True):
        assert vote == row[own] and rival == np.delete(row, own).max()
