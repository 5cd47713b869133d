"""What every reader of files must do with any bytes, and where odd bytes come from.

``CERTMIX_FUZZ_CASES`` sets the number of cases of a property.  Without it there
are 30, the same in every run; with it they are drawn anew each time.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import resource
import sqlite3
import tempfile
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from certmix.errors import CertmixError

T = TypeVar("T")

CASES = int(os.environ.get("CERTMIX_FUZZ_CASES", "12"))

fuzz = settings(
    max_examples=CASES, derandomize="CERTMIX_FUZZ_CASES" not in os.environ, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


# what must hold


def judged(read: Callable[[], T], place: Path | None = None) -> T | CertmixError:
    """Read, and see that it gives a value or one line of certmix, warns of nothing and leaves all as it was."""
    before = _tree(place)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            outcome: T | CertmixError = read()
        except CertmixError as error:
            outcome = error
    assert not told, [str(warning.message) for warning in told]
    assert _tree(place) == before, "reading has changed the files"
    if isinstance(outcome, CertmixError):
        text = str(outcome)
        assert len(text.splitlines()) == 1 and 10 < len(text) < 1000 and "Traceback" not in text, text
    return outcome


def refused(read: Callable[[], Any], place: Path | None = None) -> str:
    """Return the one line of a file that must be refused."""
    outcome = judged(read, place)
    assert isinstance(outcome, CertmixError), f"it was read as {outcome!r}"
    return str(outcome)


def accepted(read: Callable[[], T], place: Path | None = None) -> T:
    """Return what a good file holds."""
    outcome = judged(read, place)
    assert not isinstance(outcome, CertmixError), str(outcome)
    return outcome


def _tree(place: Path | None) -> dict[str, Any]:
    """Everything below a folder: bytes of files, targets of links."""
    found: dict[str, Any] = {}
    if place is not None:
        for path in sorted(place.rglob("*")):
            name = str(path.relative_to(place))
            found[name] = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
    return found


@contextmanager
def little_memory() -> Iterator[None]:
    """See that Python and numpy never hold 32 MiB more, nor the process 256 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert peak < 1 << 25 and grown < 1 << 18, f"{peak:,} bytes, {grown:,} KiB"


class Payload:
    """Something that makes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.witness), "w")

    def pickled(self, protocol: int) -> bytes:
        """Return the pickle."""
        return pickle.dumps({"data": self, "state_dict": self, "identity": self}, protocol)


# where the files are


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a module's files, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def lay(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by their paths in a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def altered(database: bytes, script: str = "", *update: Any) -> bytes:
    """Return a database in one file after a script and one statement with its values."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(database)
        db.executescript(script)
        if update:
            db.execute(*update)
        db.commit()
        return db.serialize()


def as_one_file(path: Path) -> bytes:
    """Return a database without the files beside it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


# bytes

_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**64 - 1)


def mutate(valid: bytes, seed: int) -> bytes:
    """Return a valid file with one to four faults."""
    rng, data = random.Random(seed), bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(data)
        at, length = rng.randrange(size + 1), rng.choice((1, 2, 4, 8, 16, 64, 512))
        kind = rng.randrange(9)
        if kind == 0 and size:
            for _ in range(rng.choice((1, 2, 8))):
                data[rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 5:
            data[at:at] = rng.randbytes(length)
        elif kind == 6:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(_NUMBERS) % 2 ** (8 * width)
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 7:
            data[at : at + length] = bytes([rng.choice((0, 10, 32, 48, 255))]) * length
        else:
            data[at:] = valid[rng.randrange(len(valid) + 1) :]
    return bytes(data)


raw = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"null", b"[]", b"{}", b"\r\n", b"\x80\x02}."]
        + [b"[" * 100_000, b"a = " + b"[" * 100_000, b"x" * (1 << 21), b'"' + b"x" * 200_000 + b'"']
    ),
)
"""Bytes that never were anything."""


def odd_file(name: str, valid: bytes) -> st.SearchStrategy[bytes]:
    """A file that is not as it was, by what its name says that it is."""
    suffix = Path(name).suffix
    faults = [st.integers(0, 2**48).map(lambda seed: mutate(valid, seed)), raw]
    if suffix == ".json":
        faults += [odd_json(json.loads(valid))] * 2
    elif suffix == ".sqlite":
        faults += [odd_database(valid)] * 2
    elif suffix in _GAPS:
        faults += [odd_lines(valid, _GAPS[suffix])] * 2
    return st.one_of(faults)


def one_odd(files: Mapping[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """One of these files by its name, that is not as it was."""

    def of(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        return st.tuples(st.just(name), odd_file(name, files[name]))

    return st.sampled_from(sorted(files)).flatmap(of)


_GAPS = {".tsv": "\t", ".txt": " ", ".toml": " = "}

# JSON

_DEEP, _DIGITS, _HUGE = "@deep@", "@digits@", "@huge@"

odd = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 2, 0.5, 1.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), float("-inf"),
        10**15, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, "", "x", "a\nb", "a\r\u2028b", "\x1b[31m",
        "\0", "\ud800", "é", "../../escape", "/etc/passwd", "~\0", "~", "-1", "1", "1_0", "nan", "inf", "x" * 5000,
        "1e3", "1e-400", "५", "0x10", "999999999 days, 0:00:01", '"x"', "[1, [2]]", "{a = 1}", '"1/0"', "[data.x]",
        '["clean_accuracy >= 1e400"]', '["certified_accuracy@9e999 >= 0.1"]', "a.b.c = 1",
        [], {}, [[]], [None], [1, 2], ["a", "b"], {"": None}, {"a\nb": 1}, {"0": 1}, _DEEP, _DIGITS, _HUGE,
    ]
)  # fmt: skip
"""Values of JSON that a field may not hold."""
odd = odd.map(copy.deepcopy)


def _places(plain: Any) -> list[tuple[Any, ...]]:
    keys = list(plain) if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else []
    return [(key, *rest) for key in keys for rest in [(), *_places(plain[key])]]


def _spoilt(draw: st.DrawFn, valid: Any) -> Any:
    """Return nested plain data with one to three fields replaced, removed, added or repeated."""
    plain = copy.deepcopy(valid)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        places = _places(plain)
        if not places:
            break
        *inner, last = draw(st.sampled_from(places))
        parent, kind = plain, draw(st.integers(0, 6))
        for key in inner:
            parent = parent[key]
        if kind <= 3:
            parent[last] = draw(odd)
        elif kind == 4:
            del parent[last]
        elif kind == 5 and isinstance(parent, dict):
            parent[draw(st.sampled_from(("extra", "a\nb", "", "\ud800", "-1", "99", "x" * 300)))] = draw(odd)
        else:
            parent[last] = [parent[last]] * draw(st.sampled_from((1, 3)))
    return plain


@st.composite
def odd_json(draw: st.DrawFn, valid: Any) -> bytes:
    """JSON that is spoilt, now and then in a form of others, or with a key twice."""
    plain = _spoilt(draw, valid)
    text = json.dumps(plain)
    text = text.replace(json.dumps(_DEEP), "[" * 20_000 + "]" * 20_000).replace(json.dumps(_HUGE), "1e999")
    text = text.replace(json.dumps(_DIGITS), "9" * 5000)
    form = draw(st.integers(0, 30))
    if form == 0 and text.startswith("{") and plain:
        text = "{" + f"{json.dumps(next(iter(plain)))}: null, " + text[1:]
    if form == 1:
        text = text.replace(", ", ",\r\n")
    return text.encode({2: "utf-8-sig", 3: "utf-16"}.get(form, "utf-8"))


@st.composite
def odd_lines(draw: st.DrawFn, valid: bytes, gap: str) -> bytes:
    """A table in text, or TOML, where the gap is an equals sign, that is spoilt."""
    rows = _spoilt(draw, [line.split(gap) for line in valid.decode().splitlines()])
    lines = [gap.join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
    text = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])).join(lines)
    text = text.replace(_DEEP, "[" * 5000 + "]" * 5000).replace(_DIGITS, "9" * 5000).replace(_HUGE, "1e999")
    mark = draw(st.sampled_from([b"", b"", b"", b"\xef\xbb\xbf"]))
    return mark + (text + draw(st.sampled_from(["\n", ""]))).encode("utf-8", "surrogatepass")


# databases of a run

_LOOSE = """CREATE TABLE t (cell, idx, dtype, data); INSERT INTO t SELECT * FROM cells;
    DROP TABLE cells; ALTER TABLE t RENAME TO cells; CREATE TABLE f (key, value); INSERT INTO f SELECT * FROM facts;
    DROP TABLE facts; ALTER TABLE f RENAME TO facts; CREATE TABLE b (cell, first, last, dtype, inputs, lengths, data);
    INSERT INTO b SELECT * FROM blocks; DROP TABLE blocks; ALTER TABLE b RENAME TO blocks;"""


_BLOCK = "cell first last dtype inputs lengths data"


@lru_cache(maxsize=4)
def loose(database: bytes) -> bytes:
    """The same database without types and constraints, so that its cells hold anything."""
    return altered(database, _LOOSE)


_odd_cell = st.one_of(
    st.sampled_from([None, -1, 3, 2**63 - 1, 1.5, 1e308, "", "x", "a\nb", "-1", "\0", "votes@100", "votes@ten"]),
    st.sampled_from(["null", "5", "[]", '"0123"', "{}", '{"0": 1}', "[[0]]", "[" * 100_000, "[" + "9" * 5000 + "]"]),
    st.sampled_from(["[0, 2, 4.0]", "[0, 2, 2]", "[true, false]", "[NaN, 1]", "\ufeff[0, 1]", "[-1, 99]", b"[0]"]),
    st.sampled_from([b"", b"\xff", b"\0" * 24, b"\xff" * 24, zlib.compress(bytes(24)), zlib.compress(bytes(2**20))]),
    st.binary(max_size=48),
)  # fmt: skip
_vector = st.one_of(
    st.lists(st.sampled_from((-1, 0, 1, 3, 200, 2**62)), max_size=6).map(
        lambda v: ("int64", np.array(v, "<i8"))
    ),
    st.lists(st.sampled_from((-1.0, 0.25, 1.0, 1.5, 1e308, np.nan, np.inf)), max_size=6).map(
        lambda v: ("float64", np.array(v, "<f8"))
    ),
).map(lambda pair: (pair[0], pair[1].tobytes()))


@st.composite
def odd_database(draw: st.DrawFn, valid: bytes) -> bytes:
    """A database in which one value, a whole vector, or a few bytes of one are others."""
    tables = {
        name: columns.split()
        for name, columns in {"cells": "cell idx dtype data", "facts": "key value", "blocks": _BLOCK}.items()
    }
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(loose(valid))
        rows = {name: [row for (row,) in db.execute(f"SELECT rowid FROM {name}")] for name in tables}
        table = draw(st.sampled_from([name for name in tables if rows[name]] or ["cells"]))
        row, column = draw(st.sampled_from(rows[table] or [0])), draw(st.sampled_from(tables[table]))
        held = db.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()
    kind = draw(st.integers(0, 3))
    if table == "cells" and kind < 2:
        change, values = "dtype = ?, data = ?", draw(_vector)
    elif held and isinstance(held[0], bytes) and kind > 0:
        change, values = f"{column} = ?", (mutate(held[0], draw(st.integers(0, 2**48))),)
    else:
        change, values = f"{column} = ?", (draw(_odd_cell),)
    return altered(loose(valid), "", f"UPDATE {table} SET {change} WHERE rowid = ?", (*values, row))
