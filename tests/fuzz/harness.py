"""What every reader of files must do with any bytes, and where odd bytes come from.

``CERTMIX_FUZZ_CASES`` sets the number of cases of each property.  Without it
there are 300, the same in every run; with it they are drawn anew each time.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from certmix.errors import CertmixError

T = TypeVar("T")

CASES = int(os.environ.get("CERTMIX_FUZZ_CASES", "300"))

fuzz = settings(
    max_examples=CASES, derandomize="CERTMIX_FUZZ_CASES" not in os.environ, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
fuzz_few = settings(fuzz, max_examples=max(1, CASES // 10))
"""For readers that are mostly another library's, and slow."""


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
        is_one_line(outcome)
    return outcome


def is_one_line(error: CertmixError) -> None:
    text = str(error)
    assert len(text.splitlines()) == 1, text
    assert len(text) > 10 and "Traceback" not in text, text


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
def scratch() -> Iterator[Path]:
    """A folder for a module's files, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def altered(database: bytes, script: str = "", *update: Any) -> bytes:
    """Return a database in one file after a script and one statement with its values."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(database)
        db.executescript(script)
        if update:
            db.execute(*update)
        db.commit()
        return db.serialize()


class Payload:
    """Something that makes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.witness), "w")

    def pickled(self, protocol: int) -> bytes:
        """Return the pickle."""
        return pickle.dumps({"data": self, "state_dict": self}, protocol)


_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**64 - 1)


def mutate(valid: bytes, seed: int, other: bytes = b"") -> bytes:
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
            start = rng.randrange(len(other) + 1)
            data[at:] = (other or valid)[start:]
    return bytes(data)


def mutated(valid: bytes, other: bytes = b"") -> st.SearchStrategy[bytes]:
    """Files that were good once."""
    return st.integers(0, 2**48).map(lambda seed: mutate(valid, seed, other))


raw = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"null", b"[]", b"{}", b"\r\n", b"\x80\x02}."]
    ),
)
"""Bytes that never were anything."""

_DEEP, _DIGITS, _HUGE = "@deep@", "@digits@", "@huge@"

odd = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 2, 0.5, 1.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"), float("-inf"),
        10**15, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, "", "x", "a\nb", "a\r\u2028b", "\x1b[31m",
        "\0", "\ud800", "é", "../../escape", "/etc/passwd", "~\0", "~", "-1", "1", "1_0", "nan", "inf", "x" * 5000,
        [], {}, [[]], [None], [1, 2], ["a", "b"], {"": None}, {"a\nb": 1}, {"0": 1}, _DEEP, _DIGITS, _HUGE,
    ]
)  # fmt: skip
"""Values of JSON that a field may not hold."""
odd = odd.map(copy.deepcopy)


def _places(plain: Any) -> list[tuple[Any, ...]]:
    keys = list(plain) if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else []
    return [(key, *rest) for key in keys for rest in [(), *_places(plain[key])]]


@st.composite
def odd_json(draw: st.DrawFn, valid: Any) -> bytes:
    """JSON with one to three fields replaced, removed, added or named twice."""
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
    return json_bytes(draw, plain)


def json_bytes(draw: st.DrawFn, plain: Any) -> bytes:
    """Write plain data, now and then in an encoding or a form that others use."""
    text = json.dumps(plain)
    text = text.replace(json.dumps(_DEEP), "[" * 20_000 + "]" * 20_000).replace(json.dumps(_HUGE), "1e999")
    text = text.replace(json.dumps(_DIGITS), "9" * 5000)
    form = draw(st.integers(0, 30))
    if form == 0 and text.startswith("{") and plain:
        name = next(iter(plain))
        text = "{" + f"{json.dumps(name)}: null, " + text[1:]
    if form == 1:
        return b"\xef\xbb\xbf" + text.encode()
    if form == 2:
        return text.encode("utf-16")
    if form == 3:
        return text.replace(", ", ",\r\n").encode()
    return text.encode()
