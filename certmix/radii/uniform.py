"""Uniform noise: its curves in l1 and in linf, and the radii that follow; docs/uniform.md has the proofs.

Each coordinate is uniform on [-lambda, lambda].  The boxes around x and x + d share a part s of their volume,
and G_t(p) = p - (1 - s) for the smallest s of the ball: 1 - t / (2 lambda) in l1, and (1 - t / (2 lambda))^D
in linf, of D values.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from certmix.radii._checks import Certificate, Kind, check_alpha, check_sigma, probability_pairs
from certmix.radii._normal import EPS
from certmix.radii.curve import exact_by
from certmix.radii.laplace import lipschitz_radius
from certmix.types import FloatArray


def _share(p_lower: ArrayLike, q_upper: ArrayLike, alpha: float, margin_slack: float) -> FloatArray:
    """Return less than (p - q - mu) / 2, the part of the volume that may be lost; at least 0."""
    p, q = probability_pairs(p_lower, q_upper)
    alpha = check_alpha(alpha, margin_slack)
    return np.asarray(np.maximum(0.0, 0.5 * (p - q - (1.0 - alpha) / alpha) - 8 * EPS))


def linf_lipschitz_radius(
    p_lower: ArrayLike,
    q_upper: ArrayLike,
    scale: float,
    alpha: float,
    margin_slack: float = 0.0,
    *,
    dimension: int,
) -> FloatArray:
    """Return linf radii of Theorem 3.5, Lip_inf = D / (2 lambda)."""
    lost = _share(p_lower, q_upper, alpha, margin_slack)
    return np.asarray(2.0 * check_sigma(scale) * lost / dimension * (1.0 - 4 * EPS))


def _moved(p: FloatArray, lost: FloatArray, up: bool) -> FloatArray:
    """Return what is left of p where a part of the volume is `lost`, or with `up` what it may become."""
    return np.asarray(np.minimum(1.0, p + lost) if up else np.maximum(0.0, p - lost))


def _l1_curve(p: FloatArray, t: FloatArray, up: bool, *_: object) -> FloatArray:
    return _moved(p, 0.5 * t, up)


def _linf_curve(p: FloatArray, t: FloatArray, up: bool, scale: float, dimension: int) -> FloatArray:
    return _moved(p, -np.expm1(dimension * np.log1p(-np.minimum(0.5 * t, 1.0 - EPS))), up)


KIND = Kind(
    "uniform", "uniform noise (l1, linf)", "lambda, the most that noise adds to a value",
    {
        "l1": {
            "exact": replace(exact_by(_l1_curve, "l1"), radius=lipschitz_radius),  # the same, in closed form
            "lipschitz": Certificate(
                "lipschitz", "lipschitz (tight constant)",
                "Theorem 3.5 with Lip_1 = 1/(2 lambda), which is tight.", lipschitz_radius, "l1",
            ),
        },
        "linf": {
            "exact": exact_by(_linf_curve, "linf", of_dimension=True),
            "lipschitz": Certificate(
                "lipschitz", "lipschitz (tight constant)", "Theorem 3.5 with Lip_inf = D/(2 lambda).",
                linf_lipschitz_radius, "linf", of_dimension=True,
            ),
        },
    },
    law="certmix.sampling.uniform:weights",
)  # fmt: skip
