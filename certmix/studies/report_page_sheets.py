"""The tables and plots of an empirical study, as it published them.  No torch."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any

from certmix.errors import RunError
from certmix.plain_json import parse_json
from certmix.report.page.values import Table
from certmix.report.sheet_data import ATTACKED, CERTIFIED, ESTIMATE
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
        if stored["schema_version"] > SCHEMA_VERSION:
            raise ValueError(f"schema version {stored['schema_version']}")
        headings, numeric, printed = _markdown(path.with_suffix(".md").read_text(encoding="utf-8"))
        return _joined(stored, headings, numeric, printed)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} and its .md are not one readable table ({error}): repeat the command that made them"
        ) from None


def _joined(
    stored: dict[str, Any], headings: list[str], numeric: list[bool], printed: list[list[str]]
) -> Table:
    """Return printed cells with the kinds of their figures."""
    keys = [column["key"] for column in stored["columns"]]
    grouped = len(keys) == len(headings) + 1 and keys[0] == "group"
    keys = keys[1:] if grouped else keys
    rows = stored["rows"]
    if len(keys) != len(headings) or len(rows) != len(printed):
        raise ValueError("they have other rows or columns")
    cells = tuple(
        tuple((shown, _kind(row[key])) for key, shown in zip(keys, line, strict=True))
        for row, line in zip(rows, printed, strict=True)
    )
    groups: tuple[tuple[str | None, int], ...] = ((None, len(rows)),)
    if grouped:
        groups = tuple((str(name), len(list(part))) for name, part in groupby(row["group"] for row in rows))
    return Table(
        title=str(stored["title"]), settings=str(stored["settings"]), headings=tuple(headings),
        numeric=tuple(numeric), rows=cells,
        notes=tuple(map(str, stored["notes"])), complete=bool(stored["complete"]), groups=groups,
    )  # fmt: skip


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
    return [cell.strip() for cell in re.findall(r"((?:\\.|[^|\\])*)\|", line.strip()[1:])]


def _plain(cell: str) -> str:
    return re.sub(r"\\(.)", r"\1", cell)


def plots(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the plots at the top of a study's folder, but for very large ones."""
    return tuple(
        (path.stem, path.read_bytes())
        for path in sorted(folder.glob("*.svg"))
        if path.stat().st_size <= LARGEST_PLOT
    )
