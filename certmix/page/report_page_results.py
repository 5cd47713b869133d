"""Stored results of a certification run, each with the images that its records give.  No torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.evaluate import Evaluation, evaluate
from certmix.certification.published_summary import TABLE, read_summary
from certmix.certification.request import CertifyRequest
from certmix.certification.stored import LOG, open_run, request_of
from certmix.errors import CertmixError, RunError
from certmix.page import Images, Result
from certmix.radii import CERTIFICATES
from certmix.runs import ImageRecord, Store
from certmix.runs.folder import DATABASE, RESULTS
from certmix.runs.settings import settings
from certmix.types import CertifiedAccuracy, FloatArray, Status, Summary

__all__ = ["plain_results", "sampled_results"]

RADII = "radii.tsv"
Rows = list[dict[str, str]]


def _stored(folder: Path, newest: str) -> list[tuple[Path, Summary]]:
    """Return the folders and tables of all requests, the newest first, then by alpha and name."""
    paths = sorted((folder / RESULTS).glob(f"*/{TABLE}"))
    found = [(path.parent, read_summary(path)) for path in paths]
    return sorted(found, key=lambda pair: (pair[0].name != newest, pair[1].alpha, pair[0].name))


def _rows(path: Path) -> Rows:
    """Return a tab-separated table, empty where there is none."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    except (OSError, ValueError, csv.Error):
        return []


def _checksum(described: dict[str, Any]) -> str:
    standard = described["models"]["standard"]
    return "" if standard is None else str(standard["checksum"])


def sampled_results(
    folder: Path, described: dict[str, Any]
) -> tuple[tuple[Result, ...], dict[int, ImageRecord]]:
    """Return the results of a run that draws samples, and its records by image index.

    A table's images are evaluated again from the stored counts; they are kept
    only where they give that table.  A run that published nothing yet is
    evaluated as far as it got.
    """
    request = request_of(described, folder)
    store = Store(folder / DATABASE, len(described["data"]["class_names"]), read_only=True)
    try:
        records = store.images()
    finally:
        store.close()
    stored = _stored(folder, request.name(_checksum(described)))
    if not stored:
        return (_unfinished(folder),), records

    def images(place: Path, summary: Summary) -> Images | None:
        wanted = [int(row["idx"]) for row in _rows(place / LOG)]
        kept = [records[index] for index in wanted if index in records]
        asked = _asked(request, summary)
        if len(kept) < max(len(wanted), 1) or asked is None:
            return None
        found = evaluate(kept, {}, asked, len(kept))
        return _images(found) if _agree(found.summary.rows, summary.rows) else None

    return _results(stored, images), records


def _unfinished(folder: Path) -> Result:
    run = open_run(folder)
    found = evaluate(run.records, run.probabilities, run.request, run.planned, **run.about)
    return Result(
        "unfinished", replace(found.summary, complete=False), _images(found) if found.radii else None
    )


def _results(
    stored: Sequence[tuple[Path, Summary]], images: Callable[[Path, Summary], Images | None]
) -> tuple[Result, ...]:
    found = []
    for place, summary in stored:
        try:
            known = images(place, summary)
        except (ArithmeticError, CertmixError, KeyError, TypeError, ValueError):
            known = None
        found.append(Result(place.name, summary, known))
    return tuple(found)


def _asked(request: CertifyRequest, summary: Summary) -> CertifyRequest | None:
    """Return the run's request with what a table says of its own, None where it cannot be told."""
    named = tuple(row.certificate for row in summary.rows if row.classifier == "mixed")
    if not named or any(name not in CERTIFICATES for name in named) or summary.samples is None:
        return None
    if summary.failure_probability is None or summary.goal is None:
        return None
    return request.replace(
        alpha=summary.alpha, certificates=named, radii=summary.radii, samples=summary.samples,
        failure_probability=summary.failure_probability, goal=summary.goal, bound=summary.bound,
    )  # fmt: skip


def _images(found: Evaluation) -> Images:
    records = found.records
    return Images(
        indices=np.array([record.index for record in records], np.int64),
        labels=np.array([record.label for record in records], np.int64),
        predicted=np.array([record.selected for record in records], np.int64),
        radius=np.stack([radii.radius for radii in found.radii]),
        status=np.stack([radii.status for radii in found.radii]).astype(np.int64),
    )


def _agree(computed: Sequence[CertifiedAccuracy], published: Sequence[CertifiedAccuracy]) -> bool:
    """Whether two tables have the same rows, but for the last digits of mean radii."""
    return len(computed) == len(published) and all(
        (a.classifier, a.certificate, a.certified_accuracy)
        == (b.classifier, b.certificate, b.certified_accuracy)
        and math.isclose(a.mean_certified_radius, b.mean_certified_radius, rel_tol=1e-9, abs_tol=1e-12)
        for a, b in zip(computed, published, strict=True)
    )


def plain_results(folder: Path, described: dict[str, Any]) -> tuple[Result, ...]:
    """Return the results of a run that draws no samples; radii are read from its own tables.

    Raises
    ------
    RunError
        If it published nothing yet.
    """
    request = settings(DeterministicRequest, described["request"])
    stored = _stored(folder, request.name(_checksum(described)))
    if not stored:
        raise RunError(f"{folder} holds no results yet: repeat certmix certify to finish it")

    def images(place: Path, summary: Summary) -> Images | None:
        rows = _rows(place / RADII)
        radius: FloatArray = np.array(
            [[float(row[f"radius_{name}"]) for row in rows] for name in ("robust", "mixed")]
        )
        columns = {
            key: np.array([int(row[key]) for row in rows], np.int64) for key in ("idx", "label", "predict")
        }
        status = np.where(radius > 0, Status.CERTIFIED, Status.NOT_CERTIFIED).astype(np.int64)
        found = Images(columns["idx"], columns["label"], columns["predict"], radius, status)
        return found if rows and _holds(found, summary) else None

    return _results(stored, images)


def _holds(images: Images, summary: Summary) -> bool:
    """Whether radii give the table's figures."""
    shares = [
        tuple(int(((radii >= r) & (radii > 0)).sum()) / len(images.labels) for r in summary.radii)
        for radii in (np.where(images.right, row, 0.0) for row in images.radius)
    ]
    return shares == [row.certified_accuracy for row in summary.rows]
