"""Score statistics as plain data and as bytes."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from certmix.bounds.statistics import BIN_STEPS, BINS, MOST_SAMPLES, SCALE, SUMS, ScoreStatistics, start
from certmix.errors import RunError

__all__ = ["from_bytes", "from_plain", "to_bytes", "to_plain"]

_VERSION = 1
_MOST_BYTES = 1 << 26


def to_plain(statistics: ScoreStatistics) -> dict[str, Any]:
    """Return the statistics as plain data for JSON."""
    return {
        "version": _VERSION,
        "scale": SCALE,
        "selected": statistics.selected,
        "rivals": list(statistics.rivals),
        "samples": statistics.samples,
        **{name: getattr(statistics, name).tolist() for name in ("deviations", *SUMS)},
    }


def from_plain(plain: Any) -> ScoreStatistics:
    """Return what `to_plain` wrote.

    Raises
    ------
    RunError
        If the data are of another version, incomplete, or contradict themselves.
    """
    try:
        if (plain["version"], plain["scale"]) != (_VERSION, SCALE):
            raise ValueError(f"version {plain['version']}, scale {plain['scale']}")
        arrays = {name: _whole(plain[name]) for name in ("deviations", *SUMS)}
        rivals = tuple(int(rival) for rival in plain["rivals"])
        found = ScoreStatistics(int(plain["selected"]), rivals, int(plain["samples"]), **arrays)
        _check(found)
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        wrong = " ".join(str(error).split())[:200]
        raise RunError(f"score statistics are unreadable ({wrong}): draw these samples again") from None
    return found


def to_bytes(statistics: ScoreStatistics) -> bytes:
    """Return compressed JSON, the same for equal statistics.

    Examples
    --------
    >>> from certmix.bounds.statistics import start, update
    >>> kept = update(start(2, selected=0), [[0.75, 0.25]])
    >>> from_bytes(to_bytes(kept)).means()
    array([0.75, 0.25])
    """
    return zlib.compress(json.dumps(to_plain(statistics), separators=(",", ":")).encode())


def from_bytes(data: bytes) -> ScoreStatistics:
    """Return what `to_bytes` wrote; RunError if it cannot be read."""
    try:
        plain = json.loads(_expanded(data))
    except (RecursionError, ValueError, zlib.error):
        raise RunError(
            f"score statistics of {len(data)} bytes are corrupt: draw these samples again"
        ) from None
    return from_plain(plain)


def _expanded(data: bytes) -> bytes:
    """Decompress, but not without end: statistics of a million classes are smaller."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, _MOST_BYTES)
    if not stream.eof:
        raise ValueError("cut off, or too long")
    return content


def _whole(values: Any) -> Any:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"numbers of type {array.dtype}")
    return array.astype(np.int64)


def _check(found: ScoreStatistics) -> None:
    """Raise ValueError unless these sums can come from samples."""
    start(found.classes, found.selected, found.rivals, found.deviations.tolist())
    followed = [found.selected, *found.rivals]
    shapes = [getattr(found, name).shape for name in SUMS]
    if shapes != [(found.classes,)] * 2 + [(len(followed), BINS)] * 2:
        raise ValueError(f"arrays of shapes {shapes}")
    totals = (found.bin_counts * (BIN_STEPS * np.arange(BINS)) + found.bin_excess).sum(1)
    if min(getattr(found, name).min() for name in SUMS) < 0 or not (
        0 <= found.samples <= MOST_SAMPLES
        and np.all(found.totals <= found.samples * SCALE)
        and np.all(found.squares <= found.totals * SCALE)
        and np.all(found.bin_counts.sum(1) == found.samples)
        and np.all(found.bin_excess <= found.bin_counts * BIN_STEPS)
        and np.all(totals == found.totals[followed])
    ):
        raise ValueError("sums that contradict each other")
