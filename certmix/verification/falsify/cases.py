"""Attacks on certificates from votes on all cases, patches and changes of levels; each is judged exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from certmix.calling import backward, call_model
from certmix.radii.bands import bands_met
from certmix.radii.splitting import LEVELS
from certmix.sampling.ballots import LEVELS as BALLOT_LEVELS
from certmix.sampling.ballots import level_of
from certmix.sampling.devices import full_float32
from certmix.sampling.enumerated import Shown, Views
from certmix.sampling.splitting import fixed_offsets, levels_of
from certmix.tables.words import PATCH
from certmix.types import IntArray

STEP = 0.25
"""First step of a patch's search, as a share of the range of inputs."""
Loss = Callable[[Tensor], Tensor]


class Search(NamedTuple):
    """How a point is searched: range of inputs, steps and starts, and what is random."""

    box: tuple[float, float]
    steps: int
    restarts: int
    generator: torch.Generator


def size_of(views: Views, point: Tensor, input: Tensor) -> float:
    """Return how far a point lies from an input: the side of the square that holds all changes, or l1."""
    changed = point != input
    if views.norm == PATCH:
        if not changed.any():
            return 0.0
        spans = [changed.flatten(0, -3).any(0).any(axis).nonzero() for axis in (0, 1)]
        return float(max(int(span.max() - span.min()) + 1 for span in spans))
    both = levels_of(torch.stack([point, input]))
    if both is None:
        return float("inf")
    return int((both[0] - both[1]).abs().sum()) / LEVELS


def lead_of(
    shown: Shown, point: Tensor, classes: int, gate: float, label: int, together: int | None = None
) -> tuple[int, int, IntArray]:
    """Return n_y - n_i of the worst rival at a point, that rival, and the counts (c,), abstentions last."""
    ballots = shown.ballots(point, together).cpu().numpy()
    sure = ballots % BALLOT_LEVELS >= level_of(gate)
    counts = np.bincount(np.where(sure, ballots // BALLOT_LEVELS, classes), minlength=classes + 1)
    others = counts[:classes].copy()
    others[label] = -1
    rival = int(others.argmax())
    return int(counts[label] - counts[rival]), rival, counts


def flips(lead: int, votes: int, alpha: float) -> bool:
    """Whether some g flips, or ties, a mix of such a lead: alpha (n_y - n_i) <= (1 - alpha) n."""
    printed = Fraction(repr(float(alpha)))
    return printed * lead <= (1 - printed) * votes


@full_float32()
def worst_point(
    shown: Shown, input: Tensor, label: int, radius: float, classes: int, gate: float, how: Search
) -> Tensor:
    """Return the point of the ball, of those that are tried, where y leads least."""
    search = _patched if shown.views.norm == PATCH else _moved
    found = [input, *(search(shown, input, label, radius, number, how) for number in range(how.restarts))]
    return min(found, key=lambda point: lead_of(shown, point, classes, gate, label)[0])


def _gap(model: Shown, seen: Tensor, label: int, loss: Loss | None) -> tuple[Tensor, Tensor | None]:
    """Return z_y - max z_i of each case (n,), and the slope of its `loss`; None where the model has none."""
    seen = seen.detach().requires_grad_(loss is not None)
    with torch.set_grad_enabled(loss is not None):
        logits = call_model(model.model, seen)
        own = torch.full_like(logits[:, :1], label, dtype=torch.int64)
        gap = logits[:, label] - logits.scatter(1, own, -torch.inf).amax(1)
        if loss is None or not gap.requires_grad:
            return gap.detach(), None
        (slope,) = backward(loss(gap).sum(), seen)
    return gap.detach(), slope.detach()


def _patched(shown: Shown, input: Tensor, label: int, radius: float, number: int, how: Search) -> Tensor:
    """Search the content of one patch by signs of slopes: first that of the columns where y leads most.

    Where the model has no slope, contents drawn at random are kept if they win votes.
    """
    height, columns = input.shape[-2:]
    size, width = min(int(radius), columns), int(shown.views.scale)
    met, tall = bands_met(size, columns, width), min(size, height)
    (low, high), generator = how.box, how.generator
    votes = _gap(
        shown, shown.views.of(input.expand(columns, *input.shape), torch.arange(columns)), label, None
    )
    lead = [int(votes[0].sign().roll(width - 1 - left)[:met].sum()) for left in range(columns - size + 1)]
    left = sorted(range(len(lead)), key=lambda place: -lead[place])[number % len(lead)]
    top = int(torch.randint(height - tall + 1, (1,), generator=generator))
    where = (..., slice(top, top + tall), slice(left, left + size))
    cases = torch.arange(left - width + 1, left - width + 1 + met).to(input.device) % columns

    def kept(point: Tensor, loss: Loss | None) -> tuple[Tensor, Tensor | None]:
        return _gap(shown, shown.views.of(point.expand(met, *point.shape), cases), label, loss)

    def filled() -> Tensor:
        made = input.clone()
        content = torch.rand(input[where].shape, generator=generator).to(input)
        made[where] = low + (high - low) * content
        return made

    best, fewest = input, math.inf
    point = filled()
    for step in range(how.steps + 1):
        gap, slope = kept(point, F.softplus)
        if (left_over := int((gap > 0).sum())) < fewest:
            best, fewest = point.clone(), left_over
        if slope is None:
            point = filled()
            continue
        length = (high - low) * STEP * (1 - step / (how.steps + 1))
        point = point.clone()
        point[where] -= length * slope[:, : input.shape[0]].sum(0)[where].sign()
        point.clamp_(low, high)
    return best


def _moved(shown: Shown, input: Tensor, label: int, radius: float, number: int, how: Search) -> Tensor:
    """Move coordinates by one level each, across the thresholds of the offsets whose votes flip soonest.

    Of each offset the coordinates that cross a threshold there, and at no other, are ordered by what the
    slope says they take from z_y - max z_i; offsets that need the fewest come first.  Later starts take more
    than the slope says is enough.
    """
    count, budget = shown.views.count(tuple(input.shape)), round(radius * LEVELS)
    levels = levels_of(input[None])
    assert levels is not None
    flat = levels.flatten().long()
    fixed = fixed_offsets(tuple(input.shape), count).flatten().to(input.device)
    found = [_gap(shown, batch, label, torch.Tensor.double) for batch in shown.batches(input)]
    gap = torch.cat([gap for gap, _ in found])[:count].double()
    slope = torch.zeros(count, flat.numel(), device=input.device, dtype=torch.float64)
    if all(one is not None for _, one in found):
        slope = torch.cat([one.flatten(1) for _, one in found if one is not None])[:count].double()
    moves: list[list[tuple[float, int, int]]] = [[] for _ in range(count)]  # gain, coordinate and direction
    for direction in (1, -1):
        crossed = torch.where(torch.tensor(direction > 0), flat, flat - 1)  # below the threshold
        offset = (crossed - fixed) % count
        change = (crossed + count + 0.5).clamp_max(LEVELS) - (crossed + 0.5 - count).clamp_min(0)
        taken = -direction * change / (2 * LEVELS) * slope[offset, torch.arange(len(flat))]
        inside = (flat + direction >= 0) & (flat + direction <= LEVELS)
        for place in inside.nonzero().flatten().tolist():
            moves[int(offset[place])].append((float(taken[place]), place, direction))
    plans = []
    for case, wanted in enumerate((gap * (1 + number / 2)).tolist()):
        order = sorted(moves[case], reverse=True)
        taken_so_far = list(accumulate(gain for gain, _, _ in order))
        enough = next((many for many, total in enumerate(taken_so_far, 1) if total > wanted), 0)
        if gap[case] > 0:  # else y has no vote to lose there
            plans.append((enough or len(flat), case, order[: enough or 1 + number]))
    point, used = flat.clone(), set[int]()
    for _, _, chosen in sorted(plans):
        free = [(place, direction) for _, place, direction in chosen if place not in used]
        for place, direction in free[: budget - len(used)]:
            point[place] += direction
            used.add(place)
    return (point.float() / LEVELS).view_as(input)
