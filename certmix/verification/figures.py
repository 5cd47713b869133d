"""What the product derives of a run's numbers, against what their formulas give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.certification.evaluate import evaluate, table_row
from certmix.certification.proved_table import CLASSIFIERS, clean_accuracy, stored_outcomes
from certmix.certification.request import (
    ROBUST,
    CertifyRequest,
    DeterministicRequest,
    Margin,
    column_cell,
    margin_cell,
    standard_logits,
)
from certmix.data import spread
from certmix.errors import CertmixError
from certmix.runs import ImageRecord
from certmix.types import CertifiedAccuracy, CleanAccuracy, Dataset, FloatArray, IntArray, Status
from certmix.verification import plain
from certmix.verification.checks import CheckResult, Faults, judged, unchecked
from certmix.verification.plain import SLACK
from certmix.verification.stored import Run, impossible, opened

FIGURES = {
    "records": "predictions and sample numbers follow from the counts",
    "radii": f"radii are at most the plain ones (slack {SLACK:g})",
    "certified accuracy": "every cell follows from the plain radii",
    "intervals": "Clopper-Pearson intervals over images, rounded outwards",
    "mean radii": f"mean certified radii follow from the plain ones (slack {SLACK:g})",
    "clean accuracy": "shares follow from the stored outputs of both models",
}
"""Checks of what the product derives, and what is said where they hold."""
BELOW = 1e-6
"""How far below the plain value the product's may lie, relative to sigma + radius.

The bounds give away up to 1e-9 of log(1 / failure probability) against rounding, and
more than 1e-6 of a radius only where that is far below any digit that is printed.
"""
MARGIN_SLACK = 1e-4
"""Margins of stored logits, which may be of float32, against those of propagation in float64."""

BoolArray = NDArray[np.bool_]


class Row(NamedTuple):
    """One row of the table: radii (m,) by the plain formulas and by the product, and its figures."""

    classifier: str
    certificate: str
    plain: FloatArray
    own: FloatArray
    table: CertifiedAccuracy


class Derived(NamedTuple):
    """What the stored numbers of finished images (m,) give, twice.

    ``right`` holds which images each classifier gets right, by the plain derivation, ``clean`` the product's
    shares of these; ``scale`` is what rounding of radii is measured by, with the radius itself: sigma, or
    1 / L; ``records`` what is wrong with the product's view of the counts.
    """

    indices: IntArray
    correct: BoolArray
    right: dict[str, BoolArray]
    rows: tuple[Row, ...]
    scale: float
    clean: CleanAccuracy
    records: Faults


class NothingFollowsError(Exception):
    """Nothing follows from the numbers of some image: which check says so, the image or None, and why."""


def derive_figures(run: Run, wanted: Sequence[int], labels: IntArray | None) -> Derived:
    """Return what the numbers give of those of some images that are finished; NothingFollowsError.

    `labels` (m,) are those of the images; a sampled run keeps its own.
    """
    request = run.request
    if isinstance(request, CertifyRequest):
        records = [run.images[i] for i in wanted if i in run.images]
        for record in records:
            for fault in impossible(record, request, run.classes):
                raise NothingFollowsError("counts", record.index, f"image {record.index}: {fault}")
        while records:
            derived = plain.derive(records, request)
            waiting = derived.waiting.tolist()
            if not any(waiting):
                return _sampled(run, request, records, derived)
            records = [record for record, waits in zip(records, waiting, strict=True) if not waits]
    elif labels is not None:
        known = run.proved_images
        ready = [index in known for index in wanted]
        if any(ready):
            return _proved(run, request, np.array(wanted, np.int64)[ready], np.asarray(labels)[ready])
    raise NothingFollowsError("images", None, "no image is finished yet")


def _sampled(
    run: Run, request: CertifyRequest, records: list[ImageRecord], derived: plain.Derived
) -> Derived:
    indices, labels, selected = (
        np.array([getattr(record, name) for record in records], np.int64)
        for name in ("index", "label", "selected")
    )
    h = np.stack([record.selection / record.selection.sum() for record in records])
    right = _right(run, indices, h, labels, request.alpha)
    correct, faults = selected == labels, Faults()
    found = evaluate(records, run.standard, request, len(records))
    if len(found.records) < len(records):
        kept = {record.index for record in found.records}
        lacking = [i for i in indices.tolist() if i not in kept]
        raise NothingFollowsError("records", lacking[0], f"image {lacking[0]} has its samples, but no row")
    sure, own = derived.established(), found.radii[0].status != Status.ABSTAIN
    for record, plainly, told in zip(records, sure.tolist(), own.tolist(), strict=True):
        if plainly != told:
            text = f"image {record.index} is {'' if told else 'not '}established, its counts say otherwise"
            faults.append((record.index, text))
    summary, abstained = found.summary, int(np.sum(~sure & (derived.samples > 0)))
    drawn = "mean samples", summary.mean_samples, float(derived.samples.mean())
    for what, said, value in (("abstained", summary.abstained, abstained), drawn):
        if said is None or abs(said - value) > 1e-9 * max(1.0, value):
            faults.append((None, f"{what} {said}, the counts give {value}"))
    plan = [("robust", "exact", 1.0)] + [("mixed", name, request.alpha) for name in request.certificates]
    rows = [
        Row(name, certificate, derived.radii(certificate, request.sigma, alpha), radii.radius, row)
        for (name, certificate, alpha), radii, row in zip(plan, found.radii, summary.rows, strict=True)
    ]
    return Derived(indices, correct, right, tuple(rows), request.sigma, summary.clean_accuracy, faults)


def _proved(run: Run, request: DeterministicRequest, indices: IntArray, labels: IntArray) -> Derived:
    logits = np.stack([run.cells[ROBUST][index] for index in indices.tolist()])
    right = _right(run, indices, _softmax(logits), labels, request.alpha, softmax=True)
    expected = [
        [_verified(run, request, index, z, alpha) for index, z in zip(indices.tolist(), logits, strict=True)]
        if isinstance(request, Margin)
        else [plain.constant_radius(z, alpha, *request.given, plain.slack_of(alpha)) for z in logits]
        for alpha in request.weights()
    ]
    cell = standard_logits(str(run.standard_checksum)) if "standard" in right else None
    with closing(opened(run.folder)) as store:
        found = stored_outcomes(request, store, indices, labels, cell)
    correct, rows = logits.argmax(1) == labels, []
    for name, radii, own in zip(CLASSIFIERS, expected, found.radii, strict=True):
        table = table_row(name, own, correct, request.radii)
        rows.append(Row(name, request.certificate, np.array(radii, np.float64), own.radius, table))
    scale = 0.0 if isinstance(request, Margin) else 1 / request.given[0]
    return Derived(indices, correct, right, tuple(rows), scale, clean_accuracy(found), [])


def _verified(run: Run, request: Margin, index: int, logits: FloatArray, alpha: float) -> float:
    """Return the radius that was stored of an image when it was verified, or a column just beyond it.

    That it holds is for propagation to say, here it is only checked that the clean margin allows any.
    """

    def refusal(fault: str) -> NothingFollowsError:
        return NothingFollowsError("radii", index, f"image {index}, alpha {alpha:g}: {fault}")

    stored = run.cells[margin_cell(alpha)][index]
    if stored.shape != (3,):
        raise refusal("no radius is stored")
    radius, status = float(stored[0]), stored[1]
    if not 0 <= radius <= request.max_radius or (status == 2) != (radius > 0):
        largest = f"the largest tried is {request.max_radius:g}"
        raise refusal(f"radius {radius!r} with status {status:g}, {largest}")
    best = radius
    for column in request.radii:
        if radius > 0 and radius < column <= radius + 2 * request.tolerance:
            looked_at = run.cells.get(column_cell(alpha, column), {}).get(index)
            if looked_at is None or looked_at.shape != (1,):
                raise refusal(f"the column {column:g} was not looked at")
            best = column if looked_at[0] == 1 else best
    if best > 0 and (margin := plain.softmax_margin(logits)) < (1 - alpha) / alpha - MARGIN_SLACK:
        raise refusal(f"radius {best!r} with a clean margin of {margin:.4g}")
    return best


def _softmax(logits: FloatArray) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _right(
    run: Run, indices: IntArray, h: FloatArray, labels: IntArray, alpha: float, *, softmax: bool = False
) -> dict[str, BoolArray]:
    """Which images each classifier gets right; without outputs of the standard one only h is known."""
    right = {"robust": h.argmax(1) == labels}
    if run.standard_checksum is not None and all(index in run.standard for index in indices.tolist()):
        g = np.stack([run.standard[index] for index in indices.tolist()])
        g = _softmax(g) if softmax else g
        mixed = (1 - alpha) * g + alpha * h
        right |= {"standard": g.argmax(1) == labels, "mixed": mixed.argmax(1) == labels}
    return right


def check_figures(run: Run, data: Dataset | None) -> list[CheckResult]:
    """Which images there are of those asked for, and each kind of figure."""
    sampled = isinstance(run.request, CertifyRequest)
    names = [name for name in FIGURES if sampled or name != "records"]
    if data is None and not sampled:
        return [unchecked(name, "the data set cannot be loaded") for name in ("images", *names)]
    wanted, labels = sorted(run.images), None
    if data is not None:
        positions = spread(len(data), run.request.images)
        wanted, labels = data.indices[positions].tolist(), data.labels[positions]
    try:
        found = derive_figures(run, wanted, labels)
    except (CertmixError, NothingFollowsError) as error:
        check, image, why = error.args if isinstance(error, NothingFollowsError) else ("radii", None, error)
        told = f"nothing follows from the numbers: {why}"
        rest = [unchecked(name, told) for name in ("images", *names) if name != check]
        return [*rest, *(judged(name, [(image, told)], "") for name in names if name == check)]
    every: dict[str, Faults] = {**{name: [] for name in names}, "records": found.records}
    for name in ("standard", "robust", "mixed"):
        share = float(found.right[name].mean()) if name in found.right else None
        if (told := getattr(found.clean, name)) != share:
            text = f"clean accuracy {name} is {told}, the outputs give {share}"
            every["clean accuracy"].append((None, text))
    for row in found.rows:
        where = f"{row.classifier} {row.certificate}"
        for index, own, plainly in zip(
            found.indices.tolist(), row.own.tolist(), row.plain.tolist(), strict=True
        ):
            if fault_of := radius_fault(own, plainly, found.scale):
                every["radii"].append((index, f"image {index}, {where}: {fault_of}"))
        counted = np.where(found.correct, row.plain, 0.0)
        for check, text in figure_faults(row.table, counted, run.request.radii, found.scale):
            every[check].append((None, f"{where}: {text}"))
    results = [judged(name, every[name], FIGURES[name]) for name in names]
    ready = len(found.indices)
    if data is None:
        return [unchecked("images", "the data set cannot be loaded"), *results]
    if ready < len(wanted):
        text = f"partial: {ready:,} of {len(wanted):,} images; finish or merge the run, all rows that are "
        return [unchecked("images", f"{text}there were derived"), *results]
    return [judged("images", [], f"all {ready:,} images that were asked for are there"), *results]


def radius_fault(own: float, plainly: float, scale: float) -> str | None:
    """Return what is wrong with a radius of the product, None if nothing is."""
    if np.isinf(plainly) and np.isinf(own):
        return None
    if own > plainly + SLACK * (scale + plainly):
        return f"radius {own:.9g} exceeds the derived {plainly:.9g}"
    if own < plainly - BELOW * (scale + plainly):
        return f"radius {own:.9g} lies below the derived {plainly:.9g}"
    return None


def figure_faults(
    row: CertifiedAccuracy, radii: FloatArray, columns: Sequence[float], scale: float
) -> Iterator[tuple[str, str]]:
    """Compare one row with the radii (m,) of its images, 0 where the class is wrong."""
    images, slack = len(radii), SLACK * (scale + radii)
    for column, share, ends in zip(columns, row.certified_accuracy, row.interval, strict=True):
        most = int(np.sum((radii + slack >= column) & (radii > 0)))
        least = int(np.sum((radii - BELOW * (scale + radii) >= column) & (radii > 0)))
        hits = round(share * images)
        if abs(share - hits / images) > SLACK or not least <= hits <= most:
            yield "certified accuracy", f"{share} at radius {column:g}, the numbers give {most / images}"
            continue
        low, high = plain.interval(hits, images)
        if not (low - BELOW <= ends[0] <= low + SLACK and high - SLACK <= ends[1] <= high + BELOW):
            yield "intervals", f"[{ends[0]}, {ends[1]}] at radius {column:g} instead of [{low}, {high}]"
    mean = float(radii.mean())
    if np.isfinite(mean):
        fault = radius_fault(row.mean_certified_radius, mean, scale)
        if fault or np.isnan(row.mean_certified_radius):
            yield "mean radii", f"mean {fault or 'radius is missing'}"
