"""Phi^-1 from its table: within its stated error of 40-digit values, wherever x lies."""

from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from certmix.radii._normal import EPS, OCTAVES, quantile, quantile_table

UNITS = 4  # what `rounded_down` counts on


def error(x: float, table=None) -> float:
    """How far the quantile lies from Phi^-1(x), in units of 2^-52 (|w| + 1)."""
    w = quantile(x, 1.0 - x, quantile_table() if table is None else table)
    with mpmath.workdps(40):
        true = mpmath.mpf(float(ndtri(x)))
        for _ in range(3):
            true -= (mpmath.ncdf(true) - mpmath.mpf(x)) / mpmath.npdf(true)
        return float(abs(mpmath.mpf(w) - true) / (EPS * (abs(true) + 1)))


@pytest.mark.parametrize("octave", range(1, OCTAVES + 1, 7))
def test_edges_of_parts(octave):
    """The first, the last and the middle float of some parts of [2^-(octave + 1), 2^-octave)."""
    for part in (0, 1, 31, 32, 63):
        first = math.ldexp(1 + part / 64, -(octave + 1))
        last = math.nextafter(math.ldexp(1 + (part + 1) / 64, -(octave + 1)), 0.0)
        assert max(map(error, (first, last, 0.5 * (first + last)))) <= UNITS


@given(st.floats(-66.0, -1.0), st.floats(1.0, 2.0, exclude_max=True))
def test_anywhere(exponent, mantissa):
    assert error(min(0.5, math.ldexp(mantissa, math.floor(exponent)))) <= UNITS


@pytest.mark.parametrize("k", [2.0, 8.0, 16.0, 40.0, 53.0])
def test_near_one_half(k):
    assert error(0.5 - 2.0**-k) <= UNITS


def test_outside_the_table_scipy_answers():
    table = quantile_table()
    for x in (0.0, 0.5, 5e-324, 1e-300, math.nextafter(2.0 ** -(OCTAVES + 1), 0.0)):
        assert quantile(x, 1.0 - x, table) == ndtri(x)


@given(st.floats(0.0, 1.0))
def test_through_the_smaller_tail(x):
    table = quantile_table()
    assert quantile(x, 1.0 - x, table) == -quantile(1.0 - x, x, table)


def test_a_shorter_polynomial_would_be_seen():
    shorter = quantile_table().copy()
    shorter[:, 5:] = 0.0
    assert error(0.2500001, shorter) > UNITS
