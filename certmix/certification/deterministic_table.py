"""From stored logits and radii to the table of a certification without samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from certmix.certification.deterministic_fill import ROBUST, Work, column_cell, margin_cell, standard_cell
from certmix.certification.deterministic_request import DeterministicRequest, Margin
from certmix.certification.evaluate import table_row
from certmix.radii import margin_slack_of
from certmix.radii.constant import CONSTANTS_OF, constant_radius, softmax_probabilities
from certmix.runs import Store
from certmix.text import plain_decimal
from certmix.types import (
    CertifiedAccuracy,
    CertifiedRadii,
    CleanAccuracy,
    Curve,
    FloatArray,
    IntArray,
    Status,
    Summary,
)

__all__ = [
    "CLASSIFIERS",
    "Outcomes",
    "clean_accuracy",
    "outcomes",
    "stored_outcomes",
    "stored_radii",
    "summarise",
    "table_of_radii",
]

CLASSIFIERS = ("robust", "mixed")


@dataclass(frozen=True)
class Outcomes:
    """Classes and radii of images, (m,) each.

    ``robust``, ``standard`` and ``mixed`` are predicted classes (None without
    a standard model); ``radii`` those of h alone, then of the mix.
    """

    indices: IntArray
    labels: IntArray
    robust: IntArray
    standard: IntArray | None
    mixed: IntArray | None
    radii: tuple[CertifiedRadii, ...]


def outcomes(work: Work, positions: IntArray) -> Outcomes:
    """Return what the store says of the images at these positions."""
    dataset, g = work.loaded.dataset, work.loaded.standard
    cell = None if g is None else standard_cell(g)
    return stored_outcomes(
        work.request, work.store, dataset.indices[positions], dataset.labels[positions], cell
    )


def stored_outcomes(
    request: DeterministicRequest, store: Store, indices: IntArray, labels: IntArray, cell: str | None
) -> Outcomes:
    """Return what a store says of images; `cell` holds the standard model's logits, None without one."""
    if len(indices) == 0:
        return Outcomes(indices, labels, np.empty(0, np.int64), None, None, ())
    logits = store.read(ROBUST, indices.tolist())
    standard = mixed = None
    if cell is not None:
        g, h = softmax_probabilities(store.read(cell, indices.tolist())), softmax_probabilities(logits)
        standard, mixed = g.argmax(1), ((1 - request.alpha) * g + request.alpha * h).argmax(1)
    radii = tuple(stored_radii(request, store, indices, alpha) for alpha in request.weights())
    return Outcomes(indices, labels, logits.argmax(1), standard, mixed, radii)


def stored_radii(
    request: DeterministicRequest, store: Store, indices: IntArray, alpha: float
) -> CertifiedRadii:
    """Return the radii of stored images, by index."""
    if request.certificate == "margin":
        radius, status = _verified(request, store, indices, alpha)
    else:
        logits, slack = store.read(ROBUST, indices.tolist()), margin_slack_of(alpha)
        radius, status = constant_radius(logits, alpha, *request.given, margin_slack=slack)
    return CertifiedRadii(request.certificate, request.norm, float("nan"), alpha, radius, status)


def _verified(request: Margin, store: Store, indices: IntArray, alpha: float) -> tuple[FloatArray, IntArray]:
    """Return stored radii, raised to the columns just beyond them that were verified as well."""
    stored = store.read(margin_cell(alpha), indices.tolist())
    radius, status = stored[:, 0].copy(), stored[:, 1].astype(np.int64)
    for column in request.radii:
        near = (stored[:, 0] < column) & (column <= stored[:, 0] + 2 * request.tolerance)
        near &= stored[:, 0] > 0
        if near.any():
            verified = store.read(column_cell(alpha, column), indices[near].tolist())[:, 0] == 1
            radius[np.flatnonzero(near)[verified]] = column
    return radius, status


def summarise(work: Work, found: Outcomes, planned: int) -> tuple[Summary, tuple[Curve, ...]]:
    """Return the table, and the curves of its plot."""
    request, loaded, images = work.request, work.loaded, len(found.indices)
    clean = clean_accuracy(found)
    right = found.robust == found.labels
    rows, curves = _nothing(request.certificate, len(request.radii)), []
    if images:
        named = list(zip(CLASSIFIERS, found.radii, strict=True))
        rows = tuple(table_row(name, radii, right, request.radii) for name, radii in named)
        for name, radii in named:
            kept = radii.radius[right & (radii.radius > 0)]
            accuracy = clean.robust if name == "robust" else clean.mixed
            curves.append(Curve(name, request.certificate, kept, images, accuracy))
    summary = Summary(
        sigma=None, alpha=request.alpha, images=images, failure_probability=None, radii=request.radii,
        clean_accuracy=clean, rows=rows, complete=images == planned, goal=None, planned_images=planned,
        bound=request.bound_method if request.certificate == "margin" else None,
        data=loaded.dataset.name, robust=loaded.robust.name,
        standard=None if loaded.standard is None else loaded.standard.name,
        abstained=int(np.sum(found.radii[0].status == Status.ABSTAIN)) if images else None,
        notes=tuple(_notes(work, found)), norm=request.norm,
    )  # fmt: skip
    return summary, tuple(curves)


def clean_accuracy(found: Outcomes) -> CleanAccuracy:
    """Return the shares of images that are right without perturbation."""
    return CleanAccuracy(*(_share(getattr(found, k), found.labels) for k in ("standard", "robust", "mixed")))


def _share(predicted: IntArray | None, labels: IntArray) -> float | None:
    return None if predicted is None or not len(labels) else float(np.mean(predicted == labels))


def _nothing(certificate: str, columns: int) -> tuple[CertifiedAccuracy, ...]:
    """Rows without any image."""
    unknown = float("nan")
    shares, ends = (unknown,) * columns, ((unknown, unknown),) * columns
    return tuple(CertifiedAccuracy(name, certificate, shares, ends, unknown) for name in CLASSIFIERS)


def _notes(work: Work, found: Outcomes) -> list[str]:
    request = work.request
    if request.certificate == "lipschitz-constant":
        constant, what = request.given
        return [
            f"Given, not verified: {plain_decimal(constant)} is a Lipschitz constant of h, from the "
            f"{request.norm} norm of the input to {CONSTANTS_OF[what]}."
        ]
    box = work.loaded.dataset.input_range
    notes = [
        "Proved for h in exact arithmetic with its stored weights; radii are found to within "
        f"{plain_decimal(float(f'{request.tolerance:.2g}'))}."
    ]
    if request.norm == "linf" and box is not None:
        low, high = map(plain_decimal, box)
        notes.append(f"Balls are cut to inputs in [{low}, {high}].")
    largest = sum(int(np.sum(radii.radius >= request.max_radius)) for radii in found.radii[-1:])
    if largest:
        notes.append(
            f"The largest radius that is tried, {request.max_radius:.4g}, was verified for {largest:,} "
            "images of the mix: larger ones need --max-radius."
        )
    return notes


def table_of_radii(found: Outcomes) -> str:
    """Return one line an image, tab-separated: radii in full, 0 where nothing is certified."""
    lines = ["idx\tlabel\tpredict\tradius_robust\tradius_mixed"]
    columns = [found.indices, found.labels, found.robust, *(radii.radius for radii in found.radii)]
    lines += ["\t".join(repr(value.item()) for value in row) for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"
