"""The exact certificate for many pairs at the price of two quantiles each.

With s = (a + b) / 2 and m = (a - b) / 2 - t, the equation of the exact
certificate, Phi(a - t) - Phi(b + t) = mu, reads

    Phi(s + m) - Phi(s - m) = mu :

m depends on |s| alone, and m' = tanh(s m).  So a table of m for one mu serves
every pair: a polynomial of degree 5 between neighbouring nodes that agrees
with m, m' and m'' there.  Its error is largest midway, where it is measured;
twice that is given away.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numba import njit

from certmix.radii._kernels import EPS, exact_root, give_away, normal_density
from certmix.radii._quantiles import quantile_table, upper_quantile
from certmix.radii._special import ndtr, ndtri
from certmix.types import FloatArray

__all__ = ["exact_loop"]

REACH = 8.0
"""Tables cover |s| up to here; pairs beyond have their equation solved."""

STEPS_A_UNIT = 256


@njit(cache=True, nogil=True)
def _solved(s: float, m: float, mu: float, nu: float) -> float:
    """Return m(s) from a start within 1e-5 of it, by two Halley steps; s >= 0, nu = 1 - mu.

    The equation is used in the form that loses no digits: of the two lower
    tails at s - m <= 0, else of the two upper ones.  Its scale is at most 1.2534
    times its slope, so that 8 units of rounding move m by 11 at most.
    """
    for _ in range(2):
        u, v = s + m, s - m
        residual = ndtr(-v) - ndtr(-u) - mu if v > 0.0 else nu - ndtr(v) - ndtr(-u)
        du, dv = normal_density(u), normal_density(v)
        newton = residual / (du + dv)
        m -= newton / (1.0 + 0.5 * newton * (u * du - v * dv) / (du + dv))
    return m


@njit(cache=True, nogil=True)
def _fill(table: FloatArray, step: float, mu: float, nu: float) -> float:
    """Write the coefficients (k, 6) of every interval; return the largest error midway."""
    error, f1, d1, e1 = 0.0, -ndtri(0.5 * nu), 0.0, 0.0
    e1 = step * step * f1
    for k in range(len(table)):
        f0, d0, e0 = f1, d1, e1
        s = (k + 1) * step
        f1 = _solved(s, f0 + d0 + 0.5 * e0, mu, nu)
        slope = math.tanh(s * f1)
        d1, e1 = step * slope, step * step * (1.0 - slope * slope) * (f1 + s * slope)
        rise, row = f1 - f0, table[k]
        row[0], row[1], row[2] = f0, d0, 0.5 * e0
        row[3] = 10.0 * rise - 6.0 * d0 - 4.0 * d1 - 1.5 * e0 + 0.5 * e1
        row[4] = -15.0 * rise + 8.0 * d0 + 7.0 * d1 + 1.5 * e0 - e1
        row[5] = 6.0 * rise - 3.0 * d0 - 3.0 * d1 - 0.5 * e0 + 0.5 * e1
        middle = _half_width(table, k + 0.5)
        error = max(error, abs(middle - _solved(s - 0.5 * step, middle, mu, nu)))
    return error


@njit(cache=True, nogil=True)
def _half_width(table: FloatArray, place: float) -> float:
    """Return m at `place` steps from 0."""
    k = np.uint64(place)
    x = place - k
    square = x * x
    high = (table[k, 2] + table[k, 3] * x) + square * (table[k, 4] + table[k, 5] * x)
    return (table[k, 0] + table[k, 1] * x) + square * high


@njit(cache=True, nogil=True)
def _narrowest(nu: float) -> float:
    """Return m(0)."""
    return -ndtri(0.5 * nu)


@lru_cache(maxsize=64)
def half_widths(alpha: float) -> tuple[FloatArray, float]:
    """Return the table (k, 6) for one mixing weight in (1/2, 1), rounded up, and its step."""
    mu, nu = (1.0 - alpha) / alpha, (2.0 * alpha - 1.0) / alpha
    step = 1.0 / (STEPS_A_UNIT * math.ceil(max(1.0, _narrowest(nu))))
    table = np.empty((math.ceil(REACH / step) + 1, 6))  # one more: s / step may round up to the end
    error = _fill(table, step, mu, nu)
    table[:, 0] += 2.0 * error + 16 * EPS * (1.0 + table[:, 0])
    table.setflags(write=False)
    return table, step


@njit(cache=True, nogil=True)
def _beyond_table(a: float, b: float, mu: float, nu: float, level: float, centre: float) -> float:
    """Return the distance where the table does not answer; level = Phi^-1(mu), centre = Phi^-1(nu / 2)."""
    if nu <= 0.0:
        return 0.0
    if math.isinf(a):
        return math.inf if math.isinf(b) else -level - b
    if math.isinf(b):
        return a - level
    if mu == 0.0:
        return 0.5 * (a - b)
    return exact_root(a, b, mu, nu, a + centre, min(0.5 * (a - b), a - level))


@njit(cache=True, nogil=True)
def _exact_loop(
    p: FloatArray, q: FloatArray, sigma: float, alpha: float, table: FloatArray, step: float,
    quantiles: FloatArray,
) -> FloatArray:  # fmt: skip
    """Radii of pairs (n,)."""
    mu, nu, places = (1.0 - alpha) / alpha, (2.0 * alpha - 1.0) / alpha, 1.0 / step
    level, centre = upper_quantile(mu, nu, quantiles), ndtri(0.5 * nu)
    radius = np.empty(p.size)
    for i in range(p.size):
        rest = 1.0 - p[i]
        a = upper_quantile(p[i], rest, quantiles)
        if q[i] == rest:
            b, t = -a, a + centre
        else:
            b = upper_quantile(q[i], 1.0 - q[i], quantiles)
            t = 0.5 * (a - b)
        if abs(a + b) < 2.0 * REACH and 0.0 < mu < 1.0:  # neither is infinite
            if q[i] != rest:
                t -= _half_width(table, 0.5 * abs(a + b) * places)
            magnitude = abs(a) + abs(b) + t
        else:
            t = _beyond_table(a, b, mu, nu, level, centre)
            magnitude = (0.0 if math.isinf(a) else abs(a)) + (0.0 if math.isinf(b) else abs(b)) + t
        certified = give_away(sigma * t, magnitude, sigma) if t < math.inf else math.inf
        radius[i] = certified if p[i] - q[i] > mu else 0.0
    return radius


def exact_loop(p: FloatArray, q: FloatArray, sigma: float, alpha: float) -> FloatArray:
    """Return the exact certificate's radii of pairs (n,); arguments are validated by the caller."""
    table, step = half_widths(alpha) if 0.5 < alpha < 1.0 else (np.empty((0, 6)), 1.0)
    return _exact_loop(p, q, sigma, alpha, table, step, quantile_table())
