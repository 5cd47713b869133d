"""Bounds at repeated looks: valid whatever made the sampling stop.

Time-uniform bounds hold at every look at once; the others spend the look's share of the failure
probability (`certmix.sampling.schedule.share`).  All looks' bounds hold together, so the best so far may
be used: the largest p and the smallest q.
"""

from __future__ import annotations

from collections.abc import Sequence

from certmix.bounds import BOUNDS, bound_counts, bound_scores
from certmix.bounds.bound import Pair
from certmix.bounds.statistics import ScoreStatistics
from certmix.sampling.schedule import share
from certmix.types import IntArray

__all__ = ["look_bounds", "score_look_bounds"]


def look_bounds(
    bound: str, number: int, counts: IntArray, selected: IntArray, failure_probability: float
) -> Pair:
    """Return p and q, (m,) each, of look `number` of the schedule.

    Parameters
    ----------
    bound
        A bound of votes in `certmix.bounds.BOUNDS`.
    number
        Which look.
    counts, selected
        Cumulative votes int64 (m, c), classes (m,) chosen on other samples.
    failure_probability
        Of all looks together.

    Raises
    ------
    ParameterError
        For an unknown bound or arguments out of range.
    """
    found = bound_counts(counts, selected, _spent(bound, number, failure_probability), bound)
    return found.p_lower, found.q_upper


def score_look_bounds(
    bound: str, number: int, statistics: Sequence[ScoreStatistics], failure_probability: float
) -> Pair:
    """Return p and q of look `number` from each image's cumulative soft scores; see `look_bounds`."""
    found = bound_scores(statistics, _spent(bound, number, failure_probability), bound)
    return found.p_lower, found.q_upper


def _spent(bound: str, number: int, failure_probability: float) -> float:
    uniform = bound in BOUNDS and BOUNDS[bound].time_uniform
    return failure_probability * (1.0 if uniform else share(number))
