"""Time-uniform bounds for a proportion: the beta-binomial mixture martingale.

For every true proportion p0 the ratio

    M_n(p0) = B(a + k, b + n - k) / (B(a, b) p0^k (1 - p0)^(n - k))

is a nonnegative martingale with mean 1 in the number of samples n, k of them
successes.  By Ville's inequality M_n(p0) >= 1/delta ever happens with
probability at most delta: the p0 that are not yet rejected form a confidence
sequence, valid at all n at once and at any stopping time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, xlog1py, xlogy

from certmix.bounds.bound import Bound, Pair, check_failure_probability, selected_and_runner_up
from certmix.types import FloatArray, IntArray

__all__ = ["BOUND", "lower_bound", "upper_bound"]

_A, _B = 0.5, 0.5
_SLACK = 1e-9
"""Given away on log M, with 1e-13 a sample more: above the rounding of the log-beta functions."""


def lower_bound(successes: ArrayLike, trials: ArrayLike, failure_probability: float) -> FloatArray:
    """Return lower bounds of a proportion in [0, 1), valid at all sample sizes at once, rounded down.

    Integers `successes` and `trials` broadcast together; the bound is ever wrong with at most the failure
    probability (H. Robbins, Annals of Mathematical Statistics 41, 1970).

    Examples
    --------
    >>> lower_bound([1000], [1000], 0.001).round(4)
    array([0.9891])
    """
    delta = check_failure_probability(failure_probability)
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    evidence = betaln(_A + k, _B + n - k) - betaln(_A, _B)
    target = np.log(1.0 / delta) + _SLACK + 1e-13 * n
    low, high = np.zeros(k.shape), k / n
    for _ in range(64):
        middle = 0.5 * (low + high)
        rejected = evidence - xlogy(k, middle) - xlog1py(n - k, -middle) >= target
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


def upper_bound(successes: ArrayLike, trials: ArrayLike, failure_probability: float) -> FloatArray:
    """Return time-uniform upper bounds of a proportion, rounded up; see `lower_bound`."""
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    return np.nextafter(1.0 - lower_bound(n - k, n, failure_probability), 2.0).clip(max=1.0)


def _joint(counts: IntArray, selected: IntArray, failure_probability: float) -> Pair:
    """p and q at half of the failure probability each; the number of samples may depend on what was seen."""
    return _both(counts, selected, failure_probability, counts.sum(1))


def _behind_gate(counts: IntArray, selected: IntArray, failure_probability: float) -> Pair:
    """The same of votes that may abstain (last column)."""
    return _both(counts[:, :-1], selected, failure_probability, counts.sum(1))


def _both(counts: IntArray, selected: IntArray, failure_probability: float, trials: IntArray) -> Pair:
    votes, rival = selected_and_runner_up(counts, selected)
    p = lower_bound(votes, trials, failure_probability / 2)
    q = upper_bound(rival, trials, failure_probability / 2)
    return p, np.minimum(q, np.nextafter(1.0 - p, 2.0))


BOUND = Bound(
    "beta-binomial", "mixture martingale: votes, at any number of samples", "hard", _joint,
    time_uniform=True, averaged=True, behind_gate=_behind_gate,
)  # fmt: skip
