"""Phi^-1 through the smaller tail: within its stated error of 40-digit values, wherever x lies."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.radii._normal import EPS, quantile

UNITS = 4  # what `rounded_down` counts on


def error(x: float) -> float:
    """How far the quantile lies from Phi^-1(x), in units of 2^-52 (|w| + 1)."""
    w = float(quantile(np.array(x), np.array(1.0 - x)))
    with mpmath.workdps(40):
        true = mpmath.mpf(w)
        for _ in range(3):
            true -= (mpmath.ncdf(true) - mpmath.mpf(x)) / mpmath.npdf(true)
        return float(abs(mpmath.mpf(w) - true) / (EPS * (abs(true) + 1)))


@given(st.floats(-1000.0, -1.0), st.floats(1.0, 2.0, exclude_max=True))
def test_anywhere(exponent, mantissa):
    assert error(min(0.5, math.ldexp(mantissa, math.floor(exponent)))) <= UNITS


@pytest.mark.parametrize("k", [2.0, 8.0, 16.0, 40.0, 53.0])
def test_near_one_half(k):
    assert error(0.5 - 2.0**-k) <= UNITS


@given(st.floats(0.0, 1.0))
def test_through_the_smaller_tail(x):
    one, other = np.array(x), np.array(1.0 - x)
    assert quantile(one, other) == -quantile(other, one)


def test_an_error_would_be_seen(monkeypatch):
    monkeypatch.setattr("certmix.radii._normal.special.ndtri", lambda x: -0.6744897501960 + 0 * x)
    assert error(0.25) > UNITS
