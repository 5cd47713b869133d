"""Certified accuracy over the radius as whole numbers: what a chart draws and its script reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.text import floor_digits, floor_percent, interval_ends
from certmix.types import FloatArray

__all__ = ["MOST_STEPS", "Axis", "Steps", "axis", "share_text", "steps"]

MOST_STEPS = 256
"""Steps of a curve; of more distinct radii each is rounded down to a grid of so many."""


@dataclass(frozen=True)
class Axis:
    """The axis of radii, in whole units.

    Parameters
    ----------
    norm
        Of the radii.
    scale
        What a radius is multiplied by for print: 255 in linf, otherwise 1.
    digits
        A unit is ``10 ** -digits`` of a scaled radius.
    end
        Largest radius shown, in units.
    stride
        Units between two places of the cursor.
    ticks
        Places of labels, in units.
    """

    norm: str
    scale: int
    digits: int
    end: int
    stride: int
    ticks: tuple[int, ...]

    def units(self, radius: float) -> int:
        """Return a radius in units, rounded down."""
        scaled, whole = radius * self.scale, round(radius * self.scale)
        if self.scale > 1 and whole / self.scale == radius:
            scaled = float(whole)
        return int(floor_digits(scaled, self.digits).replace(".", ""))

    def at(self, units: int) -> float:
        """Return units as a share of the axis, 0 to 1."""
        return min(1.0, units / self.end)

    def label(self, units: int) -> str:
        """Return units in print: ``0.25``, or ``2/255``."""
        whole, rest = divmod(units, 10**self.digits)
        decimal = f"{whole}.{rest:0{self.digits}d}".rstrip("0").rstrip(".")
        return f"{decimal}/{self.scale}" if self.scale > 1 and units else decimal


@dataclass(frozen=True)
class Steps:
    """A curve: `counts[i]` of `images` hold for radii up to ``units[i]``, none beyond the last."""

    units: tuple[int, ...]
    counts: tuple[int, ...]
    images: int


def _nice(step: float) -> int:
    """Return the least of 1, 2, 5, 10, 20, 25, 50, ... that is not below step."""
    power = 10 ** max(0, math.floor(math.log10(max(step, 1.0))))
    return next(int(k * power) for k in (1, 2, 2.5, 5, 10) if k * power >= step and (k * power) % 1 == 0)


def axis(largest: float, norm: str) -> Axis:
    """Return an axis for finite radii up to `largest`."""
    scale, digits = (255, 3) if norm == "linf" else (1, 5)
    end = max(1, math.ceil(1.03 * largest * scale * 10**digits)) if largest > 0 else scale * 10**digits
    if largest > 0 and end < 40:
        end = 40
    return Axis(
        norm, scale, digits, end, _nice(end / 240), tuple(range(0, end + 1, _nice(end / 7))),
    )  # fmt: skip


def steps(radii: FloatArray, images: int, along: Axis) -> Steps:
    """Return the curve of certified radii (> 0) among `images`, never above the true one."""
    units = np.array([along.units(r) if math.isfinite(r) else along.end for r in radii.tolist()], np.int64)
    units = np.minimum(units, along.end)
    if len(np.unique(units)) > MOST_STEPS:
        grid = -(-along.end // MOST_STEPS)
        units = units // grid * grid
    values, counts = np.unique(units, return_counts=True)
    surviving = counts[::-1].cumsum()[::-1]
    return Steps(tuple(values.tolist()), tuple(surviving.tolist()), images)


def share_text(count: int, images: int) -> tuple[str, str, str]:
    """Return a share in percent and its 95 % interval over images, rounded outwards.

    Examples
    --------
    >>> share_text(2, 3)
    ('66.6', '9.4', '99.2')
    """
    if images < 1:
        return "-", "-", "-"
    low, high = clopper_pearson.interval(np.array([count]), images)
    return floor_percent(count / images), *interval_ends((float(low[0]), float(high[0])))
