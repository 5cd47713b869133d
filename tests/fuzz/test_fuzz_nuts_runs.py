"""Cached logits, and what the studies of nonlinear mixes read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fuzz.databases import as_one_file
from fuzz.harness import accepted, fuzz, judged, mutated, odd_json, raw, refused, scratch
from fuzz.tables import odd_lines
from hypothesis import given
from hypothesis import strategies as st

from certmix.runs import Store
from certmix.runs.attack_request import AttackRequest
from certmix.studies.nuts_cached import read_inputs
from certmix.studies.nuts_fit import CachedLogits, FitChoices, read_logits, write_logits


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@cache
def logits() -> bytes:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(6, 3)).round(3) for _ in range(3)]
    with scratch() as folder:
        write_logits(folder / "logits.npz", CachedLogits(*arrays, np.arange(6) % 3, 10 * np.arange(6)))
        return (folder / "logits.npz").read_bytes()


FIT = {
    "format_version": 2,
    "identity": {"study": "nuts-fit", "data_checksum": "d", "standard_checksum": "g", "robust_checksum": "h"},
    "request": json.loads(json.dumps({**AttackRequest(steps=20).as_dict(), **FitChoices().as_dict()})),
    "data": {"name": "planted", "split": "test"},
    "models": {"standard": {"name": "accurate"}, "robust": {"name": "steady"}},
}
POINTS = {**FIT, "identity": {**FIT["identity"], "study": "nuts-evaluate"}}


@cache
def vectors() -> bytes:
    with scratch() as folder:
        store = Store(folder / "made.sqlite")
        for cell in ("clean", "STD"):
            store.write(cell, [5, 15, 25], np.arange(18.0).reshape(3, 6))
        store.close()
        return as_one_file(folder / "made.sqlite")


IMAGES = b"idx\tlabel\tbroken_by\n5\t0\t\n15\t1\tSTD\n25\t2\t\n"


@given(st.data())
@fuzz
def test_cached_logits(place: Path, data: st.DataObject) -> None:
    (place / "logits.npz").write_bytes(data.draw(mutated(logits()) | raw))
    found = judged(lambda: read_logits(place / "logits.npz"), place)
    if isinstance(found, CachedLogits):
        assert found.robust.dtype == np.float64 and np.isfinite(found.robust).all()
        assert found.labels.min(initial=0) >= 0 and found.labels.max(initial=0) < found.robust.shape[1]


@given(st.data())
@fuzz
def test_folders_of_fits_and_evaluations(place: Path, data: st.DataObject) -> None:
    which = data.draw(st.sampled_from(["fit", "points", "images", "vectors"]))
    fit, points = place / "fit", place / "points"
    fit.mkdir(exist_ok=True)
    points.mkdir(exist_ok=True)
    good = {fit / "run.json": json.dumps(FIT).encode(), points / "run.json": json.dumps(POINTS).encode()}
    good |= {
        fit / "logits.npz": logits(),
        points / "numbers.sqlite": vectors(),
        points / "images.tsv": IMAGES,
    }
    odd = {
        "fit": (fit / "run.json", odd_json(FIT)),
        "points": (points / "run.json", odd_json(POINTS)),
        "images": (points / "images.tsv", odd_lines(IMAGES, "\t") | mutated(IMAGES)),
        "vectors": (points / "numbers.sqlite", mutated(vectors())),
    }
    path, strategy = odd[which]
    for name, content in {**good, path: data.draw(strategy)}.items():
        name.write_bytes(content)
    judged(lambda: read_inputs([fit, points]), place)


def test_the_folders_are_good_to_begin_with(tmp_path: Path) -> None:
    for name, run in (("fit", FIT), ("points", POINTS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(run))
    (tmp_path / "fit" / "logits.npz").write_bytes(logits())
    (tmp_path / "points" / "numbers.sqlite").write_bytes(vectors())
    (tmp_path / "points" / "images.tsv").write_bytes(IMAGES)
    found = accepted(lambda: read_inputs([tmp_path / "fit", tmp_path / "points"]), tmp_path)
    assert found.points is not None and found.points.labels.tolist() == [0, 1, 2]


def test_logits_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    good = dict(np.load(io.BytesIO(logits())))
    good["labels"] = np.array([0, 1, 2, 0, 1, None], object)
    np.savez(tmp_path / "logits.npz", **good)
    refused(lambda: read_logits(tmp_path / "logits.npz"), tmp_path)
