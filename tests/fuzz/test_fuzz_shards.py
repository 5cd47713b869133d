"""Folders of shards, and merging them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from fuzz.databases import LOOSE, odd_cell
from fuzz.harness import (
    accepted,
    altered,
    fuzz,
    fuzz_few,
    json_bytes,
    judged,
    mutated,
    odd,
    odd_json,
    raw,
    refused,
    scratch,
)
from fuzz.made_runs import lay, made
from hypothesis import given
from hypothesis import strategies as st

from certmix.certification.shards import Part, agree, merge, read_part
from certmix.certification.stored import recertify
from certmix.errors import CertmixError

PLANNED = "planned images 6"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def two(place: Path) -> tuple[Path, Path]:
    """The folders of both shards; the first is damaged, the second stays as it is."""
    return lay(place / "first", made("first")), lay(place / "second", made("second"))


def described(shard: str = "first") -> Any:
    return json.loads(made(shard)["run.json"])


def damage(folder: Path, run: bytes | None = None, counts: bytes | None = None) -> Path:
    files = made("first")
    (folder / "run.json").write_bytes(files["run.json"] if run is None else run)
    (folder / "numbers.sqlite").write_bytes(files["numbers.sqlite"] if counts is None else counts)
    return folder


def both(folder: Path, other: Path) -> Part:
    """Read two shards and compare them, both ways."""
    parts: list[Part] = []
    try:
        for one in (folder, other):
            parts.append(read_part(one))
        agree(*parts)
        agree(*parts[::-1])
    finally:
        for part in parts:
            part.store.close()
    return parts[0]


def is_sound(found: Part | CertmixError) -> None:
    if isinstance(found, CertmixError):
        return
    assert 1 <= found.shard.number <= found.shard.of <= len(found.planned) == len(set(found.planned))
    assert all(type(index) is int and 0 <= index < 2**63 for index in found.planned)
    assert found.classes == len(found.description["data"]["class_names"]) >= 2
    assert {"standard", "robust"} <= set(found.description["models"])


def merged(place: Path, two: tuple[Path, Path]) -> Any:
    """Merge into a new folder: a whole run or none at all."""
    output = place / "merged"
    shutil.rmtree(output, ignore_errors=True)
    with patch("certmix.tables.curves.curve_plot", lambda *a, **k: b"plot"):
        found = judged(lambda: merge(two, output).summary)
    if isinstance(found, CertmixError):
        assert not output.exists(), sorted(output.iterdir())
    else:
        assert recertify(output).images == found.images == 6
    shutil.rmtree(output, ignore_errors=True)
    return found


def test_the_shards_are_good_to_begin_with(place: Path, two: tuple[Path, Path]) -> None:
    is_sound(accepted(lambda: both(*two), place))
    assert merged(place, two).complete


@given(
    st.deferred(lambda: odd_json(described())) | st.deferred(lambda: mutated(made("first")["run.json"])) | raw
)
@fuzz
def test_descriptions_of_shards(place: Path, two: tuple[Path, Path], content: bytes) -> None:
    damage(two[0], content)
    is_sound(judged(lambda: both(*two), place))


ABOUT = ("shard", "identity", "request", "data", "models")


@st.composite
def odd_parts(draw: st.DrawFn) -> bytes:
    """A description in which one part of what merging reads is odd."""
    plain = described()
    name = draw(st.sampled_from(ABOUT))
    inner = draw(st.sampled_from(sorted(plain[name])))
    if draw(st.booleans()):
        plain[name][inner] = draw(odd)
    elif draw(st.booleans()):
        del plain[name][inner]
    else:
        plain[name] = draw(odd)
    return json_bytes(draw, plain)


@given(odd_parts())
@fuzz
def test_parts_of_descriptions(place: Path, two: tuple[Path, Path], content: bytes) -> None:
    damage(two[0], content)
    is_sound(judged(lambda: both(*two), place))


odd_planned = (
    st.lists(st.integers(-2, 2**64) | st.booleans() | st.just(3), max_size=6).map(json.dumps)
    | st.deferred(lambda: odd_json(planned())).map(lambda content: content.decode("utf-8", "replace"))
    | st.sampled_from(["", "null", "5", '"012345"', "[" * 100_000, "[" + "9" * 5000 + "]", "{}", '{"0": 1}', "[[0]]"])
    | st.sampled_from(["[0, 2, 4, 6, 8, 10.0]", "[0, 2, 4, 6, 8, 8]", "[true, false]", "[NaN, 1]", "\ufeff[0, 1]"])
    | st.sampled_from([b"\xff\xfe", b"[0, 1]", 5, 0.5])
)  # fmt: skip


def planned() -> list[int]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(made("first")["numbers.sqlite"])
        found: list[int] = json.loads(
            db.execute("SELECT value FROM facts WHERE key = ?", (PLANNED,)).fetchone()[0]
        )
        return found


@given(odd_planned)
@fuzz
def test_planned_images(place: Path, two: tuple[Path, Path], value: Any) -> None:
    query = "UPDATE facts SET value = ? WHERE key = ?"
    damage(two[0], None, altered(made("first")["numbers.sqlite"], LOOSE, query, (value, PLANNED)))
    is_sound(judged(lambda: both(*two), place))


@given(st.data())
@fuzz
def test_databases_of_shards(place: Path, two: tuple[Path, Path], data: st.DataObject) -> None:
    good = [made(name)["numbers.sqlite"] for name in ("first", "second")]
    damage(two[0], None, data.draw(mutated(*good) | raw))
    is_sound(judged(lambda: both(*two), place))


@pytest.mark.parametrize(
    "change",
    [
        {"shard": {"number": 0, "of": 2}}, {"shard": {"number": 3, "of": 2}}, {"shard": {"number": 1, "of": 7}},
        {"shard": {"number": True, "of": 2}}, {"shard": {"number": 1.0, "of": 2}}, {"shard": {"number": 1}},
        {"shard": [1, 2]}, {"shard": None}, {"models": {}}, {"models": {"standard": {}, "robust": {}}},
        {"models": {"standard": None, "robust": 5}}, {"models": []}, {"data": {"name": "points"}}, {"identity": {}},
    ],
    ids=str,
)  # fmt: skip
def test_planted_faults_of_a_shard(place: Path, two: tuple[Path, Path], change: dict[str, Any]) -> None:
    damage(two[0], json.dumps({**described(), **change}).encode())
    told = refused(lambda: both(*two), place)
    assert "shard" in told and len(told) < 400


@pytest.mark.parametrize(
    "names", [["a", "b"], ["a", "b", "c", "d"], [], ["a"], "abc", None, 3, {"a": 0, "b": 1, "c": 2}]
)
def test_shards_of_other_classes(place: Path, two: tuple[Path, Path], names: Any) -> None:
    plain = described()
    plain["data"]["class_names"] = names
    damage(two[0], json.dumps(plain).encode())
    assert isinstance(merged(place, two), CertmixError)


CELLS = (("cells", "cell"), ("cells", "idx"), ("cells", "dtype"), ("cells", "data"), ("facts", "value"))


@st.composite
def odd_shards(draw: st.DrawFn) -> tuple[bytes | None, bytes | None]:
    """A description or a database of a shard that is odd."""
    if draw(st.booleans()):
        return draw(odd_parts()), None
    table, column = draw(st.sampled_from(CELLS))
    values = draw(odd_cell), draw(st.integers(1, 30))
    good = made("first")["numbers.sqlite"]
    try:
        return None, altered(good, LOOSE, f"UPDATE {table} SET {column} = ? WHERE rowid = ?", values)
    except (sqlite3.Error, UnicodeError, OverflowError):  # a value that the column cannot take
        return None, draw(mutated(good))


@given(st.data())
@fuzz_few
def test_what_cannot_be_merged_leaves_nothing(
    place: Path, two: tuple[Path, Path], data: st.DataObject
) -> None:
    damage(two[0], *data.draw(odd_shards()))
    merged(place, two)
