"""Databases of a run, and odd values for their cells."""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from fuzz.harness import altered, odd_json, scratch
from hypothesis import strategies as st

from certmix.bounds.statistics import start, update
from certmix.bounds.stored_scores import to_bytes
from certmix.runs import ImageRecord, Store, VectorStore

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
        store = VectorStore(folder / "made.sqlite")
        store.write("clean", [1, 2, 5], np.arange(6.0).reshape(3, 2))
        store.write("pgd", [1], np.zeros((1, 2)))
        store.close()
        return as_one_file(folder / "made.sqlite")


SELECTION, LOOKS = {"0": 9, "2": 1}, {"100": {"0": 90, "2": 10}, "200": {"0": 190, "1": 10}}
STATISTICS = {"2": b64encode(to_bytes(SCORES)).decode()}
odd_cell = st.one_of(
    st.sampled_from(
        [
            None,
            -1,
            2**63 - 1,
            1.5,
            1e308,
            float("inf"),
            "",
            "x",
            "a\nb",
            "-1",
            "null",
            "[]",
            "{}",
            b"\xff",
            b"{}",
        ]
    ),
    odd_json(SELECTION),
    odd_json(LOOKS),
    odd_json(STATISTICS),
)
COLUMNS = (
    "idx", "label", "input_checksum", "selection", "estimation", "scores", "seconds", "device", "noise_error",
    "lost", "places",
)  # fmt: skip


@lru_cache(maxsize=1)
def loose(counts: bytes) -> bytes:
    """The same database without types and constraints, so that its cells hold anything."""
    script = ["DROP VIEW records;"]
    for table, names in (
        ("images", COLUMNS),
        ("standard", ("checksum", "idx", "prediction", "probabilities")),
    ):
        script.append(f"CREATE TABLE t ({', '.join(names)}); INSERT INTO t SELECT * FROM {table};")
        script.append(f"DROP TABLE {table}; ALTER TABLE t RENAME TO {table};")
    return altered(counts, "".join(script))
