"""The tables and plots of an empirical study, as it published them.  No torch."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any

from certmix.errors import RunError, one_line
from certmix.page.values import Table
from certmix.plain_json import parse_json
from certmix.tables.formats import ATTACKED, CERTIFIED, ESTIMATE
from certmix.tables.table import printed
from certmix.text import accuracy
from certmix.types import SCHEMA_VERSION

__all__ = ["plots", "tables"]

KINDS = {ATTACKED: "attacked", ESTIMATE: "estimate", CERTIFIED: "certified"}
LARGEST_PLOT = 300_000  # bytes


def tables(folder: Path) -> tuple[Table, ...]:
    """Return the tables at the top of a study's folder.

    Figures are those that the study printed (``NAME.md``), rounded as they
    are there; what each of them is stands in ``NAME.json``.

    Raises
    ------
    RunError
        If there is none, or the two files of one disagree.
    """
    found = [table for path in sorted(folder.glob("*.json")) if (table := _table(path)) is not None]
    if not found:
        raise RunError(f"{folder} holds no results yet: repeat the command that made it")
    return tuple(found)


def _table(path: Path) -> Table | None:
    try:
        stored = parse_json(path.read_bytes())
        if not isinstance(stored, dict) or not {"columns", "rows", "title", "schema_version"} <= set(stored):
            return None
        if not all(isinstance(stored[key], list) for key in ("columns", "rows", "notes")):
            raise ValueError("columns, rows and notes are lists")
        if stored["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {stored['schema_version']!r:.20}")
        headings, numeric, lines = _markdown(path.with_suffix(".md").read_text(encoding="utf-8"))
        return _joined(stored, headings, numeric, lines)
    except (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} and its .md are not one readable table ({str(error)[:200]}): "
            "repeat the command that made them"
        ) from None


def _joined(
    stored: dict[str, Any], headings: list[str], numeric: list[bool], lines: list[list[str]]
) -> Table:
    """Return printed cells with the kinds of their figures."""
    columns = [(_text(column["key"]), _text(column["heading"])) for column in stored["columns"]]
    grouped = len(columns) == len(headings) + 1 and columns[0][0] == "group"
    columns = columns[1:] if grouped else columns
    keys, rows = [key for key, _ in columns], stored["rows"]
    if not len(columns) == len(headings) == len(numeric) or len(rows) != len(lines):
        raise ValueError("they have other rows or columns")
    if not all(
        shown.startswith(one_line(name).strip()) for shown, (_, name) in zip(headings, columns, strict=True)
    ):
        raise ValueError("they have other headings")
    cells = tuple(
        tuple((_agreed(shown, row[key]), _kind(row[key])) for key, shown in zip(keys, line, strict=True))
        for row, line in zip(rows, lines, strict=True)
    )
    groups: tuple[tuple[str | None, int], ...] = ((None, len(rows)),)
    if grouped:
        groups = tuple((str(name), len(list(part))) for name, part in groupby(row["group"] for row in rows))
    return Table(
        title=_text(stored["title"]), settings=_text(stored["settings"]), headings=tuple(headings),
        numeric=tuple(numeric), rows=cells,
        notes=tuple(map(_text, stored["notes"])), complete=stored["complete"] is True, groups=groups,
    )  # fmt: skip


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{ascii(value)[:60]} where words belong")
    return value


def _agreed(shown: str, cell: Any) -> str:
    """Return a printed cell; ValueError if the stored one has other words or another accuracy."""
    if isinstance(cell, str | int):
        told, first = one_line(printed(cell).text).strip(), shown
    elif isinstance(cell, dict) and "kind" in cell:
        told, first = accuracy(_share(cell["accuracy"])), shown.partition(" ")[0]
    else:
        return shown
    if first != told:
        raise ValueError(f"one says {ascii(first)[:40]}, the other {ascii(told)[:40]}")
    return shown


def _share(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not 0 <= value <= 1):
        raise ValueError(f"{ascii(value)[:60]} where a share belongs")
    return None if value is None else float(value)


def _kind(cell: Any) -> str:
    return KINDS.get(cell.get("kind", ""), "") if isinstance(cell, dict) else ""


def _markdown(text: str) -> tuple[list[str], list[bool], list[list[str]]]:
    """Return headings, which columns are flush right, and rows but those that name a group."""
    lines = [_cells(line) for line in text.splitlines() if line.startswith("| ")]
    if not lines:
        return [], [], []
    names = [line for line in lines[2:] if not (line[0].startswith("**") and not any(line[1:]))]
    numeric = [cell.endswith(":") for cell in lines[1]]
    return [_plain(cell) for cell in lines[0]], numeric, [[_plain(cell) for cell in line] for line in names]


def _cells(line: str) -> list[str]:
    """Return what stands between the bars of a line; a bar after a backslash is part of the text."""
    parted = re.sub(r"(\\.)|\|", lambda found: found[1] or "\n", line.strip()[1:])
    return [cell.strip() for cell in parted.split("\n")[:-1]]


def _plain(cell: str) -> str:
    return re.sub(r"\\(.)", r"\1", cell)


def plots(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the plots at the top of a study's folder, but for very large ones and for links.

    Raises
    ------
    RunError
        If one cannot be read.
    """
    try:
        return tuple(
            (path.stem, path.read_bytes())
            for path in sorted(folder.glob("*.svg"))
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST_PLOT
        )
    except OSError as error:
        raise RunError(f"{error.filename} cannot be read ({error.strerror}): restore it") from None
