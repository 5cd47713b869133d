"""Run folders as the verification reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from fuzz.databases import COLUMNS, as_one_file, odd_cell
from fuzz.harness import accepted, altered, fuzz, judged, mutated, odd_json, raw, scratch
from fuzz.runs import RUN, database, prepare
from hypothesis import given
from hypothesis import strategies as st

from certmix.runs import Store
from certmix.verification.stored import load


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


NEEDED = {**RUN, "versions": {"certmix": "0"}, "device": "cpu", "threads": 1}


def test_the_run_is_good_to_begin_with(place: Path) -> None:
    prepare(place, json.dumps(NEEDED).encode())
    assert sorted(accepted(lambda: load(place), place).images) == [0, 3, 6, 9]


@given(odd_json(NEEDED) | raw)
@fuzz
def test_descriptions(place: Path, content: bytes) -> None:
    prepare(place, content)
    judged(lambda: load(place), place)


@given(st.data())
@fuzz
def test_databases(place: Path, data: st.DataObject) -> None:
    column, value = data.draw(st.sampled_from(COLUMNS)), data.draw(odd_cell)
    try:
        counts = altered(database(), "", f"UPDATE images SET {column} = ? WHERE idx = 3", (value,))
    except Exception:
        counts = data.draw(mutated(database()) | raw)
    prepare(place, json.dumps(NEEDED).encode(), counts)
    judged(lambda: load(place), place)


@given(st.data())
@fuzz
def test_vectors(place: Path, data: st.DataObject) -> None:
    plain = {
        **NEEDED,
        "identity": {"study": "certify-margin"},
        "request": {"alpha": 0.76, "certificate": "margin"},
    }
    prepare(place, json.dumps(plain).encode())
    (place / "numbers.sqlite").write_bytes(data.draw(mutated(vectors()) | raw))
    judged(lambda: load(place), place)


@cache
def vectors() -> bytes:
    with scratch() as folder:
        store = Store(folder / "made.sqlite")
        store.write("radii", [3, 6], [[0.5, 1.0], [0.25, 0.5]])
        store.close()
        return as_one_file(folder / "made.sqlite")
