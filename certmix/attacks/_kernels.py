"""Projections, maxima, steps and draws in norm balls cut by a box, on offsets from the centre.

Offsets, gradients and bounds are float64 (N, D), with ``low <= 0 <= high``;
radii, lengths and the scalars solved for are (N, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DRAW", "PROJECT", "SUMMIT", "TINY", "ascend_l1", "ascend_l2", "unit"]

TINY = torch.finfo(torch.float64).tiny

_ROUNDS = 16


def unit(gradient: Tensor) -> Tensor:
    """Flatten to float64 (N, D) with largest size 1: no square under- or overflows.  Zeros stay."""
    flat = gradient.double().flatten(1)
    return flat / flat.abs().amax(1, keepdim=True).clamp_min(TINY)


def _room_along(direction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how far each coordinate can go along its direction's sign; 0 where that is 0."""
    return torch.where(direction > 0, high, -low).clamp_min(0.0) * (direction != 0)


def _scale_l2(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return the largest s with ``||min(s size, room)||_2 <= radius``, inf if there is none; (N, 1).

    Each round solves for s with the coordinates held that were full at the
    last s.  The scale only grows, never beyond the solution, and stays once
    no coordinate fills up: few rounds are needed, and too few are safe.
    """
    squares, limits, squared = size**2, room**2, radius**2
    full_at = torch.where(size > 0, room / size, 0.0)
    scale = torch.zeros_like(radius)
    for _ in range(_ROUNDS):
        full = full_at <= scale
        fixed = torch.where(full, limits, 0.0).sum(1, keepdim=True)
        free = torch.where(full, 0.0, squares).sum(1, keepdim=True)
        before, scale = scale, ((squared - fixed).clamp_min(0.0) / free).sqrt()
        scale = torch.where(free > 0, torch.maximum(scale, before), math.inf)
        if scale.device.type == "cpu" and torch.equal(scale, before):
            break
    return scale


def _project_l2(offset: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    """Scale, then clamp: the optimality conditions of the nearest point in ball and box."""
    size, room = offset.abs(), _room_along(offset, low, high)
    return offset.sign() * torch.minimum(_scale_l2(size, room, radius).clamp_max(1.0) * size, room)


def _summit_l2(direction: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    size, room = direction.abs(), _room_along(direction, low, high)
    reach = torch.where(size > 0, _scale_l2(size, room, radius) * size, 0.0)
    return direction.sign() * torch.minimum(reach, room)


def _level_l1(gap: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return the largest u with ``sum_i min(max(u - gap_i, 0), room_i) <= radius``, (N, 1); else inf.

    Going up in u, coordinates start to count at ``gap`` and stop to grow at
    ``gap + room``; between two of these events the sum is linear in u.
    """
    events, order = torch.cat([gap, gap + room], 1).sort(1)
    slope = torch.where(order < gap.shape[1], 1.0, -1.0).to(gap.dtype).cumsum(1)
    rises = (events[:, 1:] - events[:, :-1]) * slope[:, :-1]
    sums = torch.cat([torch.zeros_like(radius), rises.cumsum(1)], 1)
    inside = (sums <= radius).sum(1, keepdim=True)
    last = (inside - 1).clamp_min(0)
    level = events.gather(1, last) + (radius - sums.gather(1, last)) / slope.gather(1, last).clamp_min(1.0)
    return torch.where(inside == sums.shape[1], math.inf, level)


def _project_l1(offset: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    """Soft-threshold, then clamp: the optimality conditions of the nearest point in ball and box.

    Sizes are counted down from the largest, so that what is left of large
    offsets in a small ball is not lost to cancellation.
    """
    size, room = offset.abs(), _room_along(offset, low, high)
    largest = size.amax(1, keepdim=True)
    level = torch.minimum(_level_l1(largest - size, room, radius), largest)
    return offset.sign() * torch.minimum((level - (largest - size)).clamp_min(0.0), room)


def _summit_l1(direction: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    """Fill coordinates up to their room in the order of the gradient's size until the radius is spent."""
    order = direction.abs().argsort(1, descending=True)
    room = _room_along(direction, low, high).gather(1, order)
    spent = room.cumsum(1) - room
    filled = torch.minimum(room, (radius - spent).clamp_min(0.0))
    return direction.sign() * torch.zeros_like(filled).scatter(1, order, filled)


def _clamp(offset: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    return offset.clamp(-radius, radius)


def _summit_linf(direction: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    return direction.sign() * radius


def ascend_l2(
    offset: Tensor, direction: Tensor, low: Tensor, high: Tensor, radius: Tensor, length: Tensor
) -> Tensor:
    """Step along the gradient, then project onto ball and box."""
    step = direction * (length / direction.norm(dim=1, keepdim=True).clamp_min(1.0))
    return _project_l2(offset + step, low, high, radius)


def ascend_l1(
    offset: Tensor, direction: Tensor, low: Tensor, high: Tensor, radius: Tensor, length: Tensor
) -> Tensor:
    """Move towards the best point of the linearised loss (a Frank-Wolfe step)."""
    way = _summit_l1(direction, low, high, radius) - offset
    share = (2 * length / way.abs().sum(1, keepdim=True).clamp_min(TINY)).clamp_max(1.0)
    return torch.where((direction != 0).any(1, keepdim=True), offset + share * way, offset)


def _draw_linf(row: Tensor, generator: torch.Generator) -> None:
    row.uniform_(-1, 1, generator=generator)


def _draw_l2(row: Tensor, generator: torch.Generator) -> None:
    """A normal direction, and a radius with density proportional to r^(D-1)."""
    row.normal_(generator=generator)
    level = torch.rand((), generator=generator, dtype=row.dtype)
    row.mul_(level ** (1 / len(row)) / row.norm())


def _draw_l1(row: Tensor, generator: torch.Generator) -> None:
    """D of the D + 1 spacings of uniform points, with random signs."""
    row.uniform_(-1, 1, generator=generator)
    sizes = -torch.log1p(-row.abs())
    rest = -torch.log1p(-torch.rand((), generator=generator, dtype=row.dtype))
    row.copy_(row.sign() * sizes / (sizes.sum() + rest))


_Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
PROJECT: dict[str, _Kernel] = {"linf": _clamp, "l2": _project_l2, "l1": _project_l1}
SUMMIT: dict[str, _Kernel] = {"linf": _summit_linf, "l2": _summit_l2, "l1": _summit_l1}
DRAW = {"linf": _draw_linf, "l2": _draw_l2, "l1": _draw_l1}
