"""What `certmix report` shows: runs, and the tables of empirical studies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz.harness import accepted, fuzz, fuzz_few, judged, mutated, odd_json, raw, refused, scratch
from fuzz.made_runs import lay, made
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import CertmixError
from certmix.page import render, report_page
from certmix.page.runs import Run
from certmix.page.study import plots, read_tables
from certmix.tables.formats import render as render_table
from certmix.tables.table import Quantity, Table
from certmix.types import AttackedAccuracy, CertifiedShare, EstimatedAccuracy


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def study_table(grouped: bool) -> Table:
    """A study's table with every kind of cell."""
    end = (0.25, 0.75)
    rows = (
        (
            "a | b",
            3,
            EstimatedAccuracy(5, 10, end),
            AttackedAccuracy(1, 10, end),
            Quantity(0.25, 2, "s"),
            None,
        ),
        (
            "*c\\",
            4,
            EstimatedAccuracy(9, 10, end),
            CertifiedShare(4, 10, end),
            Quantity(12.0, 1, "ms", "up"),
            0.5,
        ),
        ("d", 5, EstimatedAccuracy(2, 10, end), None, Quantity(None, 1), True),
    )
    headings = ("model", "seed", "clean", "PGD|10", "time", "other")
    groups = (("first", 2), ("second", 1)) if grouped else ()
    return Table("mine", "Mine", "eps = 0.5", headings, rows, groups=groups, notes=("one", "two"))


def lay_table(place: Path, content: bytes) -> Path:
    (place / "study").mkdir(exist_ok=True)
    (place / "study" / "mine.json").write_bytes(content)
    return place / "study"


def is_shown(found: Any) -> None:
    """Tables fit together, and a page can be made of them."""
    if isinstance(found, CertmixError):
        assert len(str(found)) < 800
        return
    shown = render([Run("run", "study", found, (), None, {}, (), (), "", ())])
    assert shown.count("<script") == 2 and "\0" not in shown.partition("<body>")[0]


@pytest.mark.parametrize("grouped", [True, False])
def test_tables_are_read_back_as_they_were(place: Path, grouped: bool) -> None:
    folder = lay_table(place, render_table(study_table(grouped), "json").encode())
    found = accepted(lambda: read_tables(folder), place)
    is_shown(found)
    assert found == (study_table(grouped),)


@given(
    st.booleans().flatmap(lambda grouped: odd_json(json.loads(render_table(study_table(grouped), "json"))))
    | st.deferred(lambda: mutated(*(render_table(study_table(g), "json").encode() for g in (True, False))))
    | raw
)
@fuzz
def test_odd_tables(place: Path, content: bytes) -> None:
    folder = lay_table(place, content)
    is_shown(judged(lambda: read_tables(folder), place))


def row(**values: Any) -> list[Any]:
    first, *rest = json.loads(render_table(study_table(False), "json"))["rows"]
    return [{**first, **values}, *rest]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", row(clean={"accuracy": 0.9, "kind": "x"})), ("rows", row(clean={"kind": "estimate"})),
        ("rows", row(clean={"correct": 5, "images": 4, "interval": [0, 1], "kind": "estimate"})),
        ("rows", row(time={"value": 1, "unit": "s", "digits": 1, "rounding": "x"})),
        ("rows", row(time={"value": 1, "unit": "s", "digits": 500, "rounding": "up"})),
        ("rows", [[1, 2], "ab", 5]), ("rows", [{}]), ("columns", [{"key": 0, "heading": "x"}] * 6),
        ("columns", [{"key": "model"}] * 6), ("title", 5), ("title", None), ("settings", ["x"]), ("notes", "abc"),
        ("notes", [1]), ("schema_version", 2), ("schema_version", "1"), ("schema_version", None), ("name", "../x"),
    ],
    ids=str,
)  # fmt: skip
def test_tables_that_cannot_be_read(place: Path, key: str, value: Any) -> None:
    stored = json.loads(render_table(study_table(False), "json"))
    folder = lay_table(place, json.dumps({**stored, key: value}).encode())
    assert "not a readable table" in refused(lambda: read_tables(folder), place)


def test_plots_are_files_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run" / "folder.svg").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "run" / "linked.svg").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "gone.svg").symlink_to(tmp_path / "nothing")
    (tmp_path / "run" / "good.svg").write_text("<svg/>")
    assert accepted(lambda: plots(tmp_path / "run"), tmp_path) == (("good", b"<svg/>"),)
    if os.geteuid() != 0:
        (tmp_path / "run" / "good.svg").chmod(0)
        assert "cannot be read" in refused(lambda: plots(tmp_path / "run"))


# certified runs


@pytest.mark.parametrize("kind", ["sampled", "plain"])
def test_the_runs_are_good_to_begin_with(place: Path, kind: str) -> None:
    run = lay(place / "run", made(kind))
    assert "certmix-data" in accepted(lambda: report_page([run], images=2), place)


@st.composite
def odd_runs(draw: st.DrawFn) -> dict[str, bytes]:
    """A run in which one file that a page is made of is odd."""
    kind = draw(st.sampled_from(["sampled", "plain"]))
    files = dict(made(kind))
    name = draw(st.sampled_from(["run.json", "numbers.sqlite"]))
    if name == "run.json":
        files[name] = draw(odd_json(json.loads(files[name])))
    else:
        files[name] = draw(mutated(files[name]) | raw)
    return files


@given(st.data())
@fuzz_few
def test_pages_of_odd_runs(place: Path, data: st.DataObject) -> None:
    run = lay(place / "run", data.draw(odd_runs()))
    judged(lambda: report_page([run, run], images=2), place)
