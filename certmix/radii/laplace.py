"""Laplace noise: its curve in l1, and the radii that follow; docs/laplace.md has the proof.

Each coordinate has the density exp(-|z| / b) / (2 b), F is its distribution for b = 1.  In an l1 ball of
radius t b the least that a mean p can become is G_t(p) = F(F^-1(p) - t): to move along one axis is worst.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from certmix.radii._checks import Certificate, Kind, check_alpha, check_sigma, probability_pairs
from certmix.radii._normal import EPS
from certmix.radii.curve import exact_by
from certmix.types import FloatArray


def _curve(p: FloatArray, t: FloatArray, up: bool, *_: object) -> FloatArray:
    """Return G_t(p), or 1 - G_t(1 - p), without forming 1 - p where p is small."""
    x, rest = np.exp(-t), 1.0 - p
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        if up:
            below = np.where(p <= 0.5 * x, p / x, 1.0 - 0.25 * x / np.maximum(p, 1e-300))
            return np.asarray(np.where(p <= 0.5, below, 1.0 - rest * x))
        above = np.where(rest <= 0.5 * x, 1.0 - rest / x, 0.25 * x / np.maximum(rest, 1e-300))
        return np.asarray(np.where(p >= 0.5, above, p * x))


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
        "exact": exact_by(_curve, "l1"),
        "lipschitz": Certificate(
            "lipschitz", "lipschitz (tight constant)", "Theorem 3.5 with the smallest constant, 1/(2 b).",
            lipschitz_radius, "l1",
        ),
    }},
    law="certmix.sampling.laplace:weights",
)  # fmt: skip
