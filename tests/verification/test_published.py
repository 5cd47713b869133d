"""What lies in a run's folder beside its numbers: each cell of each file is compared with what they give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forged import copied, edit_json

from certmix.certification import publish
from certmix.certification.analysis.published import differences
from certmix.runs import read_run
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.rederive import PUBLISHED, check_published
from certmix.verification.stored import load

TEXTS = ("certified-accuracy.csv", "certified-accuracy.md", "certified-accuracy.tex")
FILES = (
    *((kind, name) for kind in ("sequential", "lipschitz", "margin") for name in TEXTS),
    ("sequential", "records.tsv"), ("lipschitz", "radii.tsv"), ("margin", "radii.tsv"),
)  # fmt: skip
PLOTS = ("certified-accuracy.png", "certified-accuracy.svg", "front.png", "front.svg")


@pytest.fixture(scope="module")
def differing(runs) -> Callable[[str, Path], list[Any]]:
    """Return a function that compares a copy of a run with the numbers of that run."""
    texts = {}
    for kind, run in runs.items():
        described = read_run(run)
        with publish.opened(run, described) as (request, store):
            texts[kind] = publish.texts_in(request, publish.derive(request, store, described))
    return lambda kind, run: differences(run, texts[kind])


def changed(value: Any) -> Any:
    """Return another value of the same kind: as little as can be seen of a number."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        return repr(float(value) + 1e-6) if re.fullmatch(r"[0-9.]+(e-[0-9]+)?", value) else f"{value}1"
    return value + (1 if isinstance(value, int) else 1e-6)


def leaves(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if not isinstance(content, dict | list):
        yield place
        return
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield from leaves(value, (*place, key))


def about(run: Path) -> CheckResult:
    return check_published(load(run))


@pytest.mark.parametrize("kind", ["sequential", "fixed", "lipschitz", "margin"])
def test_each_value_of_the_json_is_compared(runs, differing, tmp_path, kind):
    run = copied(runs[kind], tmp_path / "run")
    path = run / "certified-accuracy.json"
    honest = path.read_text()
    assert differing(kind, run) == []
    places = list(leaves(json.loads(honest)))
    assert len(places) > 50
    for place in places:
        content = inner = json.loads(honest)
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = changed(inner[place[-1]])
        path.write_text(json.dumps(content))
        [found] = differing(kind, run)
        named = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)[1:]
        assert (found.file, found.cell) == (path.name, named)


@pytest.mark.parametrize("kind, name", FILES)
def test_each_cell_of_the_tables_and_logs_is_compared(runs, differing, tmp_path, kind, name):
    run = copied(runs[kind], tmp_path / "run")
    honest = (run / name).read_text()
    mark = {".tsv": "\t", ".csv": ","}.get(Path(name).suffix)
    for number, line in enumerate(lines := honest.splitlines()):
        cells = re.split(f"({mark or r'[0-9]+'})", line)
        for k in range(0 if mark else 1, len(cells), 2):  # every cell, or every number within words
            if number and re.split(f"({mark or '-'})", lines[0])[k : k + 1] == ["time"]:
                continue  # it grows with samples that later requests draw
            text = "".join([*cells[:k], changed(cells[k]), *cells[k + 1 :]])
            (run / name).write_text("\n".join([*lines[:number], text, *lines[number + 1 :], ""]))
            [found] = differing(kind, run)
            assert found.file == name and found.cell.startswith(f"line {number + 1}")
    for fewer_or_more in (lines[:-1], [*lines, lines[-1]]):
        (run / name).write_text("\n".join(fewer_or_more))
        assert {found.file for found in differing(kind, run)} == {name}


def test_an_input_of_the_log_is_named(runs, tmp_path):
    run = copied(runs["sequential"], tmp_path / "run")
    log = (run / "records.tsv").read_text().splitlines()
    index, *rest = log[3].split("\t")
    log[3] = "\t".join([index, *rest[:2], f"{float(rest[2]) + 1e-6:.6f}", *rest[3:]])
    (run / "records.tsv").write_text("\n".join(log))
    found = about(run)
    assert (found.outcome, found.inputs) == (Outcome.FAILS, (int(index),))
    assert found.message.startswith(f"records.tsv, line 4, radius: {float(rest[2]) + 1e-6:.6f} lies there,")


@pytest.mark.parametrize("name", PLOTS)
def test_another_plot_is_found_where_the_same_matplotlib_draws_it_again(runs, tmp_path, name):
    run = copied(runs["sequential"], tmp_path / "run")
    (run / name).write_bytes((run / name).read_bytes() + b" ")
    assert about(run).message.startswith(f"{name}, as a whole: another picture lies there")
    edit_json(run / "run.json", lambda d: d["versions"].update(matplotlib="2.0"))
    assert about(run).outcome is Outcome.HOLDS and "matplotlib 2.0" in about(run).message


def test_files_that_are_damaged_or_gone(runs, tmp_path):
    run = copied(runs["sequential"], tmp_path / "run")
    table = run / "certified-accuracy.json"
    table.write_bytes(b"\xff")
    assert about(run).message.startswith("certified-accuracy.json, as a whole: what cannot be read")
    table.unlink()
    assert about(run).outcome is Outcome.HOLDS
    (run / "records.tsv").write_text("")
    assert about(run).outcome is Outcome.FAILS
    (run / "records.tsv").unlink()
    assert about(run).outcome is Outcome.HOLDS


def test_what_another_version_or_half_a_run_wrote_is_not_accused(runs, tmp_path):
    run = copied(runs["sequential"], tmp_path / "run")
    edit_json(run / "certified-accuracy.json", lambda d: d.update(complete=False))
    assert "before all inputs were done" in about(run).message
    edit_json(run / "run.json", lambda d: d["versions"].update(certmix="0.0"))
    told = about(run)
    assert told.outcome is Outcome.UNCHECKED and told.message.startswith("written by certmix 0.0")
    assert told.check == PUBLISHED
