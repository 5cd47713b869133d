"""Norm balls cut by the box: projections, steepest ascent and random starts.

Distances are measured in float64 between the numbers that are returned, in
the dtype of the images, so that a point never leaves its ball by rounding:
coordinates are rounded towards the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from certmix.attacks._kernels import DRAW, PROJECT, SUMMIT, TINY, ascend_l1, ascend_l2, unit

__all__ = ["Ball", "distance", "make_ball", "shaped", "start_seeds"]

_ORDER = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
_SEEDS = 1 << 32
"""torch's CPU generator reads 32 bits of its seed."""


def shaped(values: Tensor, like: Tensor) -> Tensor:
    """Give values (N,) the shape (N, 1, ...) that broadcasts against `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def distance(points: Tensor, images: Tensor, norm: str) -> Tensor:
    """Return float64 distances (N,) between points and images (N, ...)."""
    difference = (points.double() - images.double()).flatten(1)
    return torch.linalg.vector_norm(difference, _ORDER[norm], dim=1)


@dataclass(frozen=True)
class Ball:
    """The points within a radius of each image and within the box.

    Parameters
    ----------
    norm
        ``"linf"``, ``"l2"`` or ``"l1"``.
    centre
        Images (N, ...), inside the box.
    radius
        float64 (N,), at most the diameter of the box.
    lower, upper
        Least and largest value of each coordinate, (N, ...).
    """

    norm: str
    centre: Tensor
    radius: Tensor
    lower: Tensor
    upper: Tensor

    def take(self, rows: Tensor) -> Ball:
        """Return the balls of some images."""
        return Ball(self.norm, *(each[rows] for each in (self.centre, self.radius, self.lower, self.upper)))

    def project(self, points: Tensor) -> Tensor:
        """Return the nearest points (Euclidean) of ball and box."""
        if self.norm == "linf":
            return points.clamp(self.lower, self.upper)
        return self._place(PROJECT[self.norm](self._offset(points), *self._room(), self.radius[:, None]))

    def ascend(self, points: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
        """Return points of ball and box one step up the gradient; `length` (N,) is in the ball's norm.

        In linf and l2 a step along the norm's steepest direction, projected.
        In l1, where that direction is a single coordinate, a step towards the
        `summit`: as much as `length` is taken from old coordinates and added to
        the summit's (a Frank-Wolfe step, which no projection need follow).
        """
        if self.norm == "linf":
            return self.project(points + shaped(length.to(points.dtype), points) * gradient.sign())
        ascend = ascend_l2 if self.norm == "l2" else ascend_l1
        radius, length = self.radius[:, None], length[:, None]
        return self._place(ascend(self._offset(points), unit(gradient), *self._room(), radius, length))

    def summit(self, gradient: Tensor) -> Tensor:
        """Return the points of ball and box that are furthest along the gradient: an exact maximum."""
        return self._place(SUMMIT[self.norm](unit(gradient), *self._room(), self.radius[:, None]))

    def sample(self, seeds: Tensor, stream: int) -> Tensor:
        """Draw a point uniformly in each ball and project it onto the box.

        An image's point depends on its seed and the stream alone.
        """
        count = self.centre[:1].numel()
        draws = torch.empty(len(seeds), count, dtype=torch.float64)
        generator = torch.Generator()
        for row, seed in zip(draws, seeds.tolist(), strict=True):
            generator.manual_seed((seed + 0x9E3779B1 * (stream + 1)) % _SEEDS)
            DRAW[self.norm](row, generator)
        offset = draws.to(self.centre.device) * self.radius[:, None]
        return self._place(PROJECT[self.norm](offset, *self._room(), self.radius[:, None]))

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


def make_ball(images: Tensor, norm: str, eps: float, box: tuple[float, float]) -> Ball:
    """Return the ball of radius `eps` about each image, cut by the box.

    The box's ends are taken in the dtype of the images.  An image outside the
    box by a rounding error is moved onto it, and its radius is less by as much.
    """
    low, high = torch.tensor(box, dtype=images.dtype).tolist()
    centre = images.clamp(low, high)
    count = max(images[:1].numel(), 1)
    reach = (high - low) * (1.0 if norm == "linf" else count ** (1 / _ORDER[norm]))
    radius = (min(eps, reach) - distance(centre, images, norm)).clamp_min(0.0)
    if norm != "linf":
        radius = radius * (1 - (count + 16) * 2.0**-50)
    side = shaped(radius, images).expand(images.shape)
    lower = _round_inwards(centre, -side).clamp_min(low)
    upper = _round_inwards(centre, side).clamp_max(high)
    return Ball(norm, centre, radius, lower, upper)


def start_seeds(count: int, generator: torch.Generator | None) -> Tensor:
    """Draw a seed an image, int64 (count,); without a generator they are always the same."""
    source = torch.Generator().manual_seed(0) if generator is None else generator
    return torch.randint(_SEEDS, (count,), generator=source, device=source.device).cpu()


def _round_inwards(centre: Tensor, offset: Tensor) -> Tensor:
    """Return centre + offset in the centre's dtype, no further from the centre than the offset."""
    exact = centre.double()
    points = (exact + offset).to(centre.dtype)
    beyond = (points.double() - exact).abs() > offset.abs()
    return torch.where(beyond, torch.nextafter(points, centre), points)
