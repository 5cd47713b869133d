"""What a study's table holds: cells, rows under headings, and the words around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from certmix.errors import ParameterError
from certmix.types import AccuracyShare

__all__ = ["Cell", "Quantity", "Sheet", "check_stem"]

ROUNDINGS = ("nearest", "down", "up")


@dataclass(frozen=True)
class Quantity:
    """A figure with the digits it deserves.

    Parameters
    ----------
    value
        The figure; None where unknown.
    digits
        Digits after the point that tables for readers show, 0 to 400.
    unit
        Its unit; where a column has only one, its heading shows it.
    rounding
        ``nearest``, or ``down`` and ``up`` for lower and upper bounds.

    Raises
    ------
    ParameterError
        Digits or rounding are not among these.
    """

    value: float | None
    digits: int
    unit: str = ""
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 400:
            raise ParameterError(f"digits = {self.digits} is not in 0..400: ask for fewer digits")
        if self.rounding not in ROUNDINGS:
            raise ParameterError(
                f"rounding '{self.rounding}' is unknown: choose one of {', '.join(ROUNDINGS)}"
            )


Cell = str | int | float | None | AccuracyShare | Quantity


@dataclass(frozen=True)
class Sheet:
    """A study's figures as one table.

    Parameters
    ----------
    name
        Stem of the files, such as ``mix-sweep``.
    title, settings
        One line each: what is shown, and how it came about.
    headings
        One a column.
    rows
        Cells, one for each heading.
    notes
        What a reader must know, one entry a sentence or more.
    complete
        False for a partial result.
    groups
        Names of successive blocks of rows and how many rows each has; empty,
        or all rows belong to one.
    extra
        Plain data that only JSON shows.

    Raises
    ------
    ParameterError
        A row has not one cell for each heading, the groups do not hold all
        rows, or the name is not fit for a file.
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

    def __post_init__(self) -> None:
        check_stem(self.name)
        for k, row in enumerate(self.rows):
            if len(row) != len(self.headings):
                raise ParameterError(
                    f"row {k} has {len(row)} cells and there are {len(self.headings)} headings: "
                    "give each column one cell"
                )
        counts = [count for _, count in self.groups]
        if self.groups and (sum(counts) != len(self.rows) or min(counts) < 0):
            raise ParameterError(
                f"groups of {counts} rows do not make up {len(self.rows)} rows: put each row into one"
            )

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
    """Refuse a name that is not the plain stem of a file.

    Raises
    ------
    ParameterError
        It holds more than letters, digits, dots, dashes and underscores.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ParameterError(f"name {name!r} is not fit for a file: use letters, digits, dots and dashes")
