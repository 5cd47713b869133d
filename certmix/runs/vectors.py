"""Numbers of empirical studies in an SQLite database: one row a cell and image, safe at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from certmix.errors import RunError
from certmix.runs.database import Database
from certmix.types import FloatArray

__all__ = ["VectorStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    cell TEXT NOT NULL,
    idx INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (cell, idx)
) WITHOUT ROWID;
"""


class VectorStore(Database):
    """A few float64 numbers for each image in each cell of a study, such as logits under one attack.

    A cell's rows of one batch are written in one transaction; a vector is
    little-endian float64, all of one length within a cell.

    Parameters
    ----------
    path
        Database file, or None for one in memory.
    read_only
        Open an existing file without writing to it.

    Raises
    ------
    RunError
        If it cannot be read as such a database.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        super().__init__(path, _SCHEMA, read_only=read_only)

    def write(self, cell: str, indices: Iterable[int], vectors: FloatArray) -> None:
        """Write vectors (m, k) of the images `indices` into a cell, replacing what was there."""
        rows = [
            (cell, int(index), np.ascontiguousarray(vector, "<f8").tobytes())
            for index, vector in zip(indices, vectors, strict=True)
        ]
        with self._reported(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def cells(self) -> list[str]:
        """Return the names of the cells that hold anything."""
        return [str(row[0]) for row in self._rows("SELECT DISTINCT cell FROM vectors ORDER BY cell")]

    def known(self, cell: str) -> set[int]:
        """Return the indices of the images that a cell holds."""
        found = [row[0] for row in self._rows("SELECT idx FROM vectors WHERE cell = ?", (cell,))]
        if not all(isinstance(index, int) for index in found) or len(set(found)) < len(found):
            raise self._damaged(cell)
        return set(found)

    def read(self, cell: str, indices: Sequence[int]) -> FloatArray:
        """Return a cell's vectors (m, k) of the images `indices`.

        Raises
        ------
        RunError
            If one is missing or damaged.
        """
        rows = dict(self._rows("SELECT idx, vector FROM vectors WHERE cell = ?", (cell,)))
        missing = [int(index) for index in indices if int(index) not in rows]
        if missing:
            raise RunError(
                f"{self._path}: cell {cell!r} lacks {len(missing)} images, such as {missing[0]}: run again"
            )
        if not len(indices):
            return np.empty((0, 0))
        found = [rows[int(index)] for index in indices]
        sizes = {len(raw) if isinstance(raw, bytes) else -1 for raw in found}
        if len(sizes) > 1 or any(size < 8 or size % 8 for size in sizes):
            raise self._damaged(cell)
        return np.stack([np.frombuffer(raw, "<f8") for raw in found]).astype(np.float64)

    def _damaged(self, cell: str) -> RunError:
        return RunError(f"{self._path}: cell {cell!r} is damaged: {self._remedy}")
