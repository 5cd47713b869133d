"""Numbers of a run by cell and image, in one SQLite database that is whole at any moment."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from certmix.bounds.statistics import MOST_SAMPLES, SCALE, from_vector, to_vector
from certmix.errors import RunError
from certmix.files import open_file, refuse_special
from certmix.runs.records import DEVICES, Answers, ImageRecord, Look, Records, places_of
from certmix.runs.vectors import DTYPES, LONG, packed_vector, unpacked
from certmix.sampling.ballots import Cast
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
_PIECE = 1 << 16  # rows whose bytes SQLite joins at a time, where there are many of them
_MANY = 1 << 27  # bytes
_TOGETHER = 1 << 21  # votes, images times classes, that are in memory with all zeros at a time
_HUGE = 1.7976931348623157e308
_LARGEST = 2**63 - 1
_MOST_WRITES = 2**31 - 1  # SQLite keeps them in 32 bits

_INSERT = "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)"
_BETWEEN = "SELECT idx, dtype, data FROM cells WHERE cell = ? AND idx BETWEEN ? AND ?"
_BLOCK = 4096  # images whose numbers are copied in one transaction
_JOINED = """
SELECT count(*), sum(dtype = ? AND length(data) = ? AND typeof(data) = 'blob' AND typeof(idx) = 'integer'),
max(idx), group_concat(idx), CAST(group_concat(data, '') AS BLOB) FROM
"""
_PLAINLY = f"{_JOINED} cells WHERE {{}}"  # twice as fast
_BY_PIECES = f"{_JOINED} (SELECT idx, dtype, data FROM cells WHERE {{}} ORDER BY idx LIMIT {_PIECE})"

INPUT, SAMPLING, SELECTION, VOTES, SCORES = "input", "sampling", "selection", "votes@", "scores@"
BALLOTS, SELECTION_BALLOTS = "ballots@", "selection ballots"
"""Cells of a sampled run: of the input (label, SHA-256), of its sampling, and what samples gave."""

WRITES = "-writes"
"""Ends the name of a file beside the database: how many transactions it holds, until it is closed well."""
_NO_SPACE = 1 << 20
_FULL = "no space is left", "free space and repeat the command"
_BUSY = "another program uses it", "close that program and repeat the command"
_CLOSED = "it may not be opened", "permit reading and writing in its folder, or copy that and name the copy"
_FAULTS = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_CANTOPEN: _CLOSED,
    sqlite3.SQLITE_PERM: _CLOSED,
    sqlite3.SQLITE_READONLY: (
        "it is read-only", "copy its folder to where you may write, and name the copy; or make it writable"
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk, or its file system, fails",
        "free space if a quota is used up, else copy the folder to another disk, and repeat the command",
    ),
    sqlite3.SQLITE_NOMEM: ("memory is short", "end other programs and repeat the command"),
}  # fmt: skip
"""SQLite's result code -> what is the matter, and what to do: no fault of the numbers, which stay."""


class Store:
    """A vector of numbers, float64 or int64, for each cell and image, and remembered facts.

    `path` None keeps them in memory; `classes` are those of a run that is sampled; `read_only` opens an
    existing file without writing to it, nor beside it; `alone` takes no locks, where the file system has
    none.  Each write is a transaction, after which `wrote` is told its cells.  `lost` counts transactions
    that were there once, such as those of a ``-wal`` file that was not copied.  RunError, here or in any
    method, if it cannot be read as such a database.

    >>> store = Store(None)
    >>> store.write("votes@100", [3, 5], np.array([[97, 3], [50, 50]]))
    >>> store.known("votes@100"), store.read("votes@100", [5])
    ({3, 5}, array([[50, 50]]))
    """

    _held: tuple[Any, Records] | None = None

    def __init__(
        self, path: Path | None, classes: int | None = None, *, read_only: bool = False, alone: bool = False
    ) -> None:
        self.classes, self._read_only, self._alone = classes, read_only, alone
        self.wrote: Callable[[set[str]], None] = lambda cells: None
        self.open(path)

    def open(self, path: Path | None) -> None:
        """Open the database, also after it was closed and moved."""
        self._path, self._remedy, self._held = path, "use --fresh or another --output", None
        query = ""
        if self._read_only:
            self._remedy = "restore it from a copy"
        try:
            for end in ("", "-wal", "-shm", "-journal") if path is not None else ():
                refuse_special(self._beside(end))  # SQLite would wait for a pipe
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from None
        if self._read_only:
            # A reader of a database in WAL mode makes two files beside it, unless it is told that
            # nobody writes: that is so where no -wal file lies there.
            written = path is not None and path.with_name(f"{path.name}-wal").exists()
            query = f"?mode=ro{'' if written else '&immutable=1'}"
        elif self._alone:
            query = "?vfs=unix-none"
        with self._reported():
            if path is None:
                self._db = sqlite3.connect(":memory:")
            else:
                self._db = sqlite3.connect(f"{path.absolute().as_uri()}{query}", uri=True)
        try:
            with self._reported():
                if path is not None and not self._read_only:
                    if self._alone:  # else WAL needs memory that processes share, and locks of it
                        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")
                if not self._read_only:
                    self._db.executescript(_SCHEMA)
                self._writes = int(self._rows("PRAGMA user_version")[0][0])
                self.lost = max(0, self._promised() - self._writes)
                for table, columns in _COLUMNS.items():  # no views, no columns that compute what they show
                    found = self._db.execute(
                        "SELECT name, hidden FROM pragma_table_xinfo(?1) "
                        "WHERE EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)",
                        (table,),
                    ).fetchall()
                    if found != [(name, 0) for name in columns]:
                        gone = f", and {self.lost} writes with it: its -wal file was not copied"
                        raise self._unreadable(
                            f"its table {table} is missing or another{gone if self.lost else ''}"
                        )
        except RunError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()
        if self._path is not None and not self._read_only and not self._beside("-wal").exists():
            self._beside(WRITES).unlink(missing_ok=True)

    def _beside(self, end: str) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}{end}")

    def _promised(self) -> int:
        """Return how many transactions the database held when it was last written to, 0 if closed well."""
        with suppress(OSError, ValueError):
            if self._path is not None and (path := self._beside(WRITES)).is_file():
                with open_file(path) as file:
                    return int(file.read(20))
        return 0

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
        self._commit("INSERT OR REPLACE INTO facts VALUES (?, ?)", [(key, value)])

    def cells(self) -> list[str]:
        """Return the names of the cells that hold anything."""
        if not self._indexed:
            return [str(row[0]) for row in self._rows("SELECT DISTINCT cell FROM cells ORDER BY cell")]
        found: list[str] = []
        while True:
            after = found[-1] if found else ""
            name = self._rows("SELECT min(cell) FROM cells WHERE cell > ?", (after,))[0][0]
            if name is None:
                return found
            if not isinstance(name, str) or name <= after:
                raise self._unreadable("cells that have no names")
            found.append(name)

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

    def read(self, cell: str, indices: Sequence[int] | IntArray) -> Any:
        """Return a cell's vectors (m, k) of the images `indices`; RunError if one is missing or damaged."""
        if not len(indices):
            return np.empty((0, 0))
        held, vectors = self.column(cell, among=(int(min(indices)), int(max(indices))))
        places = places_of(held, indices)
        if (missing := np.flatnonzero(places < 0)).size:
            raise RunError(
                f"{self._path}: cell {cell!r} lacks {missing.size} inputs, such as {indices[missing[0]]}: "
                "run again"
            )
        if not isinstance(vectors, np.ndarray) or not vectors.shape[1]:
            raise self._unreadable(f"cell {cell!r} is damaged")
        return vectors[places]

    def column(
        self,
        cell: str,
        dtype: str | None = None,
        width: int | None = None,
        *,
        among: tuple[int, int] | None = None,
        packed: bool = False,
    ) -> tuple[IntArray, Any]:
        """Return the images (k,) of a cell, increasing, and their vectors (k, w): a list if lengths differ.

        RunError where one is of another kind or width, unless None is given; `among` are the least and the
        largest index, None for all.  Where `packed`, vectors stay as they are stored, in a list.
        """
        index, vectors = self._joined(cell, among) or self._one_by_one(cell, among, dtype, width, packed)
        if not len(index):
            return index, np.empty((0, width or 0), dtype)
        if index[0] < 0:
            raise self._unreadable(f"{cell} of an input without a number")
        if isinstance(vectors, np.ndarray):
            if dtype not in (None, str(vectors.dtype)):
                raise self._unreadable(f"{cell}: numbers of type {vectors.dtype}")
            if width not in (None, vectors.shape[1]):
                raise self._unreadable(f"{cell}: {vectors.shape[1]} numbers an input, not {width}")
        return index, vectors

    @property
    def _indexed(self) -> bool:
        """Whether a search for a cell and an image is fast, as in a database of our own."""
        keys = self._rows("SELECT pk FROM pragma_table_xinfo('cells')")
        return [row[0] for row in keys] == [1, 2, 0, 0] and self._rows("PRAGMA encoding") == [("UTF-8",)]

    def _joined(self, cell: str, among: tuple[int, int] | None) -> tuple[IntArray, Any] | None:
        """Return a cell whose vectors have one kind and length and are not compressed, else None.

        SQLite joins their bytes, which is several times faster than a Python object for each.
        """
        if not self._indexed:
            return None
        (low, high), indices, pieces = among or (None, None), list[IntArray](), list[bytes]()

        def query(select: str, *before: Any) -> Any:
            given = [
                (a, b) for a, b in (("cell =", cell), ("idx >=", low), ("idx <=", high)) if b is not None
            ]
            where = " AND ".join(f"{condition} ?" for condition, _ in given)
            asked = (*before, *(value for _, value in given))
            return self._db.execute(select.format(where), asked).fetchone()

        try:
            kind = query("SELECT dtype, length(data) FROM cells WHERE {} LIMIT 1")
            if kind is None:
                return np.empty(0, np.int64), np.empty((0, 0))
            if kind[0] not in ("int64", "float64") or not kind[1] or kind[1] % 8:
                return None
            first, last = (query(f"SELECT {end}(idx) FROM cells WHERE {{}}")[0] for end in ("min", "max"))
            few = (last - first + 1) * kind[1] <= _MANY
            while True:
                count, good, last, names, raw = query(_PLAINLY if few else _BY_PIECES, *kind)
                if good != count and count:
                    return None
                if count:
                    indices.append(np.fromstring(names, np.int64, sep=","))
                    pieces.append(raw)
                if few or count < _PIECE or last == _LARGEST:
                    break
                low = last + 1
        except (
            TypeError,
            sqlite3.Error,
        ):  # a value too long; or damage, which is named one by one
            return None
        index = np.concatenate([np.empty(0, np.int64), *indices])
        if np.any(np.diff(index) <= 0) or sum(map(len, pieces)) != len(index) * kind[1]:
            return None
        values = np.frombuffer(b"".join(pieces), DTYPES[kind[0]]).reshape(len(index), -1)
        return index, values.astype(values.dtype.newbyteorder("="), copy=False)

    def _one_by_one(
        self, cell: str, among: tuple[int, int] | None, dtype: str | None, width: int | None, packed: bool
    ) -> tuple[IntArray, Any]:
        """Return a cell's images and vectors; RunError names an image whose numbers are damaged."""
        query, given = "SELECT idx, dtype, data FROM cells WHERE cell = ?", (cell, *(among or ()))
        rows = self._rows(f"{query}{' AND idx BETWEEN ? AND ?' if among else ''} ORDER BY idx", given)
        if not all(isinstance(index, int) for index, _, _ in rows):
            raise self._unreadable(f"{cell} of an input without a number")
        index, vectors = np.array([row[0] for row in rows], np.int64), []
        if np.any(np.diff(index) == 0):
            raise self._unreadable("an input is twice in a cell")
        if packed:
            return index, rows
        for row in rows:
            vectors.append(self._unpacked(cell, row, dtype, width))
        alike = len({(len(vector), vector.dtype) for vector in vectors}) == 1
        return index, np.stack(vectors) if alike else vectors

    def _unpacked(self, cell: str, row: Any, dtype: str | None, width: int | None) -> Any:
        number, kind, data = row
        try:
            return unpacked(kind, data, dtype, width)
        except ValueError as error:
            raise self._unreadable(f"{cell} of input {number} is damaged: {error}") from None

    def write_images(self, records: Iterable[ImageRecord]) -> None:
        """Write images' records in one transaction, replacing what was there."""
        self.write_all(cell for record in records for cell in cells_of(record))

    def copy(self, source: Store, images: IntArray) -> None:
        """Write all that another store holds of sampled images (k,): a block of them a transaction."""
        for rows in _blocks(source, images):
            self._held = None
            self._commit(_INSERT, rows)
            self.wrote({row[0] for row in rows})

    def holds_only(self, parts: Sequence[tuple[Store, IntArray]]) -> bool:
        """Return whether all that is known of sampled images is what other stores hold, of some each."""
        cells, same = [cell for cell in self.cells() if is_of_image(cell)], 0
        for source, images in parts if cells else ():
            for rows in _blocks(self, images):
                low, high = min(row[1] for row in rows), max(row[1] for row in rows)
                held = {
                    (cell, index): (kind, data)
                    for cell in cells
                    for index, kind, data in source._rows(_BETWEEN, (cell, low, high))
                }
                if not all(held.get(row[:2]) == row[2:] for row in rows):
                    return False
                same += len(rows)
        return same == sum(len(self.known(cell)) for cell in cells)

    def records(self, *, ballots: bool = False) -> Records:
        """Return all images' records, by index, with or without their ballots.

        They are read again only after something was written.
        """
        state = self._rows("PRAGMA data_version"), ballots  # raised by writes of others
        if self._held is None or self._held[0] != state:
            self._held = state, self._all_records(ballots)
        return self._held[1]

    def _all_records(self, ballots: bool) -> Records:
        cells = self.cells()
        (index, inputs), (also, sampling) = (
            self.column(INPUT, "int64", 5),
            self.column(SAMPLING, "float64", 5),
        )
        chosen, selection = self._votes(SELECTION, self.classes)
        if not (np.array_equal(chosen, index) and np.array_equal(chosen, also)):
            raise self._unreadable("an input without its input, its sampling or its selection samples")
        classes = selection.shape[1] if len(index) else self.classes
        noise_error, lost, places, seconds, device = sampling.T
        good = (inputs[:, 0] >= 0) & (places == np.floor(places)) & (device == np.floor(device))
        ranges = ((0, noise_error, 1), (1, places, 1 << 32), (0, device, len(DEVICES) - 1))
        for low, values, most in (*ranges, (0, lost, _HUGE), (0, seconds, _HUGE)):
            good &= (values >= low) & (values <= most)
        if not good.all():
            wrong = f"{INPUT} or {SAMPLING} of input {index[good.argmin()]}"
            raise self._unreadable(f"{wrong}: a value that cannot be")
        looks: dict[str, dict[int, Look]] = {VOTES: {}, SCORES: {}}
        for kind, found in looks.items():
            for samples, cell in sorted((self._samples(one), one) for one in cells if one.startswith(kind)):
                if kind == VOTES:
                    of, kept = self._votes(cell, classes, packed=True)
                else:
                    of, kept = self._statistics(cell, samples, classes)
                rows = places_of(index, of)
                if len(rows) and rows.min() < 0:
                    raise self._unreadable(f"{cell} of an input without selection samples")
                found[samples] = Look(rows, np.arange(len(rows)), kept)
        sums, casts = np.ascontiguousarray(inputs[:, 1:], "<i8"), dict[int, Look]()
        chosen_ballots = None if len(index) else Cast.of([])
        wanted = [one for one in cells if one.startswith(BALLOTS) or one == SELECTION_BALLOTS]
        for cell in wanted if ballots else ():
            of, cast = self._cast(cell, classes or 0)
            rows = places_of(index, of)
            if len(rows) and rows.min() < 0:
                raise self._unreadable(f"{cell} of an input without selection samples")
            if cell != SELECTION_BALLOTS:
                casts[self._samples(cell)] = Look(rows, np.arange(len(rows)), cast)
            elif len(rows) == len(index):
                chosen_ballots = cast
        return Records(
            index, inputs[:, 0], lambda row: sums[row].tobytes().hex(), selection, seconds,
            device.astype(np.int64), noise_error, lost, places.astype(np.int64), looks[VOTES], looks[SCORES],
            casts, chosen_ballots,
        )  # fmt: skip

    def _cast(self, cell: str, classes: int) -> tuple[IntArray, Cast]:
        """Return a cell's images and ballots; RunError names an image whose ballots are damaged."""
        index, rows = self._one_by_one(cell, None, None, None, packed=True)
        for number, kind, data in rows:
            if kind != "uint32" or not isinstance(data, bytes) or len(data) % 4:
                raise self._unreadable(f"{cell} of input {number} is damaged: no ballots")
        numbers = np.frombuffer(b"".join(data for _, _, data in rows), "<u4")
        lengths = np.array([len(data) // 4 for _, _, data in rows], np.int64)
        cast, bad = Cast.from_vectors(numbers, lengths, classes)
        if len(bad):
            raise self._unreadable(f"{cell} of input {index[bad[0]]} is damaged: no ballots of its classes")
        return index, cast

    def _votes(self, cell: str, classes: int | None, *, packed: bool = False) -> tuple[IntArray, Any]:
        """Return a cell's images and votes (k, c): of many classes in a list, as stored, where `packed`."""
        index, votes = self.column(cell, "int64", classes, packed=packed and 8 * (classes or 0) >= LONG)
        step = max(1, _TOGETHER // (classes or 1))
        for begin in range(0, len(index), step):
            table = votes[begin : begin + step]
            if isinstance(table, list) and packed:
                table = np.stack([self._unpacked(cell, row, "int64", classes) for row in table])
            if isinstance(table, list):
                raise self._unreadable(f"{cell}: votes among different numbers of classes")
            good = table.min() >= 0 and table.max() <= MOST_SAMPLES * SCALE and table.any(1).all()
            if not good:
                bad = (table.min(1) < 0) | (table.max(1) <= 0) | (table.max(1) > MOST_SAMPLES * SCALE)
                wrong = index[begin + int(bad.argmax())]
                raise self._unreadable(f"{cell} of input {wrong}: no votes, or too many")
        return index, votes

    def _statistics(self, cell: str, samples: int, classes: int | None) -> tuple[IntArray, list[Any]]:
        """Return a cell's images and score statistics."""
        (index, vectors), found = self.column(cell, "int64"), []
        for one, vector in zip(index.tolist(), vectors, strict=True):
            try:
                found.append(from_vector(vector))
                if (found[-1].samples, found[-1].classes) != (samples, classes):
                    raise ValueError("statistics of another number of samples or classes")
            except ValueError as error:
                raise self._unreadable(f"{cell} of input {one}: {error}") from None
        return index, found

    def images(self, *, ballots: bool = False) -> dict[int, ImageRecord]:
        """Return all images' records by index, with or without their ballots."""
        return {record.index: record for record in self.records(ballots=ballots)}

    def _samples(self, cell: Any) -> int:
        """Return the number of samples in the name of a cell of votes or of scores."""
        number = str(cell).partition("@")[2]
        if not number.isascii() or not number.isdecimal() or len(number) > 10 or str(int(number)) != number:
            raise self._unreadable(f"cell {cell!r:.40}: no number of samples")
        return int(number)

    def standard(self, checksum: str) -> Answers:
        """Return the probabilities (c,) stored for a standard classifier, by image index."""
        cell = standard_cell(checksum)
        index, found = self.column(cell, "float64")
        if len(index):
            good = isinstance(found, np.ndarray) and self.classes in (None, found.shape[1])
            if not good or not np.all((found >= 0) & (found <= 1)):
                raise self._unreadable(f"{cell}: not {self.classes} probabilities of each input")
        return Answers(index, found)

    def write_all(self, cells: Iterable[tuple[str, int, Any]]) -> None:
        """Write vectors (k,) by cell and image in one transaction, replacing what was there."""
        rows = [(cell, index, *packed_vector(vector)) for cell, index, vector in cells]
        if rows:
            self._held = None
            self._commit(_INSERT, rows)
            self.wrote({row[0] for row in rows})

    def _commit(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Write rows in one transaction, and beside the database how many there were by then."""
        writes = self._writes + 1 & _MOST_WRITES
        with self._reported(), self._db:
            self._db.executemany(statement, rows)
            self._db.execute(f"PRAGMA user_version = {writes}")
        self._writes = writes
        if self._path is None:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.open(self._beside(WRITES), flags, 0o666)
            try:
                os.write(file, b"%020d" % writes)
            finally:
                os.close(file)
        except FileNotFoundError:
            folder = self._path.parent
            raise RunError(
                f"{folder} was moved or deleted while it was in use: put it back and repeat the command"
            ) from None
        except OSError:  # of a full disk: the numbers are stored
            pass

    def _rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._reported():
            return self._db.execute(query, parameters).fetchall()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # messages that quote the file may be no text
            fault = _FAULTS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if fault is None or self._path is None:
                raise self._unreadable(str(error)) from None
            if fault is _CLOSED and self._read_only and not self._path.exists():
                raise RunError(f"{self._path} is missing: {self._remedy}") from None
            if fault in (_CLOSED, _FAULTS[sqlite3.SQLITE_IOERR]):
                with suppress(OSError):  # what lies beside the database wants space even to read it
                    free = shutil.disk_usage(self._path.parent).free
                    fault = _FULL if free < _NO_SPACE else fault
            raise RunError(
                f"{self._path}: {fault[0]} ({error}): {fault[1]}; it keeps all that it held"
            ) from None

    def _unreadable(self, reason: str) -> RunError:
        told = " ".join(reason.split())[:200]
        return RunError(f"{self._path}: not a readable run database ({told}): {self._remedy}")


def standard_cell(checksum: str) -> str:
    """Return the cell of a standard classifier's probabilities."""
    return f"standard {checksum}"


def is_look(cell: str) -> bool:
    """Whether a cell holds what a table is made of: no input, no selection, no standard model's outputs."""
    return cell not in (INPUT, SAMPLING, SELECTION, SELECTION_BALLOTS) and not cell.startswith("standard ")


def is_of_image(cell: str) -> bool:
    """Whether a cell is one of those that `cells_of` gives."""
    return cell in (INPUT, SAMPLING, SELECTION, SELECTION_BALLOTS) or cell.startswith(
        (VOTES, SCORES, BALLOTS)
    )


def _blocks(store: Store, images: IntArray) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows that a store holds of sampled images (k,), those of a block of images at a time."""
    cells, ordered = [cell for cell in store.cells() if is_of_image(cell)], np.sort(images)
    for begin in range(0, len(ordered), _BLOCK):
        block = ordered[begin : begin + _BLOCK].tolist()
        wanted, given = set(block), (block[0], block[-1])
        rows = [
            (cell, *row)
            for cell in cells
            for row in store._rows(_BETWEEN, (cell, *given))
            if row[0] in wanted
        ]
        if rows:
            yield rows


def cells_of(record: ImageRecord) -> Iterator[tuple[str, int, Any]]:
    """Yield cell, index and vector of all that a record holds."""
    index, checksum = record.index, np.frombuffer(bytes.fromhex(record.input_checksum), "<i8")
    yield INPUT, index, np.array([record.label, *checksum], np.int64)
    device = DEVICES.index(record.device)
    numbers = (record.noise_error, record.lost, record.places, record.seconds, device)
    yield SAMPLING, index, np.array(numbers, np.float64)
    yield SELECTION, index, record.selection
    if record.selection_ballots is not None:
        yield SELECTION_BALLOTS, index, record.selection_ballots.as_vector()
    for samples, ballots in record.ballots.items():
        yield f"{BALLOTS}{samples}", index, ballots.as_vector()
    for samples, votes in record.estimation.items():
        yield f"{VOTES}{samples}", index, votes
    for samples, statistics in record.scores.items():
        yield f"{SCORES}{samples}", index, to_vector(statistics)
