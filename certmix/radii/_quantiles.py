"""Phi^-1 of many numbers at a sixth of the price: a table of power series.

w = Phi^-1(x) solves w'' = w w'^2, so its Taylor coefficients at any point follow
from w and w' there.  The table has those at the middles of 64 equal parts of
every octave [2^-k, 2^-(k - 1)) below 1/2; the bits of x say which part is meant
and where in it x lies.  Phi^-1 is analytic in a disc as wide as x itself, a part
reaches at most a 128th of that from its middle, and coefficient 8, the first that
is left out, is below 2^-60 of |w| + 1 everywhere.

The values are within `UNITS` units of rounding of |w| + 1, as scipy's are
(tests/radii/test_quantiles.py, against 40 digits).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import llvmlite.ir
import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from scipy import special

from certmix.radii._special import ndtri
from certmix.types import FloatArray

__all__ = ["UNITS", "lower_quantile", "quantile_table", "upper_quantile"]

UNITS = 4
"""Error of a quantile w, at most, in multiples of 2^-52 (|w| + 1)."""

OCTAVES = 64
"""The table covers 2^-65 <= x < 1/2; `ndtri` answers elsewhere."""

_PART_BITS = 6
_DEGREE = 7
_FRACTION_BITS = 52 - _PART_BITS
_FIRST = (1023 - (OCTAVES + 1)) << _PART_BITS


@lru_cache(maxsize=1)
def quantile_table() -> FloatArray:
    """Return the coefficients (parts, 8) in u, -1 <= u < 1 across a part."""
    parts = np.arange(OCTAVES << _PART_BITS)
    octave, part = parts >> _PART_BITS, parts & (1 << _PART_BITS) - 1
    half = np.ldexp(0.5, octave - (OCTAVES + 1) - _PART_BITS)
    middle = half * (2 * ((1 << _PART_BITS) + part) + 1)
    w = special.ndtri(middle)
    newton = (special.ndtr(w) - middle) / _density(w)
    w -= newton / (1.0 + 0.5 * newton * w)
    table = np.zeros((parts.size, _DEGREE + 1))
    table[:, 0], table[:, 1] = w, half / _density(w)
    for k in range(2, _DEGREE + 1):
        slopes = np.arange(1, k) * table[:, 1:k]
        squares = np.stack([(slopes[:, : j + 1] * slopes[:, j::-1]).sum(1) for j in range(k - 1)], 1)
        table[:, k] = (squares * table[:, k - 2 :: -1]).sum(1) / (k * (k - 1))
    table.setflags(write=False)
    return table


def _density(w: FloatArray) -> FloatArray:
    density: FloatArray = np.exp(-0.5 * w * w) / math.sqrt(2 * math.pi)
    return density


def _reinterpreted(source: Any, result: Any, bits: llvmlite.ir.Type) -> Any:
    """Return a function for kernels that takes the bits of one type for another's."""

    def reinterpret(_context: Any, _value: Any) -> Any:
        def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], bits)

        return result(source), generate

    return intrinsic(reinterpret)


_bits_of = _reinterpreted(types.float64, types.int64, llvmlite.ir.IntType(64))
_float_of = _reinterpreted(types.int64, types.float64, llvmlite.ir.DoubleType())


@njit(cache=True, nogil=True)
def lower_quantile(x: float, table: FloatArray) -> float:
    """Return Phi^-1(x) for x in [0, 1/2]."""
    bits = _bits_of(x)
    part = np.uint64((bits >> _FRACTION_BITS) - _FIRST)  # an x below the table becomes a huge number
    if part >= np.uint64(len(table)):
        return ndtri(x)
    u = 2.0 * _float_of((bits & ((1 << _FRACTION_BITS) - 1)) << _PART_BITS | 1023 << 52) - 3.0
    square = u * u
    low = (table[part, 0] + table[part, 1] * u) + square * (table[part, 2] + table[part, 3] * u)
    high = (table[part, 4] + table[part, 5] * u) + square * (table[part, 6] + table[part, 7] * u)
    return low + square * square * high


@njit(cache=True, nogil=True)
def upper_quantile(x: float, complement: float, table: FloatArray) -> float:
    """Return Phi^-1(x) for any x, where complement = 1 - x, from the one that has not lost its digits."""
    below = x <= 0.5
    quantile = lower_quantile(x if below else complement, table)
    return quantile if below else -quantile
