"""Plain numpy and scipy versions of the kernels: what the tests compare them with.

Written from the equations, without the kernels' rounding down.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from certmix.types import FloatArray

__all__ = ["exact", "lipschitz", "smoothing"]


def lipschitz(p: FloatArray, q: FloatArray, sigma: float, alpha: float, unit: float) -> FloatArray:
    """Theorem 3.5: (alpha (p - q) + alpha - 1) / (2 alpha L), L = unit / sigma."""
    return np.maximum(0.0, (alpha * (p - q) + alpha - 1.0) / (2.0 * alpha * unit / sigma))


def smoothing(p: FloatArray, q: FloatArray, sigma: float, alpha: float) -> FloatArray:
    """Theorem 3.7, each quantile taken on the side where it does not cancel."""
    low = np.where(alpha * p <= 0.5, ndtri(alpha * p), -ndtri((1 - alpha) + alpha * (1 - p)))
    mixed = alpha * q + (1 - alpha)
    high = np.where(mixed <= 0.5, ndtri(mixed), -ndtri(alpha * (1 - q)))
    with np.errstate(invalid="ignore"):
        radius = 0.5 * sigma * (low - high)
    return np.where(p > q, np.maximum(0.0, np.nan_to_num(radius, nan=0.0, posinf=np.inf)), 0.0)


def _exact_one(p: float, q: float, alpha: float) -> float:
    mu = (1 - alpha) / alpha
    if not p - q > mu or alpha == 0.5:
        return 0.0
    if q == 0.0 and (mu == 0.0 or p == 1.0):
        return math.inf
    a, b = float(ndtri(p)), float(ndtri(q))

    def excess(t: float) -> float:
        if a - t > 0:
            return (2 * alpha - 1) / alpha - float(ndtr(t - a)) - float(ndtr(b + t))
        return float(ndtr(a - t)) - float(ndtr(b + t)) - mu

    if mu == 0.0:
        return 0.5 * (a - b)
    bounds = [a - float(ndtri(mu)), 0.5 * (a - b), float(ndtri(1 - mu)) - b + 1e-9]
    top = min(x for x in bounds if math.isfinite(x))
    if excess(0.0) <= 0.0:
        return 0.0
    if excess(top) >= 0.0:
        return top
    return float(brentq(excess, 0.0, top, xtol=1e-300, rtol=4 * np.finfo(float).eps, maxiter=500))


def exact(p: FloatArray, q: FloatArray, sigma: float, alpha: float) -> FloatArray:
    """The root of Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t) = (1 - alpha)/alpha, by Brent's method."""
    return sigma * np.array([_exact_one(float(x), float(y), alpha) for x, y in zip(p, q, strict=True)])
