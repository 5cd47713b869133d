"""Empirical Bernstein bounds of a mean of scores in [0, 1]: narrow where scores vary little."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds.bound import check_failure_probability
from certmix.bounds.means import OUTWARDS, Values, check_mean, mean_bound
from certmix.bounds.statistics import SCALE
from certmix.errors import ParameterError
from certmix.types import FloatArray

__all__ = ["BOUND", "lower_bound"]


def lower_bound(mean: ArrayLike, variance: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return ``mean - sqrt(2 V ln(2/delta) / n) - 7 ln(2/delta) / (3 (n - 1))``, in [0, 1], rounded down.

    `mean` and V, the unbiased `variance`, broadcast together; n >= 2 values were fixed beforehand.  The 2 in
    the logarithm pays for estimating the variance (A. Maurer, M. Pontil, COLT 2009, Theorem 4, which is the
    proof).

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


def _lower(values: Values, failure_probability: float, _enough: float) -> float:
    n = values.n
    check_mean(0.0, n, fewest=2)
    # of whole numbers, so that nothing cancels
    variance = (n * values.square - values.total**2) / (n * (n - 1) * SCALE**2)
    return float(lower_bound(values.mean, variance, n, failure_probability))


BOUND = mean_bound("bernstein", "empirical Bernstein: scores that vary little", _lower)
