"""Whether two runs hold the same records, timings aside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def rows(folder: Path) -> list[tuple]:
    """Return all that a run folder stores, without times."""
    query = "SELECT * FROM cells WHERE cell <> 'sampling' ORDER BY cell, idx"
    with closing(sqlite3.connect(f"{(folder / 'numbers.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()
