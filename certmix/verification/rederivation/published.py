"""What a run published: the tables and logs of every request, read without trusting them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from certmix.errors import ParameterError, RunError
from certmix.plain_json import parse_json
from certmix.records.folder import RESULTS
from certmix.records.logs import HEADER
from certmix.studies.request import CertifyRequest
from certmix.types import SCHEMA_VERSION, CertifiedAccuracy, CleanAccuracy, Summary

__all__ = [
    "LOG", "TABLE", "LogRow", "Published", "images_in_name", "match_request", "read_log", "read_published",
]  # fmt: skip

TABLE, LOG = "certified-accuracy.json", "records.tsv"
DEFAULT_PRECISION = 0.1


@dataclass(frozen=True)
class LogRow:
    """A line of ``records.tsv``; the radius as it is printed."""

    index: int
    label: int
    predict: int
    radius: Decimal
    correct: int


@dataclass(frozen=True)
class Published:
    """The products of one request: where, and the table."""

    folder: Path
    summary: Summary

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def read_published(run: Path, *, interrupted: bool = False) -> list[Published]:
    """Return every request's table, in order of name; an interrupted run may have begun a folder without one.

    Raises
    ------
    RunError
        If a table is missing or cannot be read.
    """
    parent = Path(run) / RESULTS
    folders = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    if interrupted:
        folders = [folder for folder in folders if (folder / TABLE).is_file()]
    return [Published(folder, _table(folder / TABLE)) for folder in folders]


def _table(path: Path) -> Summary:
    try:
        plain = parse_json(path.read_bytes())
        if plain.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema version other than {SCHEMA_VERSION}")
        rows = tuple(_row(row) for row in plain.pop("rows"))
        clean = CleanAccuracy(**plain.pop("clean_accuracy"))
        radii, notes = tuple(map(_number, plain.pop("radii"))), tuple(map(str, plain.pop("notes")))
        summary = Summary(**plain, radii=radii, notes=notes, rows=rows, clean_accuracy=clean)
        _check(summary)
    except (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        wrong = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: not a readable table ({wrong}): restore it, or run again") from None
    return summary


def _row(row: dict[str, Any]) -> CertifiedAccuracy:
    shares = tuple(map(_number, row["certified_accuracy"]))
    ends = tuple((_number(low), _number(high)) for low, high in row["interval"])
    mean = math.nan if row["mean_certified_radius"] is None else _number(row["mean_certified_radius"])
    names = str(row["classifier"]), str(row["certificate"])
    return CertifiedAccuracy(*names, shares, ends, mean)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} where a number belongs")
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not JSON")
    return value


def _check(summary: Summary) -> None:
    for row in summary.rows:
        if not len(row.certified_accuracy) == len(row.interval) == len(summary.radii):
            raise ValueError(f"row {row.classifier} {row.certificate} has not one figure a radius")
    for name in ("images", "planned_images", "alpha"):
        _number(getattr(summary, name))
    if not summary.rows or summary.images < 1:
        raise ValueError("a table without rows or images")


def read_log(path: Path) -> list[LogRow]:
    """Return the rows of a ``records.tsv``.

    Raises
    ------
    RunError
        If it is missing, or is no such log.
    """
    try:
        lines = path.read_text().splitlines()
        if lines[:1] != [HEADER]:
            raise ValueError(f"its heading is not {HEADER!r}")
        rows = [
            LogRow(int(i), int(label), int(predict), Decimal(radius), int(correct))
            for i, label, predict, radius, correct, _ in csv.reader(lines[1:], delimiter="\t")
        ]
        if not all(row.radius.is_finite() for row in rows):
            raise ValueError("a radius that is not finite")
    except (OSError, InvalidOperation, UnicodeDecodeError, ValueError, csv.Error) as error:
        wrong = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: not a readable log ({wrong}): restore it, or run again") from None
    return rows


def match_request(
    published: Published, base: CertifyRequest, checksums: Iterable[str]
) -> tuple[CertifyRequest, bool]:
    """Return the request that a table is of, and whether the digest in its folder's name confirms it.

    The table repeats what a request may vary, except the relative precision
    of the goal ``radius``: that of the run's newest request and the default are tried.

    Parameters
    ----------
    published
        A table.
    base
        The run's newest request.
    checksums
        Of the standard models that the run knows.

    Raises
    ------
    RunError
        If the table describes no valid request.
    """
    summary = published.summary
    told: dict[str, Any] = {
        name: getattr(summary, name)
        for name in (
            "sigma", "alpha", "samples", "selection_samples", "goal", "failure_probability", "bound",
            "seed", "radii",
        )
    }  # fmt: skip
    told.update(
        images=images_in_name(published.name, base.images),
        certificates=tuple(row.certificate for row in summary.rows[1:]),
    )
    try:
        asked = replace(base, **told)
    except (ParameterError, TypeError) as error:
        raise RunError(f"{published.folder}: its table describes no valid request ({error})") from None
    known = ["", *checksums]
    for precision in (base.relative_precision, DEFAULT_PRECISION):
        tried = replace(asked, relative_precision=precision)
        if any(tried.name(checksum) == published.name for checksum in known):
            return tried, True
    return asked, False


def images_in_name(name: str, otherwise: int | str) -> int | str:
    """Return how many images were asked for, which the name of a folder of products tells."""
    _, _, rest = name.partition("-images")
    text = rest.partition("-")[0]
    if text == "all":
        return "all"
    return int(text) if text.isdecimal() and 0 < len(text) < 19 and int(text) > 0 else otherwise
