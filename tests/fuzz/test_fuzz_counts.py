"""The counts of a run, and the score statistics in them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz.databases import COLUMNS, SCORES, loose, made_counts, odd_cell
from fuzz.harness import accepted, altered, fuzz, judged, mutated, odd_json, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.bounds.statistics import ScoreStatistics
from certmix.bounds.stored_scores import from_bytes, from_plain, to_bytes, to_plain
from certmix.errors import RunError
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
    (place / "counts.sqlite").write_bytes(counts)
    assert sorted(accepted(lambda: read_counts(place / "counts.sqlite"), place)) == [3, 9]


@given(st.data())
@fuzz
def test_counts_with_damaged_pages(place: Path, counts: bytes, data: st.DataObject) -> None:
    (place / "counts.sqlite").write_bytes(data.draw(mutated(counts)))
    judged(lambda: read_counts(place / "counts.sqlite"), place)


@given(raw)
@fuzz
def test_counts_that_never_were_a_database(place: Path, content: bytes) -> None:
    (place / "counts.sqlite").write_bytes(content)
    refused(lambda: read_counts(place / "counts.sqlite"), place)


@given(st.sampled_from(COLUMNS), odd_cell, st.booleans())
@fuzz
def test_counts_with_odd_cells(place: Path, counts: bytes, column: str, value, as_text: bool) -> None:
    if isinstance(value, bytes) and as_text:
        value = value.decode("utf-8", "replace")
    path = place / "counts.sqlite"
    path.write_bytes(altered(loose(counts), "", f"UPDATE images SET {column} = ? WHERE idx = 3", (value,)))
    judged(lambda: read_counts(path), place)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | odd_json([0.25, 0.5, 0.25])
    | st.sampled_from([None, 5, 1.5])
)
@fuzz
def test_odd_probabilities(place: Path, counts: bytes, value) -> None:
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    path = place / "counts.sqlite"
    path.write_bytes(altered(loose(counts), "", "UPDATE standard SET probabilities = ?", (value,)))
    judged(lambda: read_counts(path), place)


PLANTED = {
    "a negative count": "UPDATE images SET selection = '{\"0\": -9}'",
    "a class that is none": "UPDATE images SET selection = '{\"-1\": 9}'",
    "a class beyond": 'UPDATE images SET estimation = \'{"100": {"3": 9}}\'',
    "half a vote": "UPDATE images SET selection = '{\"0\": 0.5}'",
    "votes beyond int64": "UPDATE images SET selection = '{\"0\": 99999999999999999999}'",
    "true votes": "UPDATE images SET selection = '{\"0\": true}'",
    "a list of votes": "UPDATE images SET selection = '[9, 0, 1]'",
    "deep nesting": "UPDATE images SET scores = replace(hex(zeroblob(50000)), '00', '[')",
    "text for a label": "UPDATE images SET label = 'cat'",
    "a negative label": "UPDATE images SET label = -1",
    "infinite seconds": "UPDATE images SET seconds = 9e999",
    "no probabilities": "UPDATE standard SET probabilities = '[]'",
    "probabilities that are none": "UPDATE standard SET probabilities = '[2, -1, 0]'",
    "nan": "UPDATE standard SET probabilities = '[NaN, 1, 0]'",
    "no table": "DROP TABLE images",
    "no column": "ALTER TABLE images DROP COLUMN device",
    "another column": "ALTER TABLE images RENAME COLUMN label TO klass",
    "an added column": "ALTER TABLE images ADD COLUMN more TEXT",
    "a computed column": "ALTER TABLE images ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))",
    "a view": "ALTER TABLE images RENAME TO other; CREATE VIEW images AS SELECT * FROM other",
    "an endless view": """DROP TABLE images; CREATE VIEW images AS WITH RECURSIVE n(i) AS
        (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS idx, 0 AS label, 'x' AS input_checksum,
        '{}' AS selection, '{}' AS estimation, '{}' AS scores, 0 AS seconds, 'cpu' AS device FROM n""",
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_of_the_counts(place: Path, counts: bytes, name: str) -> None:
    path = place / "counts.sqlite"
    path.write_bytes(altered(counts, "DROP VIEW records;" + PLANTED[name]))
    told = refused(lambda: read_counts(path), place)
    assert "counts.sqlite" in told and len(told) < 500


def test_a_schema_that_is_no_text(place: Path, counts: bytes) -> None:
    (place / "counts.sqlite").write_bytes(
        counts.replace(b"CREATE TABLE images", b"CREATE TABLE \xff\xce\xcc x")
    )
    refused(lambda: read_counts(place / "counts.sqlite"), place)


def test_rows_of_one_image_twice(place: Path, counts: bytes) -> None:
    path = place / "counts.sqlite"
    path.write_bytes(altered(loose(counts), "INSERT INTO images SELECT * FROM images;"))
    assert "several rows" in refused(lambda: read_counts(path), place)


def test_reading_leaves_no_files_beside_a_database_in_wal_mode(tmp_path: Path) -> None:
    store = Store(tmp_path / "counts.sqlite", 3)
    store.write_image(ImageRecord(3, 0, "c" * 64, np.array([9, 0, 1])))
    store.close()
    assert list(accepted(lambda: read_counts(tmp_path / "counts.sqlite"), tmp_path)) == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["counts.sqlite"]


def test_a_database_that_is_open_elsewhere_is_read_with_what_is_not_yet_in_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "counts.sqlite", 3)
    store.write_image(ImageRecord(3, 0, "c" * 64, np.array([9, 0, 1])))
    assert list(read_counts(tmp_path / "counts.sqlite")) == [3]
    store.close()


# score statistics


@given(mutated(to_bytes(SCORES)) | odd_json(to_plain(SCORES)).map(zlib.compress) | raw)
@fuzz
def test_score_statistics(content: bytes) -> None:
    found = judged(lambda: from_bytes(content))
    assert isinstance(found, (ScoreStatistics, RunError))


def test_versions_of_several_lines() -> None:
    refused(lambda: from_plain({**to_plain(SCORES), "version": "a\nb"}))


def test_statistics_that_expand_without_end() -> None:
    assert "corrupt" in refused(lambda: from_bytes(zlib.compress(bytes(2**26 + 2**20), 1)))
