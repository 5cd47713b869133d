"""Errors are one line that any terminal can show, whatever they quote."""

from __future__ import annotations

import pickle

import pytest

from certmix import errors

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
    assert all(issubclass(kind, errors.CertmixError) for kind in KINDS if kind is not errors.Interrupted)
    assert issubclass(errors.Interrupted, KeyboardInterrupt)
