"""Databases of a run, and odd values for their cells."""

from __future__ import annotations

import sqlite3
import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from fuzz.harness import altered, scratch
from hypothesis import strategies as st

from certmix.bounds.statistics import start, update
from certmix.runs import ImageRecord, Store

SCORES = update(start(3, 0, (1,)), [[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]])


@cache
def made_counts() -> bytes:
    """A database of two images, not in WAL mode: one file."""
    with scratch() as folder:
        return _counts(folder / "made.sqlite")


def _counts(path: Path) -> bytes:
    store = Store(path, 3)
    for index in (3, 9):
        looks = {100: np.array([90, 0, 10]), 200: np.array([181, 2, 17])}
        record = ImageRecord(
            index, 0, "c" * 64, np.array([9, 0, 1]), looks, 1.5, "cpu", {SCORES.samples: SCORES}
        )
        store.write_image(record)
    store.write_standard("one", [3, 9], np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]))
    store.put("bound", "clopper-pearson")
    store.close()
    return as_one_file(path)


def as_one_file(path: Path) -> bytes:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    content = path.read_bytes()
    path.unlink()
    return content


@cache
def made_vectors() -> bytes:
    """A database of two cells."""
    with scratch() as folder:
        store = Store(folder / "made.sqlite")
        store.write("clean", [1, 2, 5], np.arange(6.0).reshape(3, 2))
        store.write("pgd", [1], np.zeros((1, 2)))
        store.close()
        return as_one_file(folder / "made.sqlite")


odd_cell = st.one_of(
    st.sampled_from(
        [
            None,
            -1,
            2**63 - 1,
            1.5,
            1e308,
            "",
            "x",
            "a\nb",
            "-1",
            "int64",
            "float64",
            "int64 zlib",
            "votes@100",
        ]
    ),
    st.sampled_from(
        [b"", b"\xff", b"\0" * 24, b"\xff" * 24, zlib.compress(bytes(24)), zlib.compress(bytes(2**20))]
    ),
    st.binary(max_size=48),
)
COLUMNS = ("cell", "idx", "dtype", "data")
LOOSE = """CREATE TABLE t (cell, idx, dtype, data); INSERT INTO t SELECT * FROM cells;
    DROP TABLE cells; ALTER TABLE t RENAME TO cells; CREATE TABLE f (key, value); INSERT INTO f SELECT * FROM facts;
    DROP TABLE facts; ALTER TABLE f RENAME TO facts;"""


@lru_cache(maxsize=4)
def loose(database: bytes) -> bytes:
    """The same database without types and constraints, so that its cells hold anything."""
    return altered(database, LOOSE)
