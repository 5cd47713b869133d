"""Numbers of a run by cell and image, in one SQLite database that is whole at any moment."""

from __future__ import annotations

import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from certmix.bounds.statistics import MOST_SAMPLES, SCALE, ScoreStatistics, from_vector, to_vector
from certmix.errors import RunError
from certmix.types import FloatArray, IntArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    cell TEXT NOT NULL,
    idx INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (cell, idx)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_COLUMNS = {"cells": ["cell", "idx", "dtype", "data"], "facts": ["key", "value"]}
_DTYPES = {"int64": "<i8", "float64": "<f8", "int64 zlib": "<i8"}
_LONG = 512  # bytes from which whole numbers are compressed: votes among many classes are mostly zeros
_FEW = _LONG // 8
_TOGETHER = 2000  # images whose votes are in memory with all zeros at a time
_MOST_BYTES = 1 << 26  # of one vector: score statistics of a million classes are smaller
_LARGEST = 2**63 - 1

INPUT, SAMPLING, SELECTION, VOTES, SCORES = "input", "sampling", "selection", "votes@", "scores@"
"""Cells of a sampled run: of the input (label, SHA-256), of its sampling, and what samples gave."""
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class ImageRecord:
    """What was sampled for one image.

    Parameters
    ----------
    index, label, input_checksum
        Index in the data set's source, class, and SHA-256 of the input's float32 bytes.
    selection
        int64 (c,): votes of the selection samples, or their summed soft scores in steps of 2^-16.
    estimation, scores
        Number of estimation samples -> votes int64 (c,), or statistics of soft scores, cumulative.
    seconds, device
        Wall time spent on sampling, and the device type that drew the newest samples.
    noise_error, lost
        eps: how far a probability under the drawn noise may be from one under the Gaussian; l2 distance
        between the input and the grid point that was sampled, 0 for 8-bit inputs.
    places
        Batch places that the smoothed classifier is the average over: 1 where answers do not depend on them.
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


class Store:
    """A vector of numbers, float64 or int64, for each cell and image, and remembered facts.

    `path` None keeps them in memory; `classes` are those of a run that is sampled; `read_only` opens an
    existing file without writing to it, nor beside it.  Each write is a transaction.  RunError, here or in
    any method, if it cannot be read as such a database.

    >>> store = Store(None)
    >>> store.write("votes@100", [3, 5], np.array([[97, 3], [50, 50]]))
    >>> store.known("votes@100"), store.read("votes@100", [5])
    ({3, 5}, array([[50, 50]]))
    """

    def __init__(self, path: Path | None, classes: int | None = None, *, read_only: bool = False) -> None:
        self._path, self.classes = path, classes
        self._remedy = "restore it from a copy" if read_only else "use --fresh or another --output"
        with self._reported():
            if path is not None and read_only:
                # A reader of a database in WAL mode makes two files beside it, unless it is told that
                # nobody writes: that is so where no -wal file lies there.
                written = path.with_name(f"{path.name}-wal").exists()
                mode = f"mode=ro{'' if written else '&immutable=1'}"
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
            else:
                self._db = sqlite3.connect(path or ":memory:")
        try:
            with self._reported():
                if path is not None and not read_only:
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")
                if not read_only:
                    self._db.executescript(_SCHEMA)
                for table, columns in _COLUMNS.items():  # no views, no columns that compute what they show
                    found = self._db.execute(
                        "SELECT name, hidden FROM pragma_table_xinfo(?1) "
                        "WHERE EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)",
                        (table,),
                    ).fetchall()
                    if found != [(name, 0) for name in columns]:
                        raise self._unreadable(f"its table {table} is missing or another")
        except RunError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def begun(self) -> bool:
        """Return whether any cell holds anything."""
        return bool(self._rows("SELECT 1 FROM cells LIMIT 1"))

    def get(self, key: str) -> str | None:
        """Return a remembered value, None if there is none."""
        return self.facts().get(key)

    def facts(self) -> dict[str, str]:
        """Return all remembered values."""
        found = dict(self._rows("SELECT key, value FROM facts"))
        if not all(isinstance(text, str) for pair in found.items() for text in pair):
            raise self._unreadable("a remembered value that is no text")
        return found

    def put(self, key: str, value: str) -> None:
        """Remember a value."""
        with self._reported(), self._db:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))

    def cells(self) -> list[str]:
        """Return the names of the cells that hold anything."""
        return [str(row[0]) for row in self._rows("SELECT DISTINCT cell FROM cells ORDER BY cell")]

    def known(self, cell: str, among: IntArray | None = None) -> set[int]:
        """Return the indices of the images that a cell holds, of some of them if not of all."""
        query, given = "SELECT idx FROM cells WHERE cell = ?", list[Any]([cell])
        if among is not None and len(among):
            query, given = f"{query} AND idx BETWEEN ? AND ?", [cell, int(among.min()), int(among.max())]
        found = [row[0] for row in self._rows(query, tuple(given))]
        if not all(isinstance(index, int) for index in found) or len(set(found)) < len(found):
            raise self._unreadable(f"cell {cell!r} is damaged")
        return set(found)

    def write(self, cell: str, indices: Iterable[int], vectors: IntArray | FloatArray) -> None:
        """Write vectors (m, k) of the images `indices` into a cell, replacing what was there."""
        self.write_all((cell, int(index), vector) for index, vector in zip(indices, vectors, strict=True))

    def read(self, cell: str, indices: Sequence[int]) -> Any:
        """Return a cell's vectors (m, k) of the images `indices`; RunError if one is missing or damaged."""
        query = "SELECT idx, dtype, data FROM cells WHERE cell = ? AND idx BETWEEN ? AND ?"
        span = (int(min(indices)), int(max(indices))) if len(indices) else (0, -1)
        found = {index: (dtype, data) for index, dtype, data in self._rows(query, (cell, *span))}
        missing = [int(index) for index in indices if int(index) not in found]
        if missing:
            raise RunError(
                f"{self._path}: cell {cell!r} lacks {len(missing)} images, such as {missing[0]}: run again"
            )
        if not len(indices):
            return np.empty((0, 0))
        try:
            vectors = [_unpacked(*found[int(index)]) for index in indices]
        except ValueError:
            vectors = []
        if len({(len(vector), vector.dtype) for vector in vectors}) != 1 or not len(vectors[0]):
            raise self._unreadable(f"cell {cell!r} is damaged")
        return np.stack(vectors)

    def write_images(self, records: Iterable[ImageRecord]) -> None:
        """Write images' records in one transaction, replacing what was there."""
        self.write_all(cell for record in records for cell in cells_of(record))

    def images(self) -> dict[int, ImageRecord]:
        """Return all images' records by index."""
        cells: dict[Any, dict[Any, tuple[Any, Any]]] = {}
        rows = self._rows(
            "SELECT cell, idx, dtype, data FROM cells "
            "WHERE cell IN (?1, ?2, ?3) OR cell GLOB ?4 || '*' OR cell GLOB ?5 || '*'",
            (INPUT, SAMPLING, SELECTION, VOTES, SCORES),
        )
        for cell, index, dtype, data in rows:
            cells.setdefault(cell, {})[index] = dtype, data
        if sum(map(len, cells.values())) < len(rows):
            raise self._unreadable("an image is twice in a cell")
        inputs = self._vectors(INPUT, cells.pop(INPUT, {}), "int64", 5)
        sampling = self._vectors(SAMPLING, cells.pop(SAMPLING, {}), "float64", 5)
        selection = self._votes(SELECTION, cells.pop(SELECTION, {}), self.classes)
        classes = len(next(iter(selection.values()))) if selection else self.classes
        looks: dict[Any, dict[int, Any]] = {index: {} for index in selection}
        scores: dict[Any, dict[int, ScoreStatistics]] = {index: {} for index in selection}
        for cell, stored in sorted(cells.items(), key=lambda pair: self._samples(pair[0])):
            samples = self._samples(cell)
            if not stored.keys() <= selection.keys():
                raise self._unreadable(f"{cell} of an image without selection samples")
            if cell.startswith(VOTES):
                for index, votes in self._votes(cell, stored, classes, packed=True).items():
                    looks[index][samples] = votes
                continue
            for index, vector in self._vectors(cell, stored, "int64", None).items():
                try:
                    found = from_vector(vector)
                    if (found.samples, found.classes) != (samples, classes):
                        raise ValueError("statistics of another number of samples or classes")
                except ValueError as error:
                    raise self._unreadable(f"{cell} of image {index}: {error}") from None
                scores[index][samples] = found
        if not inputs.keys() == sampling.keys() == selection.keys():
            raise self._unreadable("an image without its input, its sampling or its selection samples")
        records = {}
        for index in sorted(selection):
            label, *checksum = inputs[index].tolist()
            noise_error, lost, places, seconds, device = sampling[index].tolist()
            whole = places.is_integer() and 1 <= places <= 1 << 32 and device in (0, 1, 2)
            finite = 0 <= noise_error <= 1 and 0 <= lost < math.inf and 0 <= seconds < math.inf
            if not (label >= 0 and whole and finite):
                raise self._unreadable(f"{INPUT} or {SAMPLING} of image {index}: a value that cannot be")
            records[index] = ImageRecord(
                index, label, np.array(checksum, "<i8").tobytes().hex(), selection[index],
                _Looks(looks[index]), seconds, DEVICES[int(device)], scores[index], noise_error, lost,
                int(places),
            )  # fmt: skip
        return records

    def _samples(self, cell: Any) -> int:
        """Return the number of samples in the name of a cell of votes or of scores."""
        number = str(cell).partition("@")[2]
        if not number.isascii() or not number.isdecimal() or len(number) > 10 or str(int(number)) != number:
            raise self._unreadable(f"cell {cell!r:.40}: no number of samples")
        return int(number)

    def _vectors(
        self, cell: str, stored: dict[Any, tuple[Any, Any]], dtype: str, length: int | None
    ) -> dict[int, Any]:
        """Return a cell's vectors by index, of one kind and length; RunError."""
        sizes = {
            len(data) if kind == dtype and isinstance(data, bytes) else -1 for kind, data in stored.values()
        }
        if not all(isinstance(index, int) and 0 <= index <= _LARGEST for index in stored):
            raise self._unreadable(f"{cell} of an image without a number")
        if sizes == {8 * (length or -1)}:  # many at a time are faster
            raw = b"".join(data for _, data in stored.values())
            matrix = np.frombuffer(raw, _DTYPES[dtype]).reshape(len(stored), -1)
            return dict(zip(stored, matrix.astype(dtype, copy=False), strict=True))
        found = {}
        for index, (kind, data) in stored.items():
            try:
                found[index] = _unpacked(kind, data, dtype, length)
            except ValueError as error:
                raise self._unreadable(f"{cell} of image {index}: {error}") from None
        return found

    def _votes(
        self, cell: str, stored: dict[Any, tuple[Any, Any]], classes: int | None, *, packed: bool = False
    ) -> dict[int, Any]:
        """Return a cell's votes by index, of many classes as they are stored where `packed`; RunError."""
        found: dict[int, Any] = {}
        for begin in range(0, len(stored), _TOGETHER):
            part = dict(islice(stored.items(), begin, begin + _TOGETHER))
            votes = self._vectors(cell, part, "int64", classes)
            sizes = {len(one) for one in votes.values()}
            if classes is None:
                classes = sizes.pop()
            if sizes - {classes} or not classes:
                raise self._unreadable(f"{cell}: votes among different numbers of classes")
            table = np.stack(list(votes.values()))
            bad = (table.min(1) < 0) | (table.max(1) <= 0) | (table.max(1) > MOST_SAMPLES * SCALE)
            if bad.any():
                raise self._unreadable(
                    f"{cell} of image {list(votes)[int(bad.argmax())]}: no votes, or too many"
                )
            found.update(part if packed and classes > _FEW else votes)
        return found

    def standard(self, checksum: str) -> dict[int, FloatArray]:
        """Return the probabilities (c,) stored for a standard classifier, by image index."""
        cell = standard_cell(checksum)
        indices = sorted(self.known(cell))
        if not indices:
            return {}
        found = self.read(cell, indices)
        good = found.dtype == np.float64 and self.classes in (None, found.shape[1])
        if not good or not np.all((found >= 0) & (found <= 1)) or indices[0] < 0:
            raise self._unreadable(f"{cell}: not {self.classes} probabilities of each image")
        return dict(zip(indices, found, strict=True))

    def write_all(self, cells: Iterable[tuple[str, int, Any]]) -> None:
        """Write vectors (k,) by cell and image in one transaction, replacing what was there."""
        rows = [(cell, index, *_packed(vector)) for cell, index, vector in cells]
        with self._reported(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)", rows)

    def _rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._reported():
            return self._db.execute(query, parameters).fetchall()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # messages that quote the file may be no text
            raise self._unreadable(str(error)) from None

    def _unreadable(self, reason: str) -> RunError:
        told = " ".join(reason.split())[:200]
        return RunError(f"{self._path}: not a readable run database ({told}): {self._remedy}")


def standard_cell(checksum: str) -> str:
    """Return the cell of a standard classifier's probabilities."""
    return f"standard {checksum}"


class _Looks(Mapping[int, IntArray]):
    """Number of samples -> votes int64 (c,); those of many classes are unpacked when they are asked for."""

    __slots__ = ("_stored",)

    def __init__(self, stored: dict[int, Any]) -> None:
        self._stored = stored

    def __getitem__(self, samples: int) -> IntArray:
        stored = self._stored[samples]
        votes: IntArray = _unpacked(*stored) if isinstance(stored, tuple) else stored
        return votes

    def __iter__(self) -> Iterator[int]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def cells_of(record: ImageRecord) -> Iterator[tuple[str, int, Any]]:
    """Yield cell, index and vector of all that a record holds."""
    index, checksum = record.index, np.frombuffer(bytes.fromhex(record.input_checksum), "<i8")
    yield INPUT, index, np.array([record.label, *checksum], np.int64)
    device = DEVICES.index(record.device)
    numbers = (record.noise_error, record.lost, record.places, record.seconds, device)
    yield SAMPLING, index, np.array(numbers, np.float64)
    yield SELECTION, index, record.selection
    for samples, votes in record.estimation.items():
        yield f"{VOTES}{samples}", index, votes
    for samples, statistics in record.scores.items():
        yield f"{SCORES}{samples}", index, to_vector(statistics)


def _packed(vector: Any) -> tuple[str, bytes]:
    """Return the dtype and the bytes of a vector."""
    vector = np.asarray(vector)
    if vector.dtype.kind == "f":
        return "float64", np.ascontiguousarray(vector, "<f8").tobytes()
    raw = np.ascontiguousarray(vector, "<i8").tobytes()
    return ("int64 zlib", zlib.compress(raw, 1)) if len(raw) >= _LONG else ("int64", raw)


def _unpacked(dtype: Any, data: Any, wanted: str | None = None, length: int | None = None) -> Any:
    """Return the vector that `_packed` packed; ValueError if it is none, or of another kind or length."""
    if dtype not in _DTYPES or not isinstance(data, bytes):
        raise ValueError("no numbers")
    if dtype.endswith("zlib"):
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(data, _MOST_BYTES)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if not stream.eof:
            raise ValueError("cut off, or too long")
    vector = np.frombuffer(data, _DTYPES[dtype])
    vector = vector.astype(vector.dtype.newbyteorder("="), copy=False)
    if wanted is not None and vector.dtype != wanted:
        raise ValueError(f"numbers of type {vector.dtype}")
    if length is not None and len(vector) != length:
        raise ValueError(f"{len(vector)} numbers, not {length}")
    return vector
