"""Gaussian noise in grid steps: P[N = k] = Phi((k + 1/2) h) - Phi((k - 1/2) h), a step being sigma h."""

from __future__ import annotations

import math
from fractions import Fraction

from certmix.sampling.law import BITS, exponential

_REACH = 10
"""Standard deviations that are tabulated: what lies beyond has probability 1.6e-23."""


def weights(steps_per_sigma: Fraction) -> list[int]:
    """Return what P[|N| = k] is proportional to, k = 0, 1, ..., in fixed point.

    The integral of the density over a step h = 1 / steps_per_sigma, at most 1 / 4096, is, from its Taylor
    series at the middle x = k h, ``h phi(x) (1 + h^2 (x^2 - 1) / 24 + h^4 (x^4 - 6 x^2 + 3) / 1920)`` but for
    less than ``15 phi(0) 2 (h/2)^7 / 7! < 10^-30``; the constant factor h phi(0) follows from the sum.  phi(x
    + h) / phi(x) is a geometric sequence.
    """
    square, one = 1 / steps_per_sigma**2, 1 << BITS
    h2 = square.numerator * one // square.denominator
    h4 = h2 * h2 >> BITS
    density, ratio, factor = one, exponential(square / 2), exponential(square)
    parts = []
    for k in range(math.ceil(_REACH * steps_per_sigma) + 1):
        x2 = k * k * h2
        second = h2 * (x2 - one) // 24 >> BITS
        fourth = h4 * ((x2 * x2 >> BITS) - 6 * x2 + 3 * one) // 1920 >> BITS
        parts.append((density * (one + second + fourth) >> BITS) << (k > 0))
        density, ratio = density * ratio >> BITS, ratio * factor >> BITS
    return parts
