"""The exact certificate: the largest l2 radius that (p, q, sigma, alpha) allow."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from certmix.kernels import kernel
from certmix.radii import _normal
from certmix.radii._checks import Certificate, check_alpha, check_sigma, probability_pairs
from certmix.radii._normal import EPS, density, ndtr, ndtri, polynomial, quantile
from certmix.types import FloatArray

REACH, PARTS_A_UNIT = 8.0, 32
"""`half_widths` covers |a + b| / 2 up to here; pairs beyond have their equation solved by halving."""


def exact_radius(
    p_lower: ArrayLike, q_upper: ArrayLike, sigma: float, alpha: float, margin_slack: float = 0.0
) -> FloatArray:
    """Return sigma t, where t solves ``Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t) = (1 - alpha)/alpha``.

    By the Neyman-Pearson lemma a smoothed probability that is at least p at x is at least
    Phi(Phi^-1(p) - ||d||/sigma) at x + d, and one that is at most q is at most Phi(Phi^-1(q) + ||d||/sigma).
    While their difference exceeds the margin threshold, Lemma 3.2 keeps the answer of the mix.  Two disjoint
    half-spaces attain both bounds at once when p + q <= 1: no larger radius follows from the same numbers.
    Where q = 1 - p the root is ``Phi^-1(p) - Phi^-1(1 / (2 alpha))``.  docs/exact-certificate.md has the
    proof.

    Parameters
    ----------
    p_lower, q_upper
        Bounds in [0, 1] of the selected class's smoothed probability and of the largest other, broadcast
        together.
    sigma, alpha
        Noise level, in units of the input, and mixing weight, 1/2 <= alpha <= 1.
    margin_slack
        What the margin must exceed the threshold (1 - alpha)/alpha by.  Values out of range are a
        ParameterError.

    Returns
    -------
    FloatArray
        l2 radii, rounded down; 0 where not certified, infinite for p = 1 and q = 0 (for either at alpha = 1).

    Examples
    --------
    >>> exact_radius(0.99, 0.01, sigma=0.5, alpha=0.76).round(4)
    np.float64(0.9598)
    """
    p, q = probability_pairs(p_lower, q_upper)
    alpha, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    widths = half_widths(alpha) if 0.5 < alpha < 1.0 else np.empty((0, 8))
    return _exact_loop(p.ravel(), q.ravel(), sigma, alpha, widths, _normal.quantile_table()).reshape(p.shape)


@kernel()
def _exact_loop(
    p: FloatArray, q: FloatArray, sigma: float, alpha: float, widths: FloatArray, quantiles: FloatArray
) -> FloatArray:
    """Radii of pairs (n,): Phi(a - t) - Phi(b + t) = mu with a = Phi^-1(p), b = Phi^-1(q)."""
    mu, nu = (1.0 - alpha) / alpha, (2.0 * alpha - 1.0) / alpha  # nu = 1 - mu
    level, centre, parts = quantile(mu, nu, quantiles), ndtri(0.5 * nu), len(widths) / REACH
    radius = np.empty(p.size)
    for i in range(p.size):
        rest = 1.0 - p[i]
        a = quantile(p[i], rest, quantiles)
        b = -a if q[i] == rest else quantile(q[i], 1.0 - q[i], quantiles)
        place = 0.5 * abs(a + b) * parts
        if not place < len(widths):
            found = _at_an_edge(a, b, mu, nu, level, sigma)
        else:
            if q[i] == rest:
                t = a + centre
            else:
                part = np.uint64(place)
                t = 0.5 * (a - b) - polynomial(widths, part, 2.0 * (place - part) - 1.0)
            found = rounded_down(sigma * t, abs(a) + abs(b) + t, sigma)
        radius[i] = found if p[i] - q[i] > mu else 0.0
    return radius


@kernel()
def _at_an_edge(a: float, b: float, mu: float, nu: float, level: float, sigma: float) -> float:
    """Return the radius where `half_widths` does not answer; level = Phi^-1(mu)."""
    size = (0.0 if math.isinf(a) else abs(a)) + (0.0 if math.isinf(b) else abs(b))
    if nu <= 0.0:
        return 0.0
    if math.isinf(a):
        t = math.inf if math.isinf(b) else -level - b
    elif math.isinf(b):
        t = a - level
    elif mu == 0.0:
        t = 0.5 * (a - b)
    else:
        t = _by_halving(a, b, mu, nu, min(0.5 * (a - b), a - level))
    return rounded_down(sigma * t, size + t, sigma) if t < math.inf else t


@kernel()
def rounded_down(radius: float, magnitude: float, sigma: float) -> float:
    """Return a radius less what it may exceed the truth by; 0 if nothing is left.

    A quantile w is wrong by at most 4 EPS (|w| + 1), `quantile` and scipy's alike; t is a sum of two or three
    quantiles, or of two and a half-width that has been rounded up; magnitude + 1 exceeds all of them.  So
    16 EPS (magnitude + 1) covers them and the additions, and 4 EPS of the radius the products.
    """
    return max(0.0, radius * (1 - 4 * EPS) - 16 * EPS * sigma * (magnitude + 1.0))


@kernel()
def _excess(u: float, v: float, mu: float, nu: float) -> tuple[float, float]:
    """Return Phi(u) - Phi(v) - mu and its scale, in the form that loses no digits; nu = 1 - mu.

    Of the two lower tails where u <= 0, of the two upper ones where v > 0, else of both complements.
    A tail Phi(-w), w >= 0, is right to a part EPS (4 + w^2), and at most min(1.2534, 1 / w) times its slope
    phi(w) (Mills' ratio): up to w = 9 what it is wrong by moves the root by less than 11 EPS.
    """
    if u > 0.0 and v > 0.0:
        return ndtr(-v) - ndtr(-u) - mu, ndtr(-v)
    if u > 0.0:
        return nu - ndtr(-u) - ndtr(v), nu
    return ndtr(u) - ndtr(v) - mu, ndtr(u)


@kernel()
def _by_halving(a: float, b: float, mu: float, nu: float, top: float) -> float:
    """Return the largest t of [0, top] at which the margin was seen above mu."""
    low, high = 0.0, top
    for _ in range(60):
        t = 0.5 * (low + high)
        excess, scale = _excess(a - t, b + t, mu, nu)
        if excess > 8.0 * EPS * scale:
            low = t
        else:
            high = t
    return low


@lru_cache(maxsize=64)
def half_widths(alpha: float) -> FloatArray:
    """Return a table of m(s), rounded up: polynomials (parts, 8) on equal parts of [0, `REACH`].

    With s = (a + b) / 2 and m = (a - b) / 2 - t the equation reads Phi(s + m) - Phi(s - m) = mu: m depends
    on |s| alone, so that one table serves all pairs of one alpha.  m' = tanh(s m), hence parts as narrow as
    1 / m(0).
    """
    mu, nu = (1.0 - alpha) / alpha, (2.0 * alpha - 1.0) / alpha
    narrowest = -float(special.ndtri(0.5 * nu))
    parts = int(REACH) * PARTS_A_UNIT * math.ceil(max(1.0, narrowest))
    half = np.full(parts, 0.5 * REACH / parts)
    middle = half * (2.0 * np.arange(parts) + 1.0)
    table = _normal.polynomials(
        lambda s: _solved(s.ravel(), narrowest, mu, nu).reshape(s.shape), middle, half
    )
    # A polynomial's error is largest at the ends of its part, where it is measured: twice that is given
    # away, and what the values at the points are wrong by, 11 EPS (1 + m), times at most 2.5 between them.
    error = np.abs(table.sum(1) - _solved(middle + half, narrowest, mu, nu)).max()
    table[:, 0] += 2.0 * error + 32 * EPS * (1.0 + table[:, 0])
    table.setflags(write=False)
    return table


@kernel()
def _solved(s: FloatArray, narrowest: float, mu: float, nu: float) -> FloatArray:
    """Return m(s) at points that lie close together, by Halley steps from each point to the next."""
    m, before, found = narrowest, 0.0, np.empty(s.size)
    for i in range(s.size):
        m += (s[i] - before) * math.tanh(before * m)
        before = s[i]
        for _ in range(4):
            u, v = s[i] + m, s[i] - m
            excess, _ = _excess(u, v, mu, nu)
            du, dv = density(u), density(v)
            newton = excess / (du + dv)
            m -= newton / (1.0 + 0.5 * newton * (u * du - v * dv) / (du + dv))
        found[i] = m
    return found


def _curve(p: FloatArray, t: FloatArray, up: bool, *_: object) -> FloatArray:
    return np.asarray(special.ndtr(special.ndtri(p) + (t if up else -t)))


CERTIFICATE = Certificate(
    "exact", "exact", "the largest radius that the two probability bounds allow (Neyman-Pearson).",
    exact_radius, curve=_curve,
)  # fmt: skip
