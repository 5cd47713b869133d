"""The standard normal law in numba kernels: scipy's own functions, and Phi^-1 from a table.

`ndtr` and `ndtri` are scipy's compiled functions, linked by address, so that kernels and scipy agree
bit for bit and kernels can be cached.  `quantile` is Phi^-1 at a sixth of `ndtri`'s price: a polynomial
of degree 7 in each of 64 equal parts of every octave [2^-k-1, 2^-k) below 1/2.  Phi^-1 is analytic in a
disc as wide as x itself and a part reaches a 128th of that from its middle, so that what the degree
leaves out is below rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special

from certmix.kernels import Linked, kernel
from certmix.types import FloatArray

EPS = 2.0**-52
OCTAVES = 64
DEGREE = 7
_PART_BITS = 6
_REST = 52 - _PART_BITS
_LAST = (1022 << _PART_BITS) - 1  # the upper bits of the largest floats below 1/2
_ROOT = math.sqrt(2 * math.pi)


ndtr: Any = Linked("ndtr", "__pyx_fuse_1ndtr")  # of a real number, not of a complex one
ndtri: Any = Linked("ndtri", "ndtri")


@kernel()
def density(x: float) -> float:
    """phi(x), the derivative of Phi."""
    return math.exp(-0.5 * x * x) / _ROOT


def polynomials(
    function: Callable[[FloatArray], FloatArray], middle: FloatArray, half: FloatArray
) -> FloatArray:
    """Return coefficients (parts, 8) in u = (x - middle) / half, right at 8 Chebyshev points of each part."""
    points = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
    values = function(middle[:, None] + half[:, None] * points)
    # differences from the first value: the fit's rounding then is relative to the change over a part
    change = np.linalg.solve(np.vander(points, increasing=True), (values - values[:, :1]).T).T
    change[:, 0] += values[:, 0]
    return np.ascontiguousarray(change)


@kernel()
def polynomial(table: FloatArray, part: np.uint64, u: float) -> float:
    """Return the value at u of one part's polynomial; an unsigned number spares a check for negative ones."""
    square = u * u
    low = (table[part, 0] + table[part, 1] * u) + square * (table[part, 2] + table[part, 3] * u)
    high = (table[part, 4] + table[part, 5] * u) + square * (table[part, 6] + table[part, 7] * u)
    return low + square * square * high


@lru_cache(maxsize=1)
def quantile_table() -> FloatArray:
    """Return the polynomials of Phi^-1, from 1/2 down: a float's upper bits say in which part it lies."""
    bits = (_LAST - np.arange(OCTAVES << _PART_BITS)) << _REST
    left, right = bits.view(np.float64), (bits + (1 << _REST)).view(np.float64)

    def refined(x: FloatArray) -> FloatArray:
        w = special.ndtri(x)
        newton = (special.ndtr(w) - x) * _ROOT / np.exp(-0.5 * w * w)
        return w - newton / (1.0 + 0.5 * newton * w)

    return polynomials(refined, 0.5 * (left + right), 0.5 * (right - left))


@kernel()
def quantile(x: float, complement: float, table: FloatArray) -> float:
    """Return Phi^-1(x), complement = 1 - x, from the smaller of both, which has not lost its digits."""
    tail = min(x, complement)
    bits = np.float64(tail).view(np.int64)
    part = np.uint64(_LAST - (bits >> _REST))  # of numbers outside the table it is huge
    if part < np.uint64(len(table)):
        # its other bits, of a float in [1, 2)
        within = (bits & ((1 << _REST) - 1)) << _PART_BITS | 1023 << 52
        w = polynomial(table, part, 2.0 * np.int64(within).view(np.float64) - 3.0)
    else:
        w = ndtri(tail)
    return w if x <= complement else -w
