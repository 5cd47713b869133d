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
  sums and bins suffice.  It is valid at all times at once.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds._betting_kernel import mixture_lower, planned_bets, sequence_lower
from certmix.bounds._checks import check_failure_probability
from certmix.bounds.hoeffding import OUTWARDS
from certmix.bounds.statistics import BIN_STEPS, SCALE, ScoreStatistics
from certmix.errors import ParameterError
from certmix.types import FloatArray

__all__ = ["lower_bound", "rival_upper", "selected_lower", "upper_bound"]

SHARE = 0.75
"""Plug-in bets never risk more than this share of the capital."""

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
    betting, Journal of the Royal Statistical Society B 86 (2024), Theorem 3 and Remark 1.

    Examples
    --------
    >>> round(lower_bound([1.0] * 1000, 0.001, planned=1000), 4)
    0.9909
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
    wanted = (1 / delta) * (1 + 1e-12 + 1e-15 * kept.size)
    return max(0.0, sequence_lower(kept, bets, SHARE, wanted) - OUTWARDS)


def upper_bound(values: ArrayLike, failure_probability: float, planned: int | None = None) -> float:
    """Return the one-sided upper bound: 1 minus the lower bound of 1 - values; see `lower_bound`."""
    return 1.0 - lower_bound(1.0 - np.asarray(values, np.float64), failure_probability, planned)


def selected_lower(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the mixture's lower bound of the selected class's mean score.

    The capital is the mean over constant bets 0.99 * 2^(-j/2) / m, j = 0..23.
    What the bins do not tell is taken from below: the logarithm lies above its
    chord in each bin, and above a parabola that needs sums and squares only.

    Parameters
    ----------
    statistics
        Of any number of samples, fixed beforehand or not.
    failure_probability
        delta, one-sided, for all times together.

    References
    ----------
    Waudby-Smith and Ramdas as in `lower_bound`, section 5 (diversified bets); X. Fan, I. Grama,
    Q. Liu, Exponential inequalities for martingales with applications, Electronic
    Journal of Probability 20 (2015), Lemma 4.1.
    """
    wanted = -math.log(check_failure_probability(failure_probability)) + 1e-12
    statistics.means()
    mean, square = _sums(statistics, statistics.selected, flipped=False)
    counts, places = _bins(statistics, 0, flipped=False)
    lower = mixture_lower(float(statistics.samples), mean, square, counts, places, wanted, 0.0)
    return max(0.0, lower - OUTWARDS)


def rival_upper(statistics: ScoreStatistics, failure_probability: float) -> float:
    """Return the largest of the rivals' upper bounds, each at this failure probability.

    A bound is 1 minus the lower bound of 1 - score.  Followed rivals have
    bins; the others have their sums and squares alone, and wider bounds.
    """
    wanted = -math.log(check_failure_probability(failure_probability)) + 1e-12
    statistics.means()
    lowest, followed = 1.0, {rival: 1 + row for row, rival in enumerate(statistics.rivals)}
    others = statistics.others()
    for rival in others[np.argsort(-statistics.totals[others], kind="stable")]:
        row = followed.get(int(rival))
        counts, places = (_NONE, _NONE) if row is None else _bins(statistics, row, flipped=True)
        total, square = _sums(statistics, int(rival), flipped=True)
        lower = mixture_lower(float(statistics.samples), total, square, counts, places, wanted, lowest)
        lowest = min(lowest, lower)
    return 1.0 - max(0.0, lowest - OUTWARDS)


def _sums(statistics: ScoreStatistics, row: int, *, flipped: bool) -> tuple[float, float]:
    """Sum of a class's scores and of their squares, of 1 - score if flipped."""
    n, total, square = statistics.samples, int(statistics.totals[row]), int(statistics.squares[row])
    if flipped:
        total, square = n * SCALE - total, n * SCALE**2 - 2 * SCALE * total + square
    return total / SCALE, square / SCALE**2


def _bins(statistics: ScoreStatistics, row: int, *, flipped: bool) -> tuple[FloatArray, FloatArray]:
    """How many scores lie in each bin and their mean place in it, of 1 - score if flipped."""
    counts = statistics.bin_counts[row].astype(np.float64)
    places = statistics.bin_excess[row] / (np.maximum(counts, 1.0) * BIN_STEPS)
    return (counts[::-1].copy(), 1.0 - places[::-1]) if flipped else (counts, places)
