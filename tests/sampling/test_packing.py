"""Several images in a batch, and batches that shrink: the counts are those of each image alone."""

from __future__ import annotations

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
    """Runs out of memory on batches of more than `most`; keeps the sizes it was asked for."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most, self.sizes = half_space(), most, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.net(x)


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


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_packed_counts_are_those_of_each_image_alone(batch_size):
    packed = counted(Sampler(half_space(), 2, 0.5, batch_size=batch_size).submit(DRAWS))
    for draw, counts in zip(DRAWS, packed, strict=True):
        alone = Sampler(half_space(), 2, 0.5, batch_size=25).votes(
            draw.image, draw.index, draw.stops, start=draw.start, stream=draw.stream
        )
        assert (counts == alone).all()
        assert counts[-1].sum() == draw.stops[-1] - draw.start
        assert 0 < counts[-1, 0] < counts[-1].sum()
    sampler = Sampler(half_space(), 2, 0.5, batch_size=batch_size)
    first, second = sampler.submit(DRAWS[:2]), sampler.submit(DRAWS[2:])  # two may be under way
    found = [*counted(first), *counted(second)]
    assert all((a == b).all() for a, b in zip(found, packed, strict=True))


def test_scores_and_logits_come_in_order():
    sampler = Sampler(half_space(), 2, 0.5, batch_size=64)
    votes = [np.zeros((len(draw.stops), 2), np.int64) for draw in DRAWS]
    for part, scores in sampler.scores(DRAWS, temperature=2.0):
        assert scores.shape == (part.count, 2)
        np.testing.assert_allclose(scores.sum(1), 1.0)
        votes[part.draw][part.stop] += np.bincount(scores.argmax(1), minlength=2)
    for counts, found in zip(counted(sampler.submit(DRAWS)), votes, strict=True):
        assert (counts == found.cumsum(0)).all()


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost():
    narrow = Narrow(100)
    sampler = Sampler(narrow, 2, 0.5, batch_size=1000)
    found = counted(sampler.submit(DRAWS))
    assert sampler.batch_size == 62
    assert narrow.sizes[:5] == [1000, 500, 250, 125, 62]
    assert set(narrow.sizes[5:]) == {62}
    expected = counted(Sampler(half_space(), 2, 0.5, batch_size=62).submit(DRAWS))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    with pytest.raises(ModelError, match="out of memory with a single input: use a smaller model"):
        Sampler(Narrow(0), 2, 0.5, batch_size=8).votes(torch.zeros(2), 0, [10])
