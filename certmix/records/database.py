"""The SQLite database of a run: opened, checked, and with a few remembered values."""

from __future__ import annotations

import sqlite3
from pathlib import Path

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
        Open an existing file without writing to it.
    probe
        A query that a readable file must answer when opened read-only; empty for none.

    Raises
    ------
    RunError
        If it cannot be read as such a database.
    """

    def __init__(self, path: Path | None, schema: str, *, read_only: bool = False, probe: str = "") -> None:
        self._path = path
        try:
            if path is None:
                self._db = sqlite3.connect(":memory:")
            elif read_only:
                self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
                self._db.execute(probe)
            else:
                self._db = sqlite3.connect(path)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
            if not read_only:
                self._db.executescript(_META + schema)
        except sqlite3.Error as error:
            raise RunError(
                f"{path}: not a readable run database ({error}): use --fresh or another --output"
            ) from None

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def get(self, key: str) -> str | None:
        """Return a remembered value, None if there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, value: str) -> None:
        """Remember a value."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
