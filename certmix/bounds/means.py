"""From lower bounds of a mean to joint bounds (p, q) of soft scores.

A lower bound of the mean of n values in [0, 1] is a function ``(values, failure probability,
enough) -> float``.  Applied to the selected class's scores it gives p; applied to 1 - score it
bounds each rival's mean from above.  q is the largest of these, at the same half of the failure
probability: given the selected class, the true runner-up is one fixed class, and max_i U_i can
fall short of its mean only if its own U does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds.bound import Bound, Pair, check_failure_probability
from certmix.bounds.statistics import BIN_STEPS, ROW_SLACK, SCALE, ScoreStatistics
from certmix.errors import ParameterError
from certmix.types import FloatArray

OUTWARDS = 1e-14
"""Given away by every bound of a mean: more than the rounding errors of its formula."""

_NONE = np.empty(0)


@dataclass(frozen=True, eq=False)
class Values:
    """What is kept of n values in [0, 1]: the sums of them and of their squares in steps of 1 / `SCALE`.

    Of each bin, if any are kept, how many lie in it and their mean place, 0 to 1.  `deviation` is what
    selection samples led to expect.
    """

    n: int
    total: int
    square: int
    deviation: float
    counts: FloatArray
    places: FloatArray

    @property
    def mean(self) -> float:
        """Their average."""
        return self.total / (self.n * SCALE)


def own_values(input: ScoreStatistics) -> Values:
    """Return the selected class's scores."""
    y = input.selected
    return Values(
        input.samples, int(input.totals[y]), int(input.squares[y]), int(input.deviations[y]) / SCALE,
        *_bins(input, 0),
    )  # fmt: skip


def rival_values(input: ScoreStatistics, rival: int) -> Values:
    """Return 1 minus a rival's scores; followed rivals have bins."""
    n, total, square = input.samples, int(input.totals[rival]), int(input.squares[rival])
    counts, places = _NONE, _NONE
    if rival in input.rivals:
        counts, places = _bins(input, 1 + input.rivals.index(rival))
        counts, places = counts[::-1].copy(), 1.0 - places[::-1]
    flipped = n * SCALE**2 - 2 * SCALE * total + square
    return Values(n, n * SCALE - total, flipped, int(input.deviations[rival]) / SCALE, counts, places)


def _bins(input: ScoreStatistics, row: int) -> tuple[FloatArray, FloatArray]:
    counts = input.bin_counts[row].astype(np.float64)
    return counts, input.bin_excess[row] / (np.maximum(counts, 1.0) * BIN_STEPS)


Lower = Callable[[Values, float, float], float]


def mean_bound(name: str, meaning: str, lower: Lower, *, of_mean: bool = False, **more: Any) -> Bound:
    """Return the table's entry of a bound of means; the other parameters are those of `Bound`.

    `lower` takes ``(values, failure probability, enough)`` to a lower bound of the mean, rounded down; what
    exceeds ``enough`` need not be found out: it may return ``enough`` instead.  With `of_mean` the bound
    depends on the average alone and grows with it, so that the rival of the largest average decides.
    """
    compute = partial(_joint, lower=lower, of_mean=of_mean)
    return Bound(name, meaning, "soft", compute, **more)


def _joint(
    inputs: Sequence[ScoreStatistics], failure_probability: float, *, lower: Lower, of_mean: bool
) -> Pair:
    half = check_failure_probability(failure_probability) / 2
    p, q = np.zeros(len(inputs)), np.ones(len(inputs))
    for k, input in enumerate(inputs):
        others = input.others()
        rivals = others[np.argsort(-input.means()[others], kind="stable")].tolist()
        p[k], least = lower(own_values(input), half, 1.0), 1.0
        for rival in rivals[:1] if of_mean else rivals:
            least = min(least, lower(rival_values(input, rival), half, least))
        q[k] = 1.0 - least
    return simplex(p, q, np.array([float(input.classes) for input in inputs]))


def simplex(p: FloatArray, q: FloatArray, classes: FloatArray) -> Pair:
    """Tighten p and q (m,) by the scores' sum of 1, given `ROW_SLACK` away and rounded outwards.

    ``p := max(p, 1 - (c - 1) q)``, then ``q := min(q, 1 - p)``.
    """
    away = ROW_SLACK + OUTWARDS
    p = np.maximum(p, 1.0 - (classes - 1) * q * (1 + OUTWARDS) - away)
    return p, np.minimum(q, 1.0 - p + away)


def check_mean(mean: ArrayLike, samples: int, fewest: int = 1) -> FloatArray:
    """Return means as float64; they must lie in [0, 1] and come from enough samples."""
    values = np.asarray(mean, np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ParameterError("a mean score is NaN or outside [0, 1]: scores must lie in [0, 1]")
    if samples < fewest:
        raise ParameterError(f"samples = {samples}: this bound needs at least {fewest}")
    return values
