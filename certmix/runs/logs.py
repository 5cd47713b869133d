"""The field's log format, tab-separated `idx label predict radius correct time`, and the bound behind it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

from certmix.atomic import write_atomically

__all__ = ["HEADER", "OWN_HEADER", "write_log"]

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
OWN_HEADER = f"{HEADER}\tbound"


def _floor(radius: float, digits: int = 6) -> str:
    """Return the radius with `digits` decimals, rounded down."""
    return str(Decimal(radius).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def write_log(path: Path, rows: Iterable[tuple[int, int, int, float, float]], bound: str) -> None:
    """Write rows (index, label, prediction, radius, seconds) in the format of Cohen et al., and the bound.

    Parameters
    ----------
    path
        File to write; replaced at once or not at all.
    rows
        Prediction -1 means abstention; radii are written rounded down to six decimals.
    bound
        Name of the bound that the radii rest on: it decides whether p and q can be taken back from them.
    """
    lines = [OWN_HEADER]
    for index, label, prediction, radius, seconds in rows:
        elapsed = datetime.timedelta(seconds=round(seconds, 6))
        correct = int(prediction == label)
        lines.append(f"{index}\t{label}\t{prediction}\t{_floor(radius)}\t{correct}\t{elapsed}\t{bound}")
    write_atomically(path, ("\n".join(lines) + "\n").encode())
