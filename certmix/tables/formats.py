"""A table in each format: for people and for programs; and its files."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import Any

from certmix.atomic import write_atomically
from certmix.errors import ParameterError
from certmix.tables.cells import known
from certmix.tables.json_table import _plain as plain
from certmix.tables.markdown import _escape as escape
from certmix.tables.table import (
    Cell,
    Printed,
    Quantity,
    Table,
    check_stem,
    column_units,
    printed,
    printed_headings,
    printed_notes,
    text_columns,
)
from certmix.tables.table_latex import latex_table
from certmix.tables.table_text import text_table
from certmix.tables.wording import one_line
from certmix.text import plain_decimal
from certmix.types import SCHEMA_VERSION, AccuracyShare, AttackedAccuracy, CertifiedShare

__all__ = ["FORMATS", "render", "write_files"]

ATTACKED, ESTIMATE = "attacked, an upper bound of robust accuracy", "estimate"
CERTIFIED = "certified"

_SPELT = str.maketrans(
    {"%": " percent ", "/": " per ", "\u03b1": "alpha", "\u03b5": "eps", "\u03c3": "sigma", "\u2113": "l"}
)


def csv_table(table: Table) -> str:
    """Return one line a row, with a heading line of identifiers.

    A column of accuracies is a share of 1 and followed by its interval's ends,
    ``..._low`` and ``..._high``; one unit is part of the heading, several are a
    column ``..._unit``.  Groups are the first column; ``complete`` is the last.
    Empty where unknown.
    """
    units = column_units(table)
    accurate = [
        any(isinstance(c, AccuracyShare) for c in table.column(k)) for k in range(len(table.headings))
    ]
    names = ["group"] if table.groups else []
    for heading, unit, ends in zip(table.headings, units, accurate, strict=True):
        base = heading if not unit or (unit == "%" and ends) else f"{heading} {unit}"
        names += [base, *([f"{heading} low", f"{heading} high"] if ends else [])]
        names += [f"{heading} unit"] if unit is None else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(identifiers([*names, "complete"]))
    for name, rows in table.blocks():
        for row in rows:
            values = [one_line(name)] if name is not None else []
            for cell, unit, ends in zip(row, units, accurate, strict=True):
                values += _values(cell, ends) + ([_unit(cell)] if unit is None else [])
            writer.writerow([*values, "true" if table.complete else "false"])
    return buffer.getvalue()


def _values(cell: Cell, ends: bool) -> list[str]:
    if isinstance(cell, AccuracyShare):
        counted = known(cell.accuracy)
        return [_number(value if counted else None) for value in (cell.accuracy, *cell.interval)]
    text = one_line(cell) if isinstance(cell, str) else _number(_value(cell))
    return [text, "", ""] if ends else [text]


def _value(cell: float | Quantity | None) -> float | None:
    return cell.value if isinstance(cell, Quantity) else cell


def _number(value: float | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not known(value):
        return ""
    return str(int(value)) if isinstance(value, Integral) else plain_decimal(value)


def _unit(cell: Cell) -> str:
    if isinstance(cell, AccuracyShare):
        return "share"
    return one_line(cell.unit) if isinstance(cell, Quantity) else ""


def json_table(table: Table) -> str:
    """Return a table as one JSON object, ASCII, ``null`` for what is unknown or not finite.

    ``rows`` are objects whose keys are those of ``columns``; an accuracy is an
    object with its counts, interval and kind, a quantity one of value and unit.
    """
    first = ["group"] if table.groups else []
    keys = identifiers([*first, *table.headings])
    rows = [
        dict(zip(keys, [*([name] if table.groups else []), *map(_object, row)], strict=True))
        for name, rows in table.blocks()
        for row in rows
    ]
    headings = [*first, *table.headings]
    found = {
        "schema_version": SCHEMA_VERSION,
        "name": table.name,
        "title": table.title,
        "settings": table.settings,
        "complete": table.complete,
        "columns": [{"key": k, "heading": h} for k, h in zip(keys, headings, strict=True)],
        "rows": rows,
        "notes": table.notes,
        "extra": table.extra,
    }
    return json.dumps(plain(found), indent=2, allow_nan=False) + "\n"


def _object(cell: Cell) -> Any:
    if isinstance(cell, AccuracyShare):
        return {
            "accuracy": cell.accuracy,
            "correct": cell.correct,
            "images": cell.images,
            "interval": cell.interval,
            "kind": _kind(cell),
        }
    return {"value": cell.value, "unit": cell.unit} if isinstance(cell, Quantity) else cell


def _kind(cell: AccuracyShare) -> str:
    if isinstance(cell, CertifiedShare):
        return CERTIFIED
    return ATTACKED if isinstance(cell, AttackedAccuracy) else ESTIMATE


def identifiers(headings: Iterable[str]) -> list[str]:
    """Return headings as names that programs can use, each once.

    Examples
    --------
    >>> identifiers(["clean (%)", "MIX attack", "mix-attack", "95 % from", "images/s"])
    ['clean', 'mix_attack', 'mix_attack_2', '_95_percent_from', 'images_per_s']
    """
    found: list[str] = []
    for heading in headings:
        spelt = heading.replace("(%)", "").translate(_SPELT).lower()
        name = re.sub(r"[^0-9a-z]+", "_", spelt).strip("_") or "column"
        found.append(_fresh(f"_{name}" if name[0].isdigit() else name, found))
    return found


def _fresh(name: str, taken: Sequence[str]) -> str:
    tries = (name if k == 1 else f"{name}_{k}" for k in range(1, len(taken) + 2))
    return next(one for one in tries if one not in taken)


def markdown_table(table: Table) -> str:
    """Return a table as Markdown that also reads well as plain text; a group's name is a row of its own."""
    notes = printed_notes(table)
    blocks = [
        f"# {escape(table.title)}" + ("" if table.complete else " (partial)"),
        "" if table.complete else "**Partial result.**",
        escape(table.settings),
        _pipe_table(table) if table.headings else "",
        "Notes:" if notes else "",
        "\n".join(f"- {escape(note)}" for note in notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _pipe_table(table: Table) -> str:
    units = column_units(table)
    lines = [[escape(heading) for heading in printed_headings(table, units)]]
    for name, rows in table.blocks():
        if name is not None:
            lines.append([f"**{escape(name)}**", *[""] * (len(units) - 1)])
        lines += [[_marked(printed(c), unit) for c, unit in zip(row, units, strict=True)] for row in rows]
    return _piped(lines, text_columns(table))


def _marked(cell: Printed, unit: str | None) -> str:
    text = escape(f"{cell.text} {cell.unit}" if cell.unit and unit is None else cell.text)
    return text if cell.interval is None else f"{text} [{cell.interval[0]}, {cell.interval[1]}]"


def _piped(lines: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Lay out a pipe table, its headings first; a column is flush left or right."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * w if flush else "-" * (w - 1) + ":" for w, flush in zip(widths, left, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            c.ljust(w) if flush else c.rjust(w) for c, w, flush in zip(cells, widths, left, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


FORMATS: dict[str, Callable[[Table], str]] = {
    "table": text_table,
    "json": json_table,
    "csv": csv_table,
    "markdown": markdown_table,
    "latex": latex_table,
}
"""Renderers by name."""

_TABLES = {"csv": "csv", "md": "markdown", "tex": "latex", "json": "json"}  # suffix -> format
_PLOTS = ("png", "svg")
_NONE: Mapping[str, Callable[[str], bytes]] = MappingProxyType({})


def render(table: Table, format: str) -> str:
    """Return a table as text that ends with one line end.

    Accuracies are in percent with one decimal, rounded down, their intervals
    outwards; csv and json hold shares of 1 with all digits.

    Parameters
    ----------
    table
        The figures.
    format
        A name in `FORMATS`.

    Raises
    ------
    ParameterError
        The format is unknown.

    Examples
    --------
    >>> times = Table("times", "Times", "", ("run", "time"), (("a", Quantity(1.25, 1, "s")),))
    >>> render(times, "csv").split()
    ['run,time_s,complete', 'a,1.25,true']
    """
    if format not in FORMATS:
        raise ParameterError(f"format '{format}' is unknown: choose one of {', '.join(FORMATS)}")
    return FORMATS[format](table)


def write_files(
    folder: str | Path, table: Table, plots: Mapping[str, Callable[[str], bytes]] = _NONE
) -> list[Path]:
    """Write ``NAME.{csv,md,tex,json}`` of the table, and each plot's ``.png`` and ``.svg``.

    Everything is made before anything is written, and each file appears whole
    or not at all.

    Parameters
    ----------
    folder
        Where to; made if missing.
    table
        The figures.
    plots
        Stem -> function that takes ``png`` or ``svg`` and returns the file's content.

    Returns
    -------
    list[Path]
        The files, in the order above.

    Raises
    ------
    ParameterError
        A plot's name is not fit for a file.
    RunError
        The folder cannot be made or written to.
    """
    contents = {f"{table.name}.{s}": render(table, name).encode() for s, name in _TABLES.items()}
    for name, draw in plots.items():
        check_stem(name)
        contents.update({f"{name}.{suffix}": draw(suffix) for suffix in _PLOTS})
    for name, content in contents.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in contents]
