"""Bounds of a mean of scores in [0, 1] by betting: as narrow as a known variance would allow, nearly.

Somebody who claims that the mean exceeds m bets on it, sample by sample: the
capital is multiplied by 1 + b (x - m), which is never negative.  If the mean is
at most m, the expected capital never grows, and it ever reaches 1 / delta with
probability at most delta (Ville).  Refuted m form the bound.

Two ways to bet:

- `lower_bound`, from the values in the order they were drawn: predictable
  plug-in bets.  The narrowest, but all values must be at hand.
- `selected_lower` and `rival_upper`, from `ScoreStatistics`: the mean over
  constant bets.  Its capital does not depend on the order of the values, so
  sums and bins suffice.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds._betting_kernel import BETS, LARGEST_BET, mixture_lower, planned_bets, sequence_lower
from certmix.bounds._checks import check_failure_probability
from certmix.bounds.hoeffding import OUTWARDS, check_mean
from certmix.bounds.statistics import BIN_STEPS, SCALE, ScoreStatistics
from certmix.errors import ParameterError
from certmix.types import FloatArray

__all__ = ["lower_bound", "rival_upper", "selected_lower", "upper_bound"]

SHARE = 0.75
"""Plug-in bets never risk more than this share of the capital."""

_TUNED_FOR = math.log(1000)
"""Capital that the preferred constant bet reaches soonest; one for all delta, so that bounds nest."""

_NONE = np.empty(0)


def lower_bound(values: ArrayLike, failure_probability: float, planned: int | None = None) -> float:
    """Return the one-sided lower bound of the hedged capital process.

    Bets are ``min(sqrt(2 ln(1/delta) / (v n)), 3 / (4 m))`` with v the variance
    estimated from the values before (one pseudo-value of mean 1/2 and variance
    1/4), and n either `planned` or t ln(t + 1).

    Parameters
    ----------
    values
        (n,): independent values in [0, 1] with one mean, in the order they were drawn.
    failure_probability
        delta, one-sided.
    planned
        Number of values the bets are tuned for, fixed beforehand.  None gives
        the confidence sequence, which is narrow at all times.  Either way the
        bound is the best over all times so far and holds under optional stopping.

    Returns
    -------
    float
        Lower bound in [0, 1], rounded down.

    Raises
    ------
    ParameterError
        For values outside [0, 1] or none, or parameters out of range.

    References
    ----------
    I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by
    betting, Journal of the Royal Statistical Society B 86 (2024): hedged capital,
    predictable plug-in bets; here one side only.

    Examples
    --------
    >>> round(lower_bound([1.0] * 1000, 0.001, planned=1000), 4)
    0.9908
    """
    delta = check_failure_probability(failure_probability)
    kept = np.ascontiguousarray(values, np.float64)
    if kept.ndim != 1 or kept.size < 1 or not np.all((kept >= 0) & (kept <= 1)):
        raise ParameterError(
            f"values of shape {kept.shape}: give at least one score in [0, 1], as (samples,)"
        )
    if planned is not None and planned < 1:
        raise ParameterError(f"planned = {planned}: give the number of samples, or None")
    bets = planned_bets(kept, -math.log(delta), planned or 0)
    wanted = (1 / delta) * (1 + max(1e-9, 1e-15 * kept.size))
    if wanted > 1e300:
        return 0.0
    return max(0.0, sequence_lower(kept, bets, SHARE, wanted) - OUTWARDS)


def upper_bound(values: ArrayLike, failure_probability: float, planned: int | None = None) -> float:
    """Return the one-sided upper bound: 1 minus the lower bound of 1 - values; see `lower_bound`."""
    return 1.0 - lower_bound(1.0 - np.asarray(values, np.float64), failure_probability, planned)


def selected_lower(statistics: ScoreStatistics, failure_probability: float, *, tuned: bool = False) -> float:
    """Return the mixture's lower bound of the selected class's mean score.

    The capital is a weighted mean over constant bets ``min(4 * 2^(-j/2), 0.99 / m)``,
    j = 0..27.  What the bins do not tell is taken from below: the logarithm lies above
    its chord in each bin, and above a parabola that needs sums and squares only.

    Parameters
    ----------
    statistics
        Of any number of samples, fixed beforehand or not.
    failure_probability
        delta, one-sided, for all numbers of samples at once.
    tuned
        Prefer the bet that suits this number of samples, which must have been
        fixed beforehand, and the deviation in the selection samples.

    References
    ----------
    Waudby-Smith and Ramdas as in `lower_bound` (diversified bets); X. Fan, I. Grama, Q. Liu,
    Exponential inequalities for martingales with applications, Electronic Journal of
    Probability 20 (2015), for the parabola.
    """
    return max(0.0, _lower(statistics, failure_probability, tuned, statistics.selected, 0) - OUTWARDS)


def rival_upper(statistics: ScoreStatistics, failure_probability: float, *, tuned: bool = False) -> float:
    """Return the largest of the rivals' upper bounds, each at this failure probability.

    A bound is 1 minus the lower bound of 1 - score.  Followed rivals have
    bins; the others have their sums and squares alone, and wider bounds.
    """
    lowest, followed = 1.0, {rival: 1 + row for row, rival in enumerate(statistics.rivals)}
    others = statistics.others()
    for rival in others[np.argsort(-statistics.totals[others], kind="stable")].tolist():
        lower = _lower(statistics, failure_probability, tuned, rival, followed.get(rival), lowest)
        lowest = min(lowest, lower)
    return 1.0 - max(0.0, lowest - OUTWARDS)


def _lower(
    statistics: ScoreStatistics,
    failure_probability: float,
    tuned: bool,
    label: int,
    row: int | None,
    useful: float = 0.0,
) -> float:
    """Lower bound of a class's mean score, of 1 - score for rivals; `row` is its row of bins."""
    wanted = -math.log(check_failure_probability(failure_probability)) + 1e-12
    check_mean(0.0, statistics.samples)
    flipped, n = label != statistics.selected, statistics.samples
    deviation = int(statistics.deviations[label]) / SCALE if tuned else 0.0
    total, square = _sums(statistics, label, flipped)
    counts, places = (_NONE, _NONE) if row is None else _bins(statistics, row, flipped)
    weights = _weights(n, deviation)
    return mixture_lower(float(n), total, square, counts, places, weights, wanted, useful)


def _weights(samples: int, deviation: float) -> FloatArray:
    """Weights of the constant bets, adding up to 1: equal, or falling off around the best one."""
    if deviation == 0.0:
        return np.full(BETS, 1.0 / BETS)
    best = math.sqrt(2 * _TUNED_FOR / samples) / deviation
    place = min(max(2 * math.log2(LARGEST_BET / best), 0.0), BETS - 1.0)
    weights = 1.0 / (1.0 + (np.arange(BETS) - place) ** 2)
    return weights / weights.sum()


def _sums(statistics: ScoreStatistics, row: int, flipped: bool) -> tuple[float, float]:
    """Sum of a class's scores and of their squares, of 1 - score if flipped."""
    n, total, square = statistics.samples, int(statistics.totals[row]), int(statistics.squares[row])
    if flipped:
        total, square = n * SCALE - total, n * SCALE**2 - 2 * SCALE * total + square
    return total / SCALE, square / SCALE**2


def _bins(statistics: ScoreStatistics, row: int, flipped: bool) -> tuple[FloatArray, FloatArray]:
    """How many scores lie in each bin and their mean place in it, of 1 - score if flipped."""
    counts = statistics.bin_counts[row].astype(np.float64)
    places = statistics.bin_excess[row] / (np.maximum(counts, 1.0) * BIN_STEPS)
    return (counts[::-1].copy(), 1.0 - places[::-1]) if flipped else (counts, places)
