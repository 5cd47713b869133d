"""Whether two runs hold the same records, timings aside."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def rows(folder: Path) -> list[tuple]:
    """Return all that a run folder stores, without seconds."""
    images = (
        "SELECT idx, label, input_checksum, selection, estimation, scores, device FROM images ORDER BY idx"
    )
    standard = "SELECT * FROM standard ORDER BY checksum, idx"
    with sqlite3.connect(f"{(folder / 'counts.sqlite').as_uri()}?mode=ro", uri=True) as db:
        found = db.execute(images).fetchall() + db.execute(standard).fetchall()
    db.close()
    return found
