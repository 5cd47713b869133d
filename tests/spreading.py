"""Whether two runs hold the same records, timings aside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from certmix.runs import Store


def rows(folder: Path) -> list[tuple]:
    """Return all that a run folder stores, without times."""
    query = "SELECT * FROM cells WHERE cell <> 'sampling' ORDER BY cell, idx"
    with closing(sqlite3.connect(f"{(folder / 'numbers.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def cells(folder: Path) -> dict:
    """Return all vectors of a run: indices and rows by cell."""
    with closing(Store(folder / "numbers.sqlite", read_only=True)) as store:
        indices = {cell: sorted(store.known(cell)) for cell in store.cells()}
        return {cell: (held, store.read(cell, held)) for cell, held in indices.items()}
