"""The table behind the exact certificate: never above the truth, and not visibly below it."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certmix.radii import exact, exact_radius
from certmix.radii._normal import polynomial
from certmix.radii.exact import REACH, half_widths


def reaches(radius: float, p: float, q: float, alpha: float) -> bool:
    """Whether the root is at least a radius, to 120 digits: what p and q leave of each other only falls."""
    with mpmath.workdps(120):
        a, b = (mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(share) - 1) for share in (p, q))
        left = mpmath.ncdf(a - mpmath.mpf(radius)) - mpmath.ncdf(b + mpmath.mpf(radius))
        return bool(left >= (1 - mpmath.mpf(alpha)) / mpmath.mpf(alpha))


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
    assert got > 0 and reaches(got, 4e-16, 1e-18, alpha)


@pytest.mark.parametrize("alpha", [0.51, 0.6, 0.76, 0.999])
def test_the_end_of_the_table(alpha):
    """At |s| just below REACH, and beyond, the answer is below the truth."""
    p, q = 0.9707435897435898, 6.826718670197305e-72
    assert 0.5 * abs(ndtri(p) + ndtri(q)) < REACH
    for q in (q, 1e-75):  # noqa: B020
        got = float(exact_radius(p, q, 1.0, alpha))
        assert reaches(got, p, q, alpha) and not reaches(got / 0.99999, p, q, alpha)


def test_a_planted_error_is_given_away(monkeypatch):
    """Coarse tables are wrong by more; what is measured midway covers it."""
    monkeypatch.setattr(exact, "PARTS_A_UNIT", 1)
    half_widths.cache_clear()
    try:
        rng = np.random.default_rng(0)
        p = rng.uniform(0.7, 0.99, 60)
        q = rng.uniform(0, 1 - p)
        got = exact_radius(p, q, 1.0, 0.76)
        given = list(zip(got.tolist(), p.tolist(), q.tolist(), strict=True))
        assert all(reaches(radius, *of, 0.76) for radius, *of in given)
        assert any(reaches(radius + 1e-9, *of, 0.76) for radius, *of in given)
        assert not any(reaches(radius + 1e-4, *of, 0.76) for radius, *of in given)
    finally:
        half_widths.cache_clear()
