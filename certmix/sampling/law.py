"""The law of the noise: integers, tabulated once a kind and scale, with a proved distance from the law meant.

A noise value is a number N of grid steps s, and should have the probabilities that noise X of the kind has
when it is rounded to the grid: P[N = k] = P[(k - 1/2) s < X < (k + 1/2) s]; X is symmetric.  The table draws
|N| from 63 uniform bits with probabilities w_k / 2^63, w_k whole numbers.  How far they are from the law is
computed here in whole numbers, with every error bounded; docs/noise.md has the proof.  A kind's own module,
such as `certmix.sampling.gaussian`, gives what the probabilities of |N| are proportional to.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.radii.smoothings import GAUSSIAN, Smoothing
from certmix.sampling.grid import FINEST, Grid

TOTAL_BITS = 63
"""Random bits that choose |N|; one more is its sign."""

BITS = 160
"""Of the fixed point that weights are computed in."""
_OTHER_ERRORS = Fraction(1, 2**72)
"""More than the tail beyond a table, a series' remainder and the fixed-point errors together."""


@dataclass(frozen=True, eq=False)
class NoiseLaw:
    """An alias table (Walker 1977, Vose 1991) of |N| with 2^bits cells, exact in whole numbers.

    Of a random word of 32 bits the first is the sign, the next `bits` name a cell, and the others begin a
    fraction.  `entries` (2^bits,) hold the first 31 - bits bits of the cell's threshold, then its alias;
    `rest` the threshold's other 32 bits, needed where the first ones tie.  `reach` is the largest |N|, and
    `total_variation` an upper bound, of one coordinate, of that between the law drawn and the kind's.
    """

    bits: int
    entries: NDArray[np.uint32]
    rest: NDArray[np.uint32]
    reach: int
    total_variation: float


def exponential(x: Fraction) -> int:
    """Return e^-x in fixed point, for 0 <= x < 1/1024."""
    term = total = 1 << BITS
    k = 1
    while term:
        term = term * x.numerator // (x.denominator * k)
        total += -term if k % 2 else term
        k += 1
    return total


def whole_weights(smoothing: Smoothing) -> tuple[list[int], Fraction]:
    """Return whole numbers w_k with sum 2^63, and a bound of the distance of w_k / 2^63 from the law of |N|.

    The bound, in exact arithmetic, is of the total variation.
    """
    assert smoothing.entry.law is not None
    module, _, name = smoothing.entry.law.partition(":")
    parts = getattr(importlib.import_module(module), name)(Grid.of(smoothing).steps_per_sigma)
    total, unit = sum(parts), 1 << TOTAL_BITS
    weights = [(part * unit + total // 2) // total for part in parts]
    weights[0] += unit - sum(weights)
    off = sum(abs(weight * total - part * unit) for weight, part in zip(weights, parts, strict=True))
    while not weights[-1]:
        weights.pop()
    return weights, Fraction(off, 2 * total * unit) + _OTHER_ERRORS


def _alias_table(weights: list[int]) -> tuple[int, list[int], list[int]]:
    """Return the bits of a cell's number, thresholds and aliases: cell k holds k below its threshold."""
    bits = max(1, (len(weights) - 1).bit_length())
    size = 1 << (TOTAL_BITS - bits)
    left = weights + [0] * ((1 << bits) - len(weights))
    threshold, alias = [0] * len(left), list(range(len(left)))
    small = [k for k, weight in enumerate(left) if weight < size]
    large = [k for k, weight in enumerate(left) if weight > size]
    while small:
        k, giver = small.pop(), large[-1]
        threshold[k], alias[k] = left[k], giver
        left[giver] -= size - left[k]
        if left[giver] <= size:
            large.pop()
            if left[giver] < size:
                small.append(giver)
    return bits, threshold, alias


@lru_cache(maxsize=8)
def _law(kind: str, scale: float) -> NoiseLaw:
    weights, total_variation = whole_weights(Smoothing(kind, scale))
    bits, threshold, alias = _alias_table(weights)
    entries = [(t >> 32) << bits | other for t, other in zip(threshold, alias, strict=True)]
    bound = math.nextafter(float(total_variation), 1.0)
    rest = np.array([t & 0xFFFFFFFF for t in threshold], np.uint32)
    return NoiseLaw(bits, np.array(entries, np.uint32), rest, len(weights) - 1, bound)


def noise_law(sigma: float | Smoothing) -> NoiseLaw:
    """Return the table of a noise level, or of another kind of noise, made once (a tenth of a second)."""
    smoothing = Smoothing.of(sigma)
    return _law(smoothing.kind, float(smoothing.scale))


def noise_error(sigma: float | Smoothing, coordinates: int) -> float:
    """Return eps: how far a probability under the drawn noise may be from one under the noise that is meant.

    The total variation of independent coordinates is at most the sum of theirs.  Nothing is off where what is
    drawn is no sum.
    """
    smoothing = Smoothing.of(sigma)
    if smoothing.entry.law is None:
        return 0.0
    return min(1.0, math.nextafter(noise_law(smoothing).total_variation * coordinates, 1.0))


def noise_described(smoothing: Smoothing) -> dict[str, Any]:
    """Return what ``run.json`` says of the law that is drawn."""
    if smoothing.entry.law is None:
        return {"law": smoothing.entry.meaning, "total_variation_a_coordinate": 0.0}
    law, per_unit = noise_law(smoothing), Grid.of(smoothing).per_unit
    name = "Gaussian" if smoothing.kind == GAUSSIAN else smoothing.kind
    return {
        "law": f"{name}, rounded to multiples of a step", "steps_per_unit": per_unit,
        "clip": "none: values beyond the largest have their probability in eps",
        "largest": law.reach / per_unit, "total_variation_a_coordinate": law.total_variation,
    }  # fmt: skip


assert FINEST == 4096  # the bounds above are for steps of at most sigma / 4096
