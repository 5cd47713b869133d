"""Vectors of numbers by cell and input, in one SQLite database that is whole at any moment."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import RunError, brief
from certmix.files import COPY_IT, LINK_OUT, leads_out, open_file, refuse_special, remedy_of
from certmix.runs.records import places_of
from certmix.runs.vectors import Kept, Row, packed_vector, unpacked
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
_BLOCKS = """
CREATE {} TABLE IF NOT EXISTS blocks (
    cell TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    inputs BLOB NOT NULL,
    lengths BLOB NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (cell, first)
);
"""
_COLUMNS = {
    "cells": ["cell", "idx", "dtype", "data"],
    "facts": ["key", "value"],
    "blocks": ["cell", "first", "last", "dtype", "inputs", "lengths", "data"],
}
_MOST_WRITES = 2**31 - 1  # SQLite keeps them in 32 bits
_EVERY = -(2**63), 2**63 - 1  # inputs

INSERT = "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM cells WHERE cell = ? AND idx BETWEEN ? AND ?"
_SINGLE = "SELECT idx, dtype, data FROM cells WHERE cell = ?{} ORDER BY idx"
_NEXT = _SINGLE.format(" AND idx > ? AND typeof(idx) = 'integer'") + " LIMIT ?"
_INSERT_BLOCK = "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)"
_DELETE_BLOCK = "DELETE FROM blocks WHERE cell = ? AND first = ?"
_BETWEEN = """
SELECT first, last, dtype, inputs, lengths, data FROM blocks
WHERE cell = ? AND last >= ? AND first <= ? ORDER BY first
"""
_UNFILLED = "SELECT max(last) FROM blocks WHERE cell = ? AND last < ? AND length(inputs) < ?"
Statement = tuple[str, list[tuple[Any, ...]]]
"""SQL, and the rows that it is done for."""

WRITES = "-writes"
"""Ends the name of a file beside the database: how many transactions it holds, until it is closed well."""
_NO_SPACE = 1 << 20
_LONGEST = 500
"""Bytes of a path that SQLite opens where it is not Windows: 512 with what ends the name of its journal."""
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


def refuse_long(path: Path) -> None:
    """Refuse a path that is longer than SQLite opens: OSError."""
    if os.name != "nt" and len(os.fsencode(path.absolute())) > _LONGEST:
        raise OSError(errno.ENAMETOOLONG, "its path is too long for a database", str(path))


def moved(path: Path) -> RunError:
    """Return the error of a run's file or folder that is no longer where it was opened."""
    gone = path if os.path.exists(path.parent) else path.parent
    return RunError(f"{gone} was moved or deleted while it was in use: put it back and repeat the command")


class Database:
    """A vector of numbers, float64 or int64, for each cell and input, and remembered facts.

    Vectors are written one by one; `gather` puts those of many inputs together in blocks.  One that is
    written later counts instead of that in a block.

    `path` None keeps them in memory; `read_only` opens an existing file without writing to it, nor beside it,
    and sees it as it was when it was first read; `alone` takes no locks, where the file system has none. Each
    write is a transaction, after which `wrote` is told its cells.  `lost` counts transactions that were there
    once, such as those of a ``-wal`` file that was not copied.  RunError, here or in any method, if it cannot
    be read as such a database.
    """

    block = 1024
    """Inputs whose vectors are put together."""

    def __init__(self, path: Path | None, *, read_only: bool = False, alone: bool = False) -> None:
        self._read_only, self._alone, self._version = read_only, alone, 0
        self.wrote: Callable[[set[str]], None] = lambda cells: None
        self.open(path)

    def open(self, path: Path | None) -> None:
        """Open the database, also after it was closed and moved."""
        self._path, self._remedy = path, "use --fresh or another --output"
        query = ""
        if self._read_only:
            self._remedy = "restore it from a copy"
        try:
            if path is not None:
                refuse_long(path)
            for end in ("", "-wal", "-shm", "-journal") if path is not None else ():
                beside = self._beside(end)
                if leads_out(beside.parent, beside.name):
                    self._remedy = COPY_IT
                    raise self._unreadable(f"{beside.name} {LINK_OUT}")
                refuse_special(beside)  # SQLite would wait for a pipe
        except OSError as error:
            self._remedy = remedy_of(error, self._remedy)
            raise self._unreadable(error.strerror or str(error)) from None
        if self._read_only:
            # A reader of a database in WAL mode makes two files beside it, unless it is told that
            # nobody writes: that is so where no -wal file lies there.
            written = path is not None and os.path.exists(path.with_name(f"{path.name}-wal"))
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
                    self._db.executescript(_SCHEMA + _BLOCKS.format(""))
                self._writes = int(self._rows("PRAGMA user_version")[0][0])
                self.lost = max(0, self._promised() - self._writes)
                for table, columns in _COLUMNS.items():  # no views, no columns that compute what they show
                    found = self._db.execute(
                        "SELECT name, hidden FROM pragma_table_xinfo(?1) "
                        "WHERE EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)",
                        (table,),
                    ).fetchall()
                    if table == "blocks" and not found and self._read_only:
                        self._db.executescript(_BLOCKS.format("TEMP"))  # of an older certmix: it has none
                    elif found != [(name, 0) for name in columns]:
                        gone = f", and {self.lost} writes with it: its -wal file was not copied"
                        raise self._unreadable(
                            f"its table {table} is missing or another{gone if self.lost else ''}"
                        )
                if self._read_only:  # all is read as it is at one moment, while others write
                    self._db.execute("BEGIN")
        except RunError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()
        with suppress(OSError):  # what says how much was written stays if nothing can be seen of the rest
            if self._path is not None and not self._read_only and not self._beside("-wal").exists():
                self._beside(WRITES).unlink(missing_ok=True)

    def _beside(self, end: str) -> Path:
        assert self._path is not None
        return self._path.with_name(f"{self._path.name}{end}")

    def _promised(self) -> int:
        """Return how many transactions the database held when it was last written to, 0 if closed well."""
        with suppress(OSError, ValueError):
            if self._path is not None and os.path.isfile(path := self._beside(WRITES)):
                with open_file(path) as file:
                    return int(file.read(20))
        return 0

    def begun(self) -> bool:
        """Return whether any cell holds anything."""
        return any(self._rows(f"SELECT 1 FROM {table} LIMIT 1") for table in ("cells", "blocks"))

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
        self._commit(("INSERT OR REPLACE INTO facts VALUES (?, ?)", [(key, value)]))

    def cells(self) -> list[str]:
        """Return the names of the cells that hold anything."""
        found = {row[0] for row in self._rows("SELECT DISTINCT cell FROM blocks")}
        if [row[0] for row in self._rows("SELECT pk FROM pragma_table_xinfo('cells')")] == [1, 2, 0, 0]:
            name: Any = ""
            while isinstance(name, str):
                after, name = name, self._rows("SELECT min(cell) FROM cells WHERE cell > ?", (name,))[0][0]
                if isinstance(name, str) and name <= after:
                    raise self._unreadable("cells that have no names")
                found |= {name} - {None}
        else:  # no database of our own: each search would go through all of it
            found |= {row[0] for row in self._rows("SELECT DISTINCT cell FROM cells")}
        if not all(isinstance(name, str) for name in found):
            raise self._unreadable("cells that have no names")
        return sorted(found)

    def known(self, cell: str, among: IntArray | None = None) -> set[int]:
        """Return the indices of the inputs that a cell holds, of some of them if not of all."""
        query, ends = "SELECT idx FROM cells WHERE cell = ?", _EVERY
        if some := among is not None and len(among) > 0:
            assert among is not None
            query, ends = f"{query} AND idx BETWEEN ? AND ?", (int(among.min()), int(among.max()))
        found = [row[0] for row in self._rows(query, (cell, *ends[: 2 * some]))]
        if not all(isinstance(index, int) for index in found) or len(set(found)) < len(found):
            raise self._unreadable(f"cell {cell!r} is damaged")
        for block in self._blocks(cell, ends):
            found += block.between(ends).tolist()
        return set(found)

    def write(self, cell: str, indices: Iterable[int], vectors: IntArray | FloatArray) -> None:
        """Write vectors (m, k) of the inputs `indices` into a cell, replacing what was there."""
        self.write_all((cell, int(index), vector) for index, vector in zip(indices, vectors, strict=True))

    def write_all(self, cells: Iterable[tuple[str, int, Any]]) -> None:
        """Write vectors (k,) by cell and input in one transaction, replacing what was there."""
        if rows := [(cell, index, *packed_vector(vector)) for cell, index, vector in cells]:
            self._commit((INSERT, rows))
            self.wrote({row[0] for row in rows})

    def gather(self) -> None:
        """Put vectors together that were written one by one, where there are many: they are read faster.

        Each transaction moves those of some inputs in one cell: whatever ends it, nothing is lost.
        """
        moved = False
        for cell in self.cells():
            [(single,)] = self._rows("SELECT count(*) FROM cells WHERE cell = ?", (cell,))
            [(held,)] = self._rows("SELECT sum(length(inputs)) FROM blocks WHERE cell = ?", (cell,))
            last, enough = -1, single and single + (held or 0) // 8 >= self.block
            while enough and (rows := self._rows(_NEXT, (cell, last, self.block))):
                last = rows[-1][0]
                if statements := self.in_blocks(cell, rows):
                    self._commit(*statements)
                    moved = True
        if moved:  # a full disk is said now: nobody hears of it when the database is closed
            self._rows("PRAGMA wal_checkpoint")

    def in_blocks(self, cell: str, rows: Sequence[Row]) -> list[Statement]:
        """Return what writes vectors, by increasing input, into a cell's blocks; nothing if kinds differ.

        They are all that the cell holds by themselves from the first to the last, or more.
        """
        first, last = rows[0][0], rows[-1][0]
        [(before,)] = self._rows(_UNFILLED, (cell, first, 8 * self.block))
        old = self._blocks(cell, (first if before is None else before, last))
        ordered = rows
        if old:
            held = {row[0]: row for part in old for row in part.rows()} | {row[0]: row for row in rows}
            ordered = [held[index] for index in sorted(held)]
        if len({kind for _, kind, _ in ordered}) > 1:
            return []
        try:
            begins = range(0, len(ordered), self.block)
            new = [Kept.of(ordered[begin : begin + self.block]) for begin in begins]
        except ValueError as error:
            raise self._unreadable(f"{cell} {error}") from None
        return [
            (_DELETE_BLOCK, [(cell, int(part.indices[0])) for part in old]),
            (_DELETE, [(cell, first, last)]),
            (_INSERT_BLOCK, [(cell, *part.as_block()) for part in new]),
        ]

    def read(self, cell: str, indices: Sequence[int] | IntArray) -> Any:
        """Return a cell's vectors (m, k) of the inputs `indices`; RunError if one is missing or damaged."""
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
        """Return the inputs (k,) of a cell, increasing, and their vectors (k, w): a list if lengths differ.

        RunError where one is of another kind or width, unless None is given; `among` are the least and the
        largest index, None for all.  Where `packed`, vectors that are not alike, or compressed, stay as they
        are stored, in a list.
        """
        kept = self.kept(cell, among)
        if not len(kept.indices):
            return kept.indices, np.empty((0, width or 0), dtype)
        if (vectors := kept.alike()) is None:
            rows = list(kept.rows())
            if packed:
                return kept.indices, rows
            vectors = [self._unpacked(cell, row, dtype, width) for row in rows]
            if len({(len(vector), vector.dtype) for vector in vectors}) > 1:
                return kept.indices, vectors
            vectors = np.stack(vectors)
        if dtype not in (None, str(vectors.dtype)):
            raise self._unreadable(f"{cell}: numbers of type {vectors.dtype}")
        if width not in (None, vectors.shape[1]):
            raise self._unreadable(f"{cell}: {vectors.shape[1]} numbers an input, not {width}")
        return kept.indices, vectors

    def _unpacked(self, cell: str, row: Row, dtype: str | None, width: int | None) -> Any:
        number, kind, data = row
        try:
            return unpacked(kind, data, dtype, width)
        except ValueError as error:
            raise self._unreadable(f"{cell} of input {number} is damaged: {error}") from None

    def kept(self, cell: str, among: tuple[int, int] | None = None) -> Kept:
        """Return a cell's vectors as they are kept, of all inputs or between two; RunError if damaged."""
        query = _SINGLE.format(" AND idx BETWEEN ? AND ?" if among else "")
        rows, blocks = self._rows(query, (cell, *(among or ()))), self._blocks(cell, among or _EVERY)
        try:
            single, together = Kept.of(rows), Kept.joined(blocks)
        except ValueError as error:
            raise self._unreadable(f"{cell} {error}") from None
        for part in (single, together):
            if np.any(np.diff(part.indices) <= 0):
                raise self._unreadable("an input is twice in a cell")
            if len(part.indices) and part.indices[0] < 0:
                raise self._unreadable(f"{cell} of an input without a number")
        low, high = among or _EVERY
        if not rows and len(together.between((low, high))) == len(together.indices):
            return together
        held = {row[0]: row for part in (together, single) for row in part.rows() if low <= row[0] <= high}
        return Kept.of([held[index] for index in sorted(held)]) if blocks else single

    def _blocks(self, cell: str, among: tuple[int, int]) -> list[Kept]:
        """Return a cell's blocks that hold inputs between two."""
        try:
            return [Kept.from_block(row) for row in self._rows(_BETWEEN, (cell, *among))]
        except ValueError as error:
            raise self._unreadable(f"{cell} {error}") from None

    def _commit(self, *statements: Statement) -> None:
        """Write rows in one transaction, and beside the database how many there were by then."""
        writes = self._writes + 1 & _MOST_WRITES
        self._version += 1
        with self._reported(), self._db:
            for statement, rows in statements:
                self._db.executemany(statement, rows)
            self._db.execute(f"PRAGMA user_version = {writes}")
        self._writes = writes
        if self._path is None:
            return
        try:
            os.stat(self._path)  # rows of a file that was deleted are written, and gone
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.open(self._beside(WRITES), flags, 0o666)
            try:
                os.write(file, b"%020d" % writes)
            finally:
                os.close(file)
        except FileNotFoundError:
            raise moved(self._path) from None
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
            if fault is _CLOSED and self._read_only and not os.path.exists(self._path):
                raise RunError(f"{self._path} is missing: {self._remedy}") from None
            elsewhere = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED
            if elsewhere or (hasattr(self, "_db") and not os.path.exists(self._path.parent)):
                raise moved(self._path) from None
            if fault in (_CLOSED, _FAULTS[sqlite3.SQLITE_IOERR]):
                with suppress(OSError):  # what lies beside the database wants space even to read it
                    free = shutil.disk_usage(self._path.parent).free
                    fault = _FULL if free < _NO_SPACE else fault
            raise RunError(
                f"{self._path}: {fault[0]} ({error}): {fault[1]}; it keeps all that it held"
            ) from None

    def _unreadable(self, reason: str) -> RunError:
        told = brief(reason)
        return RunError(f"{self._path}: not a readable run database ({told}): {self._remedy}")
