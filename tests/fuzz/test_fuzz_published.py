"""What runs published, as the verification reads it: tables, logs, radii."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz.harness import accepted, fuzz, judged, mutated, odd_json, raw, refused, scratch
from fuzz.made_runs import lay, made, product
from fuzz.tables import odd_lines
from hypothesis import given
from hypothesis import strategies as st

from certmix.certification.deterministic import RADII_FILE
from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.request import CertifyRequest
from certmix.errors import CertmixError
from certmix.runs import Store
from certmix.runs.from_json import from_json
from certmix.runs.settings import settings
from certmix.verification.plain.table import derive
from certmix.verification.rederivation.published import (
    LOG,
    TABLE,
    match_request,
    read_log,
    read_published,
    whole,
)
from certmix.verification.rederivation.tables import Rows, clean_faults, log_faults, row_faults
from certmix.verification.rederivation.vector_claims import match_claim, read_radii


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module", params=["sampled", "plain"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sampled(place: Path) -> tuple[CertifyRequest, Rows]:
    """The request of the sampled run, and what its counts say."""
    run = lay(place / "counts", made("sampled"))
    store = Store(run / "numbers.sqlite", 3, read_only=True)
    records = list(store.images().values())
    store.close()
    request = from_json(CertifyRequest, json.loads((run / "run.json").read_text())["request"])
    return request, Rows(tuple(records), derive(records, request))


def request_in(files: dict[str, bytes]) -> Any:
    return json.loads(files["run.json"])["request"]


def match(found: Any, kind: str) -> Any:
    base = request_in(made(kind))
    if kind == "sampled":
        return match_request(found, from_json(CertifyRequest, base), ["one"])
    return match_claim(found, settings(DeterministicRequest, base), ["one"])


def test_the_runs_are_good_to_begin_with(place: Path, kind: str, sampled: Any) -> None:
    run = lay(place / "run", made(kind))
    (found,) = accepted(lambda: read_published(run), place)
    assert found.summary.images == 6
    accepted(lambda: match(found, kind), place)
    if kind == "plain":
        assert len(accepted(lambda: read_radii(found.folder), place)) == 6
    else:
        log = accepted(lambda: read_log(found.folder / LOG), place)
        assert not list(log_faults(log, sampled[1], sampled[0]))


def table(kind: str) -> bytes:
    return made(kind)[product(made(kind), TABLE)]


def odd_tables() -> st.SearchStrategy[bytes]:
    plain, sampled = json.loads(table("plain")), json.loads(table("sampled"))
    return odd_json(sampled) | odd_json(plain) | mutated(table("sampled"), table("plain")) | raw


@given(st.deferred(odd_tables))
@fuzz
def test_tables(place: Path, sampled: tuple[CertifyRequest, Rows], content: bytes) -> None:
    request, rows = sampled
    path = place / "table" / "results" / Path(product(made("sampled"), TABLE)).parent.name / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    read = judged(lambda: read_published(place / "table"), place)
    if isinstance(read, CertmixError):
        assert len(str(read)) < 600
        return
    summary = read[0].summary
    assert type(summary.images) is int and summary.images > 0 and type(summary.planned_images) is int
    assert math.isfinite(summary.alpha) and all(map(math.isfinite, summary.radii))
    assert all(len(row.interval) == len(summary.radii) for row in summary.rows)
    for kind in ("sampled", "plain"):
        judged(lambda kind=kind: match(read[0], kind), place)
    judged(lambda: [list(row_faults(read[0], rows, request)), list(clean_faults(read[0], rows, request, {}))])


@pytest.mark.parametrize(
    "change",
    [
        {"images": 1.5}, {"images": True}, {"images": 0}, {"images": 10**400}, {"planned_images": None},
        {"alpha": float("nan")}, {"alpha": "0.76"}, {"sigma": [0.25]}, {"samples": "many"}, {"goal": {}},
        {"data": 5}, {"complete": "no"}, {"radii": [1e999, 0, 0]}, {"radii": "0"}, {"notes": "abc"},
        {"notes": ["a\nb"]}, {"rows": []}, {"rows": {}}, {"rows": None}, {"clean_accuracy": []}, {"extra": 1},
        {"schema_version": 2}, {"schema_version": "1"}, {"abstained": "none"}, {"mean_samples": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_planted_faults_of_a_table(place: Path, change: dict[str, Any]) -> None:
    run = lay(place / "run", {TABLE: b""})
    path = run / "results" / "one" / TABLE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**json.loads(table("sampled")), **change}))
    assert "not a readable table" in refused(lambda: read_published(run), place)


def rows_of(name: str) -> bytes:
    return made("sampled" if name == LOG else "plain")[name]


wide = st.sampled_from([b'"' + b"x" * 200_000 + b'"', b"0\t" * 200_000, b"\t" * 50 + b"\0", b"9" * 200_000])


def odd_rows(name: str, other: str) -> st.SearchStrategy[bytes]:
    good = rows_of(name)
    return odd_lines(good, "\t") | mutated(good, rows_of(other)) | raw | wide.map(lambda end: good + end)


@given(st.deferred(lambda: odd_rows(LOG, RADII_FILE)))
@fuzz
def test_logs(place: Path, sampled: tuple[CertifyRequest, Rows], content: bytes) -> None:
    (place / "log.tsv").write_bytes(content)
    found = judged(lambda: read_log(place / "log.tsv"), place)
    if isinstance(found, CertmixError):
        assert len(str(found)) < 500
        return
    assert all(min(row.index, row.label, row.correct, row.predict + 1) >= 0 for row in found)
    assert all(row.index < 2**63 and row.radius.is_finite() for row in found)
    request, rows = sampled
    records = rows.records
    if len(found) == len(records):
        judged(lambda: list(log_faults(found, rows, request)))


@given(st.deferred(lambda: odd_rows(RADII_FILE, LOG)))
@fuzz
def test_radii(place: Path, content: bytes) -> None:
    (place / "radii").mkdir(exist_ok=True)
    (place / "radii" / "radii.tsv").write_bytes(content)
    found = judged(lambda: read_radii(place / "radii"), place)
    if isinstance(found, CertmixError):
        assert len(str(found)) < 500
        return
    assert all(min(row.index, row.label, row.predict) >= 0 for row in found)
    assert all(0 <= radius < math.inf for row in found for radius in row.radii)


@pytest.mark.parametrize(
    "radius",
    ["inf", "-inf", "nan", "-1.0", "1e999", "1_0", "\u0967", "0x1", " 1", "", "x" * 100_000, "1e-9999", "1\0", '"'],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
@pytest.mark.parametrize("column", [3, 4])
def test_radii_that_are_none(place: Path, column: int, radius: str) -> None:
    lines = rows_of(RADII_FILE).decode().splitlines()
    row = lines[2].split("\t")
    lines[2] = "\t".join([*row[:column], radius, *row[column + 1 :]])
    (place / "radii.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(refused(lambda: read_radii(place), place)) < 400


@pytest.mark.parametrize(
    "radius", ["Infinity", "NaN", "sNaN", "1e999999999", "1e30", "9" * 16, "1_0", "x" * 9999]
)
def test_logged_radii_that_are_none(place: Path, radius: str) -> None:
    lines = rows_of(LOG).decode().splitlines()
    row = lines[2].split("\t")
    lines[2] = "\t".join([*row[:3], radius, *row[4:]])
    (place / "log.tsv").write_text("\n".join(lines) + "\n")
    assert len(refused(lambda: read_log(place / "log.tsv"), place)) < 400


@pytest.mark.parametrize("text", ["", "-", "1.0", "1_0", " 1", "1\n", "\u0967", "9" * 19, "-1", "1e3", "0x1"])
def test_numbers_of_tables_are_written_plainly(text: str) -> None:
    with pytest.raises(ValueError, match="belongs"):
        whole(text)
    assert (whole("0"), whole("007"), whole("-1", -1)) == (0, 7, -1)


def test_tables_that_are_folders_or_missing(tmp_path: Path) -> None:
    (tmp_path / "results" / "a" / TABLE).mkdir(parents=True)
    (tmp_path / "radii.tsv").mkdir()
    refused(lambda: read_published(tmp_path), tmp_path)
    for read in (read_radii, read_log):
        refused(lambda read=read: read(tmp_path), tmp_path)
        refused(lambda read=read: read(tmp_path / "none"), tmp_path)
