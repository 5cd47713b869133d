"""Counts and predictions in an SQLite database: one row an image, safe at any moment."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from certmix.bounds.statistics import ScoreStatistics
from certmix.bounds.stored_scores import from_bytes, to_bytes
from certmix.records.database import Database
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
    device TEXT NOT NULL
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
    """

    index: int
    label: int
    input_checksum: str
    selection: IntArray
    estimation: dict[int, IntArray] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    scores: dict[int, ScoreStatistics] = field(default_factory=dict)

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


def _unpack(packed: dict[str, int], classes: int) -> IntArray:
    counts = np.zeros(classes, np.int64)
    for key, value in packed.items():
        counts[int(key)] = value
    return counts


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
        looks = {str(n): _pack(c) for n, c in sorted(record.estimation.items())}
        scores = {str(n): b64encode(to_bytes(s)).decode() for n, s in sorted(record.scores.items())}
        row = (
            record.index, record.label, record.input_checksum, json.dumps(_pack(record.selection)),
            json.dumps(looks), json.dumps(scores), record.seconds, record.device,
        )  # fmt: skip
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def images(self) -> dict[int, ImageRecord]:
        """Return all images' records by index."""
        found = {}
        for idx, label, checksum, selection, estimation, scores, seconds, device in self._db.execute(
            "SELECT * FROM images ORDER BY idx"
        ):
            looks = {int(n): _unpack(counts, self.classes) for n, counts in json.loads(estimation).items()}
            chosen = _unpack(json.loads(selection), self.classes)
            soft = {int(n): from_bytes(b64decode(s)) for n, s in json.loads(scores).items()}
            found[idx] = ImageRecord(idx, label, checksum, chosen, looks, seconds, device, soft)
        return found

    def write_standard(self, checksum: str, indices: Iterable[int], probabilities: FloatArray) -> None:
        """Write the standard classifier's probabilities (m, c) for the images `indices`."""
        rows = [
            (checksum, int(index), int(row.argmax()), json.dumps(row.tolist()))
            for index, row in zip(indices, probabilities, strict=True)
        ]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO standard VALUES (?, ?, ?, ?)", rows)

    def standard(self, checksum: str) -> dict[int, FloatArray]:
        """Return the probabilities (c,) stored for a standard classifier, by image index."""
        rows = self._db.execute("SELECT idx, probabilities FROM standard WHERE checksum = ?", (checksum,))
        return {idx: np.array(json.loads(text), np.float64) for idx, text in rows}
