"""A table as plain text that fits a number of columns, with nothing cut off."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from certmix.errors import one_line
from certmix.tables.table import (
    Column,
    Printed,
    Table,
    key_columns,
    packed,
    printed,
    printed_columns,
    printed_notes,
)


class _Layout(NamedTuple):
    """Where and how finely intervals are shown, the share of the width for words, blanks between columns."""

    beside: bool
    digits: int
    fold: int | None = None
    gap: int = 2
    whole: bool = False  # headings on one line


_LAYOUTS = (
    _Layout(True, 1, whole=True), _Layout(True, 1), _Layout(False, 1, whole=True), _Layout(False, 1),
    _Layout(True, 1, fold=2), _Layout(False, 1, fold=2), _Layout(False, 0), _Layout(False, 0, gap=1),
    _Layout(False, 0, fold=2), _Layout(False, 1, fold=4), _Layout(False, 0, fold=4),
    _Layout(False, 0, fold=4, gap=1),
)  # fmt: skip
"""From the most telling one to the narrowest."""
_LEAST = 10  # letters that a column of words keeps

_Piece = tuple[str, str]  #: some text, and its style: "bold", "dim" or none
_Line = list[_Piece]


@dataclass(frozen=True)
class _Grid:
    """A table laid out: each cell's lines, the headings first, and how wide each column is."""

    cells: list[list[list[_Line]]]
    widths: list[int]
    left: list[bool]
    gap: int

    def line_up(self, row: int, columns: Sequence[int]) -> list[_Line]:
        """Return the lines of one row, some of its columns side by side."""
        lines = []
        for k in range(max((len(self.cells[row][c]) for c in columns), default=0)):
            line: _Line = []
            for c in columns:
                cell = self.cells[row][c]
                pieces = cell[k] if k < len(cell) else []
                blanks = (" " * (self.widths[c] - _width(pieces)), "")
                line += [*pieces, blanks] if self.left[c] else [blanks, *pieces]
                line.append((" " * self.gap, ""))
            lines.append(line)
        return lines


def text_table(table: Table, width: int | None = None) -> str:
    """Return a table as plain text, no line wider than `width` but for long words of notes, such as paths.

    Columns that find no room continue in a further block, under the same first columns.
    """
    wide = max(1, shutil.get_terminal_size().columns if width is None else width)
    lines = ["".join(text for text, _ in line).rstrip() for line in styled_lines(table, wide)]
    return "\n".join(lines) + "\n"


def styled_lines(table: Table, width: int) -> list[_Line]:
    """Return the lines of `text_table`, in pieces with their styles."""
    head = [(table.partial.upper(), "bold yellow"), (table.title, "bold"), (table.settings, "")]
    blocks = [
        [[(line, style)] for text, style in head if text for line in _folded(text, width)],
        *_tables(table, width),
        [[(line, "")] for line in _folded(table.below, width) if line],
        # a path in a note that is longer than a line stays whole, to be copied
        [[(line, "dim")] for note in printed_notes(table) for line in _folded(note, width, whole_words=True)],
    ]
    lines: list[_Line] = []
    for block in filter(None, blocks):
        lines += [[], *block] if lines else block
    return lines


def _tables(table: Table, width: int) -> list[list[_Line]]:
    if not table.headings:
        return []
    best: tuple[_Grid, list[list[int]]] | None = None
    headed = printed_columns(table)
    made = {
        digits: [[printed(cell, digits) for cell in row] for row in table.rows]
        for digits in {layout.digits for layout in _LAYOUTS}
    }
    for layout in _LAYOUTS:
        grid = _grid(headed, made[layout.digits], bool(table.groups), layout, width)
        blocks, fits = packed(grid.widths, key_columns(table), width, layout.gap)
        if fits and (best is None or len(blocks) < len(best[1])):
            best = grid, blocks
    if best is None:
        return _stacked(table, width)
    grid, blocks = best
    laid_out = []
    for columns in blocks:
        lines, row = grid.line_up(0, columns), 1
        for name, rows in table.blocks():
            lines += [[(line, "bold")] for line in _folded(name, width)] if name is not None else []
            for _ in rows:
                lines += grid.line_up(row, columns)
                row += 1
        laid_out.append(lines)
    return laid_out


def _grid(
    columns: list[Column], made: list[list[Printed]], grouped: bool, layout: _Layout, width: int
) -> _Grid:
    most = None if layout.fold is None else max(_LEAST, width // layout.fold)
    rows = [
        [_cell(cell, layout, most, column.unit) for cell, column in zip(row, columns, strict=True)]
        for row in made
    ]
    if grouped:
        rows = [[[[("  ", ""), *line] for line in first], *rest] for first, *rest in rows]
    headings: list[str] = []
    for c, column in enumerate(columns):
        text = one_line(column.heading)
        if not layout.whole:  # no wider than the cells below or its longest word
            longest = max(map(len, text.split() or [""]))
            widest = max((_width(line) for row in rows for line in row[c]), default=1)
            text = "\n".join(_folded(text, max(1, longest if most is None else min(longest, most), widest)))
        headings.append(text)
    if any(text.startswith(">") and "\n" in text for text in headings):  # radii alike: signs above numbers
        headings = [text.replace(" ", "\n", 1) if text.startswith(">") else text for text in headings]
    cells = [[[[(line, "bold")] for line in text.split("\n")] for text in headings], *rows]
    widths = [max(_width(line) for row in cells for line in row[c]) for c in range(len(columns))]
    return _Grid(cells, widths, [column.words for column in columns], layout.gap)


def _cell(made: Printed, layout: _Layout, most: int | None, unit: str | None) -> list[_Line]:
    """Return a cell's lines; its unit is written where the column has several."""
    figure = one_line(made.shown(unit))
    if made.interval is None:
        return [[(line, "")] for line in (_folded(figure, most) if most and made.unit is None else [figure])]
    low, high = made.interval
    if layout.beside:
        return [[(f"{figure} ", ""), (f"[{low}, {high}]", "dim")]]
    return [[(figure, "")], [(f"{low} to {high}" if low.startswith("-") else f"{low}-{high}", "dim")]]


def _stacked(table: Table, width: int) -> list[list[_Line]]:
    """Return each row as lines of its own, heading and cell: for a width that holds no columns."""
    columns, blocks = printed_columns(table), []
    for name, rows in table.blocks():
        blocks += [_folded(name, width)] if name is not None else []
        for row in rows:
            lines = []
            for column, cell in zip(columns, row, strict=True):
                pieces = _cell(printed(cell, _LAYOUTS[0].digits), _LAYOUTS[0], None, column.unit)
                text = " ".join(t for line in pieces for t, _ in line)
                lines += _folded(f"{column.heading}: {text}", width)
            blocks.append(lines)
    return [[[(line, "")] for line in block] for block in blocks]


def _folded(text: str, width: int, *, whole_words: bool = False) -> list[str]:
    folded = textwrap.wrap(one_line(text), width, break_long_words=not whole_words, break_on_hyphens=False)
    return folded or [""]


def _width(line: _Line) -> int:
    return sum(len(text) for text, _ in line)
