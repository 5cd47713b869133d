"""Bounds for counts that were looked at again and again: valid whatever made the sampling stop.

A sequential bound is `(look number, counts, selected, failure_probability) ->
(p, q)` for one look.  All looks' bounds hold together, so the best so far may
be used: the largest p and the smallest q.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from certmix.bounds import beta_binomial, clopper_pearson
from certmix.bounds._checks import check_counts
from certmix.bounds.scores import ScoreStatistics, bound_scores
from certmix.errors import ParameterError
from certmix.sampling.schedule import share
from certmix.types import FloatArray, IntArray

__all__ = ["SEQUENTIAL_BOUNDS", "look_bounds", "score_look_bounds", "sequential_split"]

TIME_UNIFORM = frozenset({"betting"})
"""Bounds for scores that hold at all sample sizes at once."""

Pair = tuple[FloatArray, FloatArray]


def _spend_one_sided(number: int, counts: IntArray, selected: IntArray, delta: float) -> Pair:
    found = clopper_pearson.one_sided(counts, selected, delta * share(number))
    return found.p_lower, found.q_upper


def _spend_two_sided(number: int, counts: IntArray, selected: IntArray, delta: float) -> Pair:
    found = clopper_pearson.two_sided(counts, selected, delta * share(number))
    return found.p_lower, found.q_upper


def _mixture(number: int, counts: IntArray, selected: IntArray, delta: float) -> Pair:
    """Time-uniform: it holds at every look at once."""
    found = beta_binomial.fixed(counts, selected, delta)
    return found.p_lower, found.q_upper


SEQUENTIAL_BOUNDS: dict[str, Callable[[int, IntArray, IntArray, float], Pair]] = {
    "clopper-pearson": _spend_one_sided,
    "clopper-pearson-two-sided": _spend_two_sided,
    "beta-binomial": _mixture,
}
"""Sequential bounds by name: what each `--bound` means when sampling stops by itself."""


def look_bounds(
    bound: str, number: int, counts: IntArray, selected: IntArray, failure_probability: float
) -> Pair:
    """Return p and q, (m,) each, of look `number` of the schedule.

    Parameters
    ----------
    bound
        A name in `SEQUENTIAL_BOUNDS`.
    number
        Which look: its share of the failure probability is `certmix.sampling.schedule.share`.
    counts, selected
        Cumulative votes int64 (m, c), classes (m,) chosen on other samples.
    failure_probability
        Of all looks together.

    Raises
    ------
    ParameterError
        For an unknown bound or arguments out of range.
    """
    if bound not in SEQUENTIAL_BOUNDS:
        raise ParameterError(
            f"bound {bound!r} does not allow repeated looks: use one of {', '.join(SEQUENTIAL_BOUNDS)}"
        )
    counts, selected = check_counts(counts, selected)
    return SEQUENTIAL_BOUNDS[bound](number, counts, selected, failure_probability)


def score_look_bounds(
    bound: str, number: int, statistics: Sequence[ScoreStatistics], failure_probability: float
) -> Pair:
    """Return p and q of look `number` from soft scores.

    Time-uniform bounds hold at every look at once; the others spend the look's share.

    Parameters
    ----------
    bound
        A name in `certmix.bounds.scores.SCORE_BOUNDS`.
    number, statistics, failure_probability
        As for `look_bounds`, with each image's cumulative statistics.
    """
    spent = failure_probability if bound in TIME_UNIFORM else failure_probability * share(number)
    found = bound_scores(statistics, spent, bound)
    return found.p_lower, found.q_upper


def sequential_split(bound: str, failure_probability: float) -> dict[str, float]:
    """Return how the failure probability is split between p and q, over all looks."""
    if bound == "clopper-pearson":
        return {"p": failure_probability}
    return {"p": failure_probability / 2, "q": failure_probability / 2}
