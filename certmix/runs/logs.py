"""Logs and class counts that others published, read with suspicion; and a run's own.  No torch."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import DataError, ParameterError
from certmix.files import (
    COPY_IT,
    DESCRIPTION,
    LINK_OUT,
    leads_out,
    named,
    read_file,
    remedy_of,
    write_atomically,
)
from certmix.types import FloatArray, IntArray

__all__ = [
    "HEADER", "OWN_HEADER", "ClassCounts", "Extent", "PublishedLog", "distinct_rows", "expected_rows",
    "log_text", "lowest_printed", "read_class_counts", "read_log", "read_published", "write_log",
]  # fmt: skip

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
_NAMES = HEADER.split("\t")
_NEEDED = ("idx", "label", "predict", "radius")
_READ = (*_NEEDED, "bound", "gate", "sigma", "feature_scale")
"""Columns that figures rest on."""
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
    index, label, predict
        int64: index in the data set, class, prediction (-1 abstains).
    radius, lowest
        float64: the l2 radius as it is printed, and the lowest that prints so, with as many significant
        digits or decimals as the column shows; see `lowest_printed`.
    correct, time
        The columns as they stand; what label and prediction say (float64), and empty, where there are none.
        No figure is computed from them.
    decimals, cut_off
        Digits after the point where every radius has equally many, otherwise None; whether the last line was
        incomplete, and left out.
    of_probabilities
        Whether `radius` and `lowest` hold lower bounds of probabilities (``p_lower``) in place of radii.
    bound, sigma, gate, feature_scale
        Name of the bound that the radii rest on, noise level, gate of the votes, and numbers, separated by
        commas, of what the radii count in; None where the log does not say.
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
    bound: str | None = None
    sigma: float | None = None
    gate: float | None = None
    feature_scale: str | None = None
    of_probabilities: bool = False

    def __len__(self) -> int:
        return len(self.index)

    @property
    def scales(self) -> tuple[float, ...]:
        """The feature scales, () where the log has none."""
        return tuple(map(float, self.feature_scale.split(","))) if self.feature_scale else ()

    @property
    def abstained(self) -> np.ndarray:
        """bool (m,): no class is predicted, or with radius 0."""
        return (self.predict < 0) | (self.radius <= (0.5 if self.of_probabilities else 0.0))

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
    """Votes of an input's noisy copies, int64 (m, c), and labels (m,)."""

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


def lowest_printed(text: str, decimals: int | None = None, significant: int = _SIGNIFICANT) -> float:
    """Return the lowest number that is printed as `text`, a number >= 0, when rounded to nearest.

    To `decimals` digits after the point, or if that is None to `significant` digits, or as many as the text
    shows (trailing zeros may have been cut off, as Python's ``{:.3}`` does).

    >>> lowest_printed("0.75"), lowest_printed("1.0"), lowest_printed("0.750", decimals=3)
    (0.7495, 0.9995, 0.7495)
    """
    value = float(text)
    if value == 0.0:
        return 0.0
    if decimals is None:
        number = Decimal(text)
        digits = number.as_tuple().digits
        shown = max(significant, len(digits))
        style = f".{shown}g"
        # below a power of ten the same number of digits is ten times finer
        unit = number.adjusted() + 1 - shown - (digits[0] == 1 and not any(digits[1:]))
    else:
        style, unit = f".{decimals}f", -decimals
    lowest = max(0.0, value - 0.5 * 10.0**unit)
    while lowest > 0 and float(format(math.nextafter(lowest, 0.0), style)) == value:
        lowest = math.nextafter(lowest, 0.0)
    while float(format(lowest, style)) < value:
        lowest = math.nextafter(lowest, math.inf)
    return lowest


def _lowest(texts: set[str]) -> dict[str, float]:
    """Return the lowest number that prints so, for every radius of a column.

    The lower of two: rounded to as many significant digits, or decimals, as the column shows at most.
    """
    shown = {text: _plain(text) for text in texts if float(text) > 0}
    numbers = [Decimal(text).as_tuple() for text in shown.values()]
    significant = max((len(number.digits) for number in numbers), default=1)
    decimals = max((-int(number.exponent) for number in numbers), default=0)
    found = {
        text: min(lowest_printed(plain, significant=significant), lowest_printed(plain, max(0, decimals)))
        for text, plain in shown.items()
    }
    return {text: found.get(text, 0.0) for text in texts}


def _plain(text: str) -> str:
    """Return a number without zeros that only Python's way to print whole floats adds (10.0)."""
    number = Decimal(text)
    whole = number == number.to_integral_value() and text.strip().endswith(".0")
    return str(number.normalize()) if whole or int(number.as_tuple().exponent) >= 0 else text


def _lines(path: Path) -> tuple[list[str], bool]:
    """Return a file's lines, and whether the last one ends as a line should."""
    if os.path.exists(path.parent / DESCRIPTION) and leads_out(path.parent, path.name):  # a run's
        raise DataError(f"{path} {LINK_OUT}: {COPY_IT}")
    try:
        text = read_file(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        remedy = remedy_of(error, "name a run folder, a log or class counts")
        raise DataError(f"{named(path, error)} cannot be read ({reason}): {remedy}") from None
    return text.splitlines(), text.endswith(("\n", "\r"))


def _names(lines: list[str]) -> list[str]:
    """Return the names of the columns, none where the first line holds no name of a log's."""
    first = lines[0] if lines else ""
    names = [name.strip() for name in first.split("\t" if "\t" in first else None)]
    return names if set(names) & set(_NEEDED) else []


def read_published(path: str | Path) -> PublishedLog | ClassCounts:
    """Return a log or a file of class counts, told apart by the header; DataError names what is malformed."""
    lines, _ = _lines(Path(path))
    return read_log(path) if _names(lines) else read_class_counts(path)


def read_log(path: str | Path) -> PublishedLog:
    """Return the rows of a log; it may be truncated, or hold a header only.

    DataError names a column that is missing, and a line that is malformed and not the last.
    """
    lines, ended = _lines(Path(path))
    names = _names(lines)
    column = "p_lower" if "p_lower" in names and "radius" not in names else "radius"
    for name in (column, *(one for one in _READ if one != "radius")):
        if names.count(name) > 1 or (name in (column, *_NEEDED) and name not in names):
            raise DataError(
                f"{path} has {names.count(name) or 'no'} columns named {name!r}: a certification log has a "
                f"header such as '{' '.join(_NAMES)}', separated by tabs"
            )
    rows = [(number, line.split("\t")) for number, line in enumerate(lines[1:], 2) if line.strip()]
    last = rows[-1][1] if rows else names
    unended = names[-1:] == ["time"] and math.isnan(_seconds(last[-1]))
    cut_off = len(last) < len(names) or (bool(rows) and not ended and (names[-1] in _READ or unended))
    table = _Columns(path, names, rows[:-1] if cut_off else rows)
    index, label = (
        np.array(table.read(name, _whole, "a whole number >= 0"), np.int64) for name in _NAMES[:2]
    )
    predict = np.array(table.read("predict", partial(_whole, least=-1), "a class, or -1"), np.int64)
    fits, kind = (lambda r: r >= 0), "a number >= 0"
    if column == "p_lower":
        fits, kind = (lambda p: 0 <= p <= 1), "a number from 0 to 1"
    radii = table.read(column, partial(_number, fits=fits), kind)
    radius = np.array(radii, np.float64)
    endless = np.isinf(radius)
    for row in np.flatnonzero(endless & (predict >= 0)).tolist():
        raise table.fault(row, "radius", "finite, though a class is predicted")
    place = names.index(column)
    texts = ["0" if no else row[place] for (_, row), no in zip(table.rows, endless.tolist(), strict=True)]
    lowest, level = _lowest(set(texts)), partial(_number, fits=lambda sigma: 0 < sigma < math.inf)
    tails = {None if "e" in text.lower() else len(text.partition(".")[2]) for text in set(texts)}
    correct = table.read("correct", _correct, "1, 0, True or False") or predict == label
    return PublishedLog(
        str(path), index, label, predict, np.where(endless, 0.0, radius),
        np.array([lowest[text] for text in texts], np.float64), np.array(correct, np.float64),
        tuple(table.read("time", str, "") or [""] * len(index)), tails.pop() if len(tails) == 1 else None,
        cut_off, table.common("bound", str.strip, ""), table.common("sigma", level, "a number > 0"),
        table.common("gate", partial(_number, fits=lambda gate: 0 <= gate < 1), "a number from 0 to 1"),
        table.common("feature_scale", _scales, "numbers above 0, separated by commas"), column == "p_lower",
    )  # fmt: skip


@dataclass(frozen=True)
class _Columns:
    """The rows of a log with their line numbers, to be read column by column."""

    path: str | Path
    names: list[str]
    rows: list[tuple[int, list[str]]]

    def __post_init__(self) -> None:
        for number, row in self.rows:
            if len(row) != len(self.names):
                raise DataError(
                    f"{self.path}, line {number}: {len(row)} columns where the header names "
                    f"{len(self.names)}: mend it"
                )

    def read(self, name: str, parse: Callable[[str], Any], kind: str) -> list[Any]:
        """Return a column, empty where there is none."""
        place, known = self.names.index(name) if name in self.names else None, dict[str, Any]()
        column = [] if place is None else [texts[place] for _, texts in self.rows]
        for row, text in enumerate(column):
            if text not in known:
                try:
                    known[text] = parse(text)
                except (ValueError, OverflowError):
                    raise self.fault(row, name, kind) from None
        return [known[text] for text in column]

    def common(self, name: str, parse: Callable[[str], Any], kind: str) -> Any:
        """Return the one entry of a column, None where there is none."""
        found = self.read(name, parse, kind)
        for row, value in enumerate(found):
            if value != found[0]:
                raise self.fault(row, name, f"{found[0]!r} as above, but each log has one {name}")
        return found[0] if found else None

    def fault(self, row: int, name: str, kind: str) -> DataError:
        """Return the error that names a line and a column."""
        number, texts = self.rows[row]
        if [text.strip() for text in texts] == self.names:
            return DataError(
                f"{self.path}, line {number}: the header again: were several logs joined? Take each by itself"
            )
        shown = texts[self.names.index(name)].strip()[:40]
        return DataError(f"{self.path}, line {number}, column {name}: {shown!r} is not {kind}: mend it")


def _whole(text: str, least: int = 0) -> int:
    """Return a whole number, which may be written as 3.0."""
    value = int(text.strip().removesuffix(".0"))
    if not least <= value < 2**63:
        raise ValueError
    return value


def _number(text: str, fits: Callable[[float], bool]) -> float:
    value = float(text)
    if not fits(value):
        raise ValueError
    return value


def _correct(text: str) -> float:
    """Return 1, 0 or a running total."""
    word = text.strip().lower()
    return _number({"true": "1", "false": "0"}.get(word, word), lambda total: abs(total) < _LARGEST)


def read_class_counts(path: str | Path) -> ClassCounts:
    """Return votes and labels of a file with one line an input: counts, then the label.

    DataError if a line is not made of whole numbers, lines differ in length, or a label is not a class.
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


DATA_SET_SIZES = {"STL-10": 8_000, "CIFAR": 10_000, "SVHN": 26_032, "ImageNet": 50_000}
"""Test sets that a log may run over: a log that covers most of one is taken to be meant for all of it."""
_MOST = 0.8


@dataclass(frozen=True)
class Extent:
    """How many rows there should be (None if unknown), and how that is known."""

    rows: int | None
    why: str


def distinct_rows(log: PublishedLog) -> tuple[PublishedLog, int]:
    """Return the log with equal rows kept once, and how many were repeated; DataError if two contradict."""
    _, first, which = np.unique(log.index, return_index=True, return_inverse=True)
    if len(first) == len(log):
        return log, 0
    same = first[which]
    for column in (log.label, log.predict, log.radius):
        differs = column != column[same]
        if differs.any():
            raise DataError(
                f"{log.source} holds two rows for idx {log.index[differs.argmax()]} that differ: "
                "remove one of them"
            )
    keep, names = np.sort(first), ("index", "label", "predict", "radius", "lowest", "correct")
    columns = {name: getattr(log, name)[keep] for name in names}
    return replace(log, **columns, time=tuple(log.time[i] for i in keep)), len(log) - len(keep)


def expected_rows(index: IntArray, planned: int | None, rows: int | None) -> Extent:
    """Return how many rows a log should have: as stated, as its run planned, or from the spacing of idx."""
    present = len(set(index.tolist()))
    if rows is not None:
        if rows < present:
            raise ParameterError(f"rows = {rows}: there are {present} already; raise --rows")
        return Extent(rows, "as stated")
    if planned is not None:
        return Extent(max(planned, present), "as the run planned")
    ordered = np.unique(index)
    steps = ordered[1:] - ordered[:-1]
    unknown = Extent(None, "how many there should be is not known")
    if len(steps) == 0:
        return unknown
    values, counts = np.unique(steps, return_counts=True)
    step = int(values[counts.argmax()])
    start = int(index.min()) % step
    if np.any(steps % step):
        return unknown
    span = (int(index.max()) - start) // step + 1
    for name, size in DATA_SET_SIZES.items():
        full = math.ceil((size - start) / step)
        if span <= full and span >= _MOST * full:
            ordinal = "" if step == 1 else f"{step}th "
            return Extent(full, f"every {ordinal}input of {size:,}, as in {name}")
    return Extent(span, f"from the spacing of idx, {step}") if span > len(steps) + 1 else unknown


OWN_HEADER = f"{HEADER}\tbound\tgate"


def write_log(
    path: Path, rows: Iterable[tuple[int, int, int, float, float]], bound: str, gate: float = 0.0,
    scale: Sequence[float] = (),
) -> None:  # fmt: skip
    """Write what `log_text` returns."""
    write_atomically(path, log_text(rows, bound, gate, scale).encode())


def _scales(text: str) -> str:
    """Return feature scales as they stand; ValueError for other texts."""
    if not all(0 < float(part) < math.inf for part in text.split(",")):
        raise ValueError("a scale out of range")
    return text.strip()


def log_text(
    rows: Iterable[tuple[int, int, int, float, float]], bound: str, gate: float = 0.0,
    scale: Sequence[float] = (),
) -> str:  # fmt: skip
    """Return rows (index, label, prediction, radius, seconds) as a log of Cohen et al., with bound and gate.

    Prediction -1 means abstention; radii are rounded down to six decimals.  The name of the bound that they
    rest on, and the gate of the votes, decide whether p and q can be taken back from them.
    """
    lines, end = [OWN_HEADER + ("\tfeature_scale" if scale else "")], f"{bound}\t{gate:g}"
    if scale:
        end += "\t" + ",".join(map(repr, scale))
    for index, label, prediction, radius, seconds in rows:
        correct = "1" if prediction == label else "0"
        told = f"{_floor(radius)}\t{correct}\t{_elapsed(seconds)}"
        lines.append(f"{index}\t{label}\t{prediction}\t{told}\t{end}")
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=1 << 16)  # few votes are of few numbers
def _floor(radius: float) -> str:
    return str(Decimal(radius).quantize(Decimal("1e-6"), ROUND_FLOOR))


@lru_cache(maxsize=1 << 16)
def _elapsed(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds, 6)))
