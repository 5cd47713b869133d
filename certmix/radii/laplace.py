"""Laplace noise: its curve in l1, and the radii that follow; docs/laplace.md has the proof.

Each coordinate has the density exp(-|z| / b) / (2 b), F is its distribution for b = 1.  In an l1 ball of
radius t b the least that a mean p can become is G_t(p) = F(F^-1(p) - t): to move along one axis is worst.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.radii._checks import Certificate, Kind, check_alpha, check_sigma, probability_pairs
from certmix.radii._normal import EPS
from certmix.types import FloatArray

_FURTHEST = 700.0
"""In units of b: exp(-700) is still a normal float."""


def laplace_radius(
    p_lower: ArrayLike, q_upper: ArrayLike, scale: float, alpha: float, margin_slack: float = 0.0
) -> FloatArray:
    """Return b t, where t solves ``G_t(p) - (1 - G_t(1 - q)) = (1 - alpha)/alpha``: l1 radii, rounded down.

    Parameters and errors are those of `certmix.radii.exact_radius`; `scale` is b.  Infinite for p = 1, q = 0.

    Examples
    --------
    >>> laplace_radius(0.99, 0.01, scale=0.5, alpha=0.76).round(4)
    np.float64(1.7663)
    """
    p, q = probability_pairs(p_lower, q_upper)
    alpha, scale = check_alpha(alpha, margin_slack), check_sigma(scale)
    mu = (1.0 - alpha) / alpha
    low, high = np.zeros(p.shape), np.full(p.shape, _FURTHEST)
    with np.errstate(over="ignore", divide="ignore", under="ignore"):
        for _ in range(64):
            t = 0.5 * (low + high)
            # exp(-t) is right to a part (t + 1) EPS, which moves neither curve by more than that; the rest
            # are five roundings of numbers of at most 1.
            enough = _lower(p, t) - _upper(q, t) - mu > 2 * EPS * (t + 8.0)
            low, high = np.where(enough, t, low), np.where(enough, high, t)
    radius = np.where((p == 1.0) & (q == 0.0) & (alpha > 0.5), np.inf, scale * low * (1.0 - 4 * EPS))
    return np.asarray(np.where(p - q > mu, radius, 0.0))


def _lower(p: FloatArray, t: FloatArray) -> FloatArray:
    """Return G_t(p)."""
    x, rest = np.exp(-t), 1.0 - p
    above = np.where(rest <= 0.5 * x, 1.0 - rest / x, 0.25 * x / np.maximum(rest, 1e-300))
    return np.asarray(np.where(p >= 0.5, above, p * x))


def _upper(q: FloatArray, t: FloatArray) -> FloatArray:
    """Return 1 - G_t(1 - q), without forming 1 - q where q is small."""
    x = np.exp(-t)
    below = np.where(q <= 0.5 * x, q / x, 1.0 - 0.25 * x / np.maximum(q, 1e-300))
    return np.asarray(np.where(q <= 0.5, below, 1.0 - (1.0 - q) * x))


def lipschitz_radius(
    p_lower: ArrayLike, q_upper: ArrayLike, scale: float, alpha: float, margin_slack: float = 0.0
) -> FloatArray:
    """Return l1 radii of Theorem 3.5, Lip_1 = 1 / (2 b): of uniform noise of half-width b as well."""
    p, q = probability_pairs(p_lower, q_upper)
    alpha, scale = check_alpha(alpha, margin_slack), check_sigma(scale)
    gap = p - q - (1.0 - alpha) / alpha - 8 * EPS  # more than its three roundings and mu's
    return np.asarray(np.maximum(0.0, scale * gap * (1.0 - 4 * EPS)))


KIND = Kind(
    "laplace", "Laplace noise (l1)", "b, the mean size of a value's noise",
    {"l1": {
        "exact": Certificate(
            "exact", "exact", "the largest radius that the two probability bounds allow (Neyman-Pearson).",
            laplace_radius, "l1", curve=lambda p, t, up, smoothing: (_upper if up else _lower)(p, t),
        ),
        "lipschitz": Certificate(
            "lipschitz", "lipschitz (tight constant)", "Theorem 3.5 with the smallest constant, 1/(2 b).",
            lipschitz_radius, "l1",
        ),
    }},
    law="certmix.sampling.laplace:weights",
)  # fmt: skip

assert math.exp(-_FURTHEST) > 1e-305
