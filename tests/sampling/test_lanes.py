"""Batches side by side: the same counts as one after another, whatever the model keeps in itself."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from planes import plane
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling import Draw, Sampler, lanes

DRAWS = [
    Draw(torch.tensor([0.1, 0.3]), 4, (100, 130, 400)),
    Draw(torch.tensor([0.2, -0.3]), 9, (60,), stream="selection"),
    Draw(torch.tensor([-0.4, 0.3]), 5, (75, 200), start=25),
    Draw(torch.tensor([0.4, 0.0]), 6, (7, 9), start=3),
]


def net():
    return plane([[1.0, -0.5], [-1.0, 0.5]])


def counted(model, count, **settings):
    return Sampler(model, 2, 0.5, lanes=count, **settings).submit(DRAWS).result()


def equal(first, second):
    return all((a == b).all() for a, b in zip(first, second, strict=True))


class Keeps(nn.Module):
    """Puts its input away, and takes it again a little later."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, batch):
        self.kept = batch.clone()
        time.sleep(0.002)
        return self.inner(self.kept)


class View(nn.Module):
    """Its logits are its input: memory that the next batch overwrites."""

    def forward(self, batch):
        return batch


class Locked(Keeps):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [7, 25, 100])
def test_counts_do_not_depend_on_the_number_of_lanes(count, batch_size):
    one = counted(net(), 1, batch_size=batch_size)
    assert equal(counted(net(), count, batch_size=batch_size), one)


@pytest.mark.parametrize("model", [Keeps, View, Locked])
def test_models_that_keep_or_return_what_they_see(model):
    assert equal(counted(model(), 4, batch_size=10), counted(model(), 1, batch_size=10))


def test_sharing_one_module_would_be_seen(monkeypatch):
    monkeypatch.setattr("certmix.sampling.votes.twins", lambda module, count: [module] * count)
    assert not equal(counted(Keeps(), 4, batch_size=10), counted(Keeps(), 1, batch_size=10))


def test_twins_share_parameters_and_nothing_else():
    first = Keeps()
    first.register_buffer("scale", torch.ones(3))
    first(torch.zeros(1, 2))
    one, two, three = lanes.twins(first, 3)
    assert one is first
    for twin in (two, three):
        assert twin is not first and twin.inner is not first.inner
        assert all(a is b for a, b in zip(twin.parameters(), first.parameters(), strict=True))
        assert twin.scale.data_ptr() != first.scale.data_ptr()
        assert twin.kept.data_ptr() != first.kept.data_ptr()
    assert len(lanes.twins(Locked(), 3)) == 1


def test_logits_come_in_order():
    for model in (net(), View()):
        side = list(Sampler(model, 2, 0.5, lanes=3, batch_size=10).logits(DRAWS))
        alone = list(Sampler(model, 2, 0.5, lanes=1, batch_size=10).logits(DRAWS))
        assert [part for part, _ in side] == [part for part, _ in alone]
        assert all((a == b).all() for (_, a), (_, b) in zip(side, alone, strict=True))


def test_threads_are_given_back_and_each_lane_has_its_share():
    before, seen = torch.get_num_threads(), set()

    class Asks(nn.Module):
        def forward(self, batch):
            seen.add(torch.get_num_threads())
            return batch

    Sampler(Asks(), 2, 0.5, lanes=2, batch_size=10).submit(DRAWS)
    assert seen == {max(1, before // 2)}
    assert torch.get_num_threads() == before


def test_an_error_in_a_lane_is_the_error():
    class Fails(nn.Module):
        def forward(self, batch):
            if batch.mean() > 0.05:
                raise ValueError("mine")
            return batch

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="mine"):
        counted(Fails(), 3, batch_size=10)
    with pytest.raises(ModelError, match=r"expected logits of shape \(10, 3\)"):
        Sampler(net(), 3, 0.5, lanes=3, batch_size=10).submit(DRAWS)
    assert torch.get_num_threads() == before


def test_whoever_stops_asking_stops_the_lanes():
    calls = []

    class Counts(nn.Module):
        def forward(self, batch):
            calls.append(1)
            return batch

    logits = Sampler(Counts(), 2, 0.5, lanes=2, batch_size=10).logits([Draw(torch.zeros(2), 0, (100_000,))])
    next(logits)
    logits.close()
    done = len(calls)
    time.sleep(0.05)
    assert len(calls) == done < 20


def test_a_lane_a_thread_by_default_and_at_least_one():
    def lanes_of(**settings):
        return Sampler(net(), 2, 0.5, **settings).width([2]) / 1000

    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 64):
            torch.set_num_threads(threads)
            assert lanes_of() == (1 if threads == 1 else 2 * min(threads, lanes.MOST_LANES))
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ParameterError, match="lanes = 0: at least 1 is needed"):
        Sampler(net(), 2, 0.5, lanes=0)


def test_nothing_asked_for_is_nothing():
    assert Sampler(net(), 2, 0.5, lanes=2).submit([]).result() == []
    empty = Sampler(net(), 2, 0.5, lanes=2).submit([Draw(torch.zeros(2), 0, (5,), start=5)]).result()
    assert np.array_equal(empty[0], [[0, 0]])
