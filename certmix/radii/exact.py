"""The exact certificate: the largest l2 radius that (p, q, sigma, alpha) allow."""

from __future__ import annotations

from numpy.typing import ArrayLike

from certmix.radii._checks import check_alpha, check_sigma, probability_pairs
from certmix.radii._half_widths import exact_loop
from certmix.types import FloatArray

__all__ = ["exact_radius"]


def exact_radius(
    p_lower: ArrayLike, q_upper: ArrayLike, sigma: float, alpha: float, margin_slack: float = 0.0
) -> FloatArray:
    """Return sigma t, where t solves ``Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t) = (1 - alpha)/alpha``.

    By the Neyman-Pearson lemma a smoothed probability that is at least p at x
    is at least Phi(Phi^-1(p) - ||d||/sigma) at x + d, and one that is at most
    q is at most Phi(Phi^-1(q) + ||d||/sigma).  While their difference exceeds
    the margin threshold (1 - alpha)/alpha, Lemma 3.2 keeps the answer of the
    mix.  Two disjoint half-spaces attain both bounds at once when p + q <= 1:
    no larger radius follows from the same numbers.  Where q = 1 - p the root
    is ``Phi^-1(p) - Phi^-1(1 / (2 alpha))``.

    Parameters
    ----------
    p_lower, q_upper
        Bounds of the selected class's smoothed probability and of the largest
        other, in [0, 1], broadcast together.
    sigma
        Noise level, in units of the input.
    alpha
        Mixing weight, 1/2 <= alpha <= 1.
    margin_slack
        What the margin must exceed the threshold (1 - alpha)/alpha by.

    Returns
    -------
    FloatArray
        l2 radii, rounded down; 0 where not certified, infinite for p = 1 and q = 0 (for
        either at alpha = 1).

    Raises
    ------
    ParameterError
        For alpha outside [1/2, 1], sigma <= 0, probabilities outside [0, 1].

    Examples
    --------
    >>> exact_radius(0.99, 0.01, sigma=0.5, alpha=0.76).round(4)
    np.float64(0.9598)
    """
    p, q = probability_pairs(p_lower, q_upper)
    alpha, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    return exact_loop(p.ravel(), q.ravel(), sigma, alpha).reshape(p.shape)
