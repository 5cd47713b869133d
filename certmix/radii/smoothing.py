"""Theorem 3.7: certified l2 radii of the mix with a Gaussian-smoothed classifier."""

from __future__ import annotations

from numpy.typing import ArrayLike

from certmix.radii._checks import check_alpha, check_sigma, probability_pairs
from certmix.radii._kernels import smoothing_loop
from certmix.radii._quantiles import quantile_table
from certmix.types import FloatArray

__all__ = ["smoothing_radius"]


def smoothing_radius(
    p_lower: ArrayLike, q_upper: ArrayLike, sigma: float, alpha: float, margin_slack: float = 0.0
) -> FloatArray:
    """Return ``sigma/2 (Phi^-1(alpha p) - Phi^-1(alpha q + 1 - alpha))``.

    Parameters
    ----------
    p_lower, q_upper
        Bounds of the selected class's smoothed probability and of the largest
        other, in [0, 1], broadcast together.  The smoothed function needs
        values in [0, 1] only.
    sigma
        Noise level, in units of the input.
    alpha
        Mixing weight, 1/2 <= alpha <= 1.
    margin_slack
        What the margin must exceed the threshold (1 - alpha)/alpha by.

    Returns
    -------
    FloatArray
        l2 radii, rounded down; 0 where not certified.

    Raises
    ------
    ParameterError
        For alpha outside [1/2, 1], sigma <= 0, probabilities outside [0, 1].

    References
    ----------
    Theorem 3.7 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off".

    Examples
    --------
    >>> smoothing_radius(0.99, 0.01, sigma=0.5, alpha=0.76).round(4)
    np.float64(0.341)
    """
    p, q = probability_pairs(p_lower, q_upper)
    alpha, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    return smoothing_loop(p.ravel(), q.ravel(), sigma, alpha, quantile_table()).reshape(p.shape)
