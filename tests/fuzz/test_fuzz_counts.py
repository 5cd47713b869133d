"""The counts of a run, and the score statistics in them."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz.databases import COLUMNS, SCORES, loose, made_counts, made_vectors, odd_cell
from fuzz.harness import accepted, altered, fuzz, judged, mutated, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.bounds.stored_scores import from_vector, to_vector
from certmix.runs import ImageRecord, Store


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def counts() -> bytes:
    return made_counts()


def is_sound(record: ImageRecord) -> None:
    arrays = [record.selection, *record.estimation.values()]
    assert all(a.shape == (3,) and a.dtype == np.int64 and a.min() >= 0 for a in arrays)
    assert isinstance(record.index, int) and isinstance(record.label, int) and record.label >= 0
    assert 0 <= record.seconds < np.inf and all(n >= 0 for n in record.estimation)
    assert all(s.classes == 3 and s.samples == n for n, s in record.scores.items())


def read_counts(path: Path) -> dict[int, ImageRecord]:
    store = Store(path, 3, read_only=True)
    try:
        found, probabilities = store.images(), store.standard("one")
        store.get("bound")
    finally:
        store.close()
    for record in found.values():
        is_sound(record)
    for row in probabilities.values():
        assert row.shape == (3,) and np.all((row >= 0) & (row <= 1))
    return found


def test_the_counts_are_good_to_begin_with(place: Path, counts: bytes) -> None:
    (place / "numbers.sqlite").write_bytes(counts)
    assert sorted(accepted(lambda: read_counts(place / "numbers.sqlite"), place)) == [3, 9]


@given(st.data())
@fuzz
def test_counts_with_damaged_pages(place: Path, counts: bytes, data: st.DataObject) -> None:
    (place / "numbers.sqlite").write_bytes(data.draw(mutated(counts)))
    judged(lambda: read_counts(place / "numbers.sqlite"), place)


@given(raw)
@fuzz
def test_counts_that_never_were_a_database(place: Path, content: bytes) -> None:
    (place / "numbers.sqlite").write_bytes(content)
    refused(lambda: read_counts(place / "numbers.sqlite"), place)


@given(st.sampled_from(COLUMNS), odd_cell, st.integers(0, 30))
@fuzz
def test_counts_with_odd_cells(place: Path, counts: bytes, column: str, value, row: int) -> None:
    path = place / "numbers.sqlite"
    path.write_bytes(
        altered(loose(counts), "", f"UPDATE cells SET {column} = ? WHERE rowid = ?", (value, row))
    )
    judged(lambda: read_counts(path), place)


def cell(name: str, data: str) -> str:
    return f"UPDATE cells SET data = {data} WHERE cell = '{name}'"


def numbers(*values: float, kind: str = "<i8") -> str:
    return f"x'{np.array(values, kind).tobytes().hex()}'"


PLANTED = {
    "a negative count": cell("selection", numbers(-9, 1, 0)),
    "a class beyond": cell("votes@100", numbers(90, 5, 5, 0)),
    "no votes": cell("selection", numbers(0, 0, 0)),
    "too many votes": cell("selection", numbers(2**62, 0, 0)),
    "half a vote": cell("selection", numbers(0.5, 1, 1, kind="<f8")) + "; UPDATE cells SET dtype = 'float64'",
    "half a number": cell("selection", "x'0011'"),
    "text": cell("selection", "'text'"),
    "nothing": cell("votes@200", "x''"),
    "no zlib": "UPDATE cells SET dtype = 'int64 zlib'",
    "another dtype": "UPDATE cells SET dtype = 'object'",
    "a look that is none": "UPDATE cells SET cell = 'votes@ten' WHERE cell = 'votes@100'",
    "a look with zeros": "UPDATE cells SET cell = 'votes@0100' WHERE cell = 'votes@100'",
    "a negative look": "UPDATE cells SET cell = 'scores@-2' WHERE cell = 'scores@2'",
    "other scores": "UPDATE cells SET cell = 'scores@3' WHERE cell = 'scores@2'",
    "a negative label": cell("input", numbers(-1, 0, 0, 0, 0)),
    "infinite seconds": cell("sampling", numbers(0, 0, 1, np.inf, 0, kind="<f8")),
    "half a place": cell("sampling", numbers(0, 0, 1.5, 1, 0, kind="<f8")),
    "no device": cell("sampling", numbers(0, 0, 1, 1, 9, kind="<f8")),
    "nan": cell("sampling", numbers(np.nan, 0, 1, 1, 0, kind="<f8")),
    "no input": "DELETE FROM cells WHERE cell = 'input'",
    "no selection": "DELETE FROM cells WHERE cell = 'selection'",
    "a negative image": "UPDATE cells SET idx = -idx",
    "no probabilities": cell("standard one", "x''"),
    "probabilities that are none": cell("standard one", numbers(2, -1, 0, kind="<f8")),
    "a fact that is no text": "UPDATE facts SET value = x'ff'",
    "no table": "DROP TABLE cells",
    "no column": "DROP TABLE facts; CREATE TABLE facts (key)",
    "an added column": "ALTER TABLE cells ADD COLUMN more TEXT",
    "a computed column": "ALTER TABLE cells ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))",
    "a view": "ALTER TABLE cells RENAME TO other; CREATE VIEW cells AS SELECT * FROM other",
    "an endless view": """DROP TABLE cells; CREATE VIEW cells AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'input' AS cell, i AS idx, 'int64' AS dtype, x'' AS data FROM n""",
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_of_the_counts(place: Path, counts: bytes, name: str) -> None:
    path = place / "numbers.sqlite"
    path.write_bytes(altered(counts, PLANTED[name]))
    told = refused(lambda: read_counts(path), place)
    assert "numbers.sqlite" in told and len(told) < 500


def test_a_schema_that_is_no_text(place: Path, counts: bytes) -> None:
    content = counts.replace(b"CREATE TABLE cells", b"CREATE TABLE \xff\xce\xcc x")
    (place / "numbers.sqlite").write_bytes(content)
    refused(lambda: read_counts(place / "numbers.sqlite"), place)


def test_rows_of_one_image_twice(place: Path, counts: bytes) -> None:
    path = place / "numbers.sqlite"
    path.write_bytes(altered(loose(counts), "INSERT INTO cells SELECT * FROM cells;"))
    assert "twice" in refused(lambda: read_counts(path), place)


def test_numbers_that_expand_without_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "numbers.sqlite")
    bomb = zlib.compress(bytes(2**26 + 2**20), 1)
    store._db.execute("INSERT INTO cells VALUES ('clean', 1, 'int64 zlib', ?)", (bomb,))
    assert "damaged" in refused(lambda: store.read("clean", [1]))
    store.close()


# any cell


def read_vectors(path: Path) -> list[str]:
    store = Store(path, read_only=True)
    try:
        cells = store.cells()
        for name in cells:
            indices = sorted(store.known(name))
            found = store.read(name, indices)
            assert found.dtype in (np.float64, np.int64) and found.shape[0] == len(indices)
            assert all(isinstance(index, int) for index in indices)
        return cells
    finally:
        store.close()


@given(st.data())
@fuzz
def test_vectors_with_damaged_pages(place: Path, data: st.DataObject) -> None:
    (place / "numbers.sqlite").write_bytes(data.draw(mutated(made_vectors(), made_counts()) | raw))
    judged(lambda: read_vectors(place / "numbers.sqlite"), place)


@given(st.sampled_from(COLUMNS), odd_cell)
@fuzz
def test_vectors_with_odd_cells(place: Path, column: str, value) -> None:
    path = place / "numbers.sqlite"
    path.write_bytes(
        altered(loose(made_vectors()), "", f"UPDATE cells SET {column} = ? WHERE idx = 2", (value,))
    )
    judged(lambda: read_vectors(path), place)


@pytest.mark.parametrize("value", ["NULL", "''", "x''", "x'00'", "'text'", "7"])
def test_planted_faults_of_the_vectors(place: Path, value: str) -> None:
    path = place / "numbers.sqlite"
    path.write_bytes(altered(loose(made_vectors()), f"UPDATE cells SET data = {value} WHERE idx = 2;"))
    assert "damaged" in refused(lambda: read_vectors(path), place)


def test_databases_that_are_folders_or_missing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("folder", "missing"):
        refused(lambda name=name: Store(tmp_path / name, read_only=True), tmp_path)
    refused(lambda: Store(tmp_path / "folder"), tmp_path)


def test_reading_leaves_no_files_beside_a_database_in_wal_mode(tmp_path: Path) -> None:
    store = Store(tmp_path / "numbers.sqlite", 3)
    store.write_image(ImageRecord(3, 0, "c" * 64, np.array([9, 0, 1])))
    store.close()
    assert list(accepted(lambda: read_counts(tmp_path / "numbers.sqlite"), tmp_path)) == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.sqlite"]


def test_a_database_that_is_open_elsewhere_is_read_with_what_is_not_yet_in_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "numbers.sqlite", 3)
    store.write_image(ImageRecord(3, 0, "c" * 64, np.array([9, 0, 1])))
    assert list(read_counts(tmp_path / "numbers.sqlite")) == [3]
    store.close()


# score statistics


@given(st.integers(0, len(to_vector(SCORES)) - 1), st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5))
@fuzz
def test_score_statistics(place_in: int, value: int) -> None:
    vector = to_vector(SCORES)
    vector[place_in] = value
    with contextlib.suppress(ValueError):
        assert from_vector(vector).classes == 3
