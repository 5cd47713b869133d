"""Bounds of a mean of scores in [0, 1] from their average alone: Hoeffding, and its relative-entropy form.

Let M be the average of n independent values in [0, 1] whose means average mu.  exp(l x) lies below
its chord on [0, 1] and the logarithm is concave, so that E exp(l n M) <= (1 - mu + mu e^l)^n.
By Markov's inequality, at the best l >= 0, P[M >= a] <= exp(-n kl(a, mu)) for a >= mu.  kl(a, mu)
falls as mu grows to a: the m with n kl(M, m) = ln(1/delta) exceeds mu with probability at most
delta.  Pinsker's inequality kl(a, b) >= 2 (a - b)^2 turns this into the closed form.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds.bound import check_failure_probability
from certmix.bounds.means import OUTWARDS, check_mean, mean_bound
from certmix.kernels import kernel
from certmix.types import FloatArray

__all__ = ["BOUND", "ENTROPY", "entropy_lower_bound", "entropy_upper_bound", "lower_bound"]

_EPS = 2.0**-52


def lower_bound(mean: ArrayLike, samples: int, failure_probability: float) -> FloatArray:
    """Return ``mean - sqrt(ln(1/delta) / (2 n))``, in [0, 1], rounded down, for n fixed beforehand.

    W. Hoeffding, Journal of the American Statistical Association 58 (1963), Theorem 2.

    Examples
    --------
    >>> lower_bound(0.9, 10_000, 0.001).round(5)
    np.float64(0.88142)
    """
    delta = check_failure_probability(failure_probability)
    values = check_mean(mean, samples)
    return np.maximum(0.0, values - math.sqrt(-math.log(delta) / (2 * samples)) - OUTWARDS)[()]


@kernel()
def _refuted(p: float, m: float, samples: float, wanted: float) -> bool:
    """Whether n kl(p, m) >= wanted for Bernoulli laws with 0 < m <= p, rounded to no."""
    first = -p * math.log1p((m - p) / p) if p > 0.0 else 0.0
    second = -(1.0 - p) * math.log1p((p - m) / (1.0 - p)) if p < 1.0 else 0.0
    return samples * (first + second - 8.0 * _EPS * (abs(first) + abs(second))) >= wanted


@kernel()
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
    """Return the largest m below the mean with ``n kl(mean, m) >= ln(1/delta)``, in [0, 1], rounded down.

    kl is the relative entropy of two Bernoulli laws.  This is Hoeffding's Theorem 1 before it is simplified
    to `lower_bound`: never weaker, and much sharper for means near 0 and 1.

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
    """Return the smallest m above the mean with ``n kl(mean, m) >= ln(1/delta)``, rounded up."""
    return 1.0 - entropy_lower_bound(1.0 - check_mean(mean, samples), samples, failure_probability)


BOUND = mean_bound(
    "hoeffding", "Hoeffding, in closed form",
    lambda values, delta, enough: float(lower_bound(values.mean, values.n, delta)),
    of_mean=True, averaged=True,
)  # fmt: skip
ENTROPY = mean_bound(
    "relative-entropy", "Hoeffding before it is simplified: the average alone",
    lambda values, delta, enough: float(entropy_lower_bound(values.mean, values.n, delta)),
    of_mean=True, averaged=True,
)  # fmt: skip
