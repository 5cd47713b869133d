"""Bounds of a mean of scores in [0, 1] by betting: as narrow as a known variance would allow, nearly.

Somebody who claims that the mean exceeds m bets on it, sample by sample: the
capital is multiplied by 1 + b (x - m), which is never negative.  If the mean is
at most m, the expected capital never grows, and it ever reaches 1 / delta with
probability at most delta (Ville).  No bet here grows with m, so that refuting m
refutes everything below it: a lower bound is the largest m that was seen refuted.

Two ways to bet:

- `lower_bound`, from the values in the order they were drawn: predictable
  plug-in bets.  The narrowest, but all values must be at hand.
- ``betting`` and ``betting-fixed``, from sums and bins: the mean over the constant bets
  ``min(4 * 2^(-j/2), 0.99 / m)``, j = 0..27, equally weighted, or preferring the bet that
  suits n and the deviation in the selection samples.  The capital does not depend on the
  order of the values.  What bins do not tell is taken from below: the logarithm lies above
  its chord in each bin, and above a parabola that needs sums and squares only.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds.bound import check_failure_probability
from certmix.bounds.means import OUTWARDS, Values, mean_bound
from certmix.bounds.statistics import SCALE
from certmix.errors import ParameterError
from certmix.kernels import kernel
from certmix.types import FloatArray

__all__ = ["BOUND", "FIXED", "lower_bound", "upper_bound"]

BETS, LARGEST_BET = 28, 4.0
"""Constant bets in the mixture: `LARGEST_BET` times 1, 2^-1/2, 2^-1, ..."""

SHARE = 0.75
"""Plug-in bets never risk more than this share of the capital."""

_LARGEST_SHARE = 0.99  # of the capital, at any constant bet
_TUNED_FOR = math.log(1000)
"""Capital that the preferred constant bet reaches soonest; one for all delta, so that bounds nest."""

_HALVINGS = 42  # to 2e-13
_BIG = 2.0**1000  # above every `wanted`


def _planned_bets(values: FloatArray, log_odds: float, planned: int | None) -> FloatArray:
    """Return the plug-in bets of `lower_bound` before truncation; None `planned` stands for t log(t + 1)."""
    t = np.arange(1.0, len(values) + 1)
    means = (0.5 + values.cumsum()) / (t + 1)
    spread = 0.25 + np.concatenate([[0.0], ((values - means) ** 2).cumsum()[:-1]])
    bets: FloatArray = np.sqrt(2.0 * log_odds * t / (spread * (planned or t * np.log(t + 1.0))))
    return bets


@kernel()
def _sequence_refutes(values: FloatArray, bets: FloatArray, m: float, wanted: float) -> bool:
    """Whether prod_t (1 + min(bet_t, SHARE / m) (x_t - m)) reaches `wanted`.

    The product is kept within [1 / BIG, BIG]; `scale` counts the powers of BIG taken out.
    """
    capital, scale, largest = 1.0, 0, SHARE / m
    for t in range(values.size):
        capital *= 1.0 + min(bets[t], largest) * (values[t] - m)
        if capital >= _BIG:
            capital /= _BIG
            scale += 1
        elif capital < 1.0 / _BIG:
            capital *= _BIG
            scale -= 1
        if scale > 0 or (scale == 0 and capital >= wanted):
            return True
    return False


def lower_bound(values: ArrayLike, failure_probability: float, planned: int | None = None) -> float:
    """Return the one-sided lower bound of the hedged capital process, in [0, 1], rounded down.

    `values` (n,) are independent, in [0, 1] (else a ParameterError) and of one mean, in the order they were
    drawn.  Bets are ``min(sqrt(2 ln(1/delta) / (v n)), 3 / (4 m))`` with v the variance estimated from the
    values before (one pseudo-value of mean 1/2 and variance 1/4), and n `planned`, the number of values they
    are tuned for, fixed beforehand; None takes t ln(t + 1) for it, which is narrow at all times.

    The bound is the best over all times so far and holds under optional stopping (I. Waudby-Smith, A. Ramdas,
    Journal of the Royal Statistical Society B 86, 2024).

    Examples
    --------
    >>> round(lower_bound([1.0] * 1000, 0.001, planned=1000), 4)
    0.9908
    """
    delta = check_failure_probability(failure_probability)
    kept = np.ascontiguousarray(values, np.float64)
    if kept.ndim != 1 or kept.size < 1 or not np.all((kept >= 0) & (kept <= 1)):
        found = f"values of shape {kept.shape}"
        raise ParameterError(f"{found}: give at least one score in [0, 1], as (samples,)")
    if planned is not None and planned < 1:
        raise ParameterError(f"planned = {planned}: give the number of samples, or None")
    bets = _planned_bets(kept, -math.log(delta), planned)
    wanted = (1 / delta) * (1 + max(1e-9, 1e-15 * kept.size))
    if wanted > 1e300:
        return 0.0
    low, high = 0.0, 1.0  # the largest m found refuted, by halving
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        refuted = _sequence_refutes(kept, bets, middle, wanted)
        low, high = (middle, high) if refuted else (low, middle)
    return max(0.0, low - OUTWARDS)


def upper_bound(values: ArrayLike, failure_probability: float, planned: int | None = None) -> float:
    """Return the one-sided upper bound: 1 minus the lower bound of 1 - values; see `lower_bound`."""
    return 1.0 - lower_bound(1.0 - np.asarray(values, np.float64), failure_probability, planned)


@kernel()
def _moment_log(share: float, m: float, n: float, total: float, square: float) -> float:
    """A lower bound of sum log(1 + share (x - m) / m) from sum x and sum x^2.

    log(1 + b u) >= b u + u^2 (log(1 - b) + b) for u >= -1 and 0 <= b < 1 (Fan, Grama, Liu).
    """
    curvature = -(math.log1p(-share) + share) / (m * m)
    first, second = total - n * m, square - 2.0 * m * total + n * m * m
    rounding = 1e-15 * n * (share / m + 4.0 * curvature)
    return share / m * first - curvature * max(second, 0.0) - rounding


@kernel()
def _chord_log(share: float, m: float, counts: FloatArray, places: FloatArray) -> float:
    """A lower bound of the same sum from bins: the logarithm lies above its chord in each.

    counts: values in each of equal bins; places: their mean place in the bin, from 0 to 1.
    """
    found, size, right, known = 0.0, 0.0, 0.0, False
    for k in range(counts.size):
        if counts[k] == 0.0:
            known = False
            continue
        left = right if known else math.log(1.0 - share + share * k / (counts.size * m))
        right = math.log(1.0 - share + share * (k + 1.0) / (counts.size * m))
        known = True
        found += counts[k] * (left + (right - left) * places[k])
        size += counts[k] * (abs(left) + abs(right) + 0.01)
    return found - 1e-13 * size


Kept = tuple[float, float, float, FloatArray, FloatArray]
"""n, sum x, sum x^2, and of each bin its count and mean place; without bins both are empty."""


@kernel()
def _mixture_log(m: float, kept: Kept, weights: FloatArray) -> float:
    """Logarithm of the mixture's capital against m, rounded down: a weighted mean over constant bets."""
    n, total, square, counts, places = kept
    logs = np.empty(BETS)
    for j in range(BETS):
        share = min(LARGEST_BET * 2.0 ** (-0.5 * j) * m, _LARGEST_SHARE)
        logs[j] = _moment_log(share, m, n, total, square)
        if counts.size > 0:
            logs[j] = max(logs[j], _chord_log(share, m, counts, places))
    top = logs.max()
    return top + math.log((weights * np.exp(logs - top)).sum()) - 1e-13


@kernel()
def _mixture_lower(kept: Kept, weights: FloatArray, wanted: float, useful: float) -> float:
    """The largest m found refuted by halving [0, mean]; `useful` is tried first, and more stays unsaid."""
    if 0.0 < useful < 1.0 and _mixture_log(useful, kept, weights) >= wanted:
        return useful
    low, high = 0.0, min(kept[1] / kept[0], 1.0)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle > 0.0 and _mixture_log(middle, kept, weights) >= wanted:
            low = middle
        else:
            high = middle
    return low


def _lower(values: Values, failure_probability: float, enough: float, tuned: bool = False) -> float:
    """The mixture's bound, at all numbers of samples at once; tuned for one that was fixed beforehand."""
    chosen = weights(values.n, values.deviation if tuned else 0.0)
    wanted = -math.log(check_failure_probability(failure_probability)) + 1e-12
    n, total, square = float(values.n), values.total / SCALE, values.square / SCALE**2
    kept = n, total, square, values.counts, values.places
    return max(0.0, _mixture_lower(kept, chosen, wanted, enough + OUTWARDS) - OUTWARDS)


def weights(samples: int, deviation: float) -> FloatArray:
    """Weights of the constant bets, adding up to 1: equal, or falling off around the best one."""
    if deviation == 0.0:
        return np.full(BETS, 1.0 / BETS)
    best = math.sqrt(2 * _TUNED_FOR / samples) / deviation
    place = min(max(2 * math.log2(LARGEST_BET / best), 0.0), BETS - 1.0)
    falling = 1.0 / (1.0 + (np.arange(BETS) - place) ** 2)
    return falling / falling.sum()


BOUND = mean_bound("betting", "constant bets: narrow, at any number of samples", _lower, time_uniform=True)
FIXED = mean_bound(
    "betting-fixed", "the same, tuned to a number of samples fixed beforehand", partial(_lower, tuned=True)
)
