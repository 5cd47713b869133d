"""Studies that read stored runs and published files: recertify and audit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from fuzz.harness import accepted, altered, fuzz, judged, mutated, odd_json, raw, refused, scratch
from fuzz.runs import RUN, database, prepare
from fuzz.tables import odd_lines
from hypothesis import given
from hypothesis import strategies as st

from certmix.certification.audit import audit
from certmix.certification.stored import open_run, recertify
from certmix.errors import ParameterError, RunError
from certmix.runs import write_log


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def test_the_run_is_good_to_begin_with(place: Path) -> None:
    prepare(place)
    assert accepted(lambda: open_run(place), place).planned == 4
    assert accepted(lambda: recertify(place), place).images == 4
    assert accepted(lambda: audit(place), place).kind == "run folder"
    assert accepted(lambda: recertify(place / "records.tsv"), place).images == 4
    assert accepted(lambda: audit(place / "records.tsv"), place).kind == "log"


@given(odd_json(RUN) | odd_json({**RUN, "request": {**RUN["request"], "scores": "soft", "bound": None}}))
@fuzz
def test_descriptions_of_runs(place: Path, content: bytes) -> None:
    prepare(place, content)
    for reader in (recertify, audit):
        for source in (place, place / "records.tsv"):
            judged(lambda reader=reader, source=source: reader(source), place)


@given(
    st.sampled_from(["label", "selection", "estimation"]),
    st.sampled_from([0, 7, 2**62]) | odd_json({"200": {"0": 150, "1": 50}, "100": {"0": 100}}),
)
@fuzz
def test_records_that_contradict_the_request(place: Path, column: str, value) -> None:
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if column != "label" and not isinstance(value, str):
        value = json.dumps({"0": value})
    query = f"UPDATE images SET {column} = ? WHERE idx = 3"
    prepare(place, counts=altered(database(), "", query, (value,)))
    for reader in (recertify, audit):
        judged(lambda reader=reader: reader(place), place)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("request", "sigma", 10**400), ("request", "sigma", float("nan")), ("request", "samples", 1.5),
        ("request", "samples", True), ("request", "radii", "0.5"), ("request", "a\nb", 1), ("request", "seed", "0"),
        ("data", "inputs", "12"), ("data", "inputs", float("inf")), ("data", "class_names", "abc"),
        ("data", "class_names", []), ("data", "name", "a\nb"), ("data", "name", "\ud800"),
        ("models", "standard", "big"), ("models", "robust", {"name": 1, "checksum": "h"}),
        ("models", "standard", {"name": "big", "checksum": ["one"]}),
    ],
)  # fmt: skip
def test_planted_faults_of_a_run(place: Path, part: str, name: str, value) -> None:
    run = copy.deepcopy(RUN)
    run[part][name] = value
    prepare(place, json.dumps(run).encode())
    assert "run.json" in refused(lambda: open_run(place), place)


def test_a_log_beside_a_request_that_leaves_defaults_out(place: Path) -> None:
    run = copy.deepcopy(RUN)
    del run["request"]["images"]
    prepare(place, json.dumps(run).encode())
    assert accepted(lambda: recertify(place / "records.tsv"), place).planned_images == 12


def test_a_claim_of_many_soft_samples_takes_no_memory(place: Path) -> None:
    run = copy.deepcopy(RUN)
    run["request"].update(scores="soft", bound=None, samples=2**40)
    prepare(place, json.dumps(run).encode())
    assert "samples" in refused(lambda: audit(place / "records.tsv"), place)


@cache
def log() -> bytes:
    with scratch() as folder:
        write_log(
            folder / "log",
            [(20 * k, k % 3, -1 if k == 4 else k % 3, 0.25 * (k % 4), 1.5) for k in range(12)],
            "clopper-pearson",
        )
        return (folder / "log").read_bytes()


READINGS = (
    lambda path: audit(path, sigma=0.5),
    lambda path: recertify(path, sigma=0.5),
    lambda path: recertify(path, sigma=0.5, as_printed=True, alpha=0.8),
    lambda path: recertify(path, sigma=0.5, assume_selected=True),
)


@given(
    odd_lines(log(), "\t") | odd_lines(b"90 0 10 0\n1 99 0 1\n0 50 50 2\n", " ") | mutated(log()) | raw,
    st.sampled_from(READINGS),
)
@fuzz
def test_published_files(place: Path, content: bytes, reading: Callable[[Path], object]) -> None:
    path = place / "published.tsv"
    path.write_bytes(content)
    judged(lambda: reading(path), place)


def test_errors_keep_their_kind(place: Path) -> None:
    run = copy.deepcopy(RUN)
    run["request"]["alpha"] = 0.25
    prepare(place, json.dumps(run).encode())
    with pytest.raises(ParameterError, match="alpha"):
        open_run(place)
    prepare(place, b"{}")
    with pytest.raises(RunError):
        open_run(place)
