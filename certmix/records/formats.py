"""Reading what others published: certification logs and files of class counts.  No torch.

A log has the header `idx label predict radius correct time` and tab-separated
rows; predict -1 abstains; the time is in seconds or H:MM:SS.ffffff.  A file of
class counts has no header: on each line one count a class, then the label.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from certmix.errors import DataError
from certmix.records.logs import HEADER
from certmix.types import FloatArray, IntArray

__all__ = ["ClassCounts", "PublishedLog", "lowest_printed", "read_class_counts", "read_log", "read_published"]

_NAMES = HEADER.split("\t")
_SIGNIFICANT = 3
_LARGEST = 1e15
"""Beyond it a running total of right predictions is none."""
_TIME = re.compile(r"(?:(\d{1,9}) days?, )?(?:(\d{1,9}):(\d{1,9}):)?(\d{1,9}(?:\.\d+)?)$")
_DIGITS = 12
"""Digits of a count at most: sums of a row stay below 2^63."""


@dataclass(frozen=True)
class PublishedLog:
    """The rows of a certification log, column by column, (m,) each.

    Parameters
    ----------
    source
        The file, as it was named.
    index, label, predict
        int64: index in the data set, class, prediction (-1 abstains).
    radius
        float64: the l2 radius as it is printed.
    lowest
        float64: the lowest radius that prints so; see `lowest_printed`.
    correct
        float64: the column as it stands.  Nothing is computed from it.
    time
        The column as it stands.
    decimals
        Digits after the point where every radius has equally many, otherwise None.
    cut_off
        Whether the last line was incomplete, and left out.
    """

    source: str
    index: IntArray
    label: IntArray
    predict: IntArray
    radius: FloatArray
    lowest: FloatArray
    correct: FloatArray
    time: tuple[str, ...]
    decimals: int | None
    cut_off: bool

    def __len__(self) -> int:
        return len(self.index)

    @property
    def abstained(self) -> np.ndarray:
        """bool (m,): no class is predicted, or with radius 0."""
        return (self.predict < 0) | (self.radius == 0)

    @property
    def right(self) -> np.ndarray:
        """bool (m,): the prediction is the label; abstentions are not right."""
        return (self.predict == self.label) & ~self.abstained

    @property
    def seconds(self) -> FloatArray:
        """float64 (m,): the time column in seconds, NaN where it is not readable."""
        return np.array([_seconds(text) for text in self.time])


@dataclass(frozen=True)
class ClassCounts:
    """Votes of an image's noisy copies, int64 (m, c), and labels (m,)."""

    source: str
    counts: IntArray
    label: IntArray
    cut_off: bool

    def __len__(self) -> int:
        return len(self.label)


def _seconds(text: str) -> float:
    found = _TIME.match(text.strip())
    if found is None:
        return math.nan
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def lowest_printed(text: str, decimals: int | None = None) -> float:
    """Return the lowest number that is printed as `text` when rounded to nearest.

    Parameters
    ----------
    text
        A number >= 0 with 3 significant digits (fewer where zeros were cut
        off, as Python's ``{:.3}`` does), or with as many as it shows.
    decimals
        Digits after the point, for a log that prints all radii with equally many.

    Examples
    --------
    >>> lowest_printed("0.75"), lowest_printed("1.0"), lowest_printed("0.750", decimals=3)
    (0.7495, 0.9995, 0.7495)
    """
    value = float(text)
    if value == 0.0:
        return 0.0
    if decimals is None:
        number = Decimal(text)
        digits = number.as_tuple().digits
        significant = max(_SIGNIFICANT, len(digits))
        style = f".{significant}g"
        # below a power of ten the same number of digits is ten times finer
        unit = number.adjusted() + 1 - significant - (digits[0] == 1 and not any(digits[1:]))
    else:
        style, unit = f".{decimals}f", -decimals
    lowest = max(0.0, value - 0.5 * 10.0**unit)
    while lowest > 0 and float(format(math.nextafter(lowest, 0.0), style)) == value:
        lowest = math.nextafter(lowest, 0.0)
    while float(format(lowest, style)) < value:
        lowest = math.nextafter(lowest, math.inf)
    return lowest


def _common_decimals(texts: set[str]) -> int | None:
    """Digits after the point, where all radii have equally many."""
    tails = {len(text.partition(".")[2]) for text in texts if "e" not in text.lower()}
    return tails.pop() if len(tails) == 1 and not any("e" in text.lower() for text in texts) else None


def _is_padded(texts: set[str]) -> bool:
    """Whether a trailing zero shows that digits were counted after the point, not from the first."""
    return any(re.search(r"\.\d+0$", text) for text in texts)


def _lines(path: Path) -> tuple[list[str], bool]:
    """Return a file's lines, and whether the last one ends as a line should."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise DataError(
            f"{path} cannot be read ({reason}): name a run folder, a log or class counts"
        ) from None
    return text.splitlines(), text.endswith(("\n", "\r"))


def _is_header(line: str) -> bool:
    return line.split() == _NAMES


def read_published(path: str | Path) -> PublishedLog | ClassCounts:
    """Return a log or a file of class counts, told apart by the header.

    Raises
    ------
    DataError
        If the file is neither, or a line is not as it should be.
    """
    lines, _ = _lines(Path(path))
    return read_log(path) if lines and _is_header(lines[0]) else read_class_counts(path)


def read_log(path: str | Path) -> PublishedLog:
    """Return the rows of a log; it may be truncated, or hold a header only.

    Raises
    ------
    DataError
        If the header is another, or a line that is not the last is malformed.
    """
    lines, ended = _lines(Path(path))
    if not lines or not _is_header(lines[0]):
        raise DataError(f"{path} has no header '{' '.join(_NAMES)}': is it a certification log?")
    rows = [line.split("\t") for line in lines[1:] if line.strip()]
    cut_off = bool(rows) and _is_incomplete(rows[-1], ended)
    rows = rows[:-1] if cut_off else rows
    try:
        index, label, predict, radius, correct, time = zip(*rows, strict=True) if rows else ((),) * 6
        whole = np.array([list(map(int, column)) for column in (index, label, predict)], np.int64)
        printed, right = (np.array(list(map(float, column)), np.float64) for column in (radius, correct))
    except (ValueError, OverflowError):
        raise DataError(_first_fault(path, rows)) from None
    wrong = (printed < 0) | ~np.isfinite(printed) | ~(np.abs(right) < _LARGEST)
    if np.any(wrong) or np.any(whole < [[0], [0], [-1]]):
        raise DataError(_first_fault(path, rows))
    texts = set(radius)
    decimals = _common_decimals(texts)
    fixed = decimals if _is_padded(texts) else None
    lowest = {text: lowest_printed(text, fixed) for text in texts}
    low = np.array([lowest[text] for text in radius], np.float64)
    return PublishedLog(
        str(path), whole[0], whole[1], whole[2], printed, low, right, tuple(time), decimals, cut_off
    )


def _is_incomplete(row: list[str], ended: bool) -> bool:
    """Whether the last row was cut off while it was written."""
    return len(row) < len(_NAMES) or (not ended and math.isnan(_seconds(row[-1])))


def _first_fault(path: str | Path, rows: list[list[str]]) -> str:
    """Say which line is malformed, and how it should be."""
    for number, row in enumerate(rows, 2):
        try:
            index, label, predict, radius, correct, _ = row
            whole = int(index), int(label), int(predict) + 1
            good = min(whole) >= 0 and max(whole) < 2**63 and 0 <= float(radius) < math.inf
            good = good and abs(float(correct)) < _LARGEST
        except ValueError:
            good = False
        if not good:
            shown = "\t".join(row)[:60].expandtabs(1)
            return f"{path}, line {number}: {shown!r} is not '{' '.join(_NAMES)}' with a radius >= 0: mend it"
    return f"{path}: rows of unequal length: mend the file"


def read_class_counts(path: str | Path) -> ClassCounts:
    """Return votes and labels of a file with one line an image: counts, then the label.

    Raises
    ------
    DataError
        If a line is not made of whole numbers, lines differ in length, or a
        label is not a class.
    """
    lines, _ = _lines(Path(path))
    rows = [line.split() for line in lines if line.strip()]
    if not rows:
        raise DataError(f"{path} is empty: name a run folder, a log or a file of class counts")
    cut_off = len(rows) > 1 and len(rows[-1]) < len(rows[0])
    rows = rows[:-1] if cut_off else rows
    for number, row in enumerate(rows, 1):
        counted = all(part.isdecimal() and len(part) <= _DIGITS for part in row)
        if len(row) < 3 or len(row) != len(rows[0]) or not counted:
            raise DataError(
                f"{path}, line {number}: neither a log (header '{' '.join(_NAMES)}') nor class counts "
                f"(on each line one whole number a class, of at most {_DIGITS} digits, then the label)"
            )
    table = np.array([list(map(int, row)) for row in rows], np.int64)
    counts, label = table[:, :-1], table[:, -1]
    wrong = (label >= counts.shape[1]) | (counts.sum(1) < 1)
    if wrong.any():
        number = int(wrong.argmax())
        raise DataError(
            f"{path}, row {number + 1}: {counts[number].sum()} votes, label {label[number]}: at least 1 vote "
            f"and a label in 0..{counts.shape[1] - 1} are needed; the label comes last"
        )
    return ClassCounts(str(path), counts, label, cut_off)
