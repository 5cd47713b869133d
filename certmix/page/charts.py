"""Certified accuracy over the radius, and how radii are spread: what a page draws and its script reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.text import accuracy, floor_digits, floor_percent, interval_ends, known
from certmix.types import FloatArray

MOST_STEPS = 128
"""Steps of a curve; of more distinct radii each is rounded down to a grid of so many."""
BINS = 24
Steps = tuple[list[int], list[int]]
"""A curve: ``counts[i]`` images hold at radii up to ``units[i]``, none beyond the last."""


@dataclass(frozen=True)
class Axis:
    """Radii of a norm from 0 to `end`, in whole units: 10^-5, or 0.001/255 in linf."""

    norm: str
    end: int

    @property
    def scale(self) -> int:
        """What a radius is multiplied by for print."""
        return 255 if self.norm == "linf" else 1

    @property
    def digits(self) -> int:
        """A unit is ``10 ** -digits`` of a scaled radius."""
        return 3 if self.norm == "linf" else 5

    @property
    def stride(self) -> int:
        """Units between two places of the cursor."""
        return _nice(self.end / 240)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places in percent, and their labels."""
        places = range(0, self.end + 1, _nice(self.end / 7))
        return [(round(100 * units / self.end, 3), self.label(units)) for units in places]

    def units(self, radius: float) -> int:
        """Return a radius in units, rounded down, and no more than the end."""
        scaled = min(radius, self.end) * self.scale  # a radius may be infinite
        if self.scale > 1 and round(scaled) / self.scale == radius:
            scaled = float(round(scaled))
        return min(self.end, int(floor_digits(scaled, self.digits).replace(".", "")))

    def label(self, units: int) -> str:
        """Return units in print: ``0.25``, or ``2/255``."""
        whole, rest = divmod(units, 10**self.digits)
        decimal = f"{whole}.{rest:0{self.digits}d}".rstrip("0").rstrip(".")
        return f"{decimal}/{self.scale}" if self.scale > 1 and units else decimal


def _nice(step: float) -> int:
    """Return the least of 1, 2, 5, 10, 20, 25, 50, ... that is not below step."""
    power = 10 ** max(0, math.floor(math.log10(max(step, 1.0))))
    return next(int(k * power) for k in (1, 2, 2.5, 5, 10) if k * power >= step and (k * power) % 1 == 0)


def axis(radii: Sequence[FloatArray], norm: str, least: float) -> Axis:
    """Return an axis that holds all finite radii, and `least`."""
    unit = Axis(norm, 1).scale * 10 ** Axis(norm, 1).digits
    largest = max([least, *(float(r) for part in radii for r in part if math.isfinite(r))])
    return Axis(norm, max(40, math.ceil(1.03 * largest * unit)) if largest > 0 else unit)


def steps(radii: FloatArray, along: Axis) -> Steps:
    """Return the curve of certified radii (> 0), never above the true one."""
    units = np.array([along.units(r) for r in radii.tolist()], np.int64)
    if len(np.unique(units)) > MOST_STEPS:
        grid = -(-along.end // MOST_STEPS)
        units = units // grid * grid
    values, counts = np.unique(units, return_counts=True)
    return values.tolist(), counts[::-1].cumsum()[::-1].tolist()


def count_at(curve: Steps, units: int) -> int:
    """Return how many images hold at a radius, in units."""
    return next((count for end, count in zip(*curve, strict=True) if end >= units), 0)


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


@dataclass(frozen=True)
class Series:
    """One line of a chart; what varies with the mixing weight has an entry a weight, or one for all.

    Parameters
    ----------
    labels, under
        What the read-out calls it, and a smaller line below.
    colour
        Class of the style sheet.
    radii
        Certified radii above 0 of rightly classified images; empty where nothing is certified.
    clean
        Accuracies without perturbation.
    images
        How many there are in all.
    band
        Draw the 95 % intervals.
    """

    labels: Sequence[str]
    under: str
    colour: str
    radii: Sequence[FloatArray]
    clean: Sequence[float | None]
    images: int
    band: bool = False


def chart(
    key: str, series: Sequence[Series], norm: str, start: float, weights: Sequence[str] = (), at: int = 0
) -> dict[str, Any]:
    """Return a chart as plain data, for the template to draw and for the page's script to read.

    Parameters
    ----------
    key
        Unique in the page; letters, digits and dashes.
    series
        Its lines; those that lie on one another at all weights become one.
    norm, start
        Of the radii; and the radius that is read out first.
    weights, at
        Mixing weights to choose from, in print, and the place of the first.
    """
    along = axis([radii for one in series for radii in one.radii], norm, start)
    first = along.units(start) // along.stride * along.stride
    lines: list[dict[str, Any]] = []
    figures: dict[str, tuple[str, str, str]] = {}
    for one in series:
        curves = [steps(radii, along) for radii in one.radii]
        twin = [line for line in lines if curves and (line["steps"], line["labels"]) == (curves, one.labels)]
        if twin:
            twin[0]["under"] += f", {one.under}"
            continue
        for count in {0, *(count for _, counts in curves for count in counts)}:
            figures.setdefault(f"{one.images}:{count}", share_text(count, one.images))
        shown = curves[min(at, len(curves) - 1)] if curves else None
        lines.append({
            "key": f"{key}-s{len(lines)}", "labels": one.labels, "under": one.under, "colour": one.colour,
            "images": one.images, "steps": curves, "band": one.band and one.images > 0,
            "clean": [accuracy(share) if known(share) else "" for share in one.clean],
            "value": figures[f"{one.images}:{count_at(shown, first)}"] if shown else None,
        })  # fmt: skip
    return {
        "key": key, "norm": norm, "end": along.end, "stride": along.stride, "digits": along.digits,
        "scale": along.scale, "ticks": along.ticks, "start": first, "start_text": along.label(first),
        "weights": weights, "at": at, "series": lines, "figures": figures,
    }  # fmt: skip


def histogram(robust: FloatArray, mixed: FloatArray, norm: str, least: float) -> dict[str, Any] | None:
    """Return how many radii above 0, of the mix and of h alone, are in each bin; None where all are 0."""
    along = axis([robust, mixed], norm, least)
    places = [[along.units(r) * BINS // along.end for r in radii.tolist()] for radii in (mixed, robust)]
    counts = [np.bincount(np.minimum(np.array(part, np.int64), BINS - 1), minlength=BINS) for part in places]
    most = int(np.max(counts))
    top = next(t for k in range(12) for t in (10**k * n for n in (2, 4, 6, 8, 10)) if t >= most)
    edges = [along.label(-(-along.end * k // BINS)) for k in range(BINS)]
    bins = list(zip(edges, *(part.tolist() for part in counts), strict=True))
    return {"norm": norm, "ticks": along.ticks, "top": top, "bins": bins} if most else None
