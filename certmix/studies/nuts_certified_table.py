"""The certified transform beside hard votes: certified rows, plans beside them, who wins and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import asdict
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri

from certmix.bounds.statistics import ScoreStatistics
from certmix.certification.evaluate import Evaluation
from certmix.nuts.certified import ALPHAS
from certmix.studies.accuracy import estimated_accuracy
from certmix.studies.nuts_certified_choice import Plan, Planned
from certmix.studies.nuts_certified_request import CertifiedRequest
from certmix.tables.table import Quantity, Table
from certmix.types import CertifiedShare, EstimatedAccuracy, FloatArray

__all__ = ["CertifiedRow", "Comparison", "certified_row", "comparison_table"]

HEADINGS = (
    "candidate", "alpha", "planned clean", "planned certified", "clean (estimate)", "certified",
    "mean certified radius",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CertifiedRow:
    """One certification of images that were not tuned on.

    Parameters
    ----------
    name, alpha, bound
        What was certified.
    clean
        Of the mix: a plug-in estimate.
    certified, mean_radius
        At the radius; rounded down.
    held
        bool (m,): the images behind `certified`.
    margins
        float64 (m,): h's margin at the radius if its means were those seen; -1 where h is wrong.  Estimates.
    """

    name: str
    alpha: float
    bound: str
    clean: EstimatedAccuracy
    certified: CertifiedShare
    mean_radius: float
    held: NDArray[np.bool_]
    margins: FloatArray

    @property
    def threshold(self) -> float:
        """(1 - alpha) / alpha: what the margin must exceed."""
        return (1.0 - self.alpha) / self.alpha

    @property
    def known_means(self) -> int:
        """Images that would be certified if the means seen were the true ones: an estimate."""
        return int(np.sum(self.margins > self.threshold))


@dataclass(frozen=True, eq=False)
class Comparison:
    """The transform and hard votes as planned, and votes where their mix is as accurate as the transform's.

    ``matched`` is None where no alpha makes it so.
    """

    transform: CertifiedRow
    hard: CertifiedRow
    matched: CertifiedRow | None


def certified_row(name: str, evaluation: Evaluation, at_radius: float) -> CertifiedRow:
    """Return the row of one certification."""
    summary, radii, records = evaluation.summary, evaluation.radii[1].radius, evaluation.records
    right = np.array([record.selected == record.label for record in records])
    held = right & (radii > 0) & (radii >= at_radius)
    mixed = summary.clean_accuracy.mixed or 0.0
    clean = estimated_accuracy(np.arange(len(records)) < round(mixed * len(records)))
    share = estimated_accuracy(held)
    means = np.stack([_means(record, summary.samples or 0) for record in records])
    selected = np.array([record.selected for record in records])
    margins = np.where(right, _margins(means, selected, at_radius / (summary.sigma or 1.0)), -1.0)
    return CertifiedRow(
        name, summary.alpha, summary.bound or "", clean,
        CertifiedShare(share.correct, share.images, share.interval), summary.rows[1].mean_certified_radius,
        held, margins,
    )  # fmt: skip


def _means(record: Any, samples: int) -> FloatArray:
    statistics: ScoreStatistics | None = record.scores.get(samples)
    means: FloatArray = record.estimation[samples] / samples if statistics is None else statistics.means()
    return means


def _margins(means: FloatArray, selected: NDArray[np.int64], distance: float) -> FloatArray:
    rows, others = np.arange(len(means)), means.copy()
    others[rows, selected] = 0.0
    p = np.clip(means[rows, selected], 0.0, 1.0)
    q = np.minimum(others.max(1), 1.0 - p)
    margins: FloatArray = ndtr(ndtri(p) - distance) - ndtr(ndtri(q) + distance)
    return margins


def comparison_table(plan: Plan, found: Comparison, asked: CertifiedRequest, notes: tuple[str, ...]) -> Table:
    """Return the study's table."""
    rows = [
        _cells(found.transform.name, plan.transform, found.transform),
        _cells(f"{found.hard.name} ({plan.hard.bound})", plan.hard, found.hard),
    ]
    if plan.softmax is not None:
        rows.append(_cells(plan.softmax.name, plan.softmax, None))
    if found.matched is not None:
        rows.append(_cells(found.matched.name, None, found.matched))
    own, transform = plan.transform, plan.transform.transform
    assert transform is not None
    return Table(
        name="nuts-certified",
        title=f"Certified MixedNUTS at l2 radius {asked.at_radius:g}: a transform inside the expectation (%)",
        settings=(
            f"sigma {asked.sigma:g}; s = {transform.s:g}, p = {transform.p:g}, c = {transform.c:g}, "
            f"{transform.clamp}; {asked.samples:,} samples, bound {own.bound}, "
            f"failure probability {asked.failure_probability:g} an image; seed {asked.seed}"
        ),
        headings=HEADINGS,
        rows=tuple(rows),
        notes=(*_planning_notes(plan, asked), *verdict(found, asked.at_radius), *notes),
        extra={
            "at_radius": asked.at_radius, "sigma": asked.sigma, "clean_accuracy_floor": plan.floor,
            "transform": asdict(transform), "ties": own.ties, "on_edge": list(own.on_edge),
            "certified": _facts(found, asked),
        },
    )  # fmt: skip


def _facts(found: Comparison, asked: CertifiedRequest) -> list[dict[str, Any]]:
    """Return what is certified as plain data, apart from estimates."""
    return [
        {
            "classifier": row.name, "alpha": row.alpha, "bound": row.bound, "radius": asked.at_radius,
            "correct": row.certified.correct, "images": row.certified.images,
            "interval": list(row.certified.interval), "failure_probability": asked.failure_probability,
        }
        for row in (found.transform, found.hard, found.matched)
        if row is not None
    ]  # fmt: skip


def _cells(name: str, planned: Planned | None, row: CertifiedRow | None) -> tuple[Any, ...]:
    alpha = row.alpha if row is not None else planned.alpha if planned is not None else None
    first = (None, None) if planned is None else (planned.clean, planned.certified)
    second = (None, None, None) if row is None else (
        row.clean, row.certified, Quantity(row.mean_radius, 4, rounding="down"),
    )  # fmt: skip
    return (name, Quantity(alpha, 3), *first, *second)


def _planning_notes(plan: Plan, asked: CertifiedRequest) -> list[str]:
    own, how = plan.transform, "as asked"
    if asked.clean_accuracy_floor is None:
        how = "the middle between h's votes and g"
    notes = [
        f"Planned figures are estimates on {own.clean.images:,} tuning images, the best there and therefore "
        "optimistic; the other figures are of images that were not tuned on.",
        f"Clean accuracy of every mix on the tuning images: at least {100 * plan.floor:.1f} % ({how}); "
        f"g alone {100 * plan.standard.accuracy:.1f} %, h's votes alone {100 * plan.votes.accuracy:.1f} %. "
        "Clean accuracies of mixes are plug-in estimates.",
    ]
    if own.ties > 1:
        notes.append(f"{own.ties} transforms do equally well on the tuning images.")
    if own.on_edge:
        notes.append(f"The optimum lies on the grid's edge in {', '.join(own.on_edge)}: try a wider --grid.")
    return notes


def verdict(found: Comparison, at_radius: float) -> list[str]:
    """Return who certifies more at the radius, whether chance could do it, and why."""
    notes = [_winner(found.transform, found.hard, at_radius), _why(found.transform, found.hard)]
    if found.matched is not None:
        notes.append(
            f"Votes at alpha {found.matched.alpha:g} are as accurate on these images as the transform's mix; "
            "that alpha was chosen on them, which flatters votes. "
            + _winner(found.transform, found.matched, at_radius)
        )
    return notes


def _winner(one: CertifiedRow, two: CertifiedRow, at_radius: float) -> str:
    alone, other = int(np.sum(one.held & ~two.held)), int(np.sum(two.held & ~one.held))
    images = one.certified.images
    counts = f"{one.name} {one.certified.correct}, {two.name} {two.certified.correct} of {images} images"
    if alone == other:
        return f"Neither is ahead at {at_radius:g}: {counts}."
    chance = min(1.0, 2.0 * float(bdtr(min(alone, other), alone + other, 0.5)))
    ahead = one.name if alone > other else two.name
    doubt = "" if chance <= 0.05 else ", which chance could do"
    return (
        f"Ahead at {at_radius:g}: {ahead}; {counts} ({alone} by the first alone, {other} by the second "
        f"alone; sign test over images p = {chance:.2g}{doubt})."
    )


def _why(one: CertifiedRow, two: CertifiedRow) -> str:
    """Compare margins, margins needed and what the bounds cost, and name those that favour the winner."""
    both = (one.margins > -1.0) & (two.margins > -1.0)
    margins = [float(row.margins[both].mean()) if both.any() else 0.0 for row in (one, two)]
    lost = [row.known_means - row.certified.correct for row in (one, two)]
    gains = {
        "margins": margins[0] - margins[1],
        "margin needed": two.threshold - one.threshold,
        "cost of confidence bounds": float(lost[1] - lost[0]),
    }
    return (
        f"Why: {_cause(one, two, gains)}. Margin of h at the radius, averaged over images that both have "
        f"right, {margins[0]:.3f} against {margins[1]:.3f}; margin needed, (1 - alpha) / alpha, "
        f"{one.threshold:.3f} against {two.threshold:.3f}; images that bounds cost {lost[0]} against "
        f"{lost[1]} (means taken as known: estimates)."
    )


def _cause(one: CertifiedRow, two: CertifiedRow, gains: dict[str, float]) -> str:
    sign = np.sign(one.certified.correct - two.certified.correct)
    if sign == 0:
        return "what favours one is made up for by what favours the other"
    favours = [name for name, gain in gains.items() if sign * gain > 0]
    against = [name for name, gain in gains.items() if sign * gain < 0]
    words = f"{(one if sign > 0 else two).name} ahead by {' and '.join(favours) or 'chance'}"
    return words + (f", in spite of {' and '.join(against)}" if against else "")


def matching_alpha(clean: NDArray[np.int64], wanted: int) -> float | None:
    """Return the largest of `ALPHAS` whose mix gets at least `wanted` images right, None if none does."""
    enough = np.flatnonzero(clean >= wanted)
    return ALPHAS[int(enough[-1])] if len(enough) else None
