"""Databases of a run: what no reader may take for counts, and score statistics."""

from __future__ import annotations

import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fuzz.harness import accepted, altered, lay, loose, refused
from fuzz.readers import numbers, read_cells, read_records

from certmix.runs import InputRecord, Store


def cell(name: str, data: str) -> str:
    return f"UPDATE cells SET data = {data} WHERE cell = '{name}'"


def vector(*values: float, kind: str = "<i8") -> str:
    return f"x'{np.array(values, kind).tobytes().hex()}'"


PLANTED = {
    "a negative count": cell("selection", vector(-9, 1, 0)),
    "a class beyond": cell("votes@100", vector(90, 5, 5, 0)),
    "no votes": cell("selection", vector(0, 0, 0)),
    "too many votes": cell("selection", vector(2**62, 0, 0)),
    "half a vote": cell("selection", vector(0.5, 1, 1, kind="<f8")) + "; UPDATE cells SET dtype = 'float64'",
    "half a number": cell("selection", "x'0011'"),
    "text": cell("selection", "'text'"),
    "nothing": cell("votes@200", "x''"),
    "no zlib": "UPDATE cells SET dtype = 'int64 zlib'",
    "another dtype": "UPDATE cells SET dtype = 'object'",
    "a look that is none": "UPDATE cells SET cell = 'votes@ten' WHERE cell = 'votes@100'",
    "a look with zeros": "UPDATE cells SET cell = 'votes@0100' WHERE cell = 'votes@100'",
    "a negative look": "UPDATE cells SET cell = 'scores@-2' WHERE cell = 'scores@2'",
    "other scores": "UPDATE cells SET cell = 'scores@3' WHERE cell = 'scores@2'",
    "a negative label": cell("input", vector(-1, 0, 0, 0, 0)),
    "infinite seconds": cell("sampling", vector(0, 0, 1, np.inf, 0, kind="<f8")),
    "half a place": cell("sampling", vector(0, 0, 1.5, 1, 0, kind="<f8")),
    "no device": cell("sampling", vector(0, 0, 1, 1, 9, kind="<f8")),
    "nan": cell("sampling", vector(np.nan, 0, 1, 1, 0, kind="<f8")),
    "no input": "DELETE FROM cells WHERE cell = 'input'",
    "no selection": "DELETE FROM cells WHERE cell = 'selection'",
    "a negative input": "UPDATE cells SET idx = -idx",
    "no probabilities": cell("standard one", "x''"),
    "probabilities that are none": cell("standard one", vector(2, -1, 0, kind="<f8")),
    "a fact that is no text": "UPDATE facts SET value = x'ff'",
    "no table": "DROP TABLE cells",
    "no column": "DROP TABLE facts; CREATE TABLE facts (key)",
    "an added column": "ALTER TABLE cells ADD COLUMN more TEXT",
    "a computed column": "ALTER TABLE cells ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))",
    "a view": "ALTER TABLE cells RENAME TO other; CREATE VIEW cells AS SELECT * FROM other",
    "an endless view": """DROP TABLE cells; CREATE VIEW cells AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'input' AS cell, i AS idx, 'int64' AS dtype, x'' AS data FROM n""",
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_of_counts(place: Path, name: str) -> None:
    lay(place, {"numbers.sqlite": altered(numbers()["numbers.sqlite"], PLANTED[name])})
    told = refused(lambda: read_records(place), place)
    assert "numbers.sqlite" in told and len(told) < 500


@pytest.mark.parametrize("value", ["NULL", "''", "x''", "x'00'", "'text'", "7", "x'0011'"])
def test_planted_faults_of_vectors(place: Path, value: str) -> None:
    database = loose(numbers()["numbers.sqlite"])
    lay(place, {"numbers.sqlite": altered(database, f"UPDATE cells SET data = {value} WHERE idx = 9")})
    assert "damaged" in refused(lambda: read_cells(place), place)


def test_a_schema_that_is_no_text_and_rows_of_one_input_twice(place: Path) -> None:
    good = numbers()["numbers.sqlite"]
    lay(place, {"numbers.sqlite": good.replace(b"CREATE TABLE cells", b"CREATE TABLE \xff\xce\xcc x")})
    refused(lambda: read_records(place), place)
    lay(place, {"numbers.sqlite": altered(loose(good), "INSERT INTO cells SELECT * FROM cells")})
    assert "twice" in refused(lambda: read_records(place), place)


def test_numbers_that_expand_without_end(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "numbers.sqlite")) as store:
        bomb = zlib.compress(bytes(2**26 + 2**20), 1)
        store._db.execute("INSERT INTO cells VALUES ('clean', 1, 'int64 zlib', ?)", (bomb,))
        assert "damaged" in refused(lambda: store.read("clean", [1]))


def test_reading_leaves_no_files_beside_a_database_and_sees_what_is_not_yet_in_it(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "numbers.sqlite", 3)) as store:
        store.write_inputs([InputRecord(3, 0, "c" * 64, np.array([9, 0, 1]))])
        assert list(read_records(tmp_path)) == [3]
    assert list(accepted(lambda: read_records(tmp_path), tmp_path)) == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.sqlite"]
