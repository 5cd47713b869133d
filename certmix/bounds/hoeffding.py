"""Bounds of a mean of scores in [0, 1] from their average alone: Hoeffding, and its relative-entropy form."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from certmix.bounds._checks import check_failure_probability
from certmix.bounds.statistics import ScoreStatistics
from certmix.errors import ParameterError
from certmix.types import FloatArray

__all__ = [
    "entropy_lower_bound",
    "entropy_rival_upper",
    "entropy_selected_lower",
    "entropy_upper_bound",
    "lower_bound",
    "rival_upper",
    "selected_lower",
    "upper_bound",
]

OUTWARDS = 1e-14
"""Given away by every bound of a mean: more than the rounding errors of its formula."""

_EPS = 2.0**-52


def check_mean(mean: ArrayLike, samples: int, fewest: int = 1) -> FloatArray:
    """Return means as float64; they must lie in [0, 1] and come from enough samples."""
    values = np.asarray(mean, np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ParameterError("a mean score is NaN or outside [0, 1]: scores must lie in [0, 1]")
    if samples < fewest:
        raise ParameterError(f"samples = {samples}: this bound needs at least {fewest}")
    return values


def lower_bound(mean: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return ``mean - sqrt(ln(1/delta) / (2 n))``, at least 0.

    Parameters
    ----------
    mean
        Average of n independent values in [0, 1], any shape.
    samples
        n, fixed beforehand.
    failure_probability
        delta, one-sided.

    Returns
    -------
    FloatArray
        Bounds in [0, 1], rounded down.

    References
    ----------
    W. Hoeffding, Probability inequalities for sums of bounded random variables,
    Journal of the American Statistical Association 58 (1963), Theorem 2.

    Examples
    --------
    >>> lower_bound(0.9, 10_000, 0.001).round(5)
    np.float64(0.88142)
    """
    delta = check_failure_probability(failure_probability)
    values = check_mean(mean, samples)
    return np.maximum(0.0, values - math.sqrt(-math.log(delta) / (2 * samples)) - OUTWARDS)[()]


def upper_bound(mean: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return ``mean + sqrt(ln(1/delta) / (2 n))``, at most 1; see `lower_bound`."""
    return 1.0 - lower_bound(1.0 - check_mean(mean, samples), samples, failure_probability)


@njit(cache=True, nogil=True)
def _refuted(p: float, m: float, samples: float, wanted: float) -> bool:
    """Whether n kl(p, m) >= wanted for Bernoulli laws with 0 < m <= p, rounded to no."""
    first = -p * math.log1p((m - p) / p) if p > 0.0 else 0.0
    second = -(1.0 - p) * math.log1p((p - m) / (1.0 - p)) if p < 1.0 else 0.0
    return samples * (first + second - 8.0 * _EPS * (abs(first) + abs(second))) >= wanted


@njit(cache=True, nogil=True)
def _entropy_loop(means: FloatArray, samples: float, wanted: float) -> FloatArray:
    """For each mean the largest refuted m found by halving [0, mean]."""
    found = np.zeros(means.size)
    for i in range(means.size):
        low, high = 0.0, means[i]
        for _ in range(60):
            middle = 0.5 * (low + high)
            if middle > 0.0 and _refuted(means[i], middle, samples, wanted):
                low = middle
            else:
                high = middle
        found[i] = low
    return found


def entropy_lower_bound(mean: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return the largest m below the mean with ``n kl(mean, m) >= ln(1/delta)``.

    kl is the relative entropy of two Bernoulli laws.  This is Hoeffding's
    Theorem 1 as it stands, before it is simplified to `lower_bound`: never
    weaker, and much sharper for means near 0 and 1.

    Parameters
    ----------
    mean, samples, failure_probability
        As in `lower_bound`.

    Returns
    -------
    FloatArray
        Bounds in [0, 1], rounded down.

    Examples
    --------
    >>> entropy_lower_bound([0.9, 1.0], 10_000, 0.001).round(5)
    array([0.88848, 0.99931])
    """
    delta = check_failure_probability(failure_probability)
    values = check_mean(mean, samples)
    wanted = -math.log(delta) * (1 + 4 * _EPS)
    found = _entropy_loop(values.ravel(), float(samples), wanted).reshape(values.shape)
    return np.maximum(0.0, found - OUTWARDS)[()]


def entropy_upper_bound(mean: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return the smallest m above the mean with ``n kl(mean, m) >= ln(1/delta)``.

    Examples
    --------
    >>> entropy_upper_bound(0.001, 10_000, 0.001).round(5)
    np.float64(0.00267)
    """
    return 1.0 - entropy_lower_bound(1.0 - check_mean(mean, samples), samples, failure_probability)


def selected_lower(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return Hoeffding's lower bound of the selected class's mean score."""
    mean = statistics.means()[statistics.selected]
    return float(lower_bound(mean, statistics.samples, failure_probability))


def rival_upper(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the largest of Hoeffding's upper bounds of the rivals, each at this failure probability."""
    mean = statistics.means()[statistics.others()].max()
    return float(upper_bound(mean, statistics.samples, failure_probability))


def entropy_selected_lower(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the relative-entropy lower bound of the selected class's mean score."""
    mean = statistics.means()[statistics.selected]
    return float(entropy_lower_bound(mean, statistics.samples, failure_probability))


def entropy_rival_upper(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the largest relative-entropy upper bound of the rivals, each at this failure probability."""
    mean = statistics.means()[statistics.others()].max()
    return float(entropy_upper_bound(mean, statistics.samples, failure_probability))
