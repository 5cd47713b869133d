"""The folder of a run: run.json, links, products."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.harness import fuzz, judged, mutated, odd_json, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import CertmixError
from certmix.files import parse_json
from certmix.runs import Identity, Run, read_run
from certmix.runs.logs import read_class_counts, read_log, read_published

IDENTITY = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")
DESCRIPTION = {"format_version": 2, "identity": IDENTITY.as_dict(), "request": {"sigma": 0.5}, "data": None}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@given(odd_json(DESCRIPTION) | mutated(json.dumps(DESCRIPTION).encode()) | raw)
@fuzz
def test_descriptions(place: Path, content: bytes) -> None:
    (place / "run.json").write_bytes(content)
    found = judged(lambda: read_run(place), place)
    if not isinstance(found, CertmixError):
        assert found["format_version"] == 2 and isinstance(found["identity"], dict)
        for difference in IDENTITY.differences(found["identity"]):
            assert len(difference.splitlines()) == 1 and len(difference) < 200
    judged(lambda: read_run(place, "certify"), place)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 200_000, "nested"),
        (b'{"format_version": 2, "format_version": 2}', "twice"),
        (b'{"format_version": true}', "True"),
        (b'{"format_version": 0}', "make the run again"),
        (b'{"format_version": 2e999}', "inf"),
        (b'{"format_version": ' + b"9" * 10_000 + b"}", "not readable"),
        (b'{"format_version": 2, "identity": []}', "no object"),
        (b'{"format_version": 2, "identity": {"study": ["certify"]}}', "no object"),
        (b'{"format_version": 2, "identity": {"study": "a\\nb"}}', "no object"),
        (b'\xef\xbb\xbf{"format_version": 2}', "not readable"),
        ('{"format_version": 2}'.encode("utf-16"), "not readable"),
        (b'{"format_version": 2, "x": "\xff"}', "not readable"),
        (b"", "not readable"),
    ],
)
def test_descriptions_that_are_none(place: Path, content: bytes, told: str) -> None:
    (place / "run.json").write_bytes(content)
    assert told in refused(lambda: read_run(place), place)


@pytest.mark.parametrize("reader", [read_run, read_log, read_class_counts, read_published])
def test_folders_and_missing_files(tmp_path: Path, reader) -> None:
    (tmp_path / "run.json").mkdir()
    refused(lambda: reader(tmp_path), tmp_path)
    refused(lambda: reader(tmp_path / "run.json" / "none"), tmp_path)


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode) | st.just(b"[" * 100_000))
@fuzz
def test_json_is_plain_data_or_a_value_error(content: bytes) -> None:
    told = ""
    try:
        parse_json(content)
    except ValueError as error:
        told = str(error)
    assert len(told.splitlines()) <= 1


# folders of runs


@pytest.mark.parametrize("name", ["numbers.sqlite", "lock"])
def test_a_run_does_not_write_through_links(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").mkdir()
    target = tmp_path / "outside" / "target"
    (tmp_path / "run" / name).symlink_to(target)
    told = refused(lambda: Run(tmp_path / "run", IDENTITY, 3), tmp_path)
    assert "link" in told


@pytest.mark.parametrize("name", ["numbers.sqlite", "run.json"])
def test_folders_in_the_way_of_a_fresh_start(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    told = refused(lambda: Run(tmp_path, IDENTITY, 3, fresh=True))
    assert "deleted" in told
