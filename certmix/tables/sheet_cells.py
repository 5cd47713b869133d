"""How the cells of a sheet are printed: figures, intervals, units, headings, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral
from typing import Any

from certmix.tables.cells import accuracy, interval_ends, known
from certmix.tables.rounding import ceil_digits, floor_digits, plain_decimal
from certmix.tables.sheet_values import Cell, Quantity, Sheet
from certmix.types import AccuracyShare, AttackedAccuracy

__all__ = [
    "UNKNOWN",
    "Printed",
    "column_units",
    "key_columns",
    "printed",
    "printed_headings",
    "printed_notes",
    "text_columns",
]

UNKNOWN = "-"

_ROUNDED = "Accuracies and lower ends of their 95 % intervals over images are rounded down, upper ends up."
_ATTACKED = "Accuracies under attack are upper bounds of robust accuracy, not certificates."


@dataclass(frozen=True)
class Printed:
    """A cell in print.

    Parameters
    ----------
    text
        The words or the figure.
    interval
        Its ends, rounded outwards, or None.
    unit
        The figure's unit, an empty string without one; None for words and the unknown.
    """

    text: str
    interval: tuple[str, str] | None = None
    unit: str | None = None


def printed(cell: Cell, digits: int = 1) -> Printed:
    """Return a cell in print; `digits` are those of an interval's ends.

    Examples
    --------
    >>> from certmix.types import EstimatedAccuracy
    >>> printed(EstimatedAccuracy(2, 3, (0.0942, 0.9917))).text, printed(Quantity(0.05, 1, "s")).text
    ('66.6', '0.0')
    """
    if isinstance(cell, AccuracyShare):
        if not known(cell.accuracy):
            return Printed(UNKNOWN)
        ends = interval_ends(cell.interval, digits) if all(map(known, cell.interval)) else None
        return Printed(accuracy(cell.accuracy), ends, "%")
    if isinstance(cell, Quantity):
        return Printed(_quantity(cell), None, cell.unit) if known(cell.value) else Printed(UNKNOWN)
    if isinstance(cell, str):
        return Printed(cell)
    return Printed(_number(cell), None, "") if known(cell) else Printed(UNKNOWN)


def _number(value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(int(value)) if isinstance(value, Integral) else plain_decimal(value)


def _quantity(cell: Quantity) -> str:
    value = float(cell.value or 0.0)
    if cell.rounding != "nearest":
        return {"down": floor_digits, "up": ceil_digits}[cell.rounding](value, cell.digits)
    text = f"{Decimal(repr(value)):.{cell.digits}f}"
    return text if any(c in text for c in "123456789") else text.removeprefix("-")


def column_units(sheet: Sheet) -> list[str | None]:
    """Return each column's unit: an empty string without one, None where its figures have several."""
    found = []
    for index in range(len(sheet.headings)):
        units = {printed(cell).unit for cell in sheet.column(index)} - {None}
        found.append(units.pop() if len(units) == 1 else None if units else "")
    return found


def printed_headings(sheet: Sheet, units: Sequence[str | None]) -> list[str]:
    """Return the headings with their units, unless the title says that figures are percent."""
    told = {"%"} if "(%)" in sheet.title else set()
    return [
        f"{heading} ({unit})" if unit and unit not in told and f"({unit})" not in heading else heading
        for heading, unit in zip(sheet.headings, units, strict=True)
    ]


def text_columns(sheet: Sheet) -> list[bool]:
    """Return whether a column holds words, and is therefore flush left."""
    return [_words(sheet.column(index)) for index in range(len(sheet.headings))]


def _words(cells: Sequence[Cell]) -> bool:
    return any(isinstance(cell, str) for cell in cells)


def key_columns(sheet: Sheet) -> int:
    """Return how many leading columns name a row, at least one.

    Words and plain numbers name a row up to the first accuracy or quantity;
    in a sheet without these, only leading words do.
    """
    columns = [sheet.column(index) for index in range(len(sheet.headings))]
    measured = [any(isinstance(c, AccuracyShare | Quantity) for c in cells) for cells in columns]
    names = [not m for m in measured] if any(measured) else [_words(cells) for cells in columns]
    return max(1, names.index(False) if False in names else len(names) - 1)


def printed_notes(sheet: Sheet) -> list[str]:
    """Return the notes, and what readers of accuracies must know if no note says it."""
    cells: list[Any] = [cell for row in sheet.rows for cell in row]
    notes = list(sheet.notes)
    said = " ".join((sheet.title, sheet.settings, *sheet.headings, *notes)).lower()
    if any(isinstance(cell, AttackedAccuracy) for cell in cells) and "upper bound" not in said:
        notes.append(_ATTACKED)
    if any(isinstance(cell, AccuracyShare) for cell in cells):
        notes.append(_ROUNDED)
    return notes
