"""From stored counts to the table: bounds, radii, accuracies, intervals.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certmix.bounds import bound_counts, clopper_pearson
from certmix.radii import certify_radii
from certmix.records import ImageRecord
from certmix.studies.request import CertifyRequest
from certmix.types import (
    CertifiedAccuracy,
    CertifiedRadii,
    CleanAccuracy,
    ConfidenceBounds,
    Curve,
    FloatArray,
    IntArray,
    Status,
    Summary,
)

__all__ = ["Evaluation", "bound_records", "ceilings", "evaluate", "log_rows"]


@dataclass(frozen=True)
class Evaluation:
    """A summary with what plots and logs need besides.

    ``radii`` holds one `CertifiedRadii` for each row of the summary; the first
    is the robust classifier alone.
    """

    summary: Summary
    curves: tuple[Curve, ...]
    radii: tuple[CertifiedRadii, ...]
    bounds: ConfidenceBounds
    selected: IntArray
    labels: IntArray


def bound_records(records: Sequence[ImageRecord], request: CertifyRequest) -> ConfidenceBounds:
    """Return the bounds of images whose estimation samples are complete."""
    counts = np.stack([record.estimation[request.samples] for record in records])
    selected = np.array([record.selected for record in records])
    return bound_counts(counts, selected, request.failure_probability, request.bound)


def _row_plan(request: CertifyRequest) -> list[tuple[str, str, float]]:
    """(classifier, certificate, alpha) of each row: the robust classifier alone comes first."""
    return [("robust", "exact", 1.0)] + [("mixed", c, request.alpha) for c in request.certificates]


def ceilings(request: CertifyRequest, classes: int) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, largest radius possible) of each row.

    The largest radius is reached when all samples agree.
    """
    counts = np.zeros((1, classes), np.int64)
    counts[0, 0] = request.samples
    bounds = bound_counts(counts, np.zeros(1, np.int64), request.failure_probability, request.bound)
    found = []
    for classifier, certificate, alpha in _row_plan(request):
        radii = certify_radii(bounds, sigma=request.sigma, alpha=alpha, certificate=certificate)
        found.append((classifier, certificate, float(radii.radius[0])))
    return found


def _row(
    classifier: str, radii: CertifiedRadii, correct: np.ndarray, columns: tuple[float, ...]
) -> CertifiedAccuracy:
    """Count an image at r when its class is right and its radius is >= r (> 0 at r = 0)."""
    radius = np.where(correct, radii.radius, 0.0)
    hits = [int(np.sum((radius >= r) & (radius > 0))) for r in columns]
    low, high = clopper_pearson.interval(np.array(hits), len(radius))
    return CertifiedAccuracy(
        classifier,
        radii.certificate,
        tuple(hit / len(radius) for hit in hits),
        tuple(zip(low.tolist(), high.tolist(), strict=True)),
        float(np.nextafter(radius.mean(), 0.0)),
    )


def _clean_accuracy(
    records: Sequence[ImageRecord], standard: dict[int, FloatArray], alpha: float
) -> CleanAccuracy:
    labels = np.array([r.label for r in records])
    frequencies = np.stack([r.selection / r.selection.sum() for r in records])
    robust = float(np.mean(frequencies.argmax(1) == labels))
    if any(r.index not in standard for r in records):
        return CleanAccuracy(None, robust, None)
    probabilities = np.stack([standard[r.index] for r in records])
    mixed = (1 - alpha) * probabilities + alpha * frequencies
    return CleanAccuracy(
        float(np.mean(probabilities.argmax(1) == labels)), robust, float(np.mean(mixed.argmax(1) == labels))
    )


def evaluate(
    records: Sequence[ImageRecord],
    probabilities: dict[int, FloatArray],
    request: CertifyRequest,
    planned: int,
    **about: Any,
) -> Evaluation:
    """Return the table of a run from its records.

    Parameters
    ----------
    records
        Images whose sampling is complete.
    probabilities
        Those (c,) of the standard classifier by image index; may lack images.
    request
        What was asked.
    planned
        Number of images asked for; fewer records make the result partial.
    about
        Further fields of `Summary`: names, notes.
    """
    plan = _row_plan(request)
    labels = np.array([record.label for record in records], np.int64)
    selected = np.array([record.selected for record in records], np.int64)
    if not records:
        empty = ConfidenceBounds(np.empty(0), np.empty(0), request.failure_probability, request.bound, {})
        summary = Summary(
            request.sigma, request.alpha, 0, request.failure_probability, request.radii,
            CleanAccuracy(None, None, None), (), complete=False, planned_images=planned, **about,
        )  # fmt: skip
        return Evaluation(summary, (), (), empty, selected, labels)
    bounds = bound_records(records, request)
    correct = selected == labels
    radii = tuple(
        certify_radii(bounds, sigma=request.sigma, alpha=alpha, certificate=certificate)
        for _, certificate, alpha in plan
    )
    clean = _clean_accuracy(records, probabilities, request.alpha)
    rows = tuple(
        _row(plan_row[0], r, correct, request.radii) for plan_row, r in zip(plan, radii, strict=True)
    )
    curves = tuple(
        Curve(classifier, certificate, r.radius[correct & (r.radius > 0)], len(records),
              clean.robust if classifier == "robust" else clean.mixed)
        for (classifier, certificate, _), r in zip(plan, radii, strict=True)
    )  # fmt: skip
    summary = Summary(
        sigma=request.sigma,
        alpha=request.alpha,
        images=len(records),
        failure_probability=request.failure_probability,
        radii=request.radii,
        clean_accuracy=clean,
        rows=rows,
        complete=len(records) == planned,
        goal=request.goal,
        planned_images=planned,
        bound=request.bound,
        samples=request.samples,
        selection_samples=request.selection_samples,
        mean_samples=float(np.mean([record.drawn for record in records])),
        seed=request.seed,
        abstained=int(np.sum(radii[0].status == Status.ABSTAIN)),
        **about,
    )
    return Evaluation(summary, curves, radii, bounds, selected, labels)


def log_rows(
    records: Sequence[ImageRecord], evaluation: Evaluation
) -> list[tuple[int, int, int, float, float]]:
    """Return rows (index, label, prediction or -1, radius, seconds) of the robust classifier."""
    robust = evaluation.radii[0]
    return [
        (
            record.index,
            record.label,
            -1 if status == Status.ABSTAIN else record.selected,
            float(radius) if status == Status.CERTIFIED else 0.0,
            record.seconds,
        )
        for record, radius, status in zip(records, robust.radius, robust.status, strict=True)
    ]
