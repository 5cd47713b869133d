"""What a run without samples published, and the radii that its stored numbers give."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.deterministic import RADII_FILE
from certmix.certification.deterministic_request import DeterministicRequest, Margin
from certmix.errors import ParameterError, RunError
from certmix.radii.constant import CONSTANTS_OF
from certmix.types import FloatArray
from certmix.verification.plain.radii import constant_radius, slack_of, softmax_margin
from certmix.verification.rederivation.published import Published, images_in_name, whole
from certmix.verification.rederivation.stored import StoredVectors
from certmix.verification.rederivation.tables import Fault, radius_fault

__all__ = ["RadiiRow", "expected_radii", "finished", "match_claim", "read_radii"]

MARGIN_SLACK = 1e-4
"""Margins of stored logits, which may be of float32, against those of propagation in float64."""

_NOTE = re.compile(
    r"Given, not verified: (\S+) is a Lipschitz constant of h, from the \S+ norm of the input to (.+)\."
)
_RADIUS = re.compile(r"[0-9]{1,320}(\.[0-9]{1,320})?(e[-+][0-9]{1,3})?")


@dataclass(frozen=True)
class RadiiRow:
    """A line of ``radii.tsv``: the radii of h alone and of the mix."""

    index: int
    label: int
    predict: int
    radii: tuple[float, float]


def read_radii(folder: Path) -> list[RadiiRow]:
    """Return the rows of a ``radii.tsv``.

    Raises
    ------
    RunError
        If it is missing, or is no such table.
    """
    path = folder / RADII_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines[:1] != ["idx\tlabel\tpredict\tradius_robust\tradius_mixed"]:
            raise ValueError("another heading")
        rows = [
            RadiiRow(whole(i), whole(label), whole(predict), (_radius(robust), _radius(mixed)))
            for i, label, predict, robust, mixed in csv.reader(lines[1:], delimiter="\t")
        ]
    except (OSError, ValueError, csv.Error) as error:
        wrong = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: not a readable table of radii ({wrong}): restore it, or run again") from None
    return rows


def _radius(text: str) -> float:
    """Return a radius of 0 or more that is finite; ValueError."""
    if not _RADIUS.fullmatch(text) or (radius := float(text)) == math.inf:
        raise ValueError(f"{text[:40]!r} where a radius belongs")
    return radius


def match_claim(
    found: Published, base: DeterministicRequest, checksums: Iterable[str]
) -> tuple[DeterministicRequest, bool]:
    """Return the request that a table is of, and whether the digest in its folder's name confirms it.

    The Lipschitz constant is in the table's note, which is part of what is claimed.

    Raises
    ------
    RunError
        If the table describes no valid request.
    """
    summary = found.summary
    tried: list[DeterministicRequest] = []
    try:
        for given in _constants(found, base):
            tried.append(
                base.replace(
                    alpha=summary.alpha, norm=summary.norm, radii=summary.radii,
                    images=images_in_name(found.name, base.images), **given,
                )
            )  # fmt: skip
    except (ParameterError, TypeError) as error:
        raise RunError(f"{found.folder}: its table describes no valid request ({error})") from None
    known = ["", *checksums]
    for asked in tried:
        if any(asked.name(checksum) == found.name for checksum in known):
            return asked, True
    return tried[0], False


def _constants(found: Published, base: DeterministicRequest) -> list[dict[str, Any]]:
    """Return what a table's note says of the constant, as a float and as a whole number that prints alike."""
    if base.certificate != "lipschitz-constant":
        return [{}]
    for note in found.summary.notes:
        told = _NOTE.fullmatch(note)
        what = [name for name, words in CONSTANTS_OF.items() if told and words == told[2]]
        if told and f" the {found.summary.norm} norm " not in note:
            raise RunError(f"{found.folder}: its table is of {found.summary.norm}, its note of another norm")
        if told and what and told[1].replace(".", "", 1).isdecimal():
            values = [float(told[1]), *([int(told[1])] if told[1].isdecimal() else [])]
            return [{"lipschitz_constant": value, "constant_of": what[0]} for value in values]
    raise RunError(f"{found.folder}: its table does not say which Lipschitz constant it rests on")


def expected_radii(
    run: StoredVectors, request: DeterministicRequest, log: list[RadiiRow], place: int, alpha: float
) -> tuple[FloatArray, list[Fault]]:
    """Return the radii (m,) at one weight, and how the published ones differ.

    For ``lipschitz-constant`` they are computed from stored logits.  For
    ``margin`` they were stored when they were verified, with columns that were
    verified besides; that they hold is for propagation to say, here it is only
    checked that the clean margin allows any.
    """
    found: list[float] = []
    faults: list[Fault] = []
    for row in log:
        logits = run.cells["robust logits"][row.index]
        if request.certificate == "margin":
            radius, fault = _verified(run, request, row.index, alpha)
            if fault is None and radius > 0 and softmax_margin(logits) < (1 - alpha) / alpha - MARGIN_SLACK:
                fault = f"radius {radius!r} with a clean margin of {softmax_margin(logits):.4g}"
            if fault is None and row.radii[place] != radius:
                fault = f"radius {row.radii[place]!r}, {radius!r} was verified"
        else:
            constant, what = request.given
            radius = constant_radius(logits, alpha, constant, what, slack_of(alpha))
            fault = radius_fault(row.radii[place], radius, 1 / constant)
        found.append(radius)
        if fault:
            faults.append(("radii", row.index, f"image {row.index}, alpha {alpha:g}: {fault}"))
    return np.array(found, np.float64), faults


def finished(run: StoredVectors, request: DeterministicRequest, index: int, standard: Sequence[str]) -> bool:
    """Whether all that a request wants of an image is stored; `standard` are the cells of its g."""
    if any(index not in run.cells.get(cell, {}) for cell in ("robust logits", *standard)):
        return False
    if request.certificate != "margin":
        return True
    return all(_verified(run, request, index, alpha)[1] is None for alpha in request.weights())


def _verified(run: StoredVectors, request: Margin, index: int, alpha: float) -> tuple[float, str | None]:
    """Return the stored radius, raised to a column just beyond it that was verified, and a fault."""
    stored = run.cells.get(f"margin, alpha {alpha!r}", {}).get(index)
    if stored is None or stored.shape != (3,):
        return 0.0, "no radius is stored"
    radius, status = float(stored[0]), stored[1]
    if not 0 <= radius <= request.max_radius or (status == 2) != (radius > 0):
        told = f"radius {radius!r} with status {status:g}, the largest tried is {request.max_radius:g}"
        return radius, told
    best = radius
    for column in request.radii:
        if radius > 0 and radius < column <= radius + 2 * request.tolerance:
            looked_at = run.cells.get(f"margin, alpha {alpha!r}, at {column!r}", {}).get(index)
            if looked_at is None or looked_at.shape != (1,):
                return radius, f"the column {column:g} was not looked at"
            best = column if looked_at[0] == 1 else best
    return best, None
