"""The standard normal law by scipy's own functions, in kernels too, and tables of polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from certmix.kernels import Linked, kernel
from certmix.types import FloatArray

EPS = 2.0**-52
DEGREE = 7

ndtr: Any = Linked("ndtr", "__pyx_fuse_1ndtr")  # of a real number, not of a complex one


def quantile(x: FloatArray | float, complement: FloatArray | float) -> FloatArray:
    """Return Phi^-1(x), complement = 1 - x, from the smaller of both, which has not lost its digits."""
    w = special.ndtri(np.minimum(x, complement))
    return np.where(x <= complement, w, -w)


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
