"""The tables and plots that an empirical study left in its folder.  No torch."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import msgspec

from certmix.errors import RunError
from certmix.files import parse_json
from certmix.tables.formats import ATTACKED, CERTIFIED
from certmix.tables.table import Cell, Quantity, Table
from certmix.types import AttackedAccuracy, CertifiedShare, EstimatedAccuracy

LARGEST_PLOT = 300_000  # bytes
_KINDS = {CERTIFIED: CertifiedShare, ATTACKED: AttackedAccuracy}


class _Column(msgspec.Struct):
    key: str
    heading: str


class _Stored(msgspec.Struct):
    schema_version: Literal[1]
    name: str
    title: str
    settings: str
    complete: bool
    columns: list[_Column]
    rows: list[dict[str, str | int | float | bool | dict[str, Any] | None]]
    notes: tuple[str, ...]


def read_tables(folder: Path) -> tuple[Table, ...]:
    """Return the tables at the top of a study's folder, from their JSON.

    Raises
    ------
    RunError
        If there is none, or one cannot be read.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            stored = parse_json(path.read_bytes())
            if isinstance(stored, dict) and {"columns", "rows", "title", "schema_version"} <= set(stored):
                found.append(_table(msgspec.convert(stored, _Stored)))
        except (OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} is not a readable table ({str(error)[:200]}): repeat the command that made it"
            ) from None
    if not found:
        raise RunError(f"{folder} holds no results yet: repeat the command that made it")
    return tuple(found)


def _table(stored: _Stored) -> Table:
    grouped = [column.key for column in stored.columns[:1]] == ["group"]
    columns = stored.columns[1:] if grouped else stored.columns
    rows = tuple(tuple(_cell(row[column.key]) for column in columns) for row in stored.rows)
    names = groupby(str(row["group"]) for row in stored.rows) if grouped else ()
    headings, groups = (
        (column.heading for column in columns),
        ((name, len(list(part))) for name, part in names),
    )
    return Table(
        stored.name, stored.title, stored.settings, tuple(headings), rows, stored.notes, stored.complete,
        tuple(groups),
    )  # fmt: skip


def _cell(stored: Any) -> Cell:
    """Return a cell as the study had it; ValueError if it is none."""
    if not isinstance(stored, dict):
        return stored
    if "unit" in stored:
        return msgspec.convert(stored, Quantity)
    low, high = (float("nan") if end is None else float(end) for end in stored["interval"])
    correct, images = stored["correct"], stored["images"]
    if type(correct) is not int or type(images) is not int or not 0 <= correct <= images:
        raise ValueError(f"{ascii(correct)[:20]} of {ascii(images)[:20]} where a share belongs")
    return _KINDS.get(stored["kind"], EstimatedAccuracy)(correct, images, (low, high))


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
