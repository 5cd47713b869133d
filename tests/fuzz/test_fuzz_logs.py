"""Published logs and files of class counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz.harness import fuzz, judged, mutated, raw, refused, scratch
from fuzz.tables import odd_lines
from hypothesis import given
from hypothesis import strategies as st

from certmix.runs import write_log
from certmix.runs.logs import (
    ClassCounts,
    PublishedLog,
    lowest_printed,
    read_class_counts,
    read_log,
    read_published,
)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


ROWS = [(20 * k, k % 3, -1 if k == 4 else k % 3, 0.0 if k == 4 else 0.25 * k, 1.5) for k in range(12)]
COUNTS = b"90 0 10 0\n1 99 0 1\n0 50 50 2\n30 30 40 2\n"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("log") / "log.tsv"
    write_log(path, ROWS, "clopper-pearson")
    return path.read_bytes()


def is_sound_table(found) -> None:
    if isinstance(found, PublishedLog):
        assert np.isfinite(found.radius).all() and (found.lowest <= found.radius).all()
        assert (found.lowest >= 0).all() and np.isfinite(found.correct).all()
        assert (found.index >= 0).all() and (found.label >= 0).all() and (found.predict >= -1).all()
        assert len(found.seconds) == len(found)
    elif isinstance(found, ClassCounts):
        assert (found.counts >= 0).all() and (found.counts.sum(1) > 0).all()
        assert (found.label < found.counts.shape[1]).all()


@given(st.data())
@fuzz
def test_logs(place: Path, log: bytes, data: st.DataObject) -> None:
    path = place / "log.tsv"
    path.write_bytes(data.draw(odd_lines(log, "\t") | mutated(log, COUNTS) | raw))
    for reader in (read_log, read_published):
        is_sound_table(judged(lambda reader=reader: reader(path), place))


@given(odd_lines(COUNTS, " ") | mutated(COUNTS) | raw)
@fuzz
def test_class_counts(place: Path, content: bytes) -> None:
    path = place / "counts.txt"
    path.write_bytes(content)
    for reader in (read_class_counts, read_published):
        is_sound_table(judged(lambda reader=reader: reader(path), place))


@pytest.mark.parametrize(
    "content",
    [
        b"1 2 3\n-1 2 1\n",
        b"9 0 5\n",
        b"0 0 1\n",
        b"1 1 " + b"9" * 5000,
        b"9" * 19 + b" 1 0",
        b"1 2\n",
        b"\xff\xff",
    ],
)
def test_class_counts_that_are_none(place: Path, content: bytes) -> None:
    (place / "counts.txt").write_bytes(content)
    refused(lambda: read_class_counts(place / "counts.txt"), place)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.250000", b"nan"),
        (b"0.250000", b"-1"),
        (b"\n20\t", b"\n-20\t"),
        (b"0.250000\t1", b"0.250000\tinf"),
    ],
)
def test_logs_that_are_none(place: Path, log: bytes, old: bytes, new: bytes) -> None:
    (place / "log.tsv").write_bytes(log.replace(old, new, 1))
    assert "line 3" in refused(lambda: read_log(place / "log.tsv"), place)


def test_a_byte_order_mark_and_crlf_change_nothing(place: Path, log: bytes) -> None:
    (place / "log.tsv").write_bytes(log)
    plain = read_log(place / "log.tsv")
    (place / "log.tsv").write_bytes(b"\xef\xbb\xbf" + log.replace(b"\n", b"\r\n"))
    marked = read_log(place / "log.tsv")
    assert marked.radius.tolist() == plain.radius.tolist() and marked.index.tolist() == plain.index.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "9.9999999",
        "0.99999999",
        "999999.99",
        "१",
        "1_0",
        "+1",
        " 1 ",
        "1e-310",
        "5e-324",
        "1e308",
        "9.99999999e22",
    ],
)
def test_the_lowest_number_that_prints_so_is_found_at_once(text: str) -> None:
    """Just below a power of ten, and in digits of other scripts, too."""
    digits = len(text.strip(" +").partition("e")[0].replace(".", "").replace("_", "").lstrip("0"))
    style, lowest = f".{max(3, digits)}g", lowest_printed(text)
    assert float(format(lowest, style)) == float(text)
    assert float(format(np.nextafter(lowest, 0.0), style)) < float(text)
