"""Published logs and files of class counts: what is read, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import DataError, ParameterError
from certmix.runs.logs import (
    HEADER,
    ClassCounts,
    PublishedLog,
    distinct_rows,
    expected_rows,
    lowest_printed,
    read_class_counts,
    read_log,
    read_published,
    write_log,
)

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"
FULL = f"{HEADER}\tbound\tsigma"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")


def write(path: Path, *rows: str, header: str = HEADER, end: str = "\n") -> Path:
    path.write_text("\n".join([header, *rows]) + end)
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


def test_columns_of_a_log_its_time_formats_and_abstentions(tmp_path):
    rows = ("0\t3\t3\t0.25\t1\t15.4", "1\t3\t-1\t0.0\t0\t0:02:31.5", "2\t0\t0\t1.0\t1\t1 day, 1:00:00",
            "3\t3\t3\t0.0\t1\t1")  # fmt: skip
    log = read_log(write(tmp_path / "log", *rows))
    assert log.seconds.tolist() == [15.4, 151.5, 90000.0, 1.0]
    assert log.index.tolist() == [0, 1, 2, 3]
    assert log.predict.tolist() == [3, -1, 0, 3]
    assert log.right.tolist() == [True, False, True, False]
    assert log.abstained.tolist() == [False, True, False, True]
    assert log.radius.tolist() == [0.25, 0.0, 1.0, 0.0]
    assert log.lowest.tolist() == [lowest_printed("0.25", significant=2), 0.0, lowest_printed("1.0", 2), 0.0]
    assert not log.cut_off and (log.bound, log.sigma) == (None, None)
    told = read_log(
        write(
            tmp_path / "b",
            *(f"{k}\t3\t3\t0.2\t1\t1\tbetting\t{s}" for k, s in ((0, ".5"), (1, "0.5"))),
            header=FULL,
        )
    )
    assert (told.bound, told.sigma) == ("betting", 0.5)
    empty = read_published(write(tmp_path / "empty"))
    assert isinstance(empty, PublishedLog)
    assert len(empty) == 0 and empty.radius.dtype == np.float64


STYLES = {
    **{f"{n} significant digits": lambda r, n=n: f"{r:.{n}}" for n in (1, 2, 3, 6)},
    **{f"{n} significant digits, padded": lambda r, n=n: f"{r:#.{n}g}" for n in (2, 3)},
    **{f"{n} decimals": lambda r, n=n: f"{r:.{n}f}" for n in (1, 2, 3, 6)},
    **{f"rounded to {n} decimals": lambda r, n=n: str(round(r, n)) for n in (0, 1, 2, 3)},
    "scientific": lambda r: f"{r:.2e}",
    "in full": repr,
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("least, most", [(0.0, 1.0), (0.2, 4.0), (5.0, 200.0)])
def test_the_lowest_radius_is_no_larger_than_the_radius_however_it_was_printed(tmp_path, style, least, most):
    """The column shows how many digits there are; a radius is never taken for more than it was."""
    radii = np.random.default_rng(1).uniform(least, most, 200)
    rows = [f"{k}\t3\t3\t{STYLES[style](float(r))}\t1\t1" for k, r in enumerate(radii)]
    log = read_log(write(tmp_path / "log", *rows))
    assert np.all(log.lowest <= radii)
    assert np.all(log.lowest <= log.radius)
    if style[0].isdigit() and least > 0:
        digits = int(style[0])
        unit = 10.0**-digits if "decimals" in style else 10.0 ** (np.floor(np.log10(radii)) + 1 - digits)
        assert np.all(log.lowest >= radii - 1.01 * unit)


@pytest.mark.parametrize(
    "radii, lowest",
    [
        (("0.01", "0.50"), [0.005, 0.495]), (("0.25", "1.2"), [0.245, 1.15]),
        (("0.25", "0.123"), [0.2495, 0.1225]), (("0.25", "0.123456"), [0.2499995, 0.1234555]),
    ],
)  # fmt: skip
def test_digits_that_a_column_does_not_show_are_not_assumed(tmp_path, radii, lowest):
    log = read_log(write(tmp_path / "log", *(f"{k}\t0\t0\t{r}\t1\t1" for k, r in enumerate(radii))))
    assert log.lowest == pytest.approx(lowest, abs=1e-12)


def test_columns_are_read_by_name(tmp_path):
    """In any order, with others between, without time or correct, with True and False, classes as floats."""
    plain = read_log(write(tmp_path / "plain", "0\t3\t3\t0.25\t1\t1", "4\t2\t-1\t0.0\t0\t1"))
    told = {
        "idx\tlabel\tpredict\tradius\tcorrect": ("0\t3\t3\t0.25\tTrue", "4\t2\t-1\t0.0\tFalse"),
        "idx\tlabel\tpredict\tradius": ("0\t3\t3\t0.25", "4\t2\t-1\t0.0"),
        "radius\tpABar\tpredict\tlabel\tidx\ttime": ("0.25\t.9\t3.0\t3.0\t0.0\t1", "0.0\t\t-1.0\t2\t4.0\t1"),
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\tpABar": ("0\t3\t3\t0.25\t1\t1\t.9", "4\t2\t-1\tinf\t0\t1\tx"),
    }  # fmt: skip
    for header, rows in told.items():
        log = read_published(write(tmp_path / "log", *rows, header=header))
        for column in ("index", "label", "predict", "radius", "lowest", "correct", "abstained", "right"):
            assert getattr(log, column).tolist() == getattr(plain, column).tolist(), (header, column)
        assert len(log.seconds) == 2


@pytest.mark.parametrize(
    "header, row, said",
    [
        (HEADER, "4\t3\t3\tinf\t1\t1", "line 3, column radius: 'inf' is not finite"),
        (HEADER, "4\t3\t3\t0.25\tyes\t1", "line 3, column correct: 'yes'"),
        (HEADER, "4\tcat\t3\t0.25\t1\t1", "line 3, column label: 'cat'"),
        (HEADER, "4\t3\t-1.5\t0.25\t1\t1", "line 3, column predict: '-1.5'"),
        (HEADER, "4\t3\t3\t0.25\t1\t1\t9", "line 3: 7 columns where the header names 6"),
        (HEADER, HEADER, "line 3: the header again"),
        *((HEADER, f"4\t3\t3\t{radius}\t1\t1", f"line 3, column radius: '{radius}'") for radius in ("far", "-0.1", "nan")),
        (HEADER, "4\t3\t-2\t0.1\t0\t1", "line 3, column predict: '-2'"),
        (HEADER, "4\t3\t3", "line 3: 3 columns"),
        (HEADER, "4 3 3 0.1", "line 3: 1 columns"),
        (FULL, "4\t3\t3\t0.25\t1\t1\tother\t0.5", "line 3, column bound: 'other' is not 'clopper-pearson' as above"),
        (FULL, "4\t3\t3\t0.25\t1\t1\tclopper-pearson\t0.25", "line 3, column sigma: '0.25' is not 0.5 as above"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named_by_line_and_column(tmp_path, header, row, said):
    first = "0\t3\t3\t0.25\t1\t1" + "\tclopper-pearson\t0.5" * (header == FULL)
    last = first.replace("0\t3", "9\t3", 1)
    with pytest.raises(DataError) as error:
        read_log(write(tmp_path / "log", first, row, last, header=header))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["idx\tlabel\tpredict", "idx\tlabel\tradius\tradius\tpredict"])
def test_a_missing_or_doubled_column_is_named(tmp_path, header):
    with pytest.raises(DataError, match="columns named 'radius'"):
        read_published(write(tmp_path / "log", "0\t1\t1\t1\t1", header=header))


@pytest.mark.parametrize("last", ["1\t3\t3\t0.2", "1\t3", "1\t3\t3\t0.25\t1\t0:00:"])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path, last):
    log = read_log(write(tmp_path / "log", "0\t3\t3\t0.25\t1\t15.4", last, end=""))
    assert log.cut_off
    assert log.index.tolist() == [0]


def test_own_logs_round_radii_down_and_are_read_back(tmp_path):
    rows = [(0, 3, 3, 0.1234567, 1.5), (20, 8, -1, 0.0, 61.0), (40, 1, 2, 0.29, 0.0)]
    write_log(tmp_path / "log", rows, "betting")
    assert (tmp_path / "log").read_text().splitlines() == [
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\tbound\tgate",
        "0\t3\t3\t0.123456\t1\t0:00:01.500000\tbetting\t0",
        "20\t8\t-1\t0.000000\t0\t0:01:01\tbetting\t0",
        "40\t1\t2\t0.289999\t0\t0:00:00\tbetting\t0",
    ]
    log = read_log(tmp_path / "log")
    assert (log.bound, log.decimals) == ("betting", 6)
    assert log.radius.tolist() == [0.123456, 0.0, 0.289999]
    assert log.seconds.tolist() == [1.5, 61.0, 0.0]


def test_class_counts_whole_and_cut_off(tmp_path):
    (tmp_path / "counts").write_text("90 10 0 0\n5 5 90 2\n10 9")
    found = read_published(tmp_path / "counts")
    assert isinstance(found, ClassCounts)
    assert found.counts.tolist() == [[90, 10, 0], [5, 5, 90]]
    assert found.label.tolist() == [0, 2]
    assert found.counts.dtype == found.label.dtype == np.int64
    assert found.cut_off and not read_class_counts(written(tmp_path / "whole", "9 1 0\n")).cut_off


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "empty"), ("90 10 0 3\n", "label"), ("0 0 0 1\n", "1 vote"), ("90 10 0 0\n90 10 0\n90 10 0 0\n", "line 2"),
        ("idx radius\n", "no columns named 'label'"), ("some words\n", "neither a log"), ("90.5 10 1\n", "neither a log"),
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_in_one_line(tmp_path, text, expected):
    with pytest.raises(DataError, match=expected) as error:
        read_published(written(tmp_path / "file", text))
    assert "\n" not in str(error.value)
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
    texts = [line.split("\t")[3] for line in path.read_text().splitlines()[1:]]
    lowest = {text: lowest_printed(text) for text in set(texts)}
    assert log.lowest.tolist() == [lowest[text] for text in texts]
    positive = log.radius > 0
    assert np.all(log.lowest[positive] < log.radius[positive])
    assert np.all(log.lowest[positive] > log.radius[positive] * 0.994)
    assert np.all(log.seconds > 0)
