"""From mean scores to bounds (p, q) that hold with a stated probability: one table.

For soft smoothing: the score of class i at a noisy copy is a probability, such
as a softmax output, and h_i is its mean.  A bound is
`(statistics of each image, failure_probability) -> ConfidenceBounds`.  Which
one is used must be decided before the estimation samples are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from certmix.bounds import bernstein, betting, hoeffding
from certmix.bounds._checks import check_failure_probability
from certmix.bounds.statistics import ROW_SLACK, ScoreStatistics, merge, plan, start, update
from certmix.errors import ParameterError
from certmix.types import ConfidenceBounds, FloatArray

__all__ = [
    "SCORE_BOUNDS",
    "ScoreStatistics",
    "bound_scores",
    "merge",
    "plan",
    "start",
    "update",
]

Side = Callable[[ScoreStatistics, float], float]
ScoreBound = Callable[[Sequence[ScoreStatistics], float], ConfidenceBounds]

_ROUNDING = 1e-14


def simplex(p: FloatArray, q: FloatArray, classes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Tighten p and q (m,) by the scores' sum of 1, given `ROW_SLACK` away and rounded outwards.

    ``p := max(p, 1 - (c - 1) q)``, then ``q := min(q, 1 - p)``.
    """
    away = ROW_SLACK + _ROUNDING
    p = np.maximum(p, 1.0 - (classes - 1) * q * (1 + _ROUNDING) - away)
    return p, np.minimum(q, 1.0 - p + away)


def _joint(
    statistics: Sequence[ScoreStatistics], failure_probability: float, *, name: str, lower: Side, upper: Side
) -> ConfidenceBounds:
    """p at half of the failure probability, and q = max_i U_i at the other half, image by image.

    No division by the number of rivals: given the selected class, the true
    runner-up is one fixed class, and max_i U_i can fall short of its mean only
    if its own U does.
    """
    half = check_failure_probability(failure_probability) / 2
    p = np.array([lower(image, half) for image in statistics])
    q = np.array([upper(image, half) for image in statistics])
    p, q = simplex(p, q, np.array([float(image.classes) for image in statistics]))
    return ConfidenceBounds(p, q, failure_probability, name, {"p": half, "q": half})


_SIDES: dict[str, tuple[Side, Side]] = {
    "betting": (betting.selected_lower, betting.rival_upper),
    "betting-fixed": (
        partial(betting.selected_lower, tuned=True),
        partial(betting.rival_upper, tuned=True),
    ),
    "bernstein": (bernstein.selected_lower, bernstein.rival_upper),
    "relative-entropy": (hoeffding.entropy_selected_lower, hoeffding.entropy_rival_upper),
    "hoeffding": (hoeffding.selected_lower, hoeffding.rival_upper),
}

SCORE_BOUNDS: dict[str, ScoreBound] = {
    name: partial(_joint, name=name, lower=lower, upper=upper) for name, (lower, upper) in _SIDES.items()
}
"""Bounds for mean scores by name; the first is the default."""


def bound_scores(
    statistics: Sequence[ScoreStatistics], failure_probability: float, bound: str = "betting"
) -> ConfidenceBounds:
    """Return the bounds of a named method for each image's statistics; see `SCORE_BOUNDS`.

    Parameters
    ----------
    statistics
        One for each of m images, with the selected class in it.  All bounds but
        ``betting`` need a number of samples that was fixed beforehand.
    failure_probability
        Probability, image by image, that p or q is wrong.

    Raises
    ------
    ParameterError
        For an unknown bound, statistics without samples, or arguments out of range.

    Examples
    --------
    >>> scores = [[0.9, 0.1], [1.0, 0.0], [0.8, 0.2]] * 1000
    >>> bounds = bound_scores([update(start(2, selected=0), scores)], 0.001)
    >>> bool(0.89 < bounds.p_lower[0] < 0.9), bool(0.1 < bounds.q_upper[0] < 0.11)
    (True, True)
    """
    if bound not in SCORE_BOUNDS:
        raise ParameterError(f"bound {bound!r} is unknown: use one of {', '.join(SCORE_BOUNDS)}")
    return SCORE_BOUNDS[bound](statistics, failure_probability)
