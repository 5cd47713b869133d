"""Values in a run's database, typed as they were written; what is none of its kind is a ValueError."""

from __future__ import annotations

import zlib
from base64 import b64decode
from typing import Any

import numpy as np

from certmix.bounds.statistics import ScoreStatistics
from certmix.plain_json import parse_json
from certmix.runs import ImageRecord
from certmix.types import IntArray

__all__ = ["as_record", "as_text", "as_whole", "is_whole"]

_MOST_BYTES = 1 << 26


def as_record(row: tuple[Any, ...], classes: int) -> ImageRecord:
    """Return the record in a row of the table of images."""
    idx, label, checksum, selection, estimation, scores, seconds, device, noise_error, lost, places = row
    looks = {as_whole(int(n)): _votes(votes, classes) for n, votes in parse_json(estimation.encode()).items()}
    soft = {as_whole(int(n)): _scores(text, classes) for n, text in parse_json(scores.encode()).items()}
    chosen = _votes(parse_json(selection.encode()), classes)
    return ImageRecord(
        as_whole(idx),
        as_whole(label),
        as_text(checksum),
        chosen,
        looks,
        float(seconds),
        as_text(device),
        soft,
        float(noise_error),
        float(lost),
        as_whole(places),
    )


def _votes(packed: Any, classes: int) -> IntArray:
    counts = np.zeros(classes, np.int64)
    for key, value in packed.items():
        if not 0 <= int(key) < classes:
            raise ValueError(f"class {key} of {classes}")
        counts[int(key)] = as_whole(value)
    return counts


def _scores(text: str, classes: int) -> ScoreStatistics:
    """The statistics as they were written; their sums are checked elsewhere."""
    plain = parse_json(zlib.decompressobj().decompress(b64decode(text, validate=True), _MOST_BYTES))
    if (plain["version"], plain["scale"]) != (1, 65536):
        raise ValueError(f"score statistics of version {plain['version']}, scale {plain['scale']}")
    arrays = [np.array(plain[name]) for name in ("deviations", "totals", "squares")]
    bins = [np.array(plain[name]) for name in ("bin_counts", "bin_excess")]
    selected, rivals = as_whole(plain["selected"]), tuple(as_whole(rival) for rival in plain["rivals"])
    shapes = [array.shape for array in (*arrays, *bins)]
    if shapes != [(classes,)] * 3 + [(1 + len(rivals), 64)] * 2:
        raise ValueError(f"score statistics of shapes {shapes}")
    if any(array.dtype.kind != "i" for array in (*arrays, *bins)):
        raise ValueError("score statistics that are no whole numbers")
    if len({selected, *rivals}) < 1 + len(rivals) or not all(0 <= i < classes for i in (selected, *rivals)):
        raise ValueError(f"score statistics of classes {selected} and {rivals}")
    return ScoreStatistics(selected, rivals, as_whole(plain["samples"]), *arrays, *bins)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def as_whole(value: Any) -> int:
    """Return a whole number that int64 can hold."""
    if not is_whole(value) or not -(2**62) < value < 2**62:
        raise ValueError(f"{value!r} where a whole number belongs")
    return int(value)


def as_text(value: Any) -> str:
    """Return text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text belongs")
    return value
