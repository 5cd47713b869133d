"""Counts and predictions in an SQLite database: one row an image, safe at any moment."""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from certmix.bounds.statistics import MOST_SAMPLES, SCALE, ScoreStatistics
from certmix.bounds.stored_scores import from_bytes, to_bytes
from certmix.errors import RunError
from certmix.runs.database import Database
from certmix.runs.looks import SparseLooks
from certmix.types import FloatArray, IntArray

__all__ = ["ImageRecord", "Store"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    idx INTEGER PRIMARY KEY,
    label INTEGER NOT NULL,
    input_checksum TEXT NOT NULL,
    selection TEXT NOT NULL,
    estimation TEXT NOT NULL,
    scores TEXT NOT NULL,
    seconds REAL NOT NULL,
    device TEXT NOT NULL,
    noise_error REAL NOT NULL,
    lost REAL NOT NULL,
    places INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS standard (
    checksum TEXT NOT NULL,
    idx INTEGER NOT NULL,
    prediction INTEGER NOT NULL,
    probabilities TEXT NOT NULL,
    PRIMARY KEY (checksum, idx)
);
CREATE VIEW IF NOT EXISTS records AS
    SELECT images.idx, label, standard.checksum AS standard_checksum, prediction AS standard_prediction,
           probabilities AS standard_probabilities, selection, estimation, seconds
    FROM images LEFT JOIN standard ON standard.idx = images.idx;
"""
_LARGEST = 2**63 - 1
_FEW = 64
"""Classes up to which counts are kept with their zeros: that is faster."""


@dataclass(frozen=True)
class ImageRecord:
    """What was sampled for one image.

    Parameters
    ----------
    index, label
        Index in the data set's source, and class.
    input_checksum
        SHA-256 of the input's float32 bytes.
    selection
        int64 (c,): votes of the selection samples, or their summed soft scores in steps of 2^-16.
    estimation
        Number of estimation samples -> votes int64 (c,), cumulative: one entry a look.
    seconds
        Wall time spent on sampling.
    device
        Device type that drew the newest samples.
    scores
        The same for soft scores: number of samples -> statistics.
    noise_error
        eps: how far a probability under the drawn noise may be from one under the Gaussian.
    lost
        l2 distance between the input and the grid point that was sampled; 0 for 8-bit inputs.
    places
        Batch places that the smoothed classifier is the average over: 1 where a row's
        answer does not depend on its place.
    """

    index: int
    label: int
    input_checksum: str
    selection: IntArray
    estimation: Mapping[int, IntArray] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    scores: dict[int, ScoreStatistics] = field(default_factory=dict)
    noise_error: float = 0.0
    lost: float = 0.0
    places: int = 1

    @property
    def selected(self) -> int:
        """The class that the selection samples chose."""
        return int(self.selection.argmax())

    @property
    def drawn(self) -> int:
        """Estimation samples drawn so far."""
        return max(self.estimation, default=0)


def _pack(counts: IntArray) -> dict[str, int]:
    return {str(i): int(counts[i]) for i in np.flatnonzero(counts)}


def _row(record: ImageRecord) -> tuple[Any, ...]:
    """Return a record as `Store.write_images` writes it."""
    looks = {str(n): _pack(c) for n, c in sorted(record.estimation.items())}
    scores = {str(n): b64encode(to_bytes(s)).decode() for n, s in sorted(record.scores.items())}
    return (
        record.index, record.label, record.input_checksum, json.dumps(_pack(record.selection)),
        json.dumps(looks), json.dumps(scores), record.seconds, record.device,
        record.noise_error, record.lost, record.places,
    )  # fmt: skip


def _unpack(packed: Any, classes: int) -> IntArray:
    counts = np.zeros(classes, np.int64)
    for key, value in packed.items():
        if not 0 <= int(key) < classes:
            raise ValueError(f"class {key} of {classes}")
        counts[int(key)] = _whole(value, MOST_SAMPLES * SCALE)
    if not counts.any():
        raise ValueError("no votes")
    return counts


def _whole(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} where a whole number from 0 to {most} belongs")
    return value


class Store(Database):
    """The database of one run; every write is a transaction of its own.

    Counts are JSON objects, class -> votes, without zeros: readable with any
    SQLite tool, and small for many classes.

    Parameters
    ----------
    path
        Database file, or None for one in memory.
    classes
        Number of classes.
    read_only
        Open an existing file without writing to it.
    """

    def __init__(self, path: Path | None, classes: int, *, read_only: bool = False) -> None:
        self.classes = classes
        super().__init__(path, _SCHEMA, read_only=read_only)

    def write_image(self, record: ImageRecord) -> None:
        """Write one image's counts, replacing what was there."""
        self.write_images([record])

    def write_images(self, records: Iterable[ImageRecord]) -> None:
        """Write images' counts in one transaction, replacing what was there."""
        with self._reported(), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, records)
            )

    def images(self) -> dict[int, ImageRecord]:
        """Return all images' records by index."""
        rows = self._rows("SELECT * FROM images ORDER BY idx")
        found = {record.index: record for record in map(self._record, rows)}
        if len(found) < len(rows):
            raise self._unreadable("an image has several rows")
        return found

    def _record(self, row: tuple[Any, ...]) -> ImageRecord:
        """Return a row of ``images``; RunError if it is not as `write_image` writes it."""
        index, label, checksum, selection, estimation, scores, seconds, device, *noise = row
        try:
            looks = {
                _whole(int(n), MOST_SAMPLES): _unpack(counts, self.classes)
                for n, counts in json.loads(estimation).items()
            }
            soft = {int(n): from_bytes(b64decode(s)) for n, s in json.loads(scores).items()}
            if any(n != s.samples or s.classes != self.classes for n, s in soft.items()):
                raise ValueError("score statistics of another number of samples or classes")
            chosen = _unpack(json.loads(selection), self.classes)
            index, label = _whole(index, _LARGEST), _whole(label, _LARGEST)
            if not isinstance(checksum, str) or not isinstance(device, str) or not 0 <= seconds < math.inf:
                raise ValueError("a value of the wrong type")
            noise_error, lost, places = noise
            if not (0 <= noise_error <= 1 and 0 <= lost < math.inf and _whole(places, 1 << 32) >= 1):
                raise ValueError("an error of the noise that cannot be")
        except (ArithmeticError, AttributeError, RecursionError, RunError, TypeError, ValueError) as error:
            raise self._unreadable(f"the row of image {index!r:.30}: {error}") from None
        kept = SparseLooks(looks, self.classes) if self.classes > _FEW else looks
        return ImageRecord(
            index, label, checksum, chosen, kept, float(seconds), device, soft, float(noise_error),
            float(lost), places,
        )  # fmt: skip

    def write_standard(self, checksum: str, indices: Iterable[int], probabilities: FloatArray) -> None:
        """Write the standard classifier's probabilities (m, c) for the images `indices`."""
        rows = [
            (checksum, int(index), int(row.argmax()), json.dumps(row.tolist()))
            for index, row in zip(indices, probabilities, strict=True)
        ]
        with self._reported(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO standard VALUES (?, ?, ?, ?)", rows)

    def standard(self, checksum: str) -> dict[int, FloatArray]:
        """Return the probabilities (c,) stored for a standard classifier, by image index."""
        rows = self._rows("SELECT idx, probabilities FROM standard WHERE checksum = ?", (checksum,))
        return {index: self._probabilities(index, text) for index, text in rows}

    def _probabilities(self, index: Any, text: Any) -> FloatArray:
        """Return a row of ``standard``; RunError if it is not as `write_standard` writes it."""
        try:
            _whole(index, _LARGEST)
            found = np.array(json.loads(text))
        except (RecursionError, TypeError, ValueError) as error:
            raise self._unreadable(f"the probabilities of image {index!r:.30}: {error}") from None
        good = found.shape == (self.classes,) and found.dtype.kind in "if"
        if not good or not np.all((found >= 0) & (found <= 1)):
            raise self._unreadable(f"the probabilities of image {index} are not {self.classes} of them")
        return found.astype(np.float64)
