"""Empirical Bernstein bounds of a mean of scores in [0, 1]: narrow where scores vary little."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds._checks import check_failure_probability
from certmix.bounds.hoeffding import OUTWARDS, check_mean
from certmix.bounds.statistics import SCALE, ScoreStatistics
from certmix.errors import ParameterError
from certmix.types import FloatArray, IntArray

__all__ = ["lower_bound", "rival_upper", "selected_lower", "upper_bound", "variances"]


def lower_bound(mean: ArrayLike, variance: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return ``mean - sqrt(2 V ln(2/delta) / n) - 7 ln(2/delta) / (3 (n - 1))``, at least 0.

    Parameters
    ----------
    mean, variance
        Average and unbiased variance V of n independent values in [0, 1], broadcast together.
    samples
        n >= 2, fixed beforehand.
    failure_probability
        delta, one-sided: the 2 in the logarithm pays for estimating the variance.

    Returns
    -------
    FloatArray
        Bounds in [0, 1], rounded down.

    References
    ----------
    A. Maurer, M. Pontil, Empirical Bernstein bounds and sample variance
    penalization, COLT 2009, Theorem 4.

    Examples
    --------
    >>> lower_bound(0.9, 0.01, 10_000, 0.001).round(5)
    np.float64(0.89433)
    """
    delta = check_failure_probability(failure_probability)
    values = check_mean(mean, samples, fewest=2)
    spread = np.asarray(variance, np.float64)
    if not np.all((spread >= 0) & (spread <= 0.5)):
        raise ParameterError("a variance is NaN or outside [0, 1/2]: scores must lie in [0, 1]")
    log = math.log(2 / delta)
    width = np.sqrt(2 * spread * log / samples) + 7 * log / (3 * (samples - 1))
    return np.maximum(0.0, values - width - OUTWARDS)[()]


def upper_bound(mean: ArrayLike, variance: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return the mean plus what `lower_bound` takes off, at most 1."""
    values = 1.0 - check_mean(mean, samples, fewest=2)
    return 1.0 - lower_bound(values, variance, samples, failure_probability)


def variances(statistics: ScoreStatistics, classes: IntArray) -> FloatArray:
    """Return the unbiased variances of these classes' scores, from whole numbers without cancellation."""
    n = statistics.samples
    pairs = ((int(statistics.totals[i]), int(statistics.squares[i])) for i in classes)
    return np.array([(n * square - total * total) / (n * (n - 1) * SCALE**2) for total, square in pairs])


def selected_lower(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the lower bound of the selected class's mean score."""
    check_mean(0.0, statistics.samples, fewest=2)
    mean = statistics.means()[statistics.selected]
    variance = variances(statistics, np.array([statistics.selected]))[0]
    return float(lower_bound(mean, variance, statistics.samples, failure_probability))


def rival_upper(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the largest of the rivals' upper bounds, each at this failure probability."""
    check_mean(0.0, statistics.samples, fewest=2)
    others = statistics.others()
    means, spread = statistics.means()[others], variances(statistics, others)
    return float(np.max(upper_bound(means, spread, statistics.samples, failure_probability)))
