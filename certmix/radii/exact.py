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
from certmix.radii._normal import EPS, ndtr, polynomial, quantile
from certmix.types import FloatArray

REACH, PARTS_A_UNIT = 8.0, 32
"""`half_widths` covers |a + b| / 2 up to here; pairs beyond have their equation solved by halving."""

_TOGETHER = 8192  # pairs whose radii fit into a processor's cache
_ROOT = math.sqrt(2 * math.pi)


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
    flat, radius = (p.ravel(), q.ravel()), np.empty(p.size)
    for begin in range(0, p.size, _TOGETHER):
        part = slice(begin, begin + _TOGETHER)
        radius[part] = _radii(flat[0][part], flat[1][part], sigma, alpha)
    return radius.reshape(p.shape)


def _radii(p: FloatArray, q: FloatArray, sigma: float, alpha: float) -> FloatArray:
    """Return the radii of pairs (n,)."""
    mu, nu = (1.0 - alpha) / alpha, (2.0 * alpha - 1.0) / alpha  # nu = 1 - mu
    level, centre, rest = float(quantile(mu, nu)), float(special.ndtri(0.5 * nu)), 1.0 - p
    a, opposite, certified = quantile(p, rest), q == rest, p - q > mu
    if opposite.all():
        b, t = -a, a + centre
    else:
        b = np.where(opposite, -a, quantile(q, 1.0 - q))
        t = np.where(opposite, a + centre, 0.5 * (a - b))
    size_a, size_b = np.abs(a), np.abs(b)
    edge = np.maximum(size_a, size_b) == np.inf
    with np.errstate(invalid="ignore"):  # of pairs that are not certified
        if mu > 0.0 and (among := certified & ~(edge | opposite)).any():
            t[among] = _roots(a[among], b[among], mu, nu, level, half_widths(alpha))
        if edge.any():
            far_a, far_b = size_a == np.inf, size_b == np.inf
            t = np.where(far_a, np.where(far_b, np.inf, -level - b), np.where(far_b, a - level, t))
            size_a, size_b = np.where(far_a, 0.0, size_a), np.where(far_b, 0.0, size_b)
        radius = rounded_down(sigma * t, size_a + size_b + t, sigma)
    radius[t == np.inf] = np.inf
    radius[~certified] = 0.0
    return radius


@kernel()
def _roots(
    a: FloatArray, b: FloatArray, mu: float, nu: float, level: float, widths: FloatArray
) -> FloatArray:
    """Return t of certified pairs (n,): Phi(a - t) - Phi(b + t) = mu; 0 < mu < 1, level = Phi^-1(mu)."""
    parts, t = len(widths) / REACH, 0.5 * (a - b)
    for i in range(a.size):
        place = 0.5 * abs(a[i] + b[i]) * parts
        if place < len(widths):
            part = np.uint64(place)
            t[i] -= polynomial(widths, part, 2.0 * (place - part) - 1.0)
        else:
            t[i] = _by_halving(a[i], b[i], mu, nu, min(t[i], a[i] - level))
    return t


def rounded_down(radius: FloatArray, magnitude: FloatArray | float, sigma: float) -> FloatArray:
    """Return radii less what they may exceed the truth by; 0 if nothing is left.

    A quantile w is wrong by at most 4 EPS (|w| + 1); t is a sum of two or three
    quantiles, or of two and a half-width that has been rounded up; magnitude + 1 exceeds all of them.  So
    16 EPS (magnitude + 1) covers them and the additions, and 4 EPS of the radius the products.
    """
    return np.maximum(0.0, radius * (1 - 4 * EPS) - 16 * EPS * sigma * (magnitude + 1.0))


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


def _solved(s: FloatArray, narrowest: float, mu: float, nu: float) -> FloatArray:
    """Return m(s) at points s >= 0, by Halley steps from the larger of m(0) and s - Phi^-1(nu), below it."""
    m = np.maximum(narrowest, s - special.ndtri(nu))
    for _ in range(8):
        u, v = s + m, s - m
        tails = special.ndtr(-u)
        excess = np.where(v > 0.0, special.ndtr(-v) - tails - mu, nu - tails - special.ndtr(v))
        du, dv = np.exp(-0.5 * u * u) / _ROOT, np.exp(-0.5 * v * v) / _ROOT
        newton = excess / (du + dv)
        m -= newton / (1.0 + 0.5 * newton * (u * du - v * dv) / (du + dv))
    return m


CERTIFICATE = Certificate(
    "exact", "exact", "the largest radius that the two probability bounds allow (Neyman-Pearson).",
    exact_radius,
)  # fmt: skip
