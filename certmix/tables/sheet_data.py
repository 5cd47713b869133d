"""A sheet for programs: comma-separated values and JSON, with all digits."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from certmix.tables.cells import known
from certmix.tables.json_table import _plain as plain
from certmix.tables.rounding import plain_decimal
from certmix.tables.sheet_cells import column_units
from certmix.tables.sheet_values import Cell, Quantity, Sheet
from certmix.tables.wording import one_line
from certmix.types import SCHEMA_VERSION, AccuracyShare, AttackedAccuracy, CertifiedShare

__all__ = ["csv_sheet", "identifiers", "json_sheet"]

ATTACKED, ESTIMATE = "attacked, an upper bound of robust accuracy", "estimate"
CERTIFIED = "certified"

_SPELT = str.maketrans(
    {"%": " percent ", "/": " per ", "\u03b1": "alpha", "\u03b5": "eps", "\u03c3": "sigma", "\u2113": "l"}
)


def csv_sheet(sheet: Sheet) -> str:
    """Return one line a row, with a heading line of identifiers.

    A column of accuracies is a share of 1 and followed by its interval's ends,
    ``..._low`` and ``..._high``; one unit is part of the heading, several are a
    column ``..._unit``.  Groups are the first column; ``complete`` is the last.
    Empty where unknown.
    """
    units = column_units(sheet)
    accurate = [
        any(isinstance(c, AccuracyShare) for c in sheet.column(k)) for k in range(len(sheet.headings))
    ]
    names = ["group"] if sheet.groups else []
    for heading, unit, ends in zip(sheet.headings, units, accurate, strict=True):
        base = heading if not unit or (unit == "%" and ends) else f"{heading} {unit}"
        names += [base, *([f"{heading} low", f"{heading} high"] if ends else [])]
        names += [f"{heading} unit"] if unit is None else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(identifiers([*names, "complete"]))
    for name, rows in sheet.blocks():
        for row in rows:
            values = [one_line(name)] if name is not None else []
            for cell, unit, ends in zip(row, units, accurate, strict=True):
                values += _values(cell, ends) + ([_unit(cell)] if unit is None else [])
            writer.writerow([*values, "true" if sheet.complete else "false"])
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


def json_sheet(sheet: Sheet) -> str:
    """Return a sheet as one JSON object, ASCII, ``null`` for what is unknown or not finite.

    ``rows`` are objects whose keys are those of ``columns``; an accuracy is an
    object with its counts, interval and kind, a quantity one of value and unit.
    """
    first = ["group"] if sheet.groups else []
    keys = identifiers([*first, *sheet.headings])
    rows = [
        dict(zip(keys, [*([name] if sheet.groups else []), *map(_object, row)], strict=True))
        for name, rows in sheet.blocks()
        for row in rows
    ]
    headings = [*first, *sheet.headings]
    found = {
        "schema_version": SCHEMA_VERSION,
        "name": sheet.name,
        "title": sheet.title,
        "settings": sheet.settings,
        "complete": sheet.complete,
        "columns": [{"key": k, "heading": h} for k, h in zip(keys, headings, strict=True)],
        "rows": rows,
        "notes": sheet.notes,
        "extra": sheet.extra,
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
