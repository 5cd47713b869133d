"""Certified radii from bounds of score distributions, layer by layer."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.special import ndtri

from certmix.bounds.distribution import LayerBounds
from certmix.radii._checks import check_alpha, check_sigma, less_lost, probability_pairs
from certmix.radii._kernels import EPS
from certmix.radii._special import ndtr
from certmix.types import CertifiedRadii, FloatArray, Status

__all__ = ["layered_radii"]

_ROUNDING = 1e-13
"""More than the rounding errors of a margin, a mean of values of ndtr, and of the quantiles in it."""


@njit(cache=True, nogil=True)
def _shifted(quantiles: FloatArray, shift: float) -> float:
    """Mean over the layers of Phi(quantile + shift)."""
    total = 0.0
    for quantile in quantiles:
        total += ndtr(quantile + shift)
    return total / quantiles.size


@njit(cache=True, nogil=True)
def _margin(t: float, own: FloatArray, rivals: FloatArray, rest: float, slack: float) -> float:
    """Lower bound of h_y - max_i h_i at distance sigma t, given quantiles; decreasing in t."""
    selected = _shifted(own, -t)
    largest = ndtr(rest + t)
    for i in range(rivals.shape[0]):
        largest = max(largest, _shifted(rivals[i], t))
    return selected - min(largest, 1.0 - selected + slack)


@njit(cache=True, nogil=True)
def _distances(
    own: FloatArray, rivals: FloatArray, rest: FloatArray, slack: float, threshold: float
) -> FloatArray:
    """The largest t of each image at which the margin was seen above the threshold; 0 if at none."""
    found = np.zeros(len(own))
    for i in range(len(own)):
        if not _margin(0.0, own[i], rivals[i], rest[i], slack) > threshold:
            continue
        low, high = 0.0, 1.0
        while high < 64.0 and _margin(high, own[i], rivals[i], rest[i], slack) > threshold:
            low, high = high, 2.0 * high
        for _ in range(60):
            middle = 0.5 * (low + high)
            if _margin(middle, own[i], rivals[i], rest[i], slack) > threshold:
                low = middle
            else:
                high = middle
        found[i] = low
    return found


def layered_radii(
    bounds: LayerBounds, *, sigma: float, alpha: float, margin_slack: float = 0.0
) -> CertifiedRadii:
    """Return the l2 radii within which the mix keeps its class, from bounds of distributions.

    ``sigma t`` for the largest t with ``L(t) - max_i U_i(t) > (1 - alpha) / alpha``, where
    L is the mean over layers of Phi(Phi^-1(own_lower) - t), U_i of a followed rival that of
    Phi(Phi^-1(rival_upper) + t), U_i of the rest is Phi(Phi^-1(rest_upper) + t), and no
    U_i exceeds 1 - L.

    Parameters
    ----------
    bounds
        From `certmix.bounds.distribution`.
    sigma, alpha
        Noise level, in units of the input, and mixing weight, 1/2 <= alpha <= 1.
        alpha may be chosen afterwards: the bounds hold together.
    margin_slack
        What the margin must exceed the threshold (1 - alpha)/alpha by.

    Returns
    -------
    CertifiedRadii
        Radii rounded down; their certificate is the bounds' method.

    Raises
    ------
    ParameterError
        For alpha outside [1/2, 1], sigma <= 0, bounds outside [0, 1].
    """
    weight, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    for values in (bounds.own_lower, bounds.rival_upper, bounds.rest_upper):
        probability_pairs(values, 0.0)
    own, rivals, rest = map(ndtri, (bounds.own_lower, bounds.rival_upper, bounds.rest_upper))
    threshold = (1.0 - weight) / weight + _ROUNDING
    t = _distances(own, rivals, rest, bounds.row_slack, threshold)
    radius = less_lost(sigma * np.maximum(0.0, t * (1 - 4 * EPS) - _ROUNDING), bounds.lost)
    established = _distances(own, rivals, rest, bounds.row_slack, _ROUNDING) > 0
    status = np.where(radius > 0, Status.CERTIFIED, Status.NOT_CERTIFIED)
    status = np.where(established, status, Status.ABSTAIN)
    return CertifiedRadii(bounds.method, "l2", sigma, alpha, radius, status.astype(np.int64))
