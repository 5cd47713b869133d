"""Errors are one line that any terminal can show, whatever they quote."""

from __future__ import annotations

import pickle
import re
import shlex
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from certmix import errors

ROOT = Path(__file__).parents[1]
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.npz: 5 rows, \u03b1 = 1: restore it", "a.npz: 5 rows, \u03b1 = 1: restore it"),
        ("a\nError: b", r"a\nError: b"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\x1b[2J\x07\0", r"\x1b[2J\x07\x00"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
    ids=ascii,
)
def test_what_cannot_be_printed_is_spelt_out(kind: type[Exception], text: str, told: str) -> None:
    error = kind(text)
    assert str(error) == f"{error}" == told
    assert error.args == (text,)
    assert str(kind(str(error))) == told  # quoted again it stays the same
    assert str(pickle.loads(pickle.dumps(error))) == told


def test_texts_can_be_written_in_any_encoding_that_has_their_letters() -> None:
    assert str(errors.DataError("\udcff.npz")).encode("ascii") == rb"\udcff.npz"


def test_kinds_are_what_they_were() -> None:
    assert issubclass(errors.ParameterError, ValueError)
    others = [kind for kind in KINDS if not issubclass(kind, errors.CertmixError)]
    assert set(others) == {errors.Interrupted, errors.CertmixWarning}
    assert issubclass(errors.Interrupted, KeyboardInterrupt)


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_brings_is_named_as_pip_takes_it(extra: str, monkeypatch) -> None:
    told = ["numpy>=2", *(f'{need}; extra == "{name}"' for name, needs in EXTRAS.items() for need in needs)]
    monkeypatch.setattr(errors, "requires", lambda name: told)
    assert shlex.split(errors.install(extra)) == ["pip", "install", *EXTRAS[extra]]


def test_without_metadata_the_extra_is_named(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(errors, "requires", missing)
    assert errors.install("ray") == "pip install 'certmix[ray]'"


def test_nothing_else_tells_to_install_an_extra_of_a_package_that_no_index_has() -> None:
    sources = [
        *(ROOT / "certmix").rglob("*.py"),
        *(ROOT / "cli").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    told = [path.name for path in sources if re.search(r"certmix\[\w+\]", path.read_text(encoding="utf-8"))]
    assert told == []
