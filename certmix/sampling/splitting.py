"""Splitting noise, every offset of it: what the base model sees of an 8-bit image (Levine and Feizi, 2021).

In units of 1/255 each coordinate X (0 to 255) has the threshold u + 1/2, u = (offset + v) mod N, v fixed for
the coordinate, and its translates by N.  The model sees the middle of the interval between thresholds that
X lies in, cut to 0 .. 255: at N = 255 (lambda = 0.5) one bit, and where it was asked.  A coordinate that
changes by k levels changes its interval at k of the N offsets at most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from certmix.radii.splitting import LEVELS, offsets_of

_AXES = (0xC13FA9A9, 0x91E10DA5, 0x61C88647, 0x3C6EF372)
"""Steps of v / N along the axes, the last first, in 2^-32: nearby thresholds differ as much as can be."""


def fixed_offsets(shape: tuple[int, ...], count: int) -> Tensor:
    """Return v of each coordinate, int64, 0 to count - 1."""
    phase = torch.zeros(shape, dtype=torch.int64)
    for axis, size in enumerate(reversed(shape)):
        steps = torch.arange(size) * _AXES[axis % len(_AXES)]
        phase += steps.view(-1, *[1] * axis)
    return ((phase & 0xFFFFFFFF) * count) >> 32


def split(levels: Tensor, offsets: Tensor, count: int) -> Tensor:
    """Return what the model sees, float32 in [0, 1], of levels (m, ...) 0 to 255 at offsets (m,)."""
    fixed = fixed_offsets(tuple(levels.shape[1:]), count).to(levels.device, torch.int32)
    u = (offsets.to(torch.int32).view(-1, *[1] * fixed.ndim) + fixed) % count
    above = torch.div(levels.to(torch.int32) - u - 1, count, rounding_mode="floor") + 1
    upper = 2 * (u + above * count) + 1  # in half levels
    lower = upper - 2 * count
    return (lower.clamp_min(0) + upper.clamp_max(2 * LEVELS)).float() / (4 * LEVELS)


def levels_of(images: Tensor) -> Tensor | None:
    """Return images k/255 as levels k, int32; None if they are of other values."""
    scaled = images.double() * LEVELS
    levels = scaled.round()
    near = (scaled - levels).abs() <= LEVELS * 2.0**-22  # the float32 nearest to k/255, or k times 1/255
    inside = bool(near.all()) and bool((levels >= 0).all()) and bool((levels <= LEVELS).all())
    return levels.to(torch.int32) if inside else None


def splits(images: Tensor, offsets: Tensor, scale: float) -> Tensor:
    """Return images (m, ...) as seen at offsets (m,); values other than 8-bit ones are rounded."""
    levels = (images.double() * LEVELS).round().clamp(0, LEVELS)
    return split(levels, offsets, offsets_of(scale))


def random_splits(images: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Return 8-bit images (m, ...) in [0, 1] as a model sees them, each at an offset of its own."""
    offsets = torch.randint(offsets_of(scale), (len(images),), generator=generator, device=images.device)
    return splits(images, offsets, scale)
