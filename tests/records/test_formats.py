"""Published logs and files of class counts: what is read, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import DataError, ParameterError
from certmix.records.extent import distinct_rows, expected_rows
from certmix.records.formats import (
    ClassCounts,
    PublishedLog,
    lowest_printed,
    read_class_counts,
    read_log,
    read_published,
)
from certmix.records.logs import HEADER, write_log

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")


def write(path: Path, *rows: str, end: str = "\n") -> Path:
    path.write_text("\n".join([HEADER, *rows]) + end)
    return path


@given(st.floats(1e-7, 500.0))
def test_the_lowest_number_that_prints_so(x):
    text = f"{x:.3}"
    low = lowest_printed(text)
    assert low <= x
    assert float(f"{low:.3}") == float(text)
    assert float(f"{math.nextafter(low, 0.0):.3}") < float(text)


@given(st.floats(0.0, 9.0), st.integers(2, 6))
def test_the_lowest_number_that_prints_so_with_fixed_decimals(x, decimals):
    text = f"{x:.{decimals}f}"
    low = lowest_printed(text, decimals)
    assert low <= x
    assert float(f"{low:.{decimals}f}") == float(text)
    assert low == 0.0 or float(f"{math.nextafter(low, 0.0):.{decimals}f}") < float(text)


def test_more_digits_than_three_are_believed():
    assert lowest_printed("0.959811") == pytest.approx(0.9598105, abs=1e-12)
    assert lowest_printed("0.0") == 0.0
    assert lowest_printed(" +0.25") == lowest_printed("0.25") == lowest_printed("2.5e-1")


def test_both_time_formats(tmp_path):
    log = read_log(
        write(
            tmp_path / "log",
            "0\t3\t3\t0.25\t1\t15.4",
            "1\t3\t-1\t0.0\t0\t0:02:31.5",
            "2\t0\t0\t1.0\t1\t1 day, 1:00:00",
        )
    )
    assert log.seconds.tolist() == [15.4, 151.5, 90000.0]
    assert log.index.tolist() == [0, 1, 2]
    assert log.predict.tolist() == [3, -1, 0]
    assert log.right.tolist() == [True, False, True]
    assert log.abstained.tolist() == [False, True, False]
    assert log.radius.tolist() == [0.25, 0.0, 1.0]
    assert log.lowest.tolist() == [lowest_printed("0.25"), 0.0, lowest_printed("1.0")]
    assert not log.cut_off


def test_radius_zero_is_an_abstention(tmp_path):
    log = read_log(write(tmp_path / "log", "0\t3\t3\t0.0\t1\t1"))
    assert log.abstained.tolist() == [True]
    assert log.right.tolist() == [False]


def test_equally_many_decimals_with_trailing_zeros_are_fixed_decimals(tmp_path):
    fixed = read_log(write(tmp_path / "a", "0\t0\t0\t0.01\t1\t1", "1\t0\t0\t0.50\t1\t1"))
    assert fixed.lowest == pytest.approx([0.005, 0.495], abs=1e-12)
    significant = read_log(write(tmp_path / "b", "0\t0\t0\t0.01\t1\t1", "1\t0\t0\t0.51\t1\t1"))
    assert significant.lowest == pytest.approx([0.009995, 0.5095], abs=1e-12)


def test_a_header_only_is_an_empty_log(tmp_path):
    log = read_published(write(tmp_path / "log"))
    assert isinstance(log, PublishedLog)
    assert len(log) == 0
    assert log.radius.dtype == np.float64


@pytest.mark.parametrize("last", ["1\t3\t3\t0.2", "1\t3", "1\t3\t3\t0.25\t1\t0:00:"])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, last):
    log = read_log(write(tmp_path / "log", "0\t3\t3\t0.25\t1\t15.4", last, end=""))
    assert log.cut_off
    assert log.index.tolist() == [0]


BAD_ROWS = [
    "1\t3\t3\tfar\t1\t1",
    "1\t3\t3\t-0.1\t1\t1",
    "1\t3\t3\tnan\t1\t1",
    "1\t3\t3",
    "1\t3\t-2\t0.1\t0\t1",
    "1 3 3 0.1",
]


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_malformed_line_is_named(tmp_path, row):
    path = write(tmp_path / "log", "0\t3\t3\t0.25\t1\t1", row, "2\t3\t3\t0.25\t1\t1")
    with pytest.raises(DataError, match="line 3: ") as error:
        read_log(path)
    assert "\n" not in str(error.value)


def test_own_logs_are_read_back(tmp_path):
    write_log(tmp_path / "records.tsv", [(7, 1, 1, 0.1234567, 61.25), (9, 0, -1, 0.0, 0.5)])
    log = read_log(tmp_path / "records.tsv")
    assert log.decimals == 6
    assert log.radius.tolist() == [0.123456, 0.0]
    assert log.seconds.tolist() == [61.25, 0.5]


def test_class_counts(tmp_path):
    (tmp_path / "counts").write_text("90 10 0 0\n5 5 90 2\n")
    found = read_published(tmp_path / "counts")
    assert isinstance(found, ClassCounts)
    assert found.counts.tolist() == [[90, 10, 0], [5, 5, 90]]
    assert found.label.tolist() == [0, 2]
    assert found.counts.dtype == found.label.dtype == np.int64


def test_class_counts_that_were_cut_off(tmp_path):
    (tmp_path / "counts").write_text("90 10 0 0\n5 5 90 2\n10 9")
    found = read_class_counts(tmp_path / "counts")
    assert found.cut_off
    assert len(found) == 2


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "empty"), ("90 10 0 3\n", "label"), ("0 0 0 1\n", "1 vote"), ("90 10 0 0\n90 10 0\n90 10 0 0\n", "line 2"),
        ("idx radius\n", "neither a log"), ("90.5 10 1\n", "neither a log"),
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_in_one_line(tmp_path, text, expected):
    (tmp_path / "file").write_text(text)
    with pytest.raises(DataError, match=expected) as error:
        read_published(tmp_path / "file")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_published(tmp_path / "nothing")


def index_of(count: int, step: int = 1) -> np.ndarray:
    return np.arange(count, dtype=np.int64) * step


@pytest.mark.parametrize(
    "index, expected",
    [
        (index_of(10_000), 10_000), (index_of(500, 20), 500), (index_of(427, 100), 500), (index_of(9_900), 10_000),
        (index_of(26_032), 26_032), (index_of(100), None), (index_of(0), None), (np.array([0, 7, 9, 30]), None),
        (np.array([0, 10, 20, 50]), 6),
    ],
)  # fmt: skip
def test_how_many_rows_there_should_be(index, expected):
    assert expected_rows(index, None, None).rows == expected


def test_stated_rows_win_and_must_suffice():
    assert expected_rows(index_of(427, 100), None, 450).rows == 450
    with pytest.raises(ParameterError, match="427 already"):
        expected_rows(index_of(427, 100), None, 400)


def test_equal_rows_count_once_and_contradictions_are_refused(tmp_path):
    row = "0\t3\t3\t0.25\t1\t"
    log, repeated = distinct_rows(read_log(write(tmp_path / "a", f"{row}1", "4\t1\t1\t0.5\t1\t1", f"{row}2")))
    assert repeated == 1
    assert log.index.tolist() == [0, 4]
    assert log.time == ("1", "1")
    with pytest.raises(DataError, match="two rows for idx 0"):
        distinct_rows(read_log(write(tmp_path / "b", f"{row}1", "0\t3\t3\t0.26\t1\t1")))


@needs_logs
@pytest.mark.parametrize("path", sorted(LOGS.glob("gaussian-*.tsv")), ids=lambda path: path.name)
def test_published_logs_are_read(path):
    log = read_log(path)
    assert len(log) == len(path.read_text().splitlines()) - 1
    assert not log.cut_off
    assert log.decimals is None
    assert np.array_equal(log.correct, log.right)
    positive = log.radius > 0
    assert np.all(log.lowest[positive] < log.radius[positive])
    assert np.all(log.lowest[positive] > log.radius[positive] * 0.994)
    assert np.all(log.seconds > 0)
