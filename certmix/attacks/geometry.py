"""Norm balls cut by the box: projections, steepest ascent and random starts.

Distances are measured in float64 between the numbers that are returned, in the dtype of the inputs;
coordinates are rounded towards the centre.  The functions of one norm take offsets, gradients and bounds as
float64 (N, D) with ``low <= 0 <= high``, and radii, lengths and scalars solved for as (N, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny
_ROUNDS = 16


def shaped(values: Tensor, like: Tensor) -> Tensor:
    """Give values (N,) the shape (N, 1, ...) that broadcasts against `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def unit(gradient: Tensor) -> Tensor:
    """Flatten to float64 (N, D) with largest size 1: no square under- or overflows.  Zeros stay."""
    flat = gradient.double().flatten(1)
    return flat / flat.abs().amax(1, keepdim=True).clamp_min(TINY)


def _room_along(direction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how far each coordinate can go along its direction's sign; 0 where that is 0."""
    return torch.where(direction > 0, high, -low).clamp_min(0.0) * (direction != 0)


def _scale_l2(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """Return the largest s with ``||min(s size, room)||_2 <= radius``, inf if there is none; (N, 1).

    Each round holds the coordinates that were full at the last s.  It only grows: too few rounds are safe.
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
    """Return the largest u with ``sum_i min(max(u - gap_i, 0), room_i) <= radius``, (N, 1); else inf."""
    events, order = torch.cat([gap, gap + room], 1).sort(1)  # between two of them the sum is linear in u
    slope = torch.where(order < gap.shape[1], 1.0, -1.0).to(gap.dtype).cumsum(1)
    rises = (events[:, 1:] - events[:, :-1]) * slope[:, :-1]
    sums = torch.cat([torch.zeros_like(radius), rises.cumsum(1)], 1)
    inside = (sums <= radius).sum(1, keepdim=True)
    last = (inside - 1).clamp_min(0)
    level = events.gather(1, last) + (radius - sums.gather(1, last)) / slope.gather(1, last).clamp_min(1.0)
    return torch.where(inside == sums.shape[1], math.inf, level)


def _project_l1(offset: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    """Soft-threshold, then clamp: the optimality conditions of the nearest point in ball and box.

    Sizes are counted down from the largest: what is left of large ones is not lost to cancellation.
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
_PROJECT: dict[str, _Kernel] = {
    "linf": lambda offset, low, high, radius: offset.clamp(-radius, radius),
    "l2": _project_l2,
    "l1": _project_l1,
}
_SUMMIT: dict[str, _Kernel] = {
    "linf": lambda direction, low, high, radius: direction.sign() * radius,
    "l2": _summit_l2,
    "l1": _summit_l1,
}
_DRAW: dict[str, Callable[[Tensor, torch.Generator], object]] = {
    "linf": lambda row, generator: row.uniform_(-1, 1, generator=generator),
    "l2": _draw_l2,
    "l1": _draw_l1,
}

_ORDER = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
_SEEDS = 1 << 32
"""torch's CPU generator reads 32 bits of its seed."""


def distance(points: Tensor, inputs: Tensor, norm: str) -> Tensor:
    """Return float64 distances (N,) between points and inputs (N, ...)."""
    difference = (points.double() - inputs.double()).flatten(1)
    return torch.linalg.vector_norm(difference, _ORDER[norm], dim=1)


@dataclass(frozen=True)
class Ball:
    """The points within a radius of each input, in ``"linf"``, ``"l2"`` or ``"l1"``, and within the box.

    `centre` holds the inputs (N, ...), inside the box; `radius`, float64 (N,), is at most the diameter of the
    box; `lower` and `upper` are the least and largest value of each coordinate, (N, ...).
    """

    norm: str
    centre: Tensor
    radius: Tensor
    lower: Tensor
    upper: Tensor

    def __getitem__(self, rows: Tensor) -> Ball:
        """Return the balls of some inputs."""
        return Ball(self.norm, *(each[rows] for each in (self.centre, self.radius, self.lower, self.upper)))

    def project(self, points: Tensor) -> Tensor:
        """Return the nearest points (Euclidean) of ball and box."""
        if self.norm == "linf":
            return points.clamp(self.lower, self.upper)
        return self._solved(_PROJECT, self._offset(points))

    def ascend(self, points: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
        """Return points of ball and box one step up the gradient; `length` (N,) is in the ball's norm.

        A step along the norm's steepest direction, projected; in l1, where that is a single coordinate, as
        much as `length` moves from old coordinates to the `summit`'s (Frank-Wolfe).
        """
        if self.norm == "linf":
            return self.project(points + shaped(length.to(points.dtype), points) * gradient.sign())
        offset, direction, length = self._offset(points), unit(gradient), length[:, None]
        if self.norm == "l2":
            step = direction * (length / direction.norm(dim=1, keepdim=True).clamp_min(1.0))
            return self._solved(_PROJECT, offset + step)
        way = _summit_l1(direction, *self._room(), self.radius[:, None]) - offset
        share = (2 * length / way.abs().sum(1, keepdim=True).clamp_min(TINY)).clamp_max(1.0)
        moves = (direction != 0).any(1, keepdim=True)
        return self._place(torch.where(moves, offset + share * way, offset))

    def summit(self, gradient: Tensor) -> Tensor:
        """Return the points of ball and box that are furthest along the gradient: an exact maximum."""
        return self._solved(_SUMMIT, unit(gradient))

    def sample(self, seeds: Tensor, stream: int) -> Tensor:
        """Draw a point uniformly in each ball, by its seed and the stream alone; project it onto the box."""
        rows = torch.empty(len(seeds), self.centre[:1].numel(), dtype=torch.float64)
        draws = fill(rows, seeds, stream, _DRAW[self.norm]).to(self.centre.device)
        return self._solved(_PROJECT, draws * self.radius[:, None])

    def _solved(self, kernels: dict[str, _Kernel], values: Tensor) -> Tensor:
        """Return the points at which the norm's kernel puts offsets or directions (N, D)."""
        return self._place(kernels[self.norm](values, *self._room(), self.radius[:, None]))

    def _offset(self, points: Tensor) -> Tensor:
        return (points.double() - self.centre.double()).flatten(1)

    def _room(self) -> tuple[Tensor, Tensor]:
        """Least and largest offset of each coordinate, float64 (N, D)."""
        return self._offset(self.lower), self._offset(self.upper)

    def _place(self, offset: Tensor) -> Tensor:
        """Return centre + offset, each coordinate rounded towards the centre and kept in its range."""
        if self.norm != "linf":
            size = torch.linalg.vector_norm(offset, _ORDER[self.norm], dim=1, keepdim=True)
            offset = offset * (self.radius[:, None] / size.clamp_min(TINY)).clamp_max(1.0)
        points = _round_inwards(self.centre, offset.view(self.centre.shape))
        return points.clamp(self.lower, self.upper)


def make_ball(inputs: Tensor, norm: str, eps: float, box: tuple[float, float]) -> Ball:
    """Return the ball of radius `eps` about each input, cut by the box, whose ends are of the inputs' dtype.

    An input outside the box by a rounding error is moved onto it, and its radius is less by as much.
    """
    low, high = torch.tensor(box, dtype=inputs.dtype).tolist()
    centre = inputs.clamp(low, high)
    count = max(inputs[:1].numel(), 1)
    reach = (high - low) * (1.0 if norm == "linf" else count ** (1 / _ORDER[norm]))
    radius = (min(eps, reach) - distance(centre, inputs, norm)).clamp_min(0.0)
    if norm != "linf":
        radius = radius * (1 - (count + 16) * 2.0**-50)
    side = shaped(radius, inputs).expand(inputs.shape)
    lower = _round_inwards(centre, -side).clamp_min(low)
    upper = _round_inwards(centre, side).clamp_max(high)
    return Ball(norm, centre, radius, lower, upper)


def start_seeds(count: int, generator: torch.Generator | None) -> Tensor:
    """Draw a seed an input, int64 (count,); without a generator they are always the same."""
    source = torch.Generator().manual_seed(0) if generator is None else generator
    return torch.randint(_SEEDS, (count,), generator=source, device=source.device).cpu()


def fill(
    rows: Tensor, seeds: Tensor, stream: int, draw: Callable[[Tensor, torch.Generator], object]
) -> Tensor:
    """Fill rows (N, ...) by ``draw(row, generator)``: each depends on its seed and the stream alone."""
    generator = torch.Generator()
    for row, seed in zip(rows, seeds.tolist(), strict=True):
        generator.manual_seed((seed + 0x9E3779B1 * (stream + 1)) % _SEEDS)
        draw(row, generator)
    return rows


def _round_inwards(centre: Tensor, offset: Tensor) -> Tensor:
    """Return centre + offset in the centre's dtype, no further from the centre than the offset."""
    exact = centre.double()
    points = (exact + offset).to(centre.dtype)
    beyond = (points.double() - exact).abs() > offset.abs()
    return torch.where(beyond, torch.nextafter(points, centre), points)
