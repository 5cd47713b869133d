"""The table of quantiles: within its stated error of 40-digit values, wherever x lies."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from certmix.radii import _quantiles
from certmix.radii._quantiles import OCTAVES, UNITS, lower_quantile, quantile_table, upper_quantile

EPS = 2.0**-52


def error(x: float, w: float) -> float:
    """How far w lies from Phi^-1(x), in units of 2^-52 (|w| + 1)."""
    with mpmath.workdps(40):
        true = mpmath.mpf(float(ndtri(x)))
        for _ in range(3):
            true -= (mpmath.ncdf(true) - mpmath.mpf(x)) / mpmath.npdf(true)
        return float(abs(mpmath.mpf(w) - true) / (EPS * (abs(true) + 1)))


def edges(octave: int) -> list[float]:
    """The first, the last and the middle float of some parts of [2^-(octave + 1), 2^-octave)."""
    found = []
    for part in (0, 1, 31, 32, 63):
        first = math.ldexp(1 + part / 64, -(octave + 1))
        last = math.nextafter(math.ldexp(1 + (part + 1) / 64, -(octave + 1)), 0.0)
        found += [first, last, 0.5 * (first + last)]
    return found


@pytest.mark.parametrize("octave", range(1, OCTAVES + 1, 7))
def test_edges_of_parts(octave):
    table = quantile_table()
    for x in edges(octave):
        assert error(x, lower_quantile(x, table)) <= UNITS


@given(st.floats(-66.0, -1.0), st.floats(1.0, 2.0, exclude_max=True))
def test_anywhere(exponent, mantissa):
    x = min(0.5, math.ldexp(mantissa, math.floor(exponent)))
    assert error(x, lower_quantile(x, quantile_table())) <= UNITS


@pytest.mark.parametrize("k", [2.0, 8.0, 16.0, 40.0, 53.0])
def test_near_one_half(k):
    x = 0.5 - 2.0**-k
    assert error(x, lower_quantile(x, quantile_table())) <= UNITS


def test_outside_the_table_scipy_answers():
    table = quantile_table()
    assert lower_quantile(0.0, table) == -math.inf
    assert lower_quantile(0.5, table) == 0.0
    for x in (5e-324, 1e-300, math.nextafter(2.0 ** -(OCTAVES + 1), 0.0)):
        assert lower_quantile(x, table) == ndtri(x)


@given(st.floats(0.0, 1.0))
def test_of_any_number_through_the_smaller_tail(x):
    table = quantile_table()
    w = upper_quantile(x, 1.0 - x, table)
    assert w == (lower_quantile(x, table) if x <= 0.5 else -lower_quantile(1.0 - x, table))
    if math.isfinite(w):
        assert w == pytest.approx(
            float(ndtri(x)) if x <= 0.5 else -float(ndtri(1.0 - x)), abs=1e-14, rel=2e-15
        )


def test_what_is_left_out_is_below_rounding(monkeypatch):
    monkeypatch.setattr(_quantiles, "_DEGREE", 8)
    longer = quantile_table.__wrapped__()
    np.testing.assert_array_equal(longer[:, :8], quantile_table())
    assert (np.abs(longer[:, 8]) < 2.0**-60 * (1 + np.abs(longer[:, 0]))).all()


def test_a_shorter_series_would_be_seen():
    shorter = quantile_table().copy()
    shorter[:, 5:] = 0.0
    assert max(error(x, lower_quantile(x, shorter)) for x in edges(2)) > UNITS
