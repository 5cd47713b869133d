"""The law of the noise: integers, tabulated once a noise level, with a proved distance from the Gaussian.

A noise value is a number N of grid steps s, and should have

    P[N = k] = Phi((k + 1/2) s / sigma) - Phi((k - 1/2) s / sigma),

the law of sigma z rounded to the grid.  The table draws |N| from 63 uniform
bits with probabilities w_k / 2^63, w_k whole numbers.  How far they are from
the law is computed here in whole numbers, with every error bounded; docs/noise.md
has the proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from certmix.sampling.grid import FINEST, Grid

TOTAL_BITS = 63
"""Random bits that choose |N|; one more is its sign."""

_FIXED = 160
_REACH = 10
"""Standard deviations that are tabulated: what lies beyond has probability 1.6e-23."""
_OTHER_ERRORS = Fraction(1, 2**72)
"""More than the tail beyond the table, the series' remainder and the fixed-point errors together."""


@dataclass(frozen=True, eq=False)
class NoiseLaw:
    """An alias table (Walker 1977, Vose 1991) of |N| with 2^bits cells, exact in whole numbers.

    Of a random word of 32 bits the first is the sign, the next `bits` name a cell, and the others begin a
    fraction.  `entries` (2^bits,) hold the first 31 - bits bits of the cell's threshold, then its alias;
    `rest` the threshold's other 32 bits, needed where the first ones tie.  `reach` is the largest |N|, and
    `total_variation` an upper bound, of one coordinate, of that between the law drawn and the Gaussian's.
    """

    bits: int
    entries: NDArray[np.uint32]
    rest: NDArray[np.uint32]
    reach: int
    total_variation: float


def _exponential(x: Fraction) -> int:
    """Return e^-x in fixed point, for 0 <= x < 1/1024."""
    term = total = 1 << _FIXED
    k = 1
    while term:
        term = term * x.numerator // (x.denominator * k)
        total += -term if k % 2 else term
        k += 1
    return total


def half_normal_weights(steps_per_sigma: Fraction) -> tuple[list[int], Fraction]:
    """Return whole numbers w_k with sum 2^63, and a bound of the distance of w_k / 2^63 from the law of |N|.

    The integral of the density over a step h = 1 / steps_per_sigma, at most 1 / 4096, is, from its Taylor
    series at the middle x = k h, ``h phi(x) (1 + h^2 (x^2 - 1) / 24 + h^4 (x^4 - 6 x^2 + 3) / 1920)`` but for
    less than ``15 phi(0) 2 (h/2)^7 / 7! < 10^-30``; the constant factor h phi(0) follows from the sum.  phi(x
    + h) / phi(x) is a geometric sequence.  The bound, in exact arithmetic, is of the total variation.
    """
    square = 1 / steps_per_sigma**2
    h2 = square.numerator * (1 << _FIXED) // square.denominator
    h4 = h2 * h2 >> _FIXED
    density, ratio, factor = 1 << _FIXED, _exponential(square / 2), _exponential(square)
    parts = []
    for k in range(math.ceil(_REACH * steps_per_sigma) + 1):
        x2 = k * k * h2
        second = h2 * (x2 - (1 << _FIXED)) // 24 >> _FIXED
        fourth = h4 * ((x2 * x2 >> _FIXED) - 6 * x2 + (3 << _FIXED)) // 1920 >> _FIXED
        parts.append((density * ((1 << _FIXED) + second + fourth) >> _FIXED) << (k > 0))
        density, ratio = density * ratio >> _FIXED, ratio * factor >> _FIXED
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
def noise_law(sigma: float) -> NoiseLaw:
    """Return the table of a noise level, made once (a tenth of a second)."""
    weights, total_variation = half_normal_weights(Grid.of(sigma).steps_per_sigma)
    bits, threshold, alias = _alias_table(weights)
    entries = [(t >> 32) << bits | other for t, other in zip(threshold, alias, strict=True)]
    bound = math.nextafter(float(total_variation), 1.0)
    rest = np.array([t & 0xFFFFFFFF for t in threshold], np.uint32)
    return NoiseLaw(bits, np.array(entries, np.uint32), rest, len(weights) - 1, bound)


def noise_error(sigma: float, coordinates: int) -> float:
    """Return eps: how far a probability under the drawn noise may be from one under the Gaussian.

    The total variation of independent coordinates is at most the sum of theirs.
    """
    return min(1.0, math.nextafter(noise_law(float(sigma)).total_variation * coordinates, 1.0))


assert FINEST == 4096  # the bounds above are for steps of at most sigma / 4096
