"""What a table holds (cells, rows under headings, the words around them), and how each cell is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

from certmix.errors import ParameterError, check_choice
from certmix.text import (
    UNKNOWN,
    accuracy,
    ceil_digits,
    ceil_percent,
    floor_digits,
    interval_ends,
    known,
    nearest_digits,
    plain_decimal,
)
from certmix.types import AccuracyShare, AttackedAccuracy

_ROUND = {"nearest": nearest_digits, "down": floor_digits, "up": ceil_digits}
_ROUNDED = "Accuracies and lower ends of their 95 % intervals over inputs are rounded down, upper ends up."
_ATTACKED = "Accuracies under attack are upper bounds of robust accuracy, not certificates."


@dataclass(frozen=True)
class Quantity:
    """A figure, None where unknown, with the digits after the point that readers are shown, 0 to 400.

    `rounding` is ``nearest``, or ``down`` and ``up`` for lower and upper bounds.  With `most`, what it could
    still be, it is printed as a range; the ends of its `interval` are rounded outwards.
    """

    value: float | None
    digits: int
    unit: str = ""
    rounding: str = "nearest"
    most: float | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 400:
            raise ParameterError(f"digits = {self.digits} is not in 0..400: ask for fewer digits")
        check_choice("rounding", self.rounding, _ROUND)


@dataclass(frozen=True)
class Share:
    """A share of 1, printed in percent and rounded down; the ends of its interval are rounded outwards.

    With `most`, what it could still be and the upper end of that one's interval, it is printed as a range.
    """

    accuracy: float | None
    interval: tuple[float, float] | None = None
    most: tuple[float, float] | None = None


Cell = str | int | float | None | AccuracyShare | Share | Quantity


@dataclass(frozen=True)
class Table:
    """Figures as one table, whatever format it is printed in.

    Parameters
    ----------
    name, title, settings
        Stem of the files, such as ``mix-sweep``; one line each: what is shown, and how it came about.
    headings, rows
        One heading a column; each row has a cell for each (else a ParameterError).
    notes, details
        What a reader must know, and what tells more, one entry a sentence or more.
    complete, extent
        False for a partial result, and how much of it there is, in words.
    groups
        Names of successive blocks of rows and how many rows each has; empty, or all rows belong to one.
    below, extra
        A line of further figures under the rows; plain data that only JSON shows.
    doubts
        How many of the first notes no format may leave out.
    data, records
        What JSON and the lines of the CSV show, its headings first, where they are not made of the rows.
    """

    name: str
    title: str
    settings: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    complete: bool = True
    groups: tuple[tuple[str, int], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    extent: str = ""
    below: str = ""
    data: dict[str, Any] | None = None
    records: tuple[tuple[Any, ...], ...] | None = None
    details: tuple[str, ...] = ()
    doubts: int = 0

    def __post_init__(self) -> None:
        check_stem(self.name)
        for k, row in enumerate(self.rows):
            if len(row) != len(self.headings):
                told = f"row {k} has {len(row)} cells and there are {len(self.headings)} headings"
                raise ParameterError(f"{told}: give each column one cell")
        counts = [count for _, count in self.groups]
        if self.groups and (sum(counts) != len(self.rows) or min(counts) < 0):
            told = f"groups of {counts} rows do not make up {len(self.rows)} rows"
            raise ParameterError(f"{told}: put each row into one")

    @property
    def partial(self) -> str:
        """The warning of a partial result; empty for a whole one."""
        return "" if self.complete else "partial result" + (f": {self.extent}" if self.extent else "")

    def blocks(self) -> Iterator[tuple[str | None, tuple[tuple[Cell, ...], ...]]]:
        """Yield each group's name and rows, or None and all rows."""
        if not self.groups:
            yield None, self.rows
        start = 0
        for name, count in self.groups:
            yield name, self.rows[start : start + count]
            start += count

    def column(self, index: int) -> tuple[Cell, ...]:
        """Return the cells of one column."""
        return tuple(row[index] for row in self.rows)


def check_stem(name: str) -> None:
    """Refuse a name that is not the plain stem of a file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ParameterError(f"name {name!r} is not fit for a file: use letters, digits, dots and dashes")


@dataclass(frozen=True)
class Printed:
    """A cell in print, its interval's ends rounded outwards; the unit of words and the unknown is None."""

    text: str
    interval: tuple[str, str] | None = None
    unit: str | None = None

    def shown(self, unit: str | None) -> str:
        """Return the text, with its unit where the column has several (None)."""
        return f"{self.text} {self.unit}" if self.unit and unit is None else self.text


def printed(cell: Cell, digits: int = 1) -> Printed:
    """Return a cell in print; `digits` are those of an accuracy's interval: with 0 other ends lose one too.

    Examples
    --------
    >>> from certmix.types import EstimatedAccuracy
    >>> printed(EstimatedAccuracy(2, 3, (0.0942, 0.9917))).text, printed(Quantity(0.05, 1, "s")).text
    ('66.6', '0.0')
    """
    if isinstance(cell, AccuracyShare | Share):
        if not known(cell.accuracy):
            return Printed(UNKNOWN)
        interval, text = cell.interval, accuracy(cell.accuracy)
        if isinstance(cell, Share) and cell.most is not None:
            most, high = cell.most
            figures = text, ceil_percent(most)
            whole = all(figure.endswith(".0") for figure in figures)
            text = "-".join(figure.removesuffix(".0") if whole else figure for figure in figures)
            interval = interval and (interval[0], high)
        ends = interval_ends(interval, digits) if interval and all(map(known, interval)) else None
        return Printed(text, ends, "%")
    if isinstance(cell, Quantity):
        if not known(cell.value):
            return Printed(UNKNOWN)
        text = _ROUND[cell.rounding](float(cell.value), cell.digits)
        text += "" if cell.most is None else f"-{ceil_digits(cell.most, cell.digits)}"
        shown = max(0, cell.digits - (digits < 1))
        ends = cell.interval and (floor_digits(cell.interval[0], shown), ceil_digits(cell.interval[1], shown))
        return Printed(text, ends, cell.unit)
    if isinstance(cell, str):
        return Printed(cell)
    if not known(cell):
        return Printed(UNKNOWN)
    if isinstance(cell, bool):
        return Printed("yes" if cell else "no", None, "")
    return Printed(str(int(cell)) if isinstance(cell, Integral) else plain_decimal(cell), None, "")


class Column(NamedTuple):
    """A column in print; its unit is "" where it has none, and None where its figures have several."""

    heading: str
    unit: str | None
    words: bool


def printed_columns(table: Table) -> list[Column]:
    """Return the columns; a heading bears its unit unless the title says that figures are percent."""
    told = {"%"} if "(%)" in table.title else set()
    found = []
    for index, heading in enumerate(table.headings):
        cells = table.column(index)
        units = {printed(cell).unit for cell in cells} - {None}
        unit = units.pop() if len(units) == 1 else None if units else ""
        if unit and unit not in told and f"({unit})" not in heading:
            heading = f"{heading} ({unit})"
        found.append(Column(heading, unit, any(isinstance(cell, str) for cell in cells)))
    return found


def key_columns(table: Table) -> int:
    """Return how many leading columns name a row: to the first accuracy or quantity, else leading words."""
    measured = (AccuracyShare, Share, Quantity)
    figures = [any(isinstance(c, measured) for c in table.column(k)) for k in range(len(table.headings))]
    names = [not f for f in figures] if any(figures) else [c.words for c in printed_columns(table)]
    return max(1, names.index(False) if False in names else len(names) - 1)


def packed(
    widths: Sequence[float], names: int, room: float, gap: float = 0.0
) -> tuple[list[list[int]], bool]:
    """Return which columns stand side by side, the first ones in every block, and whether all find room."""
    names = min(names, len(widths))
    free = room - sum(widths[:names]) - gap * (names - 1)
    blocks, left, fits = [list(range(names))], free, free >= 0
    for c in range(names, len(widths)):
        if gap + widths[c] > left and len(blocks[-1]) > names:
            blocks.append(list(range(names)))
            left = free
        blocks[-1].append(c)
        left -= gap + widths[c]
        fits = fits and left >= 0
    return blocks if widths else [], fits


def printed_notes(table: Table) -> list[str]:
    """Return the notes, and what readers of accuracies must know if no note says it."""
    cells = [cell for row in table.rows for cell in row]
    notes = list(table.notes)
    said = " ".join((table.title, table.settings, *table.headings, *notes)).lower()
    if any(isinstance(cell, AttackedAccuracy) for cell in cells) and "upper bound" not in said:
        notes.append(_ATTACKED)
    if any(isinstance(cell, AccuracyShare) for cell in cells):
        notes.append(_ROUNDED)
    return notes
