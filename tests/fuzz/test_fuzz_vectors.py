"""The vectors of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz.databases import made_counts, made_vectors
from fuzz.harness import accepted, altered, fuzz, judged, mutated, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.runs import Store, VectorStore


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def vectors() -> bytes:
    return made_vectors()


def test_the_vectors_are_good_to_begin_with(place: Path, vectors: bytes) -> None:
    (place / "vectors.sqlite").write_bytes(vectors)
    assert accepted(lambda: read_vectors(place / "vectors.sqlite"), place) == ["clean", "pgd"]


def read_vectors(path: Path) -> list[str]:
    store = VectorStore(path, read_only=True)
    try:
        cells = store.cells()
        for cell in cells:
            indices = sorted(store.known(cell))
            found = store.read(cell, indices)
            assert found.dtype == np.float64 and found.shape[0] == len(indices)
            assert all(isinstance(index, int) for index in indices)
        return cells
    finally:
        store.close()


@given(st.data())
@fuzz
def test_vectors_with_damaged_pages(place: Path, vectors: bytes, data: st.DataObject) -> None:
    (place / "vectors.sqlite").write_bytes(data.draw(mutated(vectors, made_counts()) | raw))
    judged(lambda: read_vectors(place / "vectors.sqlite"), place)


LOOSE = """CREATE TABLE t (cell, idx, vector); INSERT INTO t SELECT * FROM vectors;
    DROP TABLE vectors; ALTER TABLE t RENAME TO vectors;"""
odd_vector = st.sampled_from(
    [None, "x", "", b"", b"1234567", 5, 1.5, b"\xff" * 16, b"\0" * 24, "5", -1, 2**62]
)


@given(st.sampled_from(["cell", "idx", "vector"]), odd_vector)
@fuzz
def test_vectors_with_odd_cells(place: Path, vectors: bytes, column: str, value) -> None:
    path = place / "vectors.sqlite"
    path.write_bytes(altered(vectors, LOOSE, f"UPDATE vectors SET {column} = ? WHERE idx = 2", (value,)))
    judged(lambda: read_vectors(path), place)


@pytest.mark.parametrize("value", ["NULL", "''", "x''", "x'00'", "'text'", "7"])
def test_planted_faults_of_the_vectors(place: Path, vectors: bytes, value: str) -> None:
    path = place / "vectors.sqlite"
    path.write_bytes(altered(vectors, LOOSE + f"UPDATE vectors SET vector = {value} WHERE idx = 2;"))
    assert "damaged" in refused(lambda: read_vectors(path), place)


@pytest.mark.parametrize("kind", [Store, VectorStore])
def test_databases_that_are_folders_or_missing(tmp_path: Path, kind) -> None:
    more = {"classes": 3} if kind is Store else {}
    (tmp_path / "folder").mkdir()
    for name in ("folder", "missing"):
        refused(lambda name=name: kind(tmp_path / name, **more, read_only=True), tmp_path)
    refused(lambda: kind(tmp_path / "folder", **more), tmp_path)
