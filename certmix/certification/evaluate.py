"""From stored counts to the table: accuracies, intervals, curves, log rows.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.bounds.layers import LayerBounds
from certmix.certification.bounding import bound_records, radii_of, unanimous
from certmix.certification.request import CertifyRequest
from certmix.runs import ImageRecord
from certmix.text import ceil_digits
from certmix.types import (
    CertifiedAccuracy,
    CertifiedRadii,
    CleanAccuracy,
    ConfidenceBounds,
    Curve,
    FloatArray,
    Status,
    Summary,
)

__all__ = ["Evaluation", "ceilings", "evaluate", "log_rows", "row_plan", "table_row"]


@dataclass(frozen=True)
class Evaluation:
    """A summary with what plots and logs need besides.

    ``radii`` holds one `CertifiedRadii` for each row of the summary; the first
    is the robust classifier alone.
    """

    summary: Summary
    curves: tuple[Curve, ...]
    radii: tuple[CertifiedRadii, ...]
    bounds: ConfidenceBounds | LayerBounds
    records: tuple[ImageRecord, ...]


def row_plan(request: CertifyRequest) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, alpha) of each row: the robust classifier alone comes first."""
    return [("robust", "exact", 1.0)] + [("mixed", c, request.alpha) for c in request.certificates]


def ceilings(request: CertifyRequest, classes: int) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, largest radius possible) of each row.

    The largest radius is reached when all samples agree.
    """
    bounds = unanimous(request, classes)
    found = []
    for classifier, certificate, alpha in row_plan(request):
        radii = radii_of(bounds, sigma=request.sigma, alpha=alpha, certificate=certificate)
        found.append((classifier, certificate, float(radii.radius[0])))
    return found


def table_row(
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
    robust = float(np.mean(np.array([r.selected for r in records]) == labels))
    if any(r.index not in standard for r in records):
        return CleanAccuracy(None, robust, None)
    first = np.array([standard[r.index].argmax() for r in records])
    mixed = np.array(
        [
            ((1 - alpha) * standard[r.index] + alpha * (r.selection / r.selection.sum())).argmax()
            for r in records
        ]
    )
    return CleanAccuracy(float(np.mean(first == labels)), robust, float(np.mean(mixed == labels)))


def evaluate(
    records: Sequence[ImageRecord],
    probabilities: dict[int, FloatArray],
    request: CertifyRequest,
    planned: int,
    *,
    every_look: bool = False,
    **about: Any,
) -> Evaluation:
    """Return the table of a run from its records.

    Parameters
    ----------
    records
        Images; those whose sampling is not complete are left out.
    probabilities
        Those (c,) of the standard classifier by image index; may lack images.
    request
        What was asked.
    planned
        Number of images asked for; fewer records make the result partial.
    every_look
        Use all that is stored, wherever this request would have stopped: for
        records that no more samples will be added to.
    about
        Further fields of `Summary`: names, notes.
    """
    bounded = bound_records(records, request, every_look=every_look) if records else None
    if bounded is not None and bounded.waiting.any():
        records = [r for r, waits in zip(records, bounded.waiting, strict=True) if not waits]
        bounded = bound_records(records, request, every_look=every_look) if records else None
    if bounded is None:
        return _nothing(request, planned, about)
    plan, bounds = row_plan(request), bounded.bounds
    correct = np.array([record.selected == record.label for record in records])
    radii = tuple(
        radii_of(bounds, sigma=request.sigma, alpha=alpha, certificate=certificate)
        for _, certificate, alpha in plan
    )
    clean = _clean_accuracy(records, probabilities, request.alpha)
    about = {**about, "notes": (*about.get("notes", ()), *_noise_notes(records))}
    rows = tuple(
        table_row(classifier, r, correct, request.radii)
        for (classifier, _, _), r in zip(plan, radii, strict=True)
    )
    curves = tuple(
        Curve(classifier, certificate, r.radius[correct & (r.radius > 0)], len(records),
              clean.robust if classifier == "robust" else clean.mixed)
        for (classifier, certificate, _), r in zip(plan, radii, strict=True)
    )  # fmt: skip
    summary = Summary(
        request.sigma, request.alpha, len(records), request.failure_probability, request.radii, clean, rows,
        complete=len(records) == planned,
        planned_images=planned,
        mean_samples=float(bounded.samples.mean()),
        abstained=int(np.sum((radii[0].status == Status.ABSTAIN) & (bounded.samples > 0))),
        **_settings(request), **about,
    )  # fmt: skip
    return Evaluation(summary, curves, radii, bounds, tuple(records))


def _noise_notes(records: Sequence[ImageRecord]) -> list[str]:
    """Return what the certificates are about where inputs are not 8-bit, or rows depend on their place."""
    found, farthest = [], max(record.lost for record in records)
    if farthest > 0:
        found.append(
            "Inputs are rounded to a grid, and radii are smaller by the distance to it, up to "
            f"{ceil_digits(farthest, 6)} (docs/noise.md)"
        )
    if (places := max(record.places for record in records)) > 1:
        found.append(
            f"The model's logits depend on a row's place in a batch: h is their average over {places} places "
            "(docs/noise.md#rows-of-a-batch)"
        )
    return found


def _settings(request: CertifyRequest) -> dict[str, Any]:
    """The fields of `Summary` that only repeat the request."""
    names = ("goal", "bound", "samples", "selection_samples", "seed")
    return {name: getattr(request, name) for name in names}


def _nothing(request: CertifyRequest, planned: int, about: dict[str, Any]) -> Evaluation:
    """The table of a run without any complete image."""
    empty = ConfidenceBounds(np.empty(0), np.empty(0), request.failure_probability, request.bound_name, {})
    summary = Summary(
        request.sigma, request.alpha, 0, request.failure_probability, request.radii,
        CleanAccuracy(None, None, None), (), complete=False, goal=request.goal,
        planned_images=planned, **about,
    )  # fmt: skip
    return Evaluation(summary, (), (), empty, ())


def log_rows(evaluation: Evaluation) -> list[tuple[int, int, int, float, float]]:
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
        for record, radius, status in zip(evaluation.records, robust.radius, robust.status, strict=True)
    ]
