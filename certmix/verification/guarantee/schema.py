"""What may stand in a guarantee file: tables, keys, and what each takes.  Errors name the line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from certmix.errors import ParameterError, one_line

__all__ = ["SCHEMA", "Lines", "check_text", "read_table"]

LONGEST_TEXT, LONGEST_NAME, LARGEST_NUMBER = 2000, 200, 10**12


class _UnfitError(Exception):
    """The value is not what the key takes; the text says what it takes."""


def check_text(value: object) -> str:
    """Return a text that is safe to print and to use as a path.

    Raises
    ------
    ParameterError
        If it is too long, or holds line ends, escapes or other unprintable characters.
    """
    text = str(value)
    if not text.isprintable():
        raise ParameterError(f"{one_line(text)[:80]!r} holds unprintable characters: remove them")
    parts = re.split(r"[/\\]", text)
    if len(text) > LONGEST_TEXT or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise ParameterError(f"{text[:40]!r}...: the text is too long; shorten the name or the path")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _UnfitError("a text in quotes")
    return check_text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _UnfitError("true or false")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST_NUMBER:
        raise _UnfitError("a whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST_NUMBER:
        raise _UnfitError("a number")
    return float(value)


def _radius(value: object) -> float:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)/([1-9]\d{0,8})", value)):
        return float(found[1]) / float(found[2])
    try:
        return _number(value)
    except _UnfitError:
        raise _UnfitError('a number, or a quotient in quotes such as "8/255"') from None


def _list(kind: Callable[[object], Any], what: str) -> Callable[[object], tuple[Any, ...]]:
    def convert(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise _UnfitError(what)
        try:
            return tuple(kind(one) for one in value)
        except _UnfitError:
            raise _UnfitError(what) from None

    return convert


def _images(value: object) -> Any:
    if value == "all":
        return "all"
    try:
        return _whole(value)
    except _UnfitError:
        raise _UnfitError('a whole number, or "all"') from None


def _range(value: object) -> tuple[float, float] | None:
    if value == "none":
        return None
    what = 'two increasing numbers such as [0, 1], or "none"'
    limits = _list(_number, what)(value)
    if len(limits) != 2 or not limits[0] < limits[1]:
        raise _UnfitError(what)
    return limits[0], limits[1]


def _digest(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise _UnfitError("64 hexadecimal digits (SHA-256)")
    return value


_MODEL = {
    "model": _text, "weights": _text, "normalize": _text,
    "files": _list(_text, "a list of paths in quotes"), "checksum": _digest, "pin": _flag,
}  # fmt: skip
Kind = Callable[[object], Any]

SCHEMA: dict[str, dict[str, Kind]] = {
    "": {"version": _whole, "requirements": _list(_text, "a list of texts in quotes")},
    "data": {
        "name": _text, "split": _text, "images": _images, "input_range": _range, "resize": _whole,
        "crop": _whole, "checksum": _digest,
    },
    "standard": dict(_MODEL),
    "robust": dict(_MODEL),
    "certificate": {
        "name": _text, "alpha": _number, "sigma": _number, "norm": _text,
        "radii": _list(_radius, 'a list of numbers, or of quotients in quotes such as "8/255"'),
        "failure_probability": _number, "bound": _text, "bound_method": _text, "max_radius": _radius,
        "lipschitz_constant": _number, "constant_of": _text,
    },
    "sampling": {
        "samples": _whole, "selection_samples": _whole, "goal": _text, "relative_precision": _number,
        "scores": _text, "temperature": _number, "seed": _whole, "precision": _text,
    },
}  # fmt: skip
"""Table -> key -> what reads its value; the table without a name is the top of the file."""


class Lines:
    """Where keys and texts stand in a file, as far as a look at its lines can tell."""

    def __init__(self, where: str, text: str) -> None:
        self._where, self._lines = where, text.splitlines()

    def of_key(self, table: str, key: str) -> int | None:
        """Return the line (from 1) of a key in a table, of the table if there is no such key."""
        current, heading = "", None
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[+\s*\"?([^\]\"]*?)\"?\s*\]", line):
                current = header[1]
                heading = number if current == table else heading
            elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
                return number
        return heading

    def of_text(self, text: str) -> int | None:
        """Return the line on which a text stands in quotes."""
        forms = (f'"{text}"', f"'{text}'")
        return next((n for n, line in enumerate(self._lines, 1) if any(f in line for f in forms)), None)

    def at(self, line: int | None) -> str:
        """Return ``FILE, line N``, or the file alone."""
        return self._where if line is None else f"{self._where}, line {line}"

    def wrong(self, line: int | None, message: str) -> ParameterError:
        """Return the error of one line, ready to raise."""
        return ParameterError(one_line(f"{self.at(line)}: {message}"))


def read_table(lines: Lines, table: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the values of one table, each as its key takes it.

    Raises
    ------
    ParameterError
        For a key that is unknown, or a value of the wrong kind.
    """
    kinds, found = SCHEMA[table], {}
    where = f"in [{table}]" if table else "at the top"
    for key, value in content.items():
        line = lines.of_key(table, key)
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, 1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(kinds)}"
            raise lines.wrong(line, f"key {key[:40]!r} {where} is unknown: {remedy}")
        try:
            found[key] = kinds[key](value)
        except _UnfitError as error:
            raise lines.wrong(line, f"{key} = {_shown(value)}: give {error}") from None
        except ParameterError as error:
            raise lines.wrong(line, f"{key}: {error}") from None
    return found


def _shown(value: object) -> str:
    text = one_line(str(value).lower() if isinstance(value, bool) else repr(value))
    return text if len(text) <= 40 else text[:40] + "..."
