"""How many rows a log should have, and which of them say the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from certmix.errors import DataError, ParameterError
from certmix.runs.formats import PublishedLog
from certmix.types import IntArray

__all__ = ["Extent", "distinct_rows", "expected_rows"]

DATA_SET_SIZES = {"STL-10": 8_000, "CIFAR": 10_000, "SVHN": 26_032, "ImageNet": 50_000}
"""Test sets that a log may run over: a log that covers most of one is taken to be meant for all of it."""
_MOST = 0.8


@dataclass(frozen=True)
class Extent:
    """How many rows there should be (None if unknown), and how that is known."""

    rows: int | None
    why: str


def distinct_rows(log: PublishedLog) -> tuple[PublishedLog, int]:
    """Return the log with equal rows kept once, and how many were repetitions.

    Raises
    ------
    DataError
        If two rows of one image differ.
    """
    _, first, which = np.unique(log.index, return_index=True, return_inverse=True)
    if len(first) == len(log):
        return log, 0
    same = first[which]
    for column in (log.label, log.predict, log.radius):
        differs = column != column[same]
        if differs.any():
            raise DataError(
                f"{log.source} holds two rows for idx {log.index[differs.argmax()]} that differ: "
                "remove one of them"
            )
    keep = np.sort(first)
    columns = {
        name: getattr(log, name)[keep]
        for name in ("index", "label", "predict", "radius", "lowest", "correct")
    }
    return replace(log, **columns, time=tuple(log.time[i] for i in keep)), len(log) - len(keep)


def expected_rows(index: IntArray, run: dict[str, Any] | None, rows: int | None) -> Extent:
    """Return how many rows a log should have: as stated, as its run planned, or from the spacing of idx."""
    present = len(set(index.tolist()))
    if rows is not None:
        if rows < present:
            raise ParameterError(f"rows = {rows}: there are {present} already; raise --rows")
        return Extent(rows, "as stated")
    if run is not None:
        images, inputs = run["request"]["images"], run["data"]["inputs"]
        return Extent(max(inputs if images == "all" else min(images, inputs), present), "as the run planned")
    ordered = np.unique(index)
    steps = ordered[1:] - ordered[:-1]
    unknown = Extent(None, "how many there should be is not known")
    if len(steps) == 0:
        return unknown
    values, counts = np.unique(steps, return_counts=True)
    step = int(values[counts.argmax()])
    start = int(index.min()) % step
    if np.any(steps % step):
        return unknown
    span = (int(index.max()) - start) // step + 1
    for name, size in DATA_SET_SIZES.items():
        full = math.ceil((size - start) / step)
        if span <= full and span >= _MOST * full:
            return Extent(full, f"every {_ordinal(step)}image of {size:,}, as in {name}")
    return Extent(span, f"from the spacing of idx, {step}") if span > len(steps) + 1 else unknown


def _ordinal(step: int) -> str:
    return "" if step == 1 else f"{step}th "
