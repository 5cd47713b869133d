"""The table behind the exact certificate: never above the truth, and not visibly below it."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certmix.radii import exact, exact_radius
from certmix.radii._normal import polynomial
from certmix.radii.exact import REACH, half_widths


def truth(p: float, q: float, alpha: float) -> mpmath.mpf:
    """The root to 120 digits, by bisection between two bounds of it."""
    with mpmath.workdps(120):
        mu = (1 - mpmath.mpf(alpha)) / mpmath.mpf(alpha)
        a = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1)
        b = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(q) - 1)
        if p - q <= mu:
            return mpmath.mpf(0)
        low, high = mpmath.mpf(0), (a - b) / 2
        for _ in range(90):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if mpmath.ncdf(a - middle) - mpmath.ncdf(b + middle) > mu else (low, middle)
            )
        return low


@pytest.mark.parametrize("alpha", [0.501, 0.76, 0.9999])
def test_nodes_and_the_points_between_them(alpha):
    """At p = Phi(s + m + t), q = Phi(s - m - t) the root is t, wherever s lies in the table."""
    table, mu = half_widths(alpha), (1 - alpha) / alpha
    for s in np.linspace(0, 3.0, 41):
        place = s / REACH * len(table)
        m = polynomial(table, np.uint64(place), 2 * (place - int(place)) - 1)
        assert ndtr(s + m) - ndtr(s - m) == pytest.approx(mu, abs=1e-14)


def test_pairs_beyond_the_table_meet_the_same_equation():
    p, q = 1e-16, 1e-17
    got = float(exact_radius(p, q, 1.0, 1 - 1e-18 if 1 - 1e-18 < 1 else 1.0))
    assert got > 0
    alpha = 1 - 2.0**-53
    got = float(exact_radius(4e-16, 1e-18, 1.0, alpha))
    assert 0 < got <= truth(4e-16, 1e-18, alpha)


@pytest.mark.parametrize("alpha", [0.51, 0.6, 0.76, 0.999])
def test_the_end_of_the_table(alpha):
    """At |s| just below REACH, and beyond, the answer is below the truth."""
    p, q = 0.9707435897435898, 6.826718670197305e-72
    assert 0.5 * abs(ndtri(p) + ndtri(q)) < REACH
    for q in (q, 1e-75):  # noqa: B020
        got = float(exact_radius(p, q, 1.0, alpha))
        assert 0.99999 * truth(p, q, alpha) < got <= truth(p, q, alpha)


def test_a_planted_error_is_given_away(monkeypatch):
    """Coarse tables are wrong by more; what is measured midway covers it."""
    monkeypatch.setattr(exact, "PARTS_A_UNIT", 1)
    half_widths.cache_clear()
    try:
        rng = np.random.default_rng(0)
        p = rng.uniform(0.7, 0.99, 60)
        q = rng.uniform(0, 1 - p)
        got = exact_radius(p, q, 1.0, 0.76)
        true = np.array([float(truth(*pair, 0.76)) for pair in zip(p, q, strict=True)])
        assert (got <= true).all()
        assert 1e-9 < np.max(true - got) < 1e-4
    finally:
        half_widths.cache_clear()
