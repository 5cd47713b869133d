"""Score statistics as one vector of whole numbers, as runs keep them."""

from __future__ import annotations

import numpy as np

from certmix.bounds.statistics import BIN_STEPS, BINS, MOST_SAMPLES, SCALE, SUMS, ScoreStatistics, start
from certmix.errors import ParameterError
from certmix.types import IntArray

_VERSION = 2
_HEAD = 6
"""Numbers before the arrays: version, scale, selected class, samples, classes, followed rivals."""


def to_vector(statistics: ScoreStatistics) -> IntArray:
    """Return the statistics as int64 numbers, the same for equal statistics.

    Examples
    --------
    >>> from certmix.bounds.statistics import start, update
    >>> kept = update(start(2, selected=0), [[0.75, 0.25]])
    >>> from_vector(to_vector(kept)).means()
    array([0.75, 0.25])
    """
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
