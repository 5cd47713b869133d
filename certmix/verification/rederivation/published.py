"""What a run published: the tables and logs of every request, read without trusting them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from certmix.certification.request import CertifyRequest
from certmix.errors import ParameterError, RunError
from certmix.plain_json import parse_json
from certmix.runs.folder import RESULTS
from certmix.runs.from_json import from_json
from certmix.runs.logs import OWN_HEADER
from certmix.types import SCHEMA_VERSION, CertifiedAccuracy, CleanAccuracy, Summary

__all__ = [
    "LOG", "TABLE", "LogRow", "Published", "images_in_name", "match_request", "read_log", "read_published",
    "whole",
]  # fmt: skip

TABLE, LOG = "certified-accuracy.json", "records.tsv"
DEFAULT_PRECISION = 0.1
_WHOLE, _DECIMAL = re.compile(r"-?[0-9]{1,18}"), re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,60})?")


@dataclass(frozen=True)
class LogRow:
    """A line of ``records.tsv``; the radius as it is printed."""

    index: int
    label: int
    predict: int
    radius: Decimal
    correct: int
    bound: str


@dataclass(frozen=True)
class Published:
    """The products of one request: where, and the table."""

    folder: Path
    summary: Summary

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


@dataclass(frozen=True)
class _Abstained:
    """A number that need not be whole: what is wrong with it is for a check to say."""

    abstained: float | None


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
        if not isinstance(plain, dict) or plain.pop("schema_version", None) != SCHEMA_VERSION:
            raise ValueError(f"it is no table of schema version {SCHEMA_VERSION}")
        if not isinstance(plain["rows"], list):
            raise ValueError("its rows are no list")
        rows = tuple(map(_row, plain["rows"]))
        clean = from_json(CleanAccuracy, plain["clean_accuracy"])
        abstained = from_json(_Abstained, {"abstained": plain.pop("abstained", None)})
        summary = from_json(Summary, {**plain, "rows": rows, "clean_accuracy": clean})
        summary = replace(summary, abstained=abstained.abstained)  # type: ignore[arg-type]
        _check(summary)
    except (KeyError, TypeError) as error:
        raise _unreadable(path, "table", f"it lacks {error}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, "table", str(error)) from None
    return summary


def _unreadable(path: Path, kind: str, reason: str) -> RunError:
    told = " ".join(reason.split())[:200]
    return RunError(f"{path}: not a readable {kind} ({told}): restore it, or run again")


def _row(row: Any) -> CertifiedAccuracy:
    """Return a row; its mean radius is NaN where the file says null."""
    unknown = isinstance(row, dict) and row.get("mean_certified_radius", 0) is None
    found = from_json(CertifiedAccuracy, {**row, "mean_certified_radius": 0.0} if unknown else row)
    return replace(found, mean_certified_radius=math.nan) if unknown else found


def _check(summary: Summary) -> None:
    for row in summary.rows:
        if not len(row.certified_accuracy) == len(row.interval) == len(summary.radii):
            raise ValueError(f"row {row.classifier} {row.certificate} has not one figure a radius")
    if not summary.rows or summary.images < 1 or summary.planned_images is None:
        raise ValueError("a table without rows or images")


def whole(text: str, least: int = 0) -> int:
    """Return a whole number of a table, written as certmix writes it.

    Raises
    ------
    ValueError
        If it is none, or below `least`.
    """
    if not _WHOLE.fullmatch(text) or int(text) < least:
        raise ValueError(f"{text[:40]!r} where a whole number from {least} on belongs")
    return int(text)


def _radius(text: str) -> Decimal:
    """Return a radius of a log; ValueError for anything but digits and a point, such as 1e999999."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} where a radius belongs")
    return Decimal(text)


def read_log(path: Path) -> list[LogRow]:
    """Return the rows of a ``records.tsv``.

    Raises
    ------
    RunError
        If it is missing, or is no such log.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines[:1] != [OWN_HEADER]:
            raise ValueError(f"its heading is not {OWN_HEADER!r}")
        rows = [
            LogRow(whole(i), whole(label), whole(predict, -1), _radius(radius), whole(correct), bound)
            for i, label, predict, radius, correct, _, bound in csv.reader(lines[1:], delimiter="\t")
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, "log", str(error)) from None
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
        asked = base.replace(**told)
    except (ParameterError, TypeError) as error:
        raise RunError(f"{published.folder}: its table describes no valid request ({error})") from None
    known = ["", *checksums]
    for precision in (base.relative_precision, DEFAULT_PRECISION):
        tried = asked.replace(relative_precision=precision)
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
