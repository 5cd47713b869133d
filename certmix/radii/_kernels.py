"""The numba kernels behind the certificates: one scalar function each, and its loop.

p bounds the selected class's probability from below, q every other's from
above; kernels assume that inputs were validated.  What they return is at most
the true radius: `_DOWN` units of rounding error are given away on every
quantile that enters.  0 means "not certified".
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from certmix.radii._quantiles import upper_quantile
from certmix.radii._special import ndtr
from certmix.types import FloatArray

EPS = 2.0**-52
_DOWN = 16 * EPS
_TWO_PI_ROOT = math.sqrt(2 * math.pi)


@njit(cache=True, nogil=True)
def normal_density(x: float) -> float:
    """phi(x), the standard normal density: the derivative of Phi."""
    return math.exp(-0.5 * x * x) / _TWO_PI_ROOT


@njit(cache=True, nogil=True)
def give_away(radius: float, magnitude: float, sigma: float) -> float:
    """Round a radius down by the error its quantiles can carry; 0 if nothing is left."""
    return max(0.0, radius * (1 - 4 * EPS) - _DOWN * sigma * (magnitude + 1.0))


@njit(cache=True, nogil=True)
def lipschitz_one(p: float, q: float, sigma: float, alpha: float, unit: float) -> float:
    """Theorem 3.5 with Lipschitz constant unit / sigma for every class."""
    radius = sigma * (p - q - (1.0 - alpha) / alpha) / (2.0 * unit)
    return give_away(radius, 0.0, sigma)


@njit(cache=True, nogil=True)
def smoothing_one(p: float, q: float, sigma: float, alpha: float, table: FloatArray) -> float:
    """Theorem 3.7: sigma/2 (Phi^-1(alpha p) + Phi^-1(alpha (1-q))); table: `quantile_table`."""
    if p <= q:
        return 0.0
    upper = upper_quantile(alpha * p, (1.0 - alpha) + alpha * (1.0 - p), table)
    lower = upper_quantile(alpha * q + (1.0 - alpha), alpha * (1.0 - q), table)
    if math.isinf(upper) or math.isinf(lower):
        return math.inf if upper > lower else 0.0
    return give_away(0.5 * sigma * (upper - lower), abs(upper) + abs(lower), sigma)


@njit(cache=True, nogil=True)
def exact_root(a: float, b: float, mu: float, nu: float, start: float, top: float) -> float:
    """Solve Phi(a - t) - Phi(b + t) = mu on [0, top] by bracketed Halley steps.

    nu = 1 - mu: where Phi(a - t) > 1/2 the equation is used in its complement,
    Phi(t - a) + Phi(b + t) = nu, and where Phi(b + t) > 1/2 too in that of both,
    Phi(-b - t) - Phi(t - a) = mu, so that no digits cancel.
    """
    low, high, t = 0.0, top, min(max(start, 0.0), top)
    scale, slope = 1.0, 1.0
    for _ in range(100):
        u, v = a - t, b + t
        if u > 0 and v > 0:
            left, right, scale = ndtr(-v), ndtr(-u) + mu, ndtr(-v)
        elif u > 0:
            left, right, scale = nu, ndtr(-u) + ndtr(v), nu
        else:
            left, right, scale = ndtr(u), ndtr(v) + mu, ndtr(u)
        residual = left - right
        if residual > 0:
            low = t
        else:
            high = t
        du, dv = normal_density(u), normal_density(v)
        slope = du + dv
        after = math.nan
        if slope > 0.0:
            newton = residual / slope
            after = t + newton / (1.0 - 0.5 * newton * (u * du - v * dv) / slope)
        if abs(after - t) <= 2 * EPS * (abs(a) + abs(b) + t) or high - low <= EPS * high:
            break
        t = after if low < after < high else 0.5 * (low + high)
    if slope > 0.0:
        t -= 8 * EPS * scale / slope
    return max(t, 0.0)


@njit(cache=True, nogil=True)
def lipschitz_loop(p: FloatArray, q: FloatArray, sigma: float, alpha: float, unit: float) -> FloatArray:
    """`lipschitz_one` over arrays (m,)."""
    radius = np.empty(p.size)
    for i in range(p.size):
        radius[i] = lipschitz_one(p[i], q[i], sigma, alpha, unit)
    return radius


@njit(cache=True, nogil=True)
def smoothing_loop(p: FloatArray, q: FloatArray, sigma: float, alpha: float, table: FloatArray) -> FloatArray:
    """`smoothing_one` over arrays (m,)."""
    radius = np.empty(p.size)
    for i in range(p.size):
        radius[i] = smoothing_one(p[i], q[i], sigma, alpha, table)
    return radius


@njit(cache=True, nogil=True)
def class_lipschitz_loop(
    p: FloatArray, rivals: FloatArray, constant: FloatArray, rival_constants: FloatArray, alpha: float
) -> FloatArray:
    """Theorem 3.5 with constants of their own for each class: the minimum over all rivals.

    p, constant: (m,); rivals, rival_constants: (m, k), one column a rival.
    """
    radius = np.empty(p.size)
    mu = (1.0 - alpha) / alpha
    for i in range(p.size):
        smallest = math.inf
        for j in range(rivals.shape[1]):
            gap = p[i] - rivals[i, j] - mu - _DOWN
            steepness = constant[i] + rival_constants[i, j]
            if gap <= 0.0:
                smallest = 0.0
            elif steepness > 0.0:
                smallest = min(smallest, gap / steepness * (1 - 4 * EPS))
        radius[i] = smallest
    return radius
