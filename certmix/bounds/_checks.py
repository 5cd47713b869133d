"""Validation and small steps that the bounds share."""

from __future__ import annotations

import numpy as np

from certmix.errors import ParameterError
from certmix.types import IntArray

__all__ = ["check_counts", "check_failure_probability", "selected_and_runner_up"]


def check_failure_probability(value: float) -> float:
    """Return it as a float; it must lie strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ParameterError(
            f"failure probability = {value}: it must lie strictly between 0 and 1, for example 0.001"
        )
    return float(value)


def check_counts(counts: IntArray, selected: IntArray) -> tuple[IntArray, IntArray]:
    """Return int64 counts (m, c >= 2) and selected classes (m,), or raise ParameterError."""
    counts, selected = np.asarray(counts), np.asarray(selected)
    if counts.ndim != 2 or counts.shape[1] < 2 or selected.shape != counts.shape[:1]:
        raise ParameterError(
            f"counts of shape {counts.shape} and selected of shape {selected.shape}: "
            "expected (images, classes >= 2) and (images,)"
        )
    if not np.issubdtype(counts.dtype, np.integer) or not np.issubdtype(selected.dtype, np.integer):
        raise ParameterError("counts and selected classes must be integers: convert them to int64")
    if np.any(counts < 0) or np.any(counts.sum(1) < 1):
        raise ParameterError(
            f"counts from {counts.min()}, at least {counts.sum(1).min()} samples an image: "
            "counts must be at least 0 and each image needs at least one sample"
        )
    if np.any((selected < 0) | (selected >= counts.shape[1])):
        raise ParameterError(
            f"selected classes {selected.min()}..{selected.max()}: pass indices in 0..{counts.shape[1] - 1}"
        )
    return counts.astype(np.int64), selected.astype(np.int64)


def selected_and_runner_up(counts: IntArray, selected: IntArray) -> tuple[IntArray, IntArray]:
    """Return the votes of the selected class and the most votes of any other, (m,) each."""
    rows = np.arange(len(counts))
    rivals = counts.copy()
    rivals[rows, selected] = -1
    return counts[rows, selected], rivals.max(1)
