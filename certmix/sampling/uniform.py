"""Uniform noise in grid steps: P[N = k] is the part of [-lambda, lambda] that is nearest to k steps."""

from __future__ import annotations

import math
from fractions import Fraction


def weights(steps_per_scale: Fraction) -> list[int]:
    """Return what P[|N| = k] is proportional to, k = 0, 1, ...: whole numbers, exact."""
    end, unit = 2 * steps_per_scale.numerator, steps_per_scale.denominator  # of half steps
    last = math.ceil(steps_per_scale - Fraction(1, 2))
    return [min((2 * k + 1) * unit, end) - max(0, 2 * k - 1) * unit for k in range(last + 1)]
