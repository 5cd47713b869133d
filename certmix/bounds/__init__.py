"""From samples to bounds (p, q) that hold together with a stated probability: one table, `BOUNDS`.

p bounds the selected class's smoothed probability from below, q every other class's from above.
Which bound is used must be decided before the estimation samples are seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.bounds.bound import Bound, check_counts, check_failure_probability
from certmix.bounds.statistics import ScoreStatistics
from certmix.errors import ParameterError, check_choice
from certmix.lazy import LazyTable, lazily
from certmix.sampling.schedule import share
from certmix.types import ConfidenceBounds, IntArray

if TYPE_CHECKING:
    from certmix.bounds.clopper_pearson import is_established

__all__ = ["BOUNDS", "Bound", "bound_counts", "bound_scores", "bounds_of", "is_established"]

_OF_VOTES = {
    "clopper-pearson": "certmix.bounds.clopper_pearson:ONE_SIDED",
    "clopper-pearson-two-sided": "certmix.bounds.clopper_pearson:TWO_SIDED",
    "beta-binomial": "certmix.bounds.beta_binomial:BOUND",
}
_OF_MEANS = {
    "betting": "certmix.bounds.betting:BOUND",
    "betting-fixed": "certmix.bounds.betting:FIXED",
    "bernstein": "certmix.bounds.bernstein:BOUND",
    "relative-entropy": "certmix.bounds.hoeffding:ENTROPY",
    "hoeffding": "certmix.bounds.hoeffding:BOUND",
}
_OF_DISTRIBUTIONS = {"layers": "certmix.bounds.layers:BOUND"}
_SHIPPED = _OF_VOTES | _OF_MEANS | _OF_DISTRIBUTIONS

BOUNDS = LazyTable(_SHIPPED)
"""Bounds by name; the first of votes and the first of scores are the defaults."""


__getattr__ = lazily(__name__, {"is_established": "clopper_pearson"})


def bounds_of(scores: str, *, distribution: bool = True) -> LazyTable:
    """Return the bounds of ``hard`` votes or ``soft`` scores, with or without those of distributions."""
    names = {*_OF_VOTES} if scores == "hard" else {*_OF_MEANS, *(_OF_DISTRIBUTIONS if distribution else ())}
    added = (BOUNDS[name] for name in BOUNDS if name not in _SHIPPED)
    names |= {one.name for one in added if one.scores == scores and (distribution or not one.distribution)}
    return LazyTable({name: home for name, home in BOUNDS.data.items() if name in names})


def bound_counts(
    counts: IntArray,
    selected: IntArray,
    failure_probability: float,
    bound: str = "clopper-pearson",
    look: int | None = None,
    *,
    gated: bool = False,
) -> ConfidenceBounds:
    """Return the bounds of a named method from votes; ParameterError for arguments out of range.

    Parameters
    ----------
    counts, selected
        int64 (m, c), votes of fresh samples, and (m,), classes chosen on other samples.
    failure_probability
        Probability, input by input, that p or q is wrong; of all looks together, where there are several.
    bound
        A bound of votes in `BOUNDS`.
    look
        Number of the look, where samples are looked at repeatedly: bounds that are not time-uniform spend
        its share of the failure probability (`certmix.sampling.schedule.share`).  All looks' bounds then hold
        together, whatever made the sampling stop, and the best so far may be used.  None: the number of
        samples was fixed beforehand.
    gated
        The last column of `counts` holds abstentions: votes behind a gate.
    """
    counts, selected = check_counts(counts, selected)
    if gated and counts.shape[1] < 3:
        raise ParameterError("gated votes need a column for each of two classes, and one of abstentions")
    if gated and np.any(selected >= counts.shape[1] - 1):
        raise ParameterError("the selected class is the column of abstentions: choose among the others")
    return _bounded(bounds_of("hard"), bound, look, failure_probability, counts, selected, gated=gated)


def bound_scores(
    statistics: Sequence[ScoreStatistics],
    failure_probability: float,
    bound: str = "betting",
    look: int | None = None,
) -> ConfidenceBounds:
    """Return the bounds of a named method from soft scores, such as softmax outputs; h_i is their mean.

    `statistics` are one for each of m inputs, with samples and the selected class in it; the rest, and the
    errors, are as for `bound_counts`.

    Examples
    --------
    >>> from certmix.bounds.statistics import start, update
    >>> scores = [[0.9, 0.1], [1.0, 0.0], [0.8, 0.2]] * 1000
    >>> bounds = bound_scores([update(start(2, selected=0), scores)], 0.001)
    >>> bool(0.89 < bounds.p_lower[0] < 0.9), bool(0.1 < bounds.q_upper[0] < 0.11)
    (True, True)
    """
    return _bounded(bounds_of("soft", distribution=False), bound, look, failure_probability, statistics)


def bound_behind_gate(bound: str) -> str:
    """Return the bound of votes behind a gate: the two-sided one for ``clopper-pearson``, else the same.

    With q = 1 - p each abstention would count for the rival.  ParameterError if abstentions are not for it.
    """
    name = "clopper-pearson-two-sided" if bound == "clopper-pearson" else bound
    if BOUNDS[name].behind_gate is None:
        able = ", ".join(one for one in bounds_of("hard") if BOUNDS[one].behind_gate is not None)
        raise ParameterError(f"bound {bound!r} is not for votes behind a gate, which may abstain: use {able}")
    return name


def _bounded(
    table: LazyTable, name: str, look: int | None, delta: float, *evidence: Any, gated: bool = False
) -> ConfidenceBounds:
    check_choice("bound", name, table)
    spent = check_failure_probability(delta)
    name = bound_behind_gate(name) if gated else name
    if look is not None and not table[name].time_uniform:
        spent *= share(look)
    compute = table[name].behind_gate if gated else table[name].compute
    p, q = compute(*evidence, spent)
    return ConfidenceBounds(p, q, spent, name, table[name].split(spent))
