"""Laplace noise in grid steps b h: P[N = 0] = 1 - e^(-h/2), P[|N| = k] = e^(-(k - 1/2) h) (1 - e^-h)."""

from __future__ import annotations

import math
from fractions import Fraction

from certmix.sampling.law import BITS, exponential

_REACH = 52
"""In units of b: what lies beyond has probability 2.6e-23."""


def weights(steps_per_scale: Fraction) -> list[int]:
    """Return P[|N| = k], k = 0, 1, ..., in fixed point.

    Of at most 2^20 terms each is off by no more than its number of the last bits: 2^-118 in all.
    """
    one, step = 1 << BITS, 1 / steps_per_scale
    half, ratio = exponential(step / 2), exponential(step)
    parts, beyond = [one - half], half
    for _ in range(math.ceil(_REACH * steps_per_scale)):
        parts.append(beyond * (one - ratio) >> BITS)
        beyond = beyond * ratio >> BITS
    return parts
