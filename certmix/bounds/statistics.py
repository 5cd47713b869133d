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

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError, RunError
from certmix.types import FloatArray, IntArray

__all__ = ["BINS", "ROW_SLACK", "SCALE", "ScoreStatistics", "choose_classes", "merge", "start", "update"]

SCALE = 1 << 16
"""Steps in [0, 1]; a power of two, so that scaling a float is exact."""

BINS = 64
"""Equal bins of [0, 1] that are kept of the selected class and of the followed rivals."""

BIN_STEPS = SCALE // BINS

ROW_SLACK = 2.0**-20
"""How far the scores of one sample may be from adding up to 1; every use of the sum gives it away."""

_VERSION = 1
_ARRAYS = ("totals", "squares", "bin_counts", "bin_excess")
_MOST_SAMPLES = 1 << 30


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """Everything that bounds of one image's mean scores need; see `start` and `update`.

    Parameters
    ----------
    selected
        The class whose mean score is bounded from below.
    rivals
        Followed rivals: classes other than `selected` whose bins are kept.  Like
        `selected` they are chosen before the estimation samples are seen.
    samples
        Number of samples n.
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

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        head = {"version": _VERSION, "scale": SCALE, "selected": self.selected, "rivals": list(self.rivals)}
        return {**head, "samples": self.samples, **arrays}

    @classmethod
    def from_plain(cls, plain: Any) -> ScoreStatistics:
        """Return what `to_plain` wrote.

        Raises
        ------
        RunError
            If the data are of another version or contradict themselves.
        """
        try:
            if (plain["version"], plain["scale"]) != (_VERSION, SCALE):
                raise ValueError(f"version {plain['version']} and scale {plain['scale']}")
            numbers = [int(plain["selected"]), tuple(map(int, plain["rivals"])), int(plain["samples"])]
            found = cls(*numbers, *(np.asarray(plain[name], dtype=np.int64) for name in _ARRAYS))
            _check_consistent(found)
        except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
            found_wrong = str(error).replace("\n", " ")
            raise RunError(f"score statistics are unreadable ({found_wrong}): draw them again") from None
        return found

    def to_bytes(self) -> bytes:
        """Return compressed JSON, the same for equal statistics."""
        return zlib.compress(json.dumps(self.to_plain(), separators=(",", ":")).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> ScoreStatistics:
        """Return what `to_bytes` wrote; RunError if it cannot be read."""
        try:
            plain = json.loads(zlib.decompress(data))
        except (ValueError, zlib.error):
            raise RunError(f"score statistics of {len(data)} bytes are corrupt: draw them again") from None
        return cls.from_plain(plain)


def choose_classes(mean_scores: ArrayLike, rivals: int = 1) -> tuple[int, tuple[int, ...]]:
    """Return the class of largest mean score and the next `rivals` ones, from selection samples.

    Parameters
    ----------
    mean_scores
        (c,): mean (or total) scores over samples that are not used again.
    rivals
        How many rivals to follow, at most c - 1.

    Examples
    --------
    >>> choose_classes([0.1, 0.6, 0.05, 0.25])
    (1, (3,))
    """
    order = np.argsort(-np.asarray(mean_scores, np.float64), kind="stable")
    return int(order[0]), tuple(int(i) for i in order[1 : 1 + rivals])


def start(classes: int, selected: int, rivals: Sequence[int] = ()) -> ScoreStatistics:
    """Return the statistics of no samples.

    Raises
    ------
    ParameterError
        If a class is out of range or named twice.
    """
    named = (int(selected), *map(int, rivals))
    if classes < 2 or len(set(named)) < len(named) or not all(0 <= i < classes for i in named):
        raise ParameterError(
            f"selected class {selected} and rivals {tuple(rivals)} of {classes} classes: "
            "give different classes between 0 and c - 1, with c >= 2"
        )
    sums, bins = np.zeros(classes, np.int64), np.zeros((len(named), BINS), np.int64)
    return ScoreStatistics(named[0], named[1:], 0, sums, sums, bins, bins)


def update(statistics: ScoreStatistics, scores: ArrayLike) -> ScoreStatistics:
    """Return the statistics with a batch of samples added.

    Parameters
    ----------
    statistics
        From `start`, `update` or `merge`.
    scores
        (n, c) floats in [0, 1], one row a noisy copy; each row adds up to 1
        within `ROW_SLACK`, as a softmax in float32 or float64 does.

    Raises
    ------
    ParameterError
        For scores of the wrong shape, outside [0, 1], or rows that do not add up to 1.

    Examples
    --------
    >>> kept = update(start(3, selected=0, rivals=[2]), [[0.7, 0.1, 0.2], [0.9, 0.0, 0.1]])
    >>> kept.samples, kept.means().round(4)
    (2, array([0.8 , 0.05, 0.15]))
    """
    scores = _check_scores(scores, statistics.classes)
    steps = np.ceil(scores * SCALE).astype(np.int64)
    steps[:, statistics.selected] = np.floor(scores[:, statistics.selected] * SCALE)
    followed = steps[:, [statistics.selected, *statistics.rivals]]
    place = np.minimum(followed // BIN_STEPS, BINS - 1)
    excess = followed - place * BIN_STEPS
    shape = statistics.bin_counts.shape
    index = (place + BINS * np.arange(shape[0])).ravel()
    counts = np.bincount(index, minlength=shape[0] * BINS)
    sums = np.bincount(index, excess.ravel(), shape[0] * BINS)  # whole numbers below 2^53: exact
    return _added(
        statistics, len(scores), steps.sum(0), np.einsum("nc,nc->c", steps, steps),
        counts.reshape(shape).astype(np.int64), sums.reshape(shape).astype(np.int64),
    )  # fmt: skip


def merge(one: ScoreStatistics, other: ScoreStatistics) -> ScoreStatistics:
    """Return the statistics of both sets of samples together.

    Raises
    ------
    ParameterError
        If they are about different classes.
    """
    names = [(s.classes, s.selected, s.rivals) for s in (one, other)]
    if names[0] != names[1]:
        raise ParameterError(
            f"statistics about (classes, selected, rivals) {names[0]} and {names[1]}: merge like with like"
        )
    return _added(one, other.samples, *(getattr(other, name) for name in _ARRAYS))


def _added(statistics: ScoreStatistics, samples: int, *arrays: IntArray) -> ScoreStatistics:
    if statistics.samples + samples > _MOST_SAMPLES:
        raise ParameterError(f"more than {_MOST_SAMPLES} samples: int64 sums of squares would overflow")
    pairs = zip(_ARRAYS, arrays, strict=True)
    sums: dict[str, Any] = {name: getattr(statistics, name) + array for name, array in pairs}
    return replace(statistics, samples=statistics.samples + samples, **sums)


def _check_scores(scores: ArrayLike, classes: int) -> FloatArray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise ParameterError(f"scores of shape {scores.shape}: expected (samples, {classes})")
    if not np.all((scores >= 0) & (scores <= 1)):
        raise ParameterError("a score is NaN or outside [0, 1]: give probabilities, such as a softmax")
    worst = np.max(np.abs(scores.sum(1) - 1), initial=0.0)
    if worst > ROW_SLACK:
        raise ParameterError(
            f"scores of one sample miss a sum of 1 by {worst:.3g}, more than {ROW_SLACK:.3g}: "
            "compute the softmax in float64"
        )
    return scores


def _check_consistent(found: ScoreStatistics) -> None:
    start(found.classes, found.selected, found.rivals)
    tracked = [found.selected, *found.rivals]
    shapes = [getattr(found, name).shape for name in _ARRAYS]
    if shapes != [(found.classes,)] * 2 + [(len(tracked), BINS)] * 2:
        raise ValueError(f"arrays of shapes {shapes}")
    totals = (found.bin_counts * (BIN_STEPS * np.arange(BINS)) + found.bin_excess).sum(1)
    if min(getattr(found, name).min() for name in _ARRAYS) < 0 or not (
        0 <= found.samples <= _MOST_SAMPLES
        and np.all(found.totals <= found.samples * SCALE)
        and np.all(found.squares <= found.totals * SCALE)
        and np.all(found.bin_counts.sum(1) == found.samples)
        and np.all(found.bin_excess <= found.bin_counts * BIN_STEPS)
        and np.all(totals == found.totals[tracked])
    ):
        raise ValueError("sums that contradict each other")
