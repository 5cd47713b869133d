"""From stored counts to the table: bounds, radii, accuracies, intervals.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import bound_counts, clopper_pearson
from certmix.bounds.sequential import look_bounds, sequential_split
from certmix.radii import certify_radii
from certmix.records import ImageRecord
from certmix.sampling.schedule import looks
from certmix.studies.request import CertifyRequest
from certmix.studies.stopping import Rule, Walk
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

__all__ = [
    "Bounded",
    "Evaluation",
    "bound_records",
    "ceilings",
    "evaluate",
    "log_rows",
    "row_plan",
    "table_row",
]


@dataclass(frozen=True)
class Bounded:
    """Bounds of images (m,), the samples behind them, and who still waits for samples."""

    bounds: ConfidenceBounds
    samples: IntArray
    waiting: NDArray[np.bool_]


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
    records: tuple[ImageRecord, ...]


def bound_records(records: Sequence[ImageRecord], request: CertifyRequest) -> Bounded:
    """Return the bounds of images, what they rest on, and which images still want samples.

    For sequential goals the stopping rule is walked again over the stored
    looks, so that a table depends on the request and the counts alone, even
    where another request has drawn more.
    """
    selected = np.array([record.selected for record in records], np.int64)
    if request.goal != "fixed":
        labels = np.array([record.label for record in records], np.int64)
        walk = _walk(records, Walk(_rule(request), selected, labels))
        split = sequential_split(request.bound, request.failure_probability)
        bounds = ConfidenceBounds(walk.p, walk.q, request.failure_probability, request.bound, split)
        return Bounded(bounds, walk.samples, walk.active)
    present = np.array([request.samples in record.estimation for record in records])
    counts = np.stack([record.estimation.get(request.samples, record.selection) for record in records])
    bounds = bound_counts(counts, selected, request.failure_probability, request.bound)
    return Bounded(bounds, np.full(len(records), request.samples), ~present)


_rule = lru_cache(maxsize=8)(Rule)


def _walk(records: Sequence[ImageRecord], walk: Walk) -> Walk:
    """Take every image as far as its stored looks and the rule go."""
    for number, samples in enumerate(walk.rule.looks):
        rows = np.array([i for i in np.flatnonzero(walk.active) if samples in records[i].estimation], int)
        if len(rows) == 0:
            break
        walk.step(number, rows, np.stack([records[i].estimation[samples] for i in rows]))
    return walk


def row_plan(request: CertifyRequest) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, alpha) of each row: the robust classifier alone comes first."""
    return [("robust", "exact", 1.0)] + [("mixed", c, request.alpha) for c in request.certificates]


def ceilings(request: CertifyRequest, classes: int) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, largest radius possible) of each row.

    The largest radius is reached when all samples agree.
    """
    bounds = _unanimous(request, classes)
    found = []
    for classifier, certificate, alpha in row_plan(request):
        radii = certify_radii(bounds, sigma=request.sigma, alpha=alpha, certificate=certificate)
        found.append((classifier, certificate, float(radii.radius[0])))
    return found


def _unanimous(request: CertifyRequest, classes: int) -> ConfidenceBounds:
    """Return the bounds of one image whose samples all vote for one class."""
    one, selected, delta = (
        np.eye(1, classes, dtype=np.int64),
        np.zeros(1, np.int64),
        request.failure_probability,
    )
    if request.goal == "fixed":
        return bound_counts(one * request.samples, selected, delta, request.bound)
    pairs = [
        look_bounds(request.bound, k, one * n, selected, delta) for k, n in enumerate(looks(request.samples))
    ]
    p, q = np.max([p for p, _ in pairs], axis=0), np.min([q for _, q in pairs], axis=0)
    return ConfidenceBounds(p, q, delta, request.bound, sequential_split(request.bound, delta))


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
    *,
    keep_waiting: bool = False,
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
    keep_waiting
        Keep images that the request would sample further, with their bounds so
        far: for records that no more samples will be added to.
    about
        Further fields of `Summary`: names, notes.
    """
    bounded = bound_records(records, request) if records else None
    if bounded is not None and not keep_waiting and bounded.waiting.any():
        records = [r for r, waits in zip(records, bounded.waiting, strict=True) if not waits]
        bounded = bound_records(records, request) if records else None
    if bounded is None:
        return _nothing(request, planned, about)
    plan, bounds = row_plan(request), bounded.bounds
    labels = np.array([record.label for record in records], np.int64)
    selected = np.array([record.selected for record in records], np.int64)
    correct = selected == labels
    radii = tuple(
        certify_radii(bounds, sigma=request.sigma, alpha=alpha, certificate=certificate)
        for _, certificate, alpha in plan
    )
    clean = _clean_accuracy(records, probabilities, request.alpha)
    rows = tuple(
        table_row(plan_row[0], r, correct, request.radii) for plan_row, r in zip(plan, radii, strict=True)
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
        mean_samples=float(bounded.samples.mean()),
        seed=request.seed,
        abstained=int(np.sum((radii[0].status == Status.ABSTAIN) & (bounded.samples > 0))),
        **about,
    )
    return Evaluation(summary, curves, radii, bounds, tuple(records))


def _nothing(request: CertifyRequest, planned: int, about: dict[str, Any]) -> Evaluation:
    """The table of a run without any complete image."""
    empty = ConfidenceBounds(np.empty(0), np.empty(0), request.failure_probability, request.bound, {})
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
