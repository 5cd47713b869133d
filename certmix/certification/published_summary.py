"""Tables that a run published, read back.  No torch."""

from __future__ import annotations

import math
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from certmix.errors import RunError
from certmix.files import parse_json
from certmix.runs.folder import RESULTS
from certmix.runs.from_json import from_json
from certmix.types import SCHEMA_VERSION, CertifiedAccuracy, CleanAccuracy, Summary

__all__ = ["forget_partial", "read_summary"]

_FIELDS = {field.name for field in fields(Summary)}
_LARGEST = 2**63
TABLE = "certified-accuracy.json"


def read_summary(path: Path) -> Summary:
    """Return the table that a run published.

    Raises
    ------
    RunError
        If it is unreadable or of a newer version.
    """
    try:
        stored = parse_json(path.read_bytes())
        if not isinstance(stored, dict):
            raise ValueError("it is no object")
        if stored["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {stored['schema_version']!r:.20}")
        if not isinstance(stored["rows"], list):
            raise ValueError("its rows are no list")
        values = {key: value for key, value in stored.items() if key in _FIELDS}
        values["clean_accuracy"] = from_json(CleanAccuracy, values["clean_accuracy"])
        values["rows"] = tuple(_row(row) for row in values["rows"])
        return _checked(from_json(Summary, values))
    except (KeyError, TypeError) as error:
        raise _unreadable(path, f"it lacks {error}") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from None


def forget_partial(run: Path, kept: Path) -> None:
    """Delete what interrupted requests published, but for one folder of results.

    Once a further request is done, images that a partial table leaves out may
    have all their samples, and the table no longer follows from them.  The
    samples stay: repeating its command makes the whole one.
    """
    for path in (run / RESULTS).glob(f"*/{TABLE}"):
        if path.parent == kept or path.parent.is_symlink():
            continue
        try:
            partial = not read_summary(path).complete
        except RunError:
            continue  # whoever reads it will say so
        if partial:
            shutil.rmtree(path.parent, ignore_errors=True)


def _unreadable(path: Path, reason: str) -> RunError:
    return RunError(f"{path} is not a readable table ({reason[:200]}): repeat certmix certify")


def _row(stored: dict[str, Any]) -> CertifiedAccuracy:
    return CertifiedAccuracy(
        str(stored["classifier"]),
        str(stored["certificate"]),
        tuple(map(_number, stored["certified_accuracy"])),
        tuple((_number(low), _number(high)) for low, high in stored["interval"]),
        _number(stored["mean_certified_radius"]),
    )


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LARGEST:
        raise ValueError(f"{ascii(value)[:60]} where a figure belongs")
    return float(value)


def _checked(summary: Summary) -> Summary:
    """Return a table whose figures can be drawn; ValueError."""
    for row in summary.rows:
        if not len(row.certified_accuracy) == len(row.interval) == len(summary.radii):
            raise ValueError(f"row {row.classifier} {row.certificate} has not one figure a radius")
        if any(share > 1 for share in row.certified_accuracy):
            raise ValueError(f"row {row.classifier} {row.certificate} has shares above 1")
    if not 0 <= summary.alpha <= 1 or summary.images < 0 or min(summary.radii, default=0) < 0:
        raise ValueError("a weight, a radius or a number of images is out of range")
    return summary
