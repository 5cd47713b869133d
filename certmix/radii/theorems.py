"""Theorems 3.5 and 3.7: certified radii from Lipschitz constants, and of Gaussian-smoothed functions.

References
----------
Y. Bai, B. G. Anderson, S. Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off".
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.kernels import kernel
from certmix.radii._checks import Certificate, as_numbers, check_alpha, check_sigma, probability_pairs
from certmix.radii._normal import EPS, quantile, quantile_table
from certmix.radii.exact import rounded_down
from certmix.types import FloatArray

PAPER_CONSTANT = math.nextafter(math.sqrt(2 / math.pi), 2)
"""sigma times the Lipschitz constant of a smoothed classifier that the paper uses."""

TIGHT_CONSTANT = math.nextafter(1 / math.sqrt(2 * math.pi), 1)
"""The smallest valid one, 1/sqrt(2 pi): a half-space reaches it."""


def lipschitz_radius(
    p_lower: ArrayLike,
    q_upper: ArrayLike,
    alpha: float,
    constant: ArrayLike,
    rival_constants: ArrayLike,
    margin_slack: float = 0.0,
) -> FloatArray:
    """Return radii of Theorem 3.5 for a classifier with given Lipschitz constants, in the constants' norm.

    ``r = min_i [alpha (h_y - h_i) + alpha - 1] / [alpha (Lip(h_y) + Lip(h_i))]`` over **all** rivals i.

    Parameters
    ----------
    p_lower, constant
        Lower bounds of h_y(x), (m,) or a number, and upper bounds of its Lipschitz constant, broadcast to
        (m,).
    q_upper, rival_constants
        Upper bounds of each rival's h_i(x), (m, k), and of their constants, broadcast to (m, k).  One
        column (m,) is enough where all rivals share one constant.
    alpha, margin_slack
        As for `exact_radius`; so are the errors, and negative or NaN constants are one.

    Returns
    -------
    FloatArray
        Radii (m,), rounded down; 0 where not certified.

    Examples
    --------
    >>> lipschitz_radius([0.9], [[0.05, 0.03]], alpha=0.75, constant=1.0, rival_constants=[1.0, 2.0]).round(4)
    array([0.1789])
    """
    alpha = check_alpha(alpha, margin_slack)
    p, rivals = np.atleast_1d(as_numbers("p_lower", p_lower)), as_numbers("q_upper", q_upper)
    if rivals.ndim <= 1 and (rivals.size == len(p) or len(p) == 1):
        rivals = rivals.reshape(len(p), -1)
    if p.ndim != 1 or rivals.ndim != 2 or len(rivals) != len(p) or rivals.shape[1] < 1:
        found = f"p_lower of shape {p.shape} and q_upper of shape {np.shape(q_upper)}"
        raise ParameterError(f"{found}: give (m,) and (m, rivals), with at least one rival each")
    probability_pairs(p[:, None], rivals)
    own = np.broadcast_to(np.asarray(constant, np.float64), p.shape)
    others = np.broadcast_to(np.asarray(rival_constants, np.float64), rivals.shape)
    for constants in (own, others):
        if not np.all(constants >= 0):
            wrong = constants[~(constants >= 0)].flat[0]
            raise ParameterError(f"Lipschitz constant {wrong}: give upper bounds >= 0")
    gap = p[:, None] - rivals - (1.0 - alpha) / alpha - 16 * EPS  # more than its three roundings and mu's
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        each = np.where(gap > 0.0, gap / (own[:, None] + others) * (1 - 4 * EPS), 0.0)
    each = np.where(own[:, None] + others > 0, np.minimum(each, np.finfo(np.float64).max), each)
    radius: FloatArray = each.min(1)
    return radius


def gaussian_lipschitz_radius(
    p_lower: ArrayLike,
    q_upper: ArrayLike,
    sigma: float,
    alpha: float,
    unit_constant: float = TIGHT_CONSTANT,
    margin_slack: float = 0.0,
) -> FloatArray:
    """Return l2 radii of Theorem 3.5 for a smoothed classifier, rounded down; 0 where not certified.

    Every class probability has Lipschitz constant ``unit_constant / sigma``: `TIGHT_CONSTANT` or
    `PAPER_CONSTANT`.  The other parameters are those of `exact_radius`.
    """
    p, q = probability_pairs(p_lower, q_upper)
    alpha, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    return _lipschitz_loop(p.ravel(), q.ravel(), sigma, alpha, unit_constant).reshape(p.shape)


def smoothing_radius(
    p_lower: ArrayLike, q_upper: ArrayLike, sigma: float, alpha: float, margin_slack: float = 0.0
) -> FloatArray:
    """Return ``sigma/2 (Phi^-1(alpha p) - Phi^-1(alpha q + 1 - alpha))``, Theorem 3.7.

    Parameters, errors and rounding are those of `exact_radius`; the smoothed function needs values in
    [0, 1] only.
    """
    p, q = probability_pairs(p_lower, q_upper)
    alpha, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    return _smoothing_loop(p.ravel(), q.ravel(), sigma, alpha, quantile_table()).reshape(p.shape)


@kernel()
def _lipschitz_loop(p: FloatArray, q: FloatArray, sigma: float, alpha: float, unit: float) -> FloatArray:
    """Theorem 3.5 with Lipschitz constant unit / sigma for every class, pair by pair."""
    mu, radius = (1.0 - alpha) / alpha, np.empty(p.size)
    for i in range(p.size):
        radius[i] = rounded_down(sigma * (p[i] - q[i] - mu) / (2.0 * unit), 0.0, sigma)
    return radius


@kernel()
def _smoothing_loop(
    p: FloatArray, q: FloatArray, sigma: float, alpha: float, table: FloatArray
) -> FloatArray:
    """Theorem 3.7, pair by pair; each complement is a sum of positive terms, so that none cancels."""
    radius = np.empty(p.size)
    for i in range(p.size):
        upper = quantile(alpha * p[i], (1.0 - alpha) + alpha * (1.0 - p[i]), table)
        lower = quantile(alpha * q[i] + (1.0 - alpha), alpha * (1.0 - q[i]), table)
        if p[i] <= q[i]:
            radius[i] = 0.0
        elif math.isinf(upper) or math.isinf(lower):
            radius[i] = math.inf if upper > lower else 0.0
        else:
            radius[i] = rounded_down(0.5 * sigma * (upper - lower), abs(upper) + abs(lower), sigma)
    return radius


SMOOTHING = Certificate("smoothing", "smoothing (Thm 3.7)", "Theorem 3.7.", smoothing_radius)
TIGHT = Certificate(
    "lipschitz", "lipschitz (tight constant)", "Theorem 3.5 with the tight constant, half the published one.",
    partial(gaussian_lipschitz_radius, unit_constant=TIGHT_CONSTANT),
)  # fmt: skip
PAPER = Certificate(
    "lipschitz-paper", "lipschitz-paper (Thm 3.5)", "Theorem 3.5 with the published constant.",
    partial(gaussian_lipschitz_radius, unit_constant=PAPER_CONSTANT),
)  # fmt: skip
