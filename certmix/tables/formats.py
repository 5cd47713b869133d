"""A table in each format, for people and for programs, and its files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from html import escape
from numbers import Integral
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import numpy as np

from certmix import guard
from certmix.errors import ParameterError, check_choice, one_line
from certmix.files import write_atomically
from certmix.tables.latex import latex_table
from certmix.tables.table import (
    Cell,
    Quantity,
    Share,
    Table,
    check_stem,
    printed,
    printed_columns,
    printed_notes,
)
from certmix.tables.terminal import styled_lines, text_table
from certmix.tables.words import summary_table
from certmix.text import known, plain_decimal
from certmix.types import SCHEMA_VERSION, AccuracyShare, AttackedAccuracy, CertifiedShare, Summary

PLOTTED = ("png", "svg")

_SPELT = str.maketrans(
    {"%": " percent ", "/": " per ", "\u03b1": "alpha", "\u03b5": "eps", "\u03c3": "sigma", "\u2113": "l"}
)


def csv_table(table: Table) -> str:
    """Return one line a row, with a heading line of identifiers; decimals read back as the same numbers."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if table.records is not None:
        writer.writerows(map(_text, line) for line in table.records)
        return buffer.getvalue()
    units = [column.unit for column in printed_columns(table)]
    shares = AccuracyShare | Share
    accurate = [
        any(isinstance(c, shares) or getattr(c, "interval", None) for c in table.column(k))
        for k in range(len(units))
    ]
    names = ["group"] if table.groups else []
    for heading, unit, ends in zip(table.headings, units, accurate, strict=True):
        base = heading if not unit or (unit == "%" and ends) else f"{heading} {unit}"
        names += [base, *([f"{heading} low", f"{heading} high"] if ends else [])]
        names += [f"{heading} unit"] if unit is None else []
    writer.writerow(identifiers([*names, "complete"]))
    for name, rows in table.blocks():
        for row in rows:
            values: list[Any] = [] if name is None else [name]
            for cell, unit, ends in zip(row, units, accurate, strict=True):
                own, interval = getattr(cell, "unit", ""), getattr(cell, "interval", None)
                value: Any
                if isinstance(cell, shares):
                    own, value = "share", cell.accuracy
                    interval = interval if known(value) else None
                else:
                    value = cell.value if isinstance(cell, Quantity) else cell
                values += [value, *(interval or (None, None))[: 2 * ends]]
                values += [own] if unit is None else []
            writer.writerow([*map(_text, values), _text(table.complete)])
    return buffer.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if not known(value):
        return ""
    return str(int(value)) if isinstance(value, Integral) else plain_decimal(value)


def json_table(table: Table) -> str:
    """Return a table as one JSON object, ASCII, ``null`` for what is unknown or not finite."""
    first = ["group"] if table.groups else []
    headings = [*first, *table.headings]
    keys = identifiers(headings)
    found = table.data or {
        "schema_version": SCHEMA_VERSION, "name": table.name, "title": table.title,
        "settings": table.settings, "complete": table.complete,
        "columns": [{"key": k, "heading": h} for k, h in zip(keys, headings, strict=True)],
        "rows": [
            dict(zip(keys, [*([name] if first else []), *map(_object, row)], strict=True))
            for name, rows in table.blocks()
            for row in rows
        ],
        "notes": table.notes, "extra": table.extra,
    }  # fmt: skip
    return json.dumps(plain(found), indent=2, allow_nan=False) + "\n"


def _object(cell: Cell) -> Any:
    if isinstance(cell, AccuracyShare):
        attacked = "attacked, an upper bound of robust accuracy"
        kinds = {CertifiedShare: "certified", AttackedAccuracy: attacked}
        return {"accuracy": cell.accuracy, **asdict(cell), "kind": kinds.get(type(cell), "estimate")}
    if isinstance(cell, Share):
        return {"accuracy": cell.accuracy, "interval": cell.interval}
    if isinstance(cell, Quantity):
        unsaid = {("most", None), ("interval", None)}
        return {key: value for key, value in asdict(cell).items() if (key, value) not in unsaid}
    return cell


def plain(value: Any) -> Any:
    """Return what JSON can hold: numpy's values as Python's, None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def identifiers(headings: Iterable[str]) -> list[str]:
    """Return headings as names that programs can use, each once.

    >>> identifiers(["clean (%)", "MIX attack", "mix-attack", "95 % from", "inputs/s"])
    ['clean', 'mix_attack', 'mix_attack_2', '_95_percent_from', 'inputs_per_s']
    """
    found: list[str] = []
    for heading in headings:
        spelt = heading.replace("(%)", "").translate(_SPELT).lower()
        name = re.sub(r"[^0-9a-z]+", "_", spelt).strip("_") or "column"
        name = f"_{name}" if name[0].isdigit() else name
        tries = (name if k == 1 else f"{name}_{k}" for k in range(1, len(found) + 2))
        found.append(next(one for one in tries if one not in found))
    return found


def markdown_table(table: Table) -> str:
    """Return a table as Markdown that also reads well as plain text; a group's name is a row of its own."""
    notes, warning = printed_notes(table), table.partial
    blocks = [
        f"# {_escape(table.title)}" + (" (partial)" if warning else ""),
        f"**{warning[0].upper()}{_escape(warning[1:])}.**" if warning else "",
        _escape(table.settings) if not table.settings.startswith(">") else "\\" + _escape(table.settings),
        _piped(table) if table.headings else "",
        _escape(table.below),
        "Notes:" if notes else "",
        "\n".join(f"- {_escape(note)}" for note in notes),
        "Details:" if table.details else "",
        "\n".join(f"- {_escape(note)}" for note in table.details),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<|#~&$])", r"\\\1", one_line(text))


def _piped(table: Table) -> str:
    columns = printed_columns(table)
    lines = [[_escape(column.heading) for column in columns]]
    for name, rows in table.blocks():
        if name is not None:
            lines.append([f"**{_escape(name)}**", *[""] * (len(columns) - 1)])
        for row in rows:
            cells = []
            for cell, column in zip(map(printed, row), columns, strict=True):
                ends = "" if cell.interval is None else f" [{cell.interval[0]}, {cell.interval[1]}]"
                cells.append(_escape(cell.shown(column.unit)) + ends)
            lines.append(cells)
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    aligned = list(zip(widths, [column.words for column in columns], strict=True))
    rule = ["-" * width if words else "-" * (width - 1) + ":" for width, words in aligned]
    padded = [
        [
            text.ljust(width) if words else text.rjust(width)
            for text, (width, words) in zip(line, aligned, strict=True)
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def html_table(table: Table) -> str:
    """Return a table as an HTML fragment without style sheets, as notebooks show it."""
    columns, rows = printed_columns(table), list[str]()
    for name, block in table.blocks():
        if name is not None:
            rows.append(f'<tr><th colspan="{len(columns)}" style="text-align:left">{_html(name)}</th></tr>')
        for row in block:
            cells = ""
            for cell, column in zip(map(printed, row), columns, strict=True):
                side = "left" if column.words else "right"
                ends = "" if cell.interval is None else f"{cell.interval[0]}\u2013{cell.interval[1]}"
                ends = f'<br><small style="opacity:.65">{_html(ends)}</small>' if ends else ""
                cells += f'<td style="text-align:{side}">{_html(cell.shown(column.unit))}{ends}</td>'
            rows.append(f"<tr>{cells}</tr>")
    headings = "".join(
        f'<th style="text-align:{"left" if one.words else "right"}">{_html(one.heading)}</th>'
        for one in columns
    )
    partial = f"<p><b>{_html(table.partial)}</b></p>" if table.partial else ""
    notes = "".join(f"<li>{_html(note)}</li>" for note in printed_notes(table))
    return (
        f"<div><p><b>{_html(table.title)}</b><br>{_html(table.settings)}</p>{partial}"
        f"<table><thead><tr>{headings}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        + (f"<p>{_html(table.below)}</p>" if table.below else "")
        + (f"<details><summary>Notes</summary><ul>{notes}</ul></details>" if notes else "")
        + "</div>"
    )


def _html(text: str) -> str:
    return escape(one_line(text))


class Format(NamedTuple):
    """How a table is printed, and the suffix of its file; None where it has none."""

    render: Callable[[Table], str]
    suffix: str | None


FORMATS = {
    "table": Format(text_table, None),
    "json": Format(json_table, "json"),
    "csv": Format(csv_table, "csv"),
    "markdown": Format(markdown_table, "md"),
    "latex": Format(latex_table, "tex"),
}
"""Formats by name."""


def as_table(found: Table | Summary) -> Table:
    """Return a table as it is, and the table of a summary."""
    if isinstance(found, Summary):
        return summary_table(found)
    if not isinstance(found, Table):
        raise ParameterError(f"a {type(found).__name__} is no table: give a result's .summary or .table")
    return found


def render(table: Table | Summary, format: str) -> str:
    """Return a table as text that ends with one line end.

    It is ``result.table`` of a study, or ``result.summary`` of a certification (a ParameterError refuses
    others), `format` a name in `FORMATS`, or ``latex:LABEL``.  Accuracies are in percent with one decimal,
    rounded down, their intervals outwards; csv and json hold shares of 1 with all digits.

    Examples
    --------
    >>> times = Table("times", "Times", "", ("run", "time"), (("a", Quantity(1.25, 1, "s")),))
    >>> render(times, "csv").split()
    ['run,time_s,complete', 'a,1.25,true']
    """
    return renderer(format)(as_table(table))


def renderer(format: str) -> Callable[[Table], str]:
    """Return what prints a table in a format, ``latex:LABEL`` with that label; ParameterError of others."""
    name, colon, label = format.partition(":")
    if name == "latex" and colon:
        if not re.fullmatch(r"[\w:.+/-]+", label, re.ASCII):
            raise ParameterError(
                f"LaTeX label {label!r}: use letters, digits and :._+/-, such as latex:tab:mix"
            )
        return partial(latex_table, label=label)
    check_choice("format", format, FORMATS)
    return FORMATS[format].render


def print_table(
    table: Table | Summary, format: str = "table", file: IO[str] | None = None, details: bool = False
) -> None:
    """Print a table to a text stream, by default the standard output.

    On a terminal the table takes as much as its width allows, with headings bold
    and intervals dim.  Elsewhere the width is 80 columns, or the environment's
    ``COLUMNS``, and there are no colours.  Letters that the stream's encoding
    lacks are spelt as their code points.  With `details` all formats show what tells more.
    """
    shown, made = renderer(format), as_table(table)
    made = replace(made, notes=(*made.notes, *made.details), details=()) if details else made
    stream = guard.stdout() if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def encodable(text: str) -> str:
        return text.encode(encoding, "backslashreplace").decode(encoding)

    if format != "table" or not stream.isatty():
        stream.write(encodable(shown(made)))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    for line in styled_lines(made, console.width):
        text = Text.assemble(*((encodable(piece), style) for piece, style in line))
        console.print(text, crop=False, no_wrap=True, overflow="ignore")


def texts_of(table: Table | Summary) -> dict[str, str]:
    """Return by its name the text of each file that `write_files` writes, but for plots."""
    made = as_table(table)
    return {f"{made.name}.{kind.suffix}": kind.render(made) for kind in FORMATS.values() if kind.suffix}


def write_files(
    folder: str | Path, table: Table, plots: Mapping[str, Callable[[str], bytes]] = MappingProxyType({})
) -> list[Path]:
    """Write ``NAME.{json,csv,md,tex}`` of the table, and each plot's ``.png`` and ``.svg``; return the files.

    `plots` takes a stem to a function of ``png`` or ``svg`` that returns the file's content.  Everything is
    made before anything is written, and each file appears whole or not at all.  The folder is made if
    missing; a RunError says that it cannot be, or be written to.
    """
    contents = {name: text.encode() for name, text in texts_of(table).items()}
    for name, draw in plots.items():
        check_stem(name)
        contents |= {f"{name}.{suffix}": draw(suffix) for suffix in PLOTTED}
    for name, content in contents.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in contents]
