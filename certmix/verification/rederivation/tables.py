"""Do the published radii and figures follow from the stored counts?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from certmix.certification.request import CertifyRequest
from certmix.runs import ImageRecord
from certmix.types import CertifiedAccuracy, FloatArray, IntArray
from certmix.verification.plain.bounds import SLACK, interval
from certmix.verification.plain.table import Derived
from certmix.verification.rederivation.published import LogRow, Published

__all__ = ["BELOW", "Fault", "Rows", "clean_faults", "log_faults", "plan", "radius_fault", "row_faults"]

BELOW = 1e-6
"""How far below the plain value a published one may lie, relative to sigma + radius.

The bounds give away up to 1e-9 of log(1 / failure probability) against rounding, and
more than 1e-6 of a radius only where that is far below any digit that is printed.
"""

_PRINTED = Decimal("0.000001")

Fault = tuple[str, int | None, str]
"""Name of the check, image or None, what is wrong."""


@dataclass(frozen=True)
class Rows:
    """The images of one table and what plain bounds say of them."""

    records: tuple[ImageRecord, ...]
    derived: Derived

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the selected class is the label (m,)."""
        return np.array([record.selected == record.label for record in self.records], bool)


def plan(request: CertifyRequest) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, alpha) of each row: the robust classifier alone comes first."""
    return [("robust", "exact", 1.0)] + [("mixed", name, request.alpha) for name in request.certificates]


def radius_fault(published: float, plain: float, scale: float, *, printed: float = 0.0) -> str | None:
    """Return what is wrong with a published radius, None if nothing is.

    Parameters
    ----------
    published, plain
        The two radii.
    scale
        sigma, or 1 / L: what rounding of bounds is measured by, with the radius itself.
    printed
        The last printed digit, up to which it may have been rounded down.
    """
    if np.isinf(plain) and np.isinf(published):
        return None
    if published > plain + SLACK * (scale + plain):
        return f"radius {published:.9g} exceeds the derived {plain:.9g}"
    if published < plain - printed - BELOW * (scale + plain):
        return f"radius {published:.9g} lies below the derived {plain:.9g}"
    return None


def log_faults(log: Sequence[LogRow], rows: Rows, request: CertifyRequest) -> Iterator[Fault]:
    """Compare ``records.tsv``, the robust classifier alone, with the plain radii at alpha = 1."""
    sigma = request.sigma
    radii, established = rows.derived.radii("exact", sigma, 1.0), rows.derived.established()
    for row, record, radius, sure in zip(
        log, rows.records, radii.tolist(), established.tolist(), strict=True
    ):
        index = row.index
        if row.label != record.label:
            yield "records", index, f"image {index} has label {row.label}, stored is {record.label}"
        predict = record.selected if sure else -1
        if row.predict != predict:
            yield "records", index, f"image {index} is predicted as {row.predict}, its counts say {predict}"
        if row.bound != request.bound_name:
            yield "records", index, f"image {index}: bound {row.bound[:40]!r}, not {request.bound_name}"
        if row.correct != int(row.predict == row.label):
            yield (
                "records",
                index,
                f"image {index}: correct = {row.correct} with label and prediction as they are",
            )
        if row.radius != row.radius.quantize(_PRINTED) or row.radius < 0:
            yield "radii", index, f"image {index}: radius {row.radius} is not one of six digits"
        fault = radius_fault(float(row.radius), radius if sure else 0.0, sigma, printed=1e-6)
        if fault:
            yield "radii", index, f"image {index}: {fault}"


def row_faults(published: Published, rows: Rows, request: CertifyRequest) -> Iterator[Fault]:
    """Compare every row of a table with the plain radii: accuracies, intervals, means."""
    table, names = published.summary.rows, [(name, certificate) for name, certificate, _ in plan(request)]
    if [(row.classifier, row.certificate) for row in table] != names:
        yield "certified accuracy", None, f"its rows are not {names}"
        return
    for row, (classifier, certificate, alpha) in zip(table, plan(request), strict=True):
        radii = rows.derived.radii(certificate, request.sigma, alpha)
        where = f"{classifier} {certificate}"
        for check, text in figure_faults(row, np.where(rows.right, radii, 0.0), request.radii, request.sigma):
            yield check, None, f"{where}: {text}"


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
            yield "certified accuracy", f"{share} at radius {column:g}, the counts give {most / images}"
            continue
        low, high = interval(hits, images)
        if not (low - BELOW <= ends[0] <= low + SLACK and high - SLACK <= ends[1] <= high + BELOW):
            yield "intervals", f"[{ends[0]}, {ends[1]}] at radius {column:g} instead of [{low}, {high}]"
    mean = float(radii.mean())
    if np.isfinite(mean):
        fault = radius_fault(row.mean_certified_radius, mean, scale)
        if fault or np.isnan(row.mean_certified_radius):
            yield "mean radii", f"mean {fault or 'radius is missing'}"


def clean_faults(
    published: Published,
    rows: Rows,
    request: CertifyRequest,
    standard: dict[int, FloatArray] | None,
) -> Iterator[Fault]:
    """Compare clean accuracies, abstentions and numbers of samples with the counts.

    ``standard`` is None where it is not known which standard model the table is of.
    """
    summary, records, derived = published.summary, rows.records, rows.derived
    labels = np.array([record.label for record in records])
    votes = np.stack([record.selection / record.selection.sum() for record in records])
    claims: dict[str, float | None] = {"robust": _share(votes.argmax(1), labels)}
    if standard is not None and all(record.index in standard for record in records):
        g = np.stack([standard[record.index] for record in records])
        mixed = (1 - request.alpha) * g + request.alpha * votes
        claims |= {"standard": _share(g.argmax(1), labels), "mixed": _share(mixed.argmax(1), labels)}
    elif standard is not None:
        claims |= {"standard": None, "mixed": None}
    for name, value in claims.items():
        if getattr(summary.clean_accuracy, name) != value:
            text = (
                f"clean accuracy {name} is {getattr(summary.clean_accuracy, name)}, the outputs give {value}"
            )
            yield "clean accuracy", None, text
    abstained = int(np.sum(~derived.established() & (derived.samples > 0)))
    sampled = float(derived.samples.mean())
    for what, found, value in (
        ("abstained", summary.abstained, abstained), ("mean samples", summary.mean_samples, sampled),
    ):  # fmt: skip
        if found is None or abs(found - value) > 1e-9 * max(1.0, value):
            yield "records", None, f"{what} {found}, the counts give {value}"


def _share(predicted: IntArray, labels: IntArray) -> float:
    return float(np.mean(predicted == labels))
