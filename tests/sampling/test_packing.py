"""Several inputs in a batch, and batches that shrink: the counts are those of each input alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planes import plane
from torch import nn

from certmix.errors import ModelError
from certmix.sampling import Draw, Sampler
from certmix.sampling.packing import Cursor

STOPS = st.lists(st.integers(0, 90), min_size=0, max_size=4).map(sorted)


def half_space() -> nn.Module:
    return plane([[1.0, -0.5], [-1.0, 0.5]])


class Narrow(nn.Module):
    """Runs out of memory on batches of more than `most`; keeps the sizes it was asked for.

    Each pass has an activation; `last` knows whether it is there.
    """

    def __init__(self, most: int, error: Callable[[], Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.net, self.most, self.error, self.sizes, self.last = half_space(), most, error, [], lambda: None

    def forward(self, x):
        activation = 2 * x
        self.last = weakref.ref(activation)
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error()
        return self.net(activation / 2)


SHORTAGES = {
    "torch": partial(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
    "runtime": partial(RuntimeError, "CUDA error: out of memory"),
    "cublas": partial(
        RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "handle": partial(
        RuntimeError, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    ),
    "cudnn": partial(RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "workspace": partial(
        RuntimeError, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if ..."
    ),
    "engine": partial(RuntimeError, "GET was unable to find an engine to execute this computation"),
}


DRAWS = [
    Draw(torch.tensor([0.1, 0.3]), 4, (100, 130, 400)),
    Draw(torch.tensor([0.2, -0.3]), 9, (60,), stream="selection"),
    Draw(torch.tensor([-0.4, 0.3]), 5, (77, 200), start=33),
]


@given(st.lists(st.tuples(st.integers(0, 60), STOPS), max_size=5), st.integers(1, 70))
def test_batches_hold_every_sample_once_and_in_order(wanted, size):
    draws = [Draw(torch.zeros(1), k, tuple(start + s for s in stops), start)
             for k, (start, stops) in enumerate(wanted)]  # fmt: skip
    cursor, seen, ended = Cursor(), [], []
    while True:
        parts, cursor = cursor.fill(draws, size)
        if not parts:
            break
        row = 0
        for part in parts:
            assert part.row == row
            assert part.count > 0
            row += part.count
            seen += [(part.draw, n) for n in range(part.begin, part.begin + part.count)]
            assert part.begin + part.count <= draws[part.draw].stops[part.stop]
            if part.last:
                assert part.begin + part.count == draws[part.draw].stops[part.stop]
                ended.append((part.draw, part.stop))
        assert row == size or not cursor.fill(draws, size)[0]
    expected = [
        (k, n) for k, draw in enumerate(draws) for n in range(draw.start, max(draw.stops, default=draw.start))
    ]
    assert seen == expected
    assert len(set(ended)) == len(ended)


def counted(pending):
    """The votes of each draw at each stop."""
    return [np.stack([ballots.votes(2) for ballots in draw]) for draw in pending.result()]


def equal(one, other):
    return all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_packed_counts_are_those_of_each_input_alone(batch_size):
    packed = counted(Sampler(half_space(), 2, 0.5, batch_size=batch_size).submit(DRAWS))
    for draw, counts in zip(DRAWS, packed, strict=True):
        alone = Sampler(half_space(), 2, 0.5, batch_size=25).votes(
            draw.input, draw.index, draw.stops, start=draw.start, stream=draw.stream
        )
        assert (counts == alone).all()
        assert counts[-1].sum() == draw.stops[-1] - draw.start
        assert 0 < counts[-1, 0] < counts[-1].sum()
    sampler = Sampler(half_space(), 2, 0.5, batch_size=batch_size)
    first, second = sampler.submit(DRAWS[:2]), sampler.submit(DRAWS[2:])  # two may be under way
    found = [*counted(first), *counted(second)]
    assert equal(found, packed)


def test_scores_and_logits_come_in_order():
    sampler = Sampler(half_space(), 2, 0.5, batch_size=64)
    votes = [np.zeros((len(draw.stops), 2), np.int64) for draw in DRAWS]
    for part, scores in sampler.scores(DRAWS, temperature=2.0):
        assert scores.shape == (part.count, 2)
        np.testing.assert_allclose(scores.sum(1), 1.0)
        votes[part.draw][part.stop] += np.bincount(scores.argmax(1), minlength=2)
    for counts, found in zip(counted(sampler.submit(DRAWS)), votes, strict=True):
        assert (counts == found.cumsum(0)).all()


@pytest.mark.parametrize("kind", SHORTAGES)
def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(kind, monkeypatch):
    narrow, shrink = Narrow(100, SHORTAGES[kind]), Sampler._shrink

    def shrink_then(self, *given):
        assert narrow.last() is None  # the cache is emptied of activations, too
        shrink(self, *given)

    monkeypatch.setattr(Sampler, "_shrink", shrink_then)
    sampler = Sampler(narrow, 2, 0.5, batch_size=1000)
    found = counted(sampler.submit(DRAWS))
    assert sampler.batch_size == 100
    assert narrow.sizes[:4] == [1000, 500, 200, 100]
    assert set(narrow.sizes[4:]) == {100}
    expected = counted(Sampler(half_space(), 2, 0.5, batch_size=100).submit(DRAWS))
    assert equal(found, expected)
    told = str(SHORTAGES[kind]()).split()[0]
    with pytest.raises(ModelError, match=f"memory with a single input .*{told}.*: use a smaller model"):
        Sampler(Narrow(0, SHORTAGES[kind]), 2, 0.5, batch_size=8).votes(torch.zeros(2), 0, [10])


@pytest.mark.parametrize(
    "first, expected",
    [
        (1900, 900),
        (900, 400),
        (300, 100),
        (100, 50),
        (50, 25),
        (25, 10),
        (20, 10),
        (16_384, 8192),
        (75, 37),
        (2, 1),
    ],
)
def test_a_smaller_batch_goes_with_the_looks_as_the_larger_did(first, expected):
    sampler = Sampler(Narrow(first - 1), 2, 0.5, batch_size=first)
    sampler.votes(torch.zeros(2), 0, [1])
    assert sampler.batch_size == expected


class Placed(Narrow):
    """Logits depend on a row's place in a batch."""

    def forward(self, x):
        return super().forward(x) + 1e-3 * torch.arange(len(x))[:, None] * torch.tensor([1.0, 0.0])


def test_a_batch_whose_places_count_still_ends_with_the_looks_when_memory_is_short(monkeypatch):
    """First the automatic size does not fit, then one that was tried; the next is one that divides the looks."""
    monkeypatch.setattr("certmix.sampling.sampler.automatic_batch_size", lambda shape, device: 1900)
    looks = [Draw(torch.zeros(2), 3, (100, 200, 300))]
    placed = Sampler(Placed(950), 2, 0.5)
    expected = counted(Sampler(Placed(100), 2, 0.5, batch_size=100).submit(looks))
    assert equal(counted(placed.submit(looks)), expected)
    assert (placed.places, placed.batch_size) == (100, 100)
    placed.model.most = 60  # another process takes memory
    counted(placed.submit(looks))
    assert (placed.places, placed.batch_size) == (50, 50)
