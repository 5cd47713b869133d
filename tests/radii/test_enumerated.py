"""Certificates of kinds of smoothing that go through every case: brute force on tiny inputs, known values."""

from __future__ import annotations

import hashlib
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from certmix.radii.bands import band_margins, band_margins_anywhere
from certmix.radii.counted import classes_of, counts_of, sizes, votes_ahead
from certmix.radii.splitting import splitting_margins
from certmix.sampling.bands import bands
from certmix.sampling.splitting import offsets_of, split

CLASSES = 3


def answers(views: torch.Tensor, salt: int) -> np.ndarray:
    """An arbitrary base classifier that may abstain: a hash of what it sees."""
    seen = [hashlib.sha256(bytes([salt]) + view.numpy().tobytes()).digest()[0] for view in views]
    return np.array([{0: -1, 1: 1, 2: 2}.get(value % 6, 0) for value in seen])  # class 0 leads


def band_views(input: torch.Tensor, width: int) -> torch.Tensor:
    columns = input.shape[-1]
    return bands(input.expand(columns, -1, -1, -1), torch.arange(columns), width)


def split_views(levels: torch.Tensor, count: int) -> torch.Tensor:
    return split(levels.expand(count, -1, -1, -1), torch.arange(count), count)


def lead(votes: np.ndarray, selected: int) -> int:
    counts = counts_of(votes[None], CLASSES)[0]
    return int(counts[selected] - np.delete(counts, selected).max())


def patched(input: torch.Tensor, size: int):
    for first in range(input.shape[-1] - size + 1):
        for values in itertools.product((0.0, 1.0), repeat=size):
            changed = input.clone()
            changed[..., first : first + size] = torch.tensor(values)
            yield changed


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("salt", range(4))
def test_no_patch_leaves_less_than_what_is_certified(width, salt):
    input = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]).view(1, 1, 5)
    votes = answers(band_views(input, width), salt)
    selected = int(counts_of(votes[None], CLASSES).argmax())
    margins = band_margins(votes[None], np.array([selected]), CLASSES, width)[0]
    theorem = band_margins_anywhere(votes[None], np.array([selected]), CLASSES, width)[0]
    assert (margins >= theorem).all() and (np.diff(margins) <= 0).all()
    for size in range(1, 6):
        found = min(
            lead(answers(band_views(changed, width), salt), selected) for changed in patched(input, size)
        )
        assert found >= margins[size]


@pytest.mark.parametrize("width, columns", [(1, 5), (2, 5), (4, 7)])
def test_some_classifier_loses_to_a_patch_all_that_is_not_certified(width, columns):
    """One that votes for a rival wherever a patch is seen: the least over patches and rivals is attained."""
    rng = np.random.default_rng(width)
    for _ in range(20):
        votes = rng.choice([-1, 0, 0, 0, 1, 2], columns)
        selected = int(counts_of(votes[None], CLASSES).argmax())
        margins = band_margins(votes[None], np.array([selected]), CLASSES, width)[0]
        for size in range(1, columns + 1):
            least = []
            for first in range(columns - size + 1):
                patch = set(range(first, first + size))
                meets = [bool(patch & {(w + k) % columns for k in range(width)}) for w in range(columns)]
                for rival in {0, 1, 2} - {selected}:
                    counts = counts_of(np.where(meets, rival, votes)[None], CLASSES)[0]
                    least.append(counts[selected] - counts[rival])
            assert margins[size] == min(least)


@pytest.mark.parametrize("count", [4, 7])
@pytest.mark.parametrize("salt", range(4))
def test_no_change_of_levels_leaves_less_than_what_is_certified(count, salt):
    levels = torch.tensor([0, 3, 255], dtype=torch.int32).view(1, 1, 3)
    before = split_views(levels, count)
    votes = answers(before, salt)
    selected = int(counts_of(votes[None], CLASSES).argmax())
    margins = splitting_margins(votes[None], np.array([selected]), CLASSES)[0]
    most = dict.fromkeys(range(4), 0)
    for step in itertools.product(range(-3, 4), repeat=3):
        away, changed = sum(map(abs, step)), levels + torch.tensor(step, dtype=torch.int32).view(1, 1, 3)
        if away > 3 or changed.min() < 0 or changed.max() > 255:
            continue
        views = split_views(changed, count)
        differ = int((views != before).flatten(1).any(1).sum())
        most[away] = max(most[away], differ)
        assert differ <= away
        if away < len(margins):
            assert lead(answers(views, salt), selected) >= margins[away]
    assert most == {t: min(t, count) for t in range(4)}, "as many views change as the certificate allows for"


def test_a_split_is_the_middle_of_the_interval_between_thresholds():
    count, level = 8, torch.arange(256).view(-1, 1)
    for offset in range(count):
        seen = split(level, torch.full((256,), offset), count).ravel() * 255
        thresholds = [offset + 0.5 + count * k for k in range(-1, 40)]
        for value, middle in zip(range(256), seen.tolist(), strict=True):
            low = max(0.0, *(each for each in thresholds if each < value))
            high = min(255.0, *(each for each in thresholds if each > value))
            assert middle == pytest.approx((low + high) / 2)
    assert split(torch.tensor([[7]]), torch.tensor([700]), 1530).item() == 0.5, "a hidden value"


@pytest.mark.parametrize("alpha, radius", [(1.0, 127), (0.76, 87), (0.5, -1)])
def test_an_input_of_one_voice_is_certified_this_far_by_splitting(alpha, radius):
    assert offsets_of(0.5) == 255
    margins = splitting_margins(np.zeros((1, 255), np.int64), np.array([0]), 10)
    assert sizes(margins, alpha, 255).item() == radius


@pytest.mark.parametrize("alpha, needed", [(0.76, {2: 21, 3: 23, 5: 27}), (1.0, {2: 11, 3: 13, 5: 17})])
def test_bands_need_so_many_votes_ahead_wherever_they_are(alpha, needed):
    for size, ahead in needed.items():
        for lead_of, holds in ((ahead, True), (ahead - 1, False)):
            own = (32 + lead_of) // 2
            votes = np.array([0] * own + [1] * (own - lead_of) + [-1] * (32 - 2 * own + lead_of))
            margins = band_margins_anywhere(votes[None], np.array([0]), 3, 4)
            assert (sizes(margins, alpha, 32).item() >= size) == holds


def test_where_votes_are_matters():
    """Where a rival's votes are spread, a patch meets some of them, and gains nothing there."""
    together = np.array([1] * 8 + [0] * 24)
    spread = np.tile([1, 0, 0, 0], 8)
    far = [sizes(band_margins(v[None], np.array([0]), 2, 4), 1.0, 32).item() for v in (together, spread)]
    anywhere = sizes(band_margins_anywhere(together[None], np.array([0]), 2, 4), 1.0, 32).item()
    assert far == [4, 6] and anywhere == 4


@pytest.mark.parametrize("alpha", [0.51, 0.55, 0.6, 2 / 3, 0.75, 0.76, 0.8, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("votes", [32, 255, 256, 3092])
def test_the_mix_keeps_its_class_with_so_many_votes_ahead_and_some_g_flips_it_with_fewer(alpha, votes):
    weight, ahead = Fraction(repr(alpha)), votes_ahead(alpha, votes)
    assert weight * ahead > (1 - weight) * votes
    assert weight * (ahead - 1) <= (1 - weight) * votes + votes * Fraction(1, 2**22)


def test_ties_and_abstentions_have_no_class():
    votes = np.array([[0, 1, -1], [-1, -1, -1], [2, 2, 1]])
    assert classes_of(counts_of(votes, 3)).tolist() == [-1, -1, 2]
