"""Radii of any noise from its curve G: the largest t with G_t(p) - (1 - G_t(1 - q)) above the threshold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.radii._checks import Certificate, check_alpha, check_sigma, probability_pairs
from certmix.radii._normal import EPS
from certmix.types import FloatArray


def furthest(
    margins: Callable[[FloatArray], FloatArray], threshold: float, shape: tuple[int, ...], *, whole: bool
) -> FloatArray:
    """Return the largest t of `shape` at which margins, which fall in t, were seen above the threshold.

    At most 512, or 2^20 of what is `whole`; 0 where they are at none.  Margins may be off by 2 EPS (t + 8).
    """

    def above(t: FloatArray) -> NDArray[np.bool_]:
        return margins(t) > threshold + 2 * EPS * (t + 8.0)

    low, some = np.zeros(shape), above(np.zeros(shape))
    high = low + 1.0
    for _ in range(20 if whole else 9):
        if not (on := above(high)).any():
            break
        low, high = np.where(on, high, low), np.where(on, 2.0 * high, high)
    for _ in range(56):
        on = above(t := 0.5 * (low + high))
        low, high = np.where(on, t, low), np.where(on, high, t)
    return np.where(some, np.ceil(low) if whole else low, 0.0)


def _radius(
    curve: Callable[..., FloatArray], whole: bool, p_lower: ArrayLike, q_upper: ArrayLike, scale: float,
    alpha: float, margin_slack: float = 0.0, *, dimension: int | None = None,
) -> FloatArray:  # fmt: skip
    p, q = probability_pairs(p_lower, q_upper)
    alpha, scale = check_alpha(alpha, margin_slack), check_sigma(scale)

    def margins(t: FloatArray) -> FloatArray:
        return curve(p, t, False, scale, dimension) - curve(q, t, True, scale, dimension)

    t = furthest(margins, (1.0 - alpha) / alpha, p.shape, whole=whole)
    return t if whole else scale * t * (1.0 - 4 * EPS)


def exact_by(
    curve: Callable[..., FloatArray], norm: str, *, of_dimension: bool = False, whole: bool = False
) -> Certificate:
    """Return the certificate that a curve gives; see `Certificate`."""
    return Certificate(
        "exact", "exact", "the largest radius that the two probability bounds allow (Neyman-Pearson).",
        partial(_radius, curve, whole), norm, of_dimension=of_dimension, curve=curve,
    )  # fmt: skip


def _slope_radius(
    slope: Callable[[float, int], float], whole: bool, p_lower: ArrayLike, q_upper: ArrayLike, scale: float,
    alpha: float, margin_slack: float = 0.0, *, dimension: int = 1,
) -> FloatArray:  # fmt: skip
    p, q = probability_pairs(p_lower, q_upper)
    alpha, scale = check_alpha(alpha, margin_slack), check_sigma(scale)
    gap = p - q - (1.0 - alpha) / alpha - 8 * EPS  # more than its three roundings and mu's
    t = gap / slope(scale, dimension) * (1.0 - 8 * EPS)
    return np.asarray(np.maximum(0.0, np.ceil(t) - 1.0 if whole else scale * t))


def lipschitz_by(slope: Callable[[float, int], float], norm: str, constant: str, **how: bool) -> Certificate:
    """Return that of Theorem 3.5 where margins fall by `slope` (of scale, dimension) in a scale, or a pixel.

    It is 2 Lip times the scale; `constant` tells Lip, `how` is as for `exact_by`.
    """
    whole, of_dimension = how.get("whole", False), how.get("of_dimension", False)
    return Certificate(
        "lipschitz", "lipschitz (tight constant)", f"Theorem 3.5 with {constant}.",
        partial(_slope_radius, slope, whole), norm, of_dimension=of_dimension,
    )  # fmt: skip
