"""A table as plain text that fits a number of columns, with nothing cut off."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from certmix.tables.table import (
    Printed,
    Table,
    column_units,
    key_columns,
    printed,
    printed_headings,
    printed_notes,
    text_columns,
)
from certmix.tables.wording import one_line

__all__ = ["text_table"]


@dataclass(frozen=True)
class _Layout:
    """Where and how finely intervals are shown, the share of the width for words, blanks between columns."""

    beside: bool
    digits: int
    fold: int | None = None
    gap: int = 2
    whole: bool = False  # headings on one line


_LAYOUTS = (
    _Layout(True, 1, whole=True),
    _Layout(True, 1),
    _Layout(False, 1, whole=True),
    _Layout(False, 1),
    _Layout(True, 1, fold=2),
    _Layout(False, 1, fold=2),
    _Layout(False, 0),
    _Layout(False, 0, fold=2),
    _Layout(False, 1, fold=4),
    _Layout(False, 0, fold=4),
    _Layout(False, 0, fold=4, gap=1),
)
_LEAST = 10  # letters that a column of words keeps

_Lines = list[str]  #: one cell


@dataclass(frozen=True)
class _Grid:
    """A table laid out: cells as lines, the headings first, and how wide each column is."""

    cells: list[list[_Lines]]
    widths: list[int]
    left: list[bool]
    gap: int

    def line_up(self, row: int, columns: Sequence[int]) -> list[str]:
        """Return the lines of one row, some of its columns side by side."""
        parts = []
        for line in range(max((len(self.cells[row][c]) for c in columns), default=0)):
            texts = (_at(self.cells[row][c], line) for c in columns)
            padded = [
                t.ljust(self.widths[c]) if self.left[c] else t.rjust(self.widths[c])
                for t, c in zip(texts, columns, strict=True)
            ]
            parts.append((" " * self.gap).join(padded).rstrip())
        return parts


def text_table(table: Table, width: int | None = None) -> str:
    """Return a table as plain text, no line wider than `width`.

    Intervals stand beside their figures where there is room, otherwise below,
    in whole percents (rounded outwards) where they must; columns that find no
    room continue in a further block, under the same first columns.

    Parameters
    ----------
    table
        The figures.
    width
        Columns; by default those of the terminal or of the environment's
        ``COLUMNS``, or 80.
    """
    wide = max(1, shutil.get_terminal_size().columns if width is None else width)
    parts = [
        *([["PARTIAL RESULT"]] if not table.complete else []),
        [table.title, table.settings],
    ]
    head = [line for part in parts for text in part if text for line in _folded(text, wide)]
    notes = [line for note in printed_notes(table) for line in _folded(note, wide)]
    blocks = [head, *_tables(table, wide), notes]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _tables(table: Table, width: int) -> list[list[str]]:
    if not table.headings:
        return []
    best: tuple[_Grid, list[list[int]]] | None = None
    for layout in _LAYOUTS:
        grid = _grid(table, layout, width)
        packed = _packed(grid, key_columns(table), width)
        if packed is not None and (best is None or len(packed) < len(best[1])):
            best = grid, packed
    if best is None:
        return _stacked(table, width)
    grid, packed = best
    return [_block(table, grid, columns, width) for columns in packed]


def _grid(table: Table, layout: _Layout, width: int) -> _Grid:
    most = None if layout.fold is None else max(_LEAST, width // layout.fold)
    units = column_units(table)
    rows = [
        [
            _cell(printed(cell, layout.digits), layout, most, shown=unit is None)
            for cell, unit in zip(row, units, strict=True)
        ]
        for row in table.rows
    ]
    headings = [
        [one_line(heading)] if layout.whole else _heading(heading, [row[c] for row in rows], most)
        for c, heading in enumerate(printed_headings(table, units))
    ]
    cells = [headings, *rows]
    widths = [max(len(line) for row in cells for line in row[c]) for c in range(len(units))]
    return _Grid(cells, widths, text_columns(table), layout.gap)


def _cell(cell: Printed, layout: _Layout, most: int | None, shown: bool) -> _Lines:
    """Return a cell's lines; `shown` writes the unit, which is otherwise in the heading."""
    figure = one_line(cell.text) + (f" {one_line(cell.unit)}" if shown and cell.unit else "")
    if cell.unit is None:
        return _folded(figure, most) if most else [figure]
    if cell.interval is None:
        return [figure]
    low, high = cell.interval
    return [f"{figure} [{low}, {high}]"] if layout.beside else [figure, f"{low}-{high}"]


def _heading(text: str, cells: Sequence[_Lines], most: int | None) -> _Lines:
    """Fold a heading at blanks, so that it is no wider than its cells or its longest word."""
    words = one_line(text).split() or [""]
    longest = max(map(len, words))
    width = max([longest if most is None else min(longest, most), *(len(t) for c in cells for t in c)])
    return _folded(text, max(1, width))


def _packed(grid: _Grid, keys: int, width: int) -> list[list[int]] | None:
    """Return the columns of each block, the first ones in all, or None where one does not fit."""
    columns = len(grid.widths)
    names = min(keys, columns)
    free = width - sum(grid.widths[:names]) - grid.gap * (names - 1)
    blocks, room = [list(range(names))], free
    for c in range(names, columns):
        needed = grid.gap + grid.widths[c]
        if needed > room and len(blocks[-1]) > names:
            blocks.append(list(range(names)))
            room = free
        blocks[-1].append(c)
        room -= needed
        if room < 0:
            return None
    return blocks if room >= 0 else None


def _block(table: Table, grid: _Grid, columns: Sequence[int], width: int) -> list[str]:
    lines, row = grid.line_up(0, columns), 1
    for name, rows in table.blocks():
        lines += _folded(name, width) if name is not None else []
        for _ in rows:
            lines += grid.line_up(row, columns)
            row += 1
    return lines


def _stacked(table: Table, width: int) -> list[list[str]]:
    """Return each row as lines of its own, heading and cell: for a width that holds no columns."""
    units = column_units(table)
    headings = printed_headings(table, units)
    blocks = []
    for name, rows in table.blocks():
        blocks += [_folded(name, width)] if name is not None else []
        for row in rows:
            cells = (
                _cell(printed(cell), _LAYOUTS[0], None, shown=unit is None)
                for cell, unit in zip(row, units, strict=True)
            )
            texts = (f"{heading}: {' '.join(cell)}" for heading, cell in zip(headings, cells, strict=True))
            blocks.append([line for text in texts for line in _folded(text, width)])
    return blocks


def _folded(text: str, width: int) -> _Lines:
    return textwrap.wrap(one_line(text), width, break_on_hyphens=False) or [""]


def _at(lines: _Lines, index: int) -> str:
    return lines[index] if index < len(lines) else ""
