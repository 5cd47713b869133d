"""The SQLite database of a run: opened, checked, and with a few remembered values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from certmix.errors import RunError

__all__ = ["Database"]

_META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);"


class Database:
    """An open database; every write is a transaction of its own.

    Parameters
    ----------
    path
        Database file, or None for one in memory.
    schema
        Makes the tables besides ``meta`` where they are missing.
    read_only
        Open an existing file without writing to it, nor beside it.

    Raises
    ------
    RunError
        If it cannot be read as such a database, here or in any method.
    """

    def __init__(self, path: Path | None, schema: str, *, read_only: bool = False) -> None:
        self._path = path
        self._remedy = "restore it from a copy" if read_only else "use --fresh or another --output"
        with self._reported():
            if path is None:
                self._db = sqlite3.connect(":memory:")
            elif read_only:
                self._db = sqlite3.connect(_read_only(path), uri=True)
            else:
                self._db = sqlite3.connect(path)
        try:
            with self._reported():
                if path is not None and not read_only:
                    self._db.execute("PRAGMA journal_mode=WAL")
                    self._db.execute("PRAGMA synchronous=NORMAL")
                if not read_only:
                    self._db.executescript(_META + schema)
                self._check_tables(_META + schema)
        except RunError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def begun(self) -> bool:
        """Return whether any table but that of remembered values holds a row."""
        tables = self._rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'meta'")
        return any(self._rows(f'SELECT 1 FROM "{name}" LIMIT 1') for (name,) in tables)

    def get(self, key: str) -> str | None:
        """Return a remembered value, None if there is none."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def put(self, key: str, value: str) -> None:
        """Remember a value."""
        with self._reported(), self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._reported():
            return self._db.execute(query, parameters).fetchall()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn errors of SQLite into a `RunError`."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # messages that quote the file may be no text
            raise self._unreadable(str(error)) from None

    def _unreadable(self, reason: str) -> RunError:
        told = " ".join(reason.split())[:200]
        return RunError(f"{self._path}: not a readable run database ({told}): {self._remedy}")

    def _check_tables(self, schema: str) -> None:
        """Refuse tables other than the schema's: views, and columns that compute what they show."""
        with closing(sqlite3.connect(":memory:")) as model:
            model.executescript(schema)
            for (name,) in model.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if _columns(self._db, name) != _columns(model, name):
                    raise self._unreadable(f"its table {name} is missing or another")


def _read_only(path: Path) -> str:
    """Return the address that opens a database without making files beside it.

    A reader of a database in WAL mode makes two, unless it is told that nobody
    writes: that is so where no ``-wal`` file lies beside it.
    """
    written = path.with_name(f"{path.name}-wal").exists()
    return f"{path.resolve().as_uri()}?mode=ro{'' if written else '&immutable=1'}"


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    """Return place, name and origin of a table's columns; none for a view."""
    query = (
        "SELECT cid, name, hidden FROM pragma_table_xinfo(?1) "
        "WHERE EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1)"
    )
    return database.execute(query, (table,)).fetchall()
