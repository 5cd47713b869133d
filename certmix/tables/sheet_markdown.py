"""A sheet as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from certmix.tables.markdown import _escape as escape
from certmix.tables.sheet_cells import (
    Printed,
    column_units,
    printed,
    printed_headings,
    printed_notes,
    text_columns,
)
from certmix.tables.sheet_values import Sheet

__all__ = ["markdown_sheet"]


def markdown_sheet(sheet: Sheet) -> str:
    """Return a sheet as Markdown that also reads well as plain text; a group's name is a row of its own."""
    notes = printed_notes(sheet)
    blocks = [
        f"# {escape(sheet.title)}" + ("" if sheet.complete else " (partial)"),
        "" if sheet.complete else "**Partial result.**",
        escape(sheet.settings),
        _table(sheet) if sheet.headings else "",
        "Notes:" if notes else "",
        "\n".join(f"- {escape(note)}" for note in notes),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(sheet: Sheet) -> str:
    units = column_units(sheet)
    lines = [[escape(heading) for heading in printed_headings(sheet, units)]]
    for name, rows in sheet.blocks():
        if name is not None:
            lines.append([f"**{escape(name)}**", *[""] * (len(units) - 1)])
        lines += [[_cell(printed(c), unit) for c, unit in zip(row, units, strict=True)] for row in rows]
    return _piped(lines, text_columns(sheet))


def _cell(cell: Printed, unit: str | None) -> str:
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
