"""Workers that are this process, and whether two runs hold the same records, timings aside."""

from __future__ import annotations

import pickle
import sqlite3
from concurrent.futures import Executor, Future
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


class Inline(Executor):
    """An executor whose workers are this process, with all that is sent pickled."""

    def __init__(self, workers: int = 1) -> None:
        self._max_workers, self.sent = workers, []

    def submit(self, function, *args):
        answer, args = Future(), pickle.loads(pickle.dumps(args))
        self.sent += args[-1] if len(args) > 1 else []  # not the question what its device computes
        try:
            answer.set_result(pickle.loads(pickle.dumps(function(*args))))
        except Exception as error:
            answer.set_exception(error)
        return answer
