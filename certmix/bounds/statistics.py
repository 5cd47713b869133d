"""What is kept of scores in [0, 1]: exact integers, whatever the batches and their order.

A score is rounded once, outwards, to a multiple of 1 / `SCALE`: down for the
selected class, up for every other.  Rounded scores are a function of the noisy
input with values in [0, 1] again, and their means bound the means wanted:
h_y >= E[down(score_y)] and h_i <= E[up(score_i)].  Any valid bound of the
rounded means is therefore a valid bound of h.  Sums, sums of squares and bins
of rounded scores are integers: adding them is associative and commutative, so
that batch size, order, workers and resuming change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.types import FloatArray, IntArray

__all__ = [
    "BINS", "ROW_SLACK", "SCALE", "ScoreStatistics", "add", "from_vector", "plan", "start", "to_vector",
    "update",
]  # fmt: skip

SCALE = 1 << 16
"""Steps in [0, 1]; a power of two, so that scaling a float is exact."""

BINS = 64
"""Equal bins of [0, 1] that are kept of the selected class and of the followed rivals."""

BIN_STEPS = SCALE // BINS

ROW_SLACK = 2.0**-20
"""How far the scores of one sample may be from adding up to 1; every use of the sum gives it away."""

SUMS = ("totals", "squares", "bin_counts", "bin_excess")  # the fields of `ScoreStatistics` that add up
MOST_SAMPLES = 1 << 30  # sums of squares stay below 2^62
_VERSION = 2
_HEAD = 6  # numbers before the arrays: version, scale, selected class, samples, classes, followed rivals


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """Everything that bounds of one input's mean scores need; see `start` and `update`.

    Parameters
    ----------
    selected, rivals
        The class whose mean score is bounded from below, and the followed rivals, whose bins are kept too;
        chosen before the estimation samples are seen.
    deviations
        int64 (c,): standard deviations of the scores as selection samples had them, in
        steps, 0 where unknown.  They tune bets and have no part in validity.
    totals, squares
        int64 (c,): sums of the rounded scores in steps of 1 / `SCALE`, and of their squares.
    bin_counts, bin_excess
        int64 (1 + rivals, `BINS`), for `selected` and each followed rival: how many scores
        fell into each bin, and the sum of their distances from its left edge, in steps.
        Bins are closed on the left, the last one on both sides.
    """

    selected: int
    rivals: tuple[int, ...]
    samples: int
    deviations: IntArray
    totals: IntArray
    squares: IntArray
    bin_counts: IntArray
    bin_excess: IntArray

    @property
    def classes(self) -> int:
        """Number of classes c."""
        return len(self.totals)

    def others(self, *, followed: bool = True) -> IntArray:
        """Return the classes other than the selected one, with or without the followed rivals."""
        gone = [self.selected] if followed else [self.selected, *self.rivals]
        return np.setdiff1d(np.arange(self.classes), gone)

    def means(self) -> FloatArray:
        """Return the means of the rounded scores, (c,); ParameterError if there are no samples."""
        if self.samples < 1:
            raise ParameterError("samples = 0: draw at least one before bounding a mean score")
        return self.totals / (self.samples * SCALE)


def plan(selection: ScoreStatistics, rivals: int = 1) -> ScoreStatistics:
    """Return statistics of no samples whose classes and expected deviations come from selection samples.

    The selected class has the largest mean score, the `rivals` followed rivals the next ones.  The selection
    samples, for example from ``start(c, 0)``, are not used again.

    Examples
    --------
    >>> empty = plan(update(start(4, selected=0), [[0.1, 0.6, 0.05, 0.25]]))
    >>> empty.selected, empty.rivals, empty.samples
    (1, (3,), 0)
    """
    order, n = np.argsort(-selection.means(), kind="stable").tolist(), selection.samples
    pairs = zip(selection.totals.tolist(), selection.squares.tolist(), strict=True)
    # the population variance, with one pseudo-sample of variance 1/16
    steps = [math.isqrt((square - total * total // n + SCALE**2 // 16) // (n + 1)) for total, square in pairs]
    return start(selection.classes, order[0], order[1 : 1 + rivals], steps)


def start(
    classes: int, selected: int, rivals: Sequence[int] = (), deviations: Sequence[int] | None = None
) -> ScoreStatistics:
    """Return the statistics of no samples; see `ScoreStatistics` for the parameters, and `plan`."""
    named = (int(selected), *map(int, rivals))
    if classes < 2 or len(set(named)) < len(named) or not all(0 <= i < classes for i in named):
        found = f"selected class {selected} and rivals {tuple(rivals)} of {classes} classes"
        raise ParameterError(f"{found}: give different classes between 0 and c - 1, with c >= 2")
    expected = np.zeros(classes, np.int64) if deviations is None else np.asarray(deviations)
    if expected.shape != (classes,) or not np.all((expected >= 0) & (expected <= SCALE)):
        raise ParameterError(f"deviations must be {classes} whole numbers in 0..{SCALE}: use plan")
    sums, bins = np.zeros(classes, np.int64), np.zeros((len(named), BINS), np.int64)
    return ScoreStatistics(named[0], named[1:], 0, expected.astype(np.int64), sums, sums, bins, bins)


def update(statistics: ScoreStatistics, scores: ArrayLike) -> ScoreStatistics:
    """Return the statistics with scores (n, c) added: floats in [0, 1], one row a noisy copy.

    Each row adds up to 1 within `ROW_SLACK`, as a softmax in float32 or float64 does; a ParameterError
    refuses others.

    Examples
    --------
    >>> kept = update(start(3, selected=0, rivals=[2]), [[0.7, 0.1, 0.2], [0.9, 0.0, 0.1]])
    >>> kept.samples, kept.means().round(4)
    (2, array([0.8 , 0.05, 0.15]))
    """
    scores, classes = np.asarray(scores, np.float64), statistics.classes
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise ParameterError(f"scores of shape {scores.shape}: expected (samples, {classes})")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ParameterError("a score is NaN or outside [0, 1]: give probabilities, such as a softmax")
    worst = np.max(np.abs(scores.sum(1) - 1), initial=0.0)
    if worst > ROW_SLACK:
        found = f"scores of one sample miss a sum of 1 by {worst:.3g}, more than {ROW_SLACK:.3g}"
        raise ParameterError(f"{found}: compute the softmax in float64")
    steps = np.ceil(scores * SCALE).astype(np.int64)
    steps[:, statistics.selected] = np.floor(scores[:, statistics.selected] * SCALE)
    followed = steps[:, [statistics.selected, *statistics.rivals]]
    place = np.minimum(followed // BIN_STEPS, BINS - 1)
    excess = followed - place * BIN_STEPS
    shape = statistics.bin_counts.shape
    index = (place + BINS * np.arange(shape[0])).ravel()
    counts = np.bincount(index, minlength=shape[0] * BINS)
    sums = np.bincount(index, excess.ravel(), shape[0] * BINS)  # whole numbers below 2^53: exact
    return add(
        statistics, len(scores), steps.sum(0), np.einsum("nc,nc->c", steps, steps), counts.reshape(shape),
        sums.reshape(shape).astype(np.int64),
    )  # fmt: skip


def add(statistics: ScoreStatistics, samples: int, *sums: IntArray) -> ScoreStatistics:
    """Return the statistics of so many samples more, whose `SUMS` are known."""
    samples += statistics.samples
    if samples > MOST_SAMPLES:
        raise ParameterError(f"more than {MOST_SAMPLES} samples: int64 sums of squares would overflow")
    return replace(
        statistics, samples=samples,
        **{name: getattr(statistics, name) + more for name, more in zip(SUMS, sums, strict=True)},
    )  # fmt: skip


def to_vector(statistics: ScoreStatistics) -> IntArray:
    """Return the statistics as int64 numbers, the same for equal statistics."""
    one = statistics
    head = [_VERSION, SCALE, one.selected, one.samples, one.classes, len(one.rivals), *one.rivals]
    arrays = [getattr(one, name).ravel() for name in ("deviations", *SUMS)]
    return np.concatenate([np.array(head, np.int64), *arrays]).astype(np.int64)


def from_vector(vector: IntArray) -> ScoreStatistics:
    """Return what `to_vector` wrote; ValueError if it is of another version, or contradicts itself."""
    if len(vector) < _HEAD or tuple(vector[:2].tolist()) != (_VERSION, SCALE):
        raise ValueError("score statistics of another version or scale")
    selected, samples, classes, followed = vector[2:_HEAD].tolist()
    rows, begin = (1 + followed) * BINS, _HEAD + followed
    if not (classes >= 2 and 0 <= followed < classes and len(vector) == begin + 3 * classes + 2 * rows):
        raise ValueError("score statistics of another length")
    deviations, totals, squares = vector[begin : begin + 3 * classes].reshape(3, -1)
    bins = vector[begin + 3 * classes :].reshape(2, 1 + followed, BINS)
    rivals = tuple(vector[_HEAD:begin].tolist())
    found = ScoreStatistics(selected, rivals, samples, deviations, totals, squares, *bins)
    try:
        start(classes, selected, rivals, deviations.tolist())
    except ParameterError as error:
        raise ValueError(str(error)) from None
    sums = (found.bin_counts * (BIN_STEPS * np.arange(BINS)) + found.bin_excess).sum(1)
    if min(getattr(found, name).min() for name in SUMS) < 0 or not (
        0 <= samples <= MOST_SAMPLES
        and np.all(totals <= samples * SCALE)
        and np.all(squares <= totals * SCALE)
        and np.all(found.bin_counts.sum(1) == samples)
        and np.all(found.bin_excess <= found.bin_counts * BIN_STEPS)
        and np.all(sums == totals[[selected, *rivals]])
    ):
        raise ValueError("score statistics whose sums contradict each other")
    return found
