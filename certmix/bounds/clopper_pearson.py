"""Clopper-Pearson bounds: exact confidence bounds for counts, rounded outwards.

The lower bound of k successes of n is the proportion at which k or more have probability delta; it
grows with k.  At a true proportion h it fails if K >= k*, the least k whose bound exceeds h, and
P[K >= k*] <= delta, since that sum grows with h and is delta at the bound of k*, above h.  For samples of
unequal means the same holds of the average mean (Hoeffding 1956).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, expit, gammaln

from certmix.bounds.bound import Bound, Pair, check_failure_probability, selected_and_runner_up
from certmix.errors import ParameterError
from certmix.kernels import kernel
from certmix.types import FloatArray, IntArray

__all__ = ["ONE_SIDED", "TWO_SIDED", "interval", "is_established", "lower_bound", "upper_bound"]

_OUTWARDS = 1e-12
"""Given away, relative to the nearer end of [0, 1]: more than the error of the log-odds, 1e-13."""
_MANY = 10_000


def _down(x: FloatArray) -> FloatArray:
    return np.where(x > 0, np.nextafter(x - _OUTWARDS * np.minimum(x, 1.0 - x), 0.0), 0.0)


def _up(x: FloatArray) -> FloatArray:
    moved = np.minimum(np.nextafter(x + _OUTWARDS * np.minimum(x, 1.0 - x), 2.0), 1.0)
    return np.where(x < 1, moved, 1.0)


def _share(log_odds: FloatArray) -> FloatArray:
    """Return the proportion, to within half a unit in the last place near 1."""
    odds = np.exp(-np.abs(log_odds))  # expit has no subnormal values
    return np.where(log_odds > 0, 1.0 - odds / (1 + odds), odds / (1 + odds))


def _log_odds(successes: IntArray, trials: IntArray, delta: float) -> FloatArray:
    """Return the log-odds (m,) at which that many successes or more, at least 1, have probability delta.

    log P[X >= k] is concave in the log-odds, as the logarithm of the distribution function of a
    log-concave density is (Prekopa).  So it lies below its tangents, and no step of Newton's method
    ends beyond the root, wherever it began: scipy's quantile, which may be far off for many trials
    and small delta, is only where it begins.
    """
    k, n, wanted = successes.astype(np.float64), trials.astype(np.float64), math.log(delta)
    each = wanted / n
    unanimous = each - np.log(-np.expm1(each))
    k, n = np.where(successes == trials, 1.0, k), np.where(successes == trials, 2.0, n)
    rest = n - k
    mean, least = np.log(k / rest), wanted / k - np.log(n)  # P[X >= k] <= (n p)^k
    quantile = betaincinv(k, rest + 1, max(delta, 1e-290))
    begin = np.log(quantile) - np.log1p(-quantile)
    found = np.where(np.isfinite(begin), begin, mean)
    peak = _stirling(n) - _stirling(k) - _stirling(rest) - 0.5 * np.log(2 * math.pi * k * rest / n)
    few, sign = np.minimum(k, rest), np.where(k <= rest, 1.0, -1.0)
    for _ in range(100):
        away = sign * (found - mean)
        exactly_k = peak - n * np.log1p(few / n * np.expm1(away)) + few * away
        not_p = -np.logaddexp(0.0, found)
        beyond = expit(found) > (k + 1) / (n + 3)  # there 1 - P[X < k] is computed
        a, b = np.where(beyond, rest + 1, k), np.where(beyond, k, rest + 1)
        signed = np.where(beyond, -found, found)
        tail = exactly_k + not_p + np.log(_fraction(a, b, expit(signed), expit(-signed)))
        tail = np.where(beyond, np.log1p(-np.exp(tail + np.log(k / (rest + 1)))), tail)
        step = (tail - wanted) / np.exp(np.log(k) + not_p + exactly_k - tail)
        found = np.maximum(found - step, least)
        if np.all(np.abs(step) < 1e-9):
            break
    return np.where(successes == trials, unanimous, found)


def _each_once(successes: IntArray, trials: IntArray, delta: float) -> FloatArray:
    """Return `_log_odds`, computed once of equal pairs, where there are many."""
    width = int(trials.max(initial=0)) + 1
    if successes.size < _MANY or width > 1 << 31:
        return _log_odds(successes.ravel(), trials.ravel(), delta).reshape(successes.shape)
    pairs, which = np.unique(trials * width + successes, return_inverse=True)
    return _log_odds(pairs % width, pairs // width, delta)[which.reshape(successes.shape)]


def _stirling(m: FloatArray) -> FloatArray:
    """Return log m! - log(sqrt(2 pi m) (m / e)^m)."""
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * m * m)) / (m * m)) / (m * m)) / m
    return np.where(m < 20, gammaln(m + 1) - (m + 0.5) * np.log(m) + m - 0.5 * math.log(2 * math.pi), series)


@kernel(error_model="numpy")
def _fraction(a: FloatArray, b: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return I_x(a, b) a B(a, b) / (x^a y^b), y = 1 - x, for x (m,) below (a + 1) / (a + b).

    The even part of DLMF 8.17.22: all its terms are positive, so that nothing cancels.
    """
    found = np.empty_like(a)
    for i in range(len(a)):
        value = a[i] * (a[i] * y[i] - b[i] * x[i] + 1) / (a[i] + 1)
        c, d, m = value, 0.0, 0
        while True:
            m += 1
            left = m * max(b[i] - m, 0.0) * x[i] / (a[i] + 2 * m - 1)
            above = left * (a[i] + m - 1) * (a[i] + b[i] + m - 1) * x[i] / (a[i] + 2 * m - 1)
            below = (
                m + left + (a[i] + m) * (a[i] * y[i] - b[i] * x[i] + 1 + m * (2 - x[i])) / (a[i] + 2 * m + 1)
            )
            c, d = below + above / c, 1 / (below + above * d)
            value = value * (c * d)
            if not abs(c * d - 1) > 2e-15:
                break
        found[i] = a[i] / value
    return found


def _counts_and_trials(successes: ArrayLike, trials: ArrayLike) -> tuple[IntArray, IntArray]:
    k, n = np.broadcast_arrays(np.asarray(successes), np.asarray(trials))
    if not (np.issubdtype(k.dtype, np.integer) and np.issubdtype(n.dtype, np.integer)):
        raise ParameterError("successes and trials must be whole numbers: pass integer arrays")
    wrong = (k < 0) | (k > n) | (n < 1)
    if np.any(wrong):
        found = f"{k[wrong].flat[0]} successes of {n[wrong].flat[0]} trials"
        raise ParameterError(f"{found}: 0 <= successes <= trials and trials >= 1 are needed")
    return k.astype(np.int64), n.astype(np.int64)


def lower_bound(successes: ArrayLike, trials: ArrayLike, failure_probability: float) -> FloatArray:
    """Return lower bounds in [0, 1) of a binomial proportion, rounded down; 0 for no successes.

    Integers 0 <= `successes` <= `trials` broadcast together.  Whatever the proportion is, the bound exceeds
    it with probability at most `failure_probability`, one-sided (Clopper and Pearson, Biometrika 26, 1934).

    Examples
    --------
    >>> lower_bound(1000, 1000, 0.001).round(6)
    np.float64(0.993116)
    """
    delta = check_failure_probability(failure_probability)
    k, n = _counts_and_trials(successes, trials)
    with np.errstate(all="ignore"):
        found = _share(_each_once(np.maximum(k, 1), n, delta))
    return _down(np.where(k == 0, 0.0, found))[()]


def upper_bound(successes: ArrayLike, trials: ArrayLike, failure_probability: float) -> FloatArray:
    """Return upper bounds of a binomial proportion in (0, 1], rounded up; see `lower_bound`."""
    delta = check_failure_probability(failure_probability)
    k, n = _counts_and_trials(successes, trials)
    with np.errstate(all="ignore"):
        found = _share(-_each_once(np.maximum(n - k, 1), n, delta))
    return _up(np.where(k == n, 1.0, found))[()]


def interval(
    successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the two-sided interval: each side fails with probability (1 - confidence) / 2."""
    if not 0.0 < confidence < 1.0:
        raise ParameterError(f"confidence = {confidence}: it must lie strictly between 0 and 1, such as 0.95")
    half = (1.0 - confidence) / 2
    return lower_bound(successes, trials, half), upper_bound(successes, trials, half)


def is_established(top: int, runner_up: int, failure_probability: float) -> bool:
    """Return whether the most voted class beats the runner-up at this failure probability.

    A two-sided binomial test of equal probability on the votes of the two, from the same samples: a wrong
    class is returned with at most `failure_probability` (K. Hung, W. Fithian, Annals of Statistics 47, 2019,
    as used by Cohen et al., ICML 2019).
    """
    from scipy.stats import binomtest  # slow to import, and only needed here

    check_failure_probability(failure_probability)
    if top <= runner_up:
        return False
    return bool(binomtest(top, top + runner_up, 0.5).pvalue <= failure_probability)


def _one_sided(counts: IntArray, selected: IntArray, failure_probability: float) -> Pair:
    """p at the whole failure probability, and q = 1 - p (Cohen, Rosenfeld, Kolter, ICML 2019)."""
    votes, _ = selected_and_runner_up(counts, selected)
    p = np.atleast_1d(lower_bound(votes, counts.sum(1), failure_probability))
    return p, _complement(p)


def _two_sided(counts: IntArray, selected: IntArray, failure_probability: float) -> Pair:
    """p and q = min(1 - p, max_i U_i), each at half of the failure probability, and p >= 1 - (c - 1) q.

    `certmix.bounds.means` says why no division by the number of rivals is needed.
    """
    votes, rival = selected_and_runner_up(counts, selected)
    p, q = _both(votes, rival, counts.sum(1), failure_probability)
    p = np.maximum(p, np.nextafter(1.0 - (counts.shape[1] - 1) * q * (1 + 1e-15), 0.0))
    return p, np.minimum(q, _complement(p))


def _behind_gate(counts: IntArray, selected: IntArray, failure_probability: float) -> Pair:
    """The same of votes that may abstain (last column): they add up to at most 1, which says nothing of p."""
    votes, rival = selected_and_runner_up(counts[:, :-1], selected)
    p, q = _both(votes, rival, counts.sum(1), failure_probability)
    return p, np.minimum(q, _complement(p))


def _both(votes: IntArray, rival: IntArray, trials: IntArray, failure_probability: float) -> Pair:
    half = failure_probability / 2
    return np.atleast_1d(lower_bound(votes, trials, half)), np.atleast_1d(upper_bound(rival, trials, half))


def _complement(p: FloatArray) -> FloatArray:
    """Return 1 - p, rounded up where it is not exact (p < 1/2)."""
    return np.where(p >= 0.5, 1.0 - p, np.minimum(np.nextafter(1.0 - p, 2.0), 1.0))


ONE_SIDED = Bound(
    "clopper-pearson", "exact for votes; q = 1 - p", "hard", _one_sided, parts=("p",), averaged=True,
)  # fmt: skip
TWO_SIDED = Bound(
    "clopper-pearson-two-sided", "exact for votes; q from the votes of all rivals", "hard", _two_sided,
    averaged=True, behind_gate=_behind_gate,
)  # fmt: skip
