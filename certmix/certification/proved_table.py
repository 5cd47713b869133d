"""From stored logits and radii to the table of a certification without samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certmix.certification.deterministic_request import (
    LABEL,
    ROBUST,
    DeterministicRequest,
    Margin,
    column_cell,
    margin_cell,
    needed_cells,
    standard_logits,
)
from certmix.certification.evaluate import table_row
from certmix.certification.stored import named, planned_images
from certmix.errors import RunError
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


def derived(
    request: DeterministicRequest, store: Store, described: dict[str, Any]
) -> tuple[Outcomes, Summary, tuple[Curve, ...]]:
    """Return what a run's numbers say of the images it was asked for, with its table and its curves.

    `described` is what ``run.json`` says.

    Raises
    ------
    RunError
        If the numbers are damaged, or those of no request.
    """
    models = {role: named(model) for role, model in described["models"].items()}
    checksum = models["standard"][1]
    cell = None if checksum is None else standard_logits(checksum)
    try:
        planned = planned_images(store, request.images)
    except ValueError as error:
        raise RunError(
            f"the run does not say which images were asked for ({error}): repeat its command"
        ) from None
    held = set.intersection(*map(store.known, [*needed_cells(request), LABEL, *filter(None, [cell])]))
    indices = np.array([index for index in planned if index in held], np.int64)
    labels = store.read(LABEL, indices.tolist()).reshape(-1).astype(np.int64)
    found = stored_outcomes(request, store, indices, labels, cell)
    names = {"data": named(described["data"])[0], **{role: name for role, (name, _) in models.items()}}
    return found, *summarise(request, found, len(planned), names, described["data"]["input_range"])


def summarise(
    request: DeterministicRequest,
    found: Outcomes,
    planned: int,
    names: dict[str, str | None],
    box: tuple[float, float] | None,
) -> tuple[Summary, tuple[Curve, ...]]:
    """Return the table, and the curves of its plot; `names` of data and models, `box` the inputs' range."""
    images = len(found.indices)
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
        abstained=int(np.sum(found.radii[0].status == Status.ABSTAIN)) if images else None,
        notes=tuple(_notes(request, found, box)), norm=request.norm, data=names["data"],
        robust=names["robust"], standard=names["standard"],
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


def _notes(request: DeterministicRequest, found: Outcomes, box: tuple[float, float] | None) -> list[str]:
    if request.certificate == "lipschitz-constant":
        constant, what = request.given
        return [
            f"Given, not verified: {plain_decimal(constant)} is a Lipschitz constant of h, from the "
            f"{request.norm} norm of the input to {CONSTANTS_OF[what]}."
        ]
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


def radii_by_image(found: Outcomes) -> dict[str, dict[str, str]]:
    """Return label, class and radii of each image by index, in full; radius 0 where nothing is certified."""
    heading = ("label", "predict", "radius_robust", "radius_mixed")
    columns = [found.indices, found.labels, found.robust, *(radii.radius for radii in found.radii)]
    rows = ([repr(value.item()) for value in row] for row in zip(*columns, strict=True))
    return {index: dict(zip(heading, values, strict=True)) for index, *values in rows}


def table_of_radii(found: Outcomes) -> str:
    """Return one line an image, tab-separated."""
    lines = ["\t".join([index, *row.values()]) for index, row in radii_by_image(found).items()]
    return "\n".join(["idx\tlabel\tpredict\tradius_robust\tradius_mixed", *lines]) + "\n"
