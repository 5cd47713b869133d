"""From stored numbers to the table: bounds, radii, accuracies, and what to expect of them.  No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import BOUNDS, betting, bound_counts, bound_scores, clopper_pearson
from certmix.bounds.bound import LayerBounds, allow_for_noise
from certmix.bounds.layers import bound_layers, layered_radii
from certmix.bounds.statistics import MOST_SAMPLES, SUMS, ScoreStatistics, start, update
from certmix.certification.request.parts import Row
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stopping import Prospects, Rule, Standing, Walk
from certmix.errors import ModelError, ParameterError
from certmix.models.temperature import answer_of, mix_shares
from certmix.radii import Smoothing, certify_radii, margin_slack_of
from certmix.runs import InputRecord
from certmix.runs.records import Answers, Records, pieces
from certmix.runs.store import Store
from certmix.sampling.schedule import looks
from certmix.tables.result import Result
from certmix.tables.table import Table
from certmix.tables.words import summary_table
from certmix.text import ceil_digits, floor_digits, plain_decimal
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

__all__ = ["CertifyResult", "Evaluation", "Outcomes", "evaluate"]

_CURVE = 61
"""Radii at which a plot shows what more samples could give."""

_rule = lru_cache(maxsize=8)(Rule)


@dataclass(frozen=True)
class View:
    """h behind one gate: its bounds, its classes (m,), -1 for none, and where the inputs stopped.

    `standing` is None where all have all samples.
    """

    bounds: ConfidenceBounds | LayerBounds
    selected: IntArray
    standing: Standing | None = None


@dataclass(frozen=True)
class Bounded:
    """The inputs that want no more samples, or all; h behind each gate, and their samples.

    ``waiting`` says of all inputs which want more, and ``walk`` is that of all through the looks, if any.
    """

    records: Records
    views: dict[float, View]
    samples: IntArray
    waiting: NDArray[np.bool_]
    walk: Walk | None = None

    def would_go_on(self, request: CertifyRequest) -> int:
        """Return how many of these inputs a request of the same looks and gates would sample further."""
        if self.walk is None or request.goal == "fixed":
            return 0
        kept = ~self.waiting | (len(self.records) == len(self.waiting))
        return int(np.sum(self.walk.wanting(_rule(request)) & kept))

    @property
    def first(self) -> View:
        """h as the run counts its votes."""
        return next(iter(self.views.values()))

    @property
    def bounds(self) -> ConfidenceBounds | LayerBounds:
        """The bounds of that h."""
        return self.first.bounds


def bound_records(
    records: Iterable[InputRecord], request: CertifyRequest, *, every_look: bool = False
) -> Bounded:
    """Return which inputs (m,) want no more samples, their bounds, and what these rest on.

    For sequential goals the stopping rule is walked again over the stored
    looks, so that a table depends on the request and the counts alone, even
    where another request has drawn more.  With `every_look` all stored looks
    are used, which is as valid, and inputs that wait are kept.  ModelError if
    the bound needs one function, and the model's rows depend on their place.
    """
    records, bound = Records.of(records), BOUNDS[request.bound]
    if not bound.averaged and np.any(records.places > 1):
        others = " or ".join(sorted(name for name, one in BOUNDS.items() if one.averaged))
        raise ModelError(
            f"the model's logits depend on a row's place in the batch, where bound {request.bound} does "
            f"not hold: use {others} (docs/noise.md#rows-of-a-batch)"
        )
    delta, hard, gates = request.of_one_input, request.scores == "hard", request.gates
    behind = [records.behind(gate) for gate in gates]
    # What the bounds are computed from, by number of samples: votes or score statistics.
    evidence = [one.votes if hard else one.scores for one in behind]
    bounds: list[ConfidenceBounds | LayerBounds] = []
    standing: list[Standing | None] = [None] * len(gates)
    walk = None
    if request.goal != "fixed":
        walk = Walk(_rule(request), [one.selected for one in behind], records.labels)
        for number, samples_of in enumerate(walk.rule.looks):
            look = evidence[0].get(samples_of)
            rows = look.rows if look is not None else np.empty(0, np.int64)
            rows = rows if every_look else rows[walk.active[rows]]
            if look is None or len(rows) == 0:
                break
            for part in pieces(rows, records.selection.shape[1] * len(gates)):
                walk.step(number, part, [looks_of[samples_of].of(part) for looks_of in evidence])
        waiting, done = walk.active, ~walk.active | every_look
        samples = walk.samples[done]
        for k, gate in enumerate(gates):
            name = request.bound_at(gate)
            split = BOUNDS[name].split(delta)
            bounds.append(ConfidenceBounds(walk.p[k, done], walk.q[k, done], delta, name, split))
            standing[k] = walk.standing(k).of(done)
    else:
        waiting = np.ones(len(records), bool)
        for one, looks_of, gate in zip(behind, evidence, gates, strict=True):
            if (look := looks_of.get(request.samples)) is None:
                name = request.bound_at(gate)
                bounds.append(ConfidenceBounds(np.zeros(0), np.ones(0), delta, name, {}))
                continue
            waiting[look.rows] = False
            bounds.append(_fixed_bounds(look.of(look.rows), one.selected[look.rows], request, gate))
        done = ~waiting
        samples = np.full(int(done.sum()), request.samples)
    kept = records.take(np.flatnonzero(done))
    # What the noise costs each input, a probability, and what the grid costs it, an l2 distance.
    views = {
        gate: View(allow_for_noise(bound, kept.noise_error, kept.lost), one.selected[done], stood)
        for gate, bound, one, stood in zip(gates, bounds, behind, standing, strict=True)
    }
    return Bounded(kept, views, samples, waiting, walk)


def _fixed_bounds(
    complete: Any, selected: IntArray, request: CertifyRequest, gate: float = 0.0
) -> ConfidenceBounds | LayerBounds:
    delta = request.of_one_input
    if request.scores == "hard":
        counts, has_class = np.asarray(complete), selected >= 0
        found = bound_counts(counts, np.maximum(selected, 0), delta, request.bound, gated=gate > 0)
        p, q = np.where(has_class, found.p_lower, 0.0), np.where(has_class, found.q_upper, 1.0)
        return replace(found, p_lower=p, q_upper=q)
    if BOUNDS[request.bound].distribution:
        return bound_layers(complete, delta)
    return bound_scores(complete, delta, request.bound)


def unanimous(request: CertifyRequest, classes: int, gate: float = 0.0) -> ConfidenceBounds | LayerBounds:
    """Return the bounds of one input whose samples all agree fully, behind a gate."""
    delta, bound, gated = request.of_one_input, request.bound, gate > 0
    one = np.eye(1, classes + gated, dtype=np.int64)
    selected, hard = np.zeros(1, np.int64), request.scores == "hard"
    if request.goal == "fixed":
        agreed = one[0] * request.samples if hard else _agreed(classes, request.samples)
        return _fixed_bounds([agreed], selected, request, gate)
    found = [
        bound_counts(one * n, selected, delta, bound, k, gated=gated)
        if hard
        else bound_scores([_agreed(classes, n)], delta, bound, k)
        for k, n in enumerate(looks(request.samples))
    ]
    p, q = (
        np.max([each.p_lower for each in found], axis=0),
        np.min([each.q_upper for each in found], axis=0),
    )
    return ConfidenceBounds(p, q, delta, request.bound_at(gate), BOUNDS[request.bound_at(gate)].split(delta))


def _agreed(classes: int, samples: int) -> ScoreStatistics:
    """Statistics of samples that all give class 0 the score 1."""
    if samples > MOST_SAMPLES:
        raise ParameterError(f"samples = {samples}: of soft scores at most {MOST_SAMPLES} are drawn")
    one = update(start(classes, 0, (1,)), np.eye(1, classes))
    sums: dict[str, Any] = {name: getattr(one, name) * samples for name in SUMS}
    return replace(one, samples=samples, **sums)


def radii_of(
    bounds: ConfidenceBounds | LayerBounds, *, sigma: float | Smoothing, alpha: float, certificate: str
) -> CertifiedRadii:
    """Return the certified radii of bounds of means, or of distributions (``exact`` only), as published."""
    slack = margin_slack_of(alpha)
    if isinstance(bounds, LayerBounds):
        found = layered_radii(bounds, sigma=sigma, alpha=alpha, margin_slack=slack)
        return replace(found, certificate=certificate)
    return certify_radii(bounds, sigma=sigma, alpha=alpha, certificate=certificate, margin_slack=slack)


def bounds_of(views: Mapping[float, Any]) -> dict[float, Any]:
    """Return the bounds behind each gate, of views or of prospects."""
    return {gate: view.bounds for gate, view in views.items()}


def radii_of_rows(
    bounds: Mapping[float, ConfidenceBounds | LayerBounds], request: CertifyRequest
) -> list[CertifiedRadii]:
    """Return the certified radii of each row of a table, from the bounds behind each gate."""
    return [
        radii_of(bounds[row.gate], sigma=request.smoothing, alpha=row.alpha, certificate=row.certificate)
        for row in request.rows()
    ]


@dataclass(frozen=True)
class Outcomes:
    """Classes and radii of inputs, (m,) each.

    ``robust``, ``standard`` and ``mixed`` are predicted classes (None without a standard model, or where
    one of its answers is lacking); ``radii`` those of h alone, then of the mix, one for each row.
    ``gated`` are the classes of the tuned row's h, -1 for none, and of its mix.
    """

    indices: IntArray
    labels: IntArray
    robust: IntArray
    standard: IntArray | None = None
    mixed: IntArray | None = None
    radii: tuple[CertifiedRadii, ...] = ()
    gated: tuple[IntArray, IntArray | None] | None = None

    def answers(self, classifier: str) -> tuple[IntArray, IntArray | None]:
        """Return the classes (m,) that a row's certificates are about, and those that it predicts."""
        if classifier == "gated":
            assert self.gated is not None
            return self.gated
        return self.robust, self.robust if classifier == "robust" else self.mixed


@dataclass(frozen=True)
class Evaluation:
    """A table with its curves, and what is behind it; ``bounds`` and ``records`` where there is noise.

    ``bounds`` are those of h as the run counts its votes, ``views`` h behind each gate, and ``prospects``
    those of its inputs by gate, None where all have all samples.
    """

    summary: Summary
    curves: tuple[Curve, ...]
    outcomes: Outcomes
    bounds: ConfidenceBounds | LayerBounds | None = None
    records: Sequence[InputRecord] = ()
    views: dict[float, View] = field(default_factory=dict)
    prospects: dict[float, Prospects] | None = None

    @property
    def radii(self) -> tuple[CertifiedRadii, ...]:
        """One `CertifiedRadii` for each row; the first is the robust classifier alone."""
        return self.outcomes.radii


@dataclass(frozen=True, repr=False)
class CertifyResult(Result):
    """What a certification run found, and where it lies.

    ``summary`` holds the table's figures; ``folder`` is None for a run in memory.
    A shard that did its share is a partial result, but not ``interrupted``.
    """

    evaluation: Evaluation
    folder: Path | None
    interrupted: bool = False

    @property
    def summary(self) -> Summary:
        """The figures of the table."""
        return self.evaluation.summary

    @property
    def table(self) -> Table:
        """The table of certified accuracies, a row a classifier and certificate."""
        return summary_table(self.summary)

    @property
    def plots(self) -> Mapping[str, Callable[[str], bytes]]:
        """Certified accuracy against the radius."""
        from certmix.tables.curves import certified_plots

        curves = self.evaluation.curves
        return certified_plots(self.summary, curves) if curves else {}

    @property
    def outcomes(self) -> Outcomes:
        """Classes and radii, input by input; one `CertifiedRadii` for each row of the table."""
        return self.evaluation.outcomes

    @property
    def records(self) -> Sequence[InputRecord]:
        """The inputs with their counts; none of a run without noise."""
        return self.evaluation.records


def ceilings(request: CertifyRequest, classes: int) -> list[tuple[str, str, float]]:
    """Return (classifier, certificate, largest radius) of each row: all samples agree."""
    agreed = {gate: unanimous(request, classes, gate) for gate in request.gates}
    found = zip(request.rows(), radii_of_rows(agreed, request), strict=True)
    return [(row.classifier, row.certificate, float(radii.radius[0])) for row, radii in found]


@lru_cache(maxsize=1 << 12)  # a trade-off asks for the same at many alphas
def _interval(hits: int, inputs: int) -> tuple[float, float]:
    low, high = clopper_pearson.interval(hits, inputs)
    return float(low), float(high)


def mean_below(values: FloatArray) -> float:
    """Return a float below the mean of values >= 0: sum and quotient are each rounded to nearest."""
    total, count = math.fsum(values), len(values)
    mean = math.nextafter(total / count, 0.0)
    while math.isfinite(total) and math.fsum((*values, *[-mean] * count)) < 0:  # its sign is exact
        mean = math.nextafter(mean, 0.0)
    return mean


def table_row(
    classifier: str,
    radii: CertifiedRadii,
    correct: np.ndarray,
    columns: tuple[float, ...],
    clean: float | None = None,
    prospects: Prospects | None = None,
    ahead: FloatArray | None = None,
) -> CertifiedAccuracy:
    """Count an input at r when its class is right and its radius is >= r (> 0 at r = 0).

    With `prospects`, for which `ahead` are the row's radii, the row says what more samples could give.
    """
    radius = np.where(correct, radii.radius, 0.0)
    hits, inputs = [int(np.sum((radius >= r) & (radius > 0))) for r in columns], len(radius)
    ends, mean = tuple(_interval(hit, inputs) for hit in hits), mean_below(radius)
    shares = tuple(hit / inputs for hit in hits)
    row = CertifiedAccuracy(classifier, radii.certificate, shares, ends, mean, clean)
    if prospects is None or ahead is None:
        return row
    gain, growth = prospects.reach(radii.radius, ahead, np.asarray(columns))
    most = tuple((hit + more) / inputs for hit, more in zip(hits, gain.tolist(), strict=True))
    return replace(row, could_reach=most, mean_radius_could_reach=mean + growth / inputs)


def mean_interval(radius: FloatArray, largest: float) -> tuple[float, float] | None:
    """Return the 95 % betting interval of a mean radius over inputs, from radii (m,) in their order.

    `largest` is a radius that none could exceed, whatever was drawn; None without one.
    """
    if not math.isfinite(largest) or not len(radius):
        return None
    if largest <= 0:
        return 0.0, 0.0
    how = np.clip(radius / largest, 0.0, 1.0), 0.025, len(radius)
    return largest * betting.lower_bound(*how), largest * betting.upper_bound(*how)


def outcomes_of(
    records: Iterable[InputRecord],
    standard: Mapping[int, FloatArray],
    rows: Sequence[Row],
    radii: tuple[CertifiedRadii, ...] = (),
) -> Outcomes:
    """Return what records say; the mix's classes are a plug-in estimate from the selection samples."""
    records, of = Records.of(records), {row.classifier: row for row in rows}
    g = Answers.of(standard).rows(records.indices) if len(records) else None

    def answers(row: Row) -> tuple[IntArray, IntArray | None]:
        behind = records.behind(row.gate)
        if g is None:
            return behind.selected, None
        mixed = mix_shares(g, behind.frequencies, row.alpha, row.temperature)
        return behind.selected, answer_of(mixed)

    selected, mixed = answers(of["mixed"])
    gated = answers(of["gated"]) if "gated" in of else None
    standard_classes = None if g is None else g.argmax(1)
    return Outcomes(records.indices, records.labels, selected, standard_classes, mixed, radii, gated)


def clean_accuracy(found: Outcomes) -> CleanAccuracy:
    """Return the shares of inputs that are right without perturbation; None for what is not known."""
    predicted = (found.standard, found.robust, found.mixed)
    return CleanAccuracy(*(None if one is None else _share(one == found.labels) for one in predicted))


def _share(right: NDArray[np.bool_]) -> float | None:
    return float(np.mean(right)) if len(right) else None


def tabulate(
    found: Outcomes,
    classifiers: Sequence[Row],
    columns: tuple[float, ...],
    likely_of: Sequence[FloatArray] = (),
    prospects: Mapping[float, Prospects] | None = None,
    largest: Sequence[float] = (),
) -> tuple[tuple[CertifiedAccuracy, ...], tuple[Curve, ...]]:
    """Return the rows of a table and its curves.

    `likely_of` are each row's radii for the `prospects`, `largest` the radius that none of its inputs could
    exceed.
    """
    rows, curves = [], []
    for k, (row, radii) in enumerate(zip(classifiers, found.radii, strict=True)):
        selected, predicted = found.answers(row.classifier)
        correct = selected == found.labels
        accuracy = None if predicted is None else _share(predicted == found.labels)
        ahead = None if prospects is None else prospects[row.gate]
        likely, reach = likely_of[k] if ahead is not None else None, None
        if ahead is not None and likely is not None:
            reach = reach_curve(radii.radius, likely, correct, columns, ahead)
        made = table_row(row.classifier, radii, correct, columns, accuracy, ahead, likely)
        mean = mean_interval(np.where(correct, radii.radius, 0.0), largest[k]) if largest else None
        rows.append(replace(
            made, mean_radius_interval=mean, alpha=row.alpha, gate=row.gate,
            standard_temperature=row.temperature,
        ))  # fmt: skip
        kept = radii.radius[correct & (radii.radius > 0)]
        own = row.alpha, row.gate, row.temperature
        curves.append(Curve(row.classifier, radii.certificate, kept, len(correct), accuracy, reach, *own))
    return tuple(rows), tuple(curves)


def reach_curve(
    radius: FloatArray,
    ahead: FloatArray,
    correct: NDArray[np.bool_],
    columns: Sequence[float],
    prospects: Prospects,
) -> FloatArray:
    """Return radii and the share of inputs that could reach them, (k, 2); the share falls along them.

    Among the radii are the columns of the table, and places just below these.
    """
    held, wanted = np.where(correct, radius, 0.0), np.asarray(columns)
    far = max(float(part[np.isfinite(part)].max(initial=0.0)) for part in (held, ahead))
    ends = np.unique([*np.linspace(0.0, far, _CURVE), *wanted, *np.maximum(wanted - 1e-5, 0.0)])
    ends = ends[ends <= far]  # none reaches further
    hits = len(held) - np.searchsorted(np.sort(held), np.maximum(ends, 1e-300))
    gain, _ = prospects.reach(radius, ahead, ends)
    return np.stack([ends, np.maximum.accumulate((hits + gain)[::-1])[::-1] / len(correct)], 1)


def prospects_of(bounded: Bounded, request: CertifyRequest) -> dict[float, Prospects]:
    """Return by gate what inputs could reach with all samples; nothing where all have them."""
    return {
        gate: Prospects.of(request, view.bounds, view.standing, view.selected == bounded.records.labels, gate)
        for gate, view in bounded.views.items()
        if view.standing is not None and isinstance(view.bounds, ConfidenceBounds)
    }


def evaluate(
    records: Iterable[InputRecord],
    probabilities: Mapping[int, FloatArray],
    request: CertifyRequest,
    planned: int,
    *,
    every_look: bool = False,
    bounded: Bounded | None = None,
    **about: Any,
) -> Evaluation:
    """Return the table of a run from its records.

    Parameters
    ----------
    records
        Inputs; those whose sampling is not complete are left out.
    probabilities
        Those (c,) of the standard classifier by input index; may lack inputs.
    request
        What was asked.
    planned
        Number of inputs asked for; fewer records make the result partial.
    every_look
        Use all that is stored, wherever this request would have stopped: for
        records that no more samples will be added to.
    bounded
        What `bound_records` made of them, where that is known.
    about
        Further fields of `Summary`: names, notes, details.
    """
    bounded = bounded or bound_records(records, request, every_look=every_look)
    kept, views, rows_of = bounded.records, bounded.views, request.rows()
    radii = tuple(radii_of_rows(bounds_of(views), request))
    if not len(kept):
        summary = Summary(
            request.sigma, request.alpha, 0, request.of_one_input, request.radii,
            CleanAccuracy(None, None, None), (), complete=False, goal=request.goal,
            planned_inputs=planned, **{**noise_told(request), **about},
        )  # fmt: skip
        return Evaluation(summary, (), outcomes_of((), {}, rows_of, radii), bounded.bounds, views=views)
    found = outcomes_of(kept, probabilities, rows_of, radii)
    prospects, ahead = prospects_of(bounded, request), []
    if prospects:
        ahead = [each.radius for each in radii_of_rows(bounds_of(prospects), request)]
    largest = [most for *_, most in ceilings(request, kept.frequencies.shape[1])]
    rows, curves = tabulate(found, rows_of, request.radii, ahead, prospects or None, largest)
    about = {**about, "details": (*about.get("details", ()), *_noise_notes(kept))}
    if request.all_at_once:
        together = (
            f"All {request.inputs:,} inputs at once: but for probability "
            f"{plain_decimal(request.failure_probability)}, no certificate of a row is wrong."
        )
        about["notes"] = (together, *about.get("notes", ()))
    summary = Summary(
        request.sigma, request.alpha, len(kept), request.of_one_input, request.radii,
        clean_accuracy(found), rows,
        complete=len(kept) == planned,
        planned_inputs=planned,
        mean_samples=float(bounded.samples.mean()),
        abstained=int(np.sum((radii[0].status == Status.ABSTAIN) & (bounded.samples > 0))),
        goal=request.goal, bound=request.bound, samples=request.samples,
        selection_samples=request.selection_samples, seed=request.seed, **{**noise_told(request), **about},
    )  # fmt: skip
    return Evaluation(summary, curves, found, bounded.bounds, kept, views, prospects or None)


def noise_told(request: CertifyRequest) -> dict[str, Any]:
    """Return what a table says of the noise, and of the norm."""
    smoothing = request.smoothing
    return {
        "noise": request.noise, "scale": request.scale, "norm": request.norm,
        "converted_from": smoothing.converted_from,
    }  # fmt: skip


def _noise_notes(records: Records) -> list[str]:
    """Return what the certificates are about where inputs are not 8-bit, or rows depend on their place."""
    found, farthest = [], float(records.lost.max())
    if farthest > 0:
        found.append(
            "Inputs are rounded to a grid, and radii are smaller by the distance to it, up to "
            f"{ceil_digits(farthest, 6)} (docs/noise.md)"
        )
    if (places := int(records.places.max())) > 1:
        found.append(
            f"The model's logits depend on a row's place in a batch: h is their average over {places} places "
            "(docs/noise.md#rows-of-a-batch)"
        )
    return found


def log_columns(evaluation: Evaluation) -> tuple[IntArray, IntArray, IntArray, FloatArray, FloatArray]:
    """Return index, label, prediction or -1, radius, and seconds of the robust classifier, (m,) each."""
    robust, records = evaluation.radii[0], Records.of(evaluation.records)
    predicted = np.where(robust.status == Status.ABSTAIN, -1, evaluation.outcomes.robust)
    radius = np.where(robust.status == Status.CERTIFIED, robust.radius, 0.0)
    return records.indices, records.labels, predicted, radius, records.seconds


SETTLED = {"bound": "bound", "failure_probability": "of_one_input", "gates": "gates_told"}
"""What must be chosen before samples are seen, and what of a request says it; a run remembers its first."""

DOUBTFUL = 0.1
"""Failure probability of a certificate beyond which it is pointed out."""


def expectations(request: CertifyRequest, classes: int) -> tuple[list[str], list[str]]:
    """Return warnings about what so few samples cannot show; and which columns are out of their reach."""
    found, beyond = [], []
    if request.of_one_input > DOUBTFUL:
        found.append(
            f"failure probability {request.of_one_input:g}: each certificate may be wrong with this "
            "probability, and the table says little: 0.001 is usual"
        )
    for classifier, certificate, ceiling in ceilings(request, classes):
        row = f"{classifier}, {certificate}"
        if ceiling <= 0:
            enough = _enough_samples(request, classes, classifier, certificate)
            more = f"about {enough} are needed" if enough else "raise --alpha"
            found.append(
                f"{row}: {request.samples} samples cannot certify anything at failure probability "
                f"{request.of_one_input:g}, even if all agree: {more}"
            )
        elif certificate == "exact" and ceiling < request.radii[-1]:
            beyond.append(
                f"{row}: {request.samples:,} samples an input can certify at most radius "
                f"{floor_digits(ceiling, 3)}; larger columns are out of reach"
            )
    return found, beyond


def _enough_samples(request: CertifyRequest, classes: int, classifier: str, certificate: str) -> int | None:
    """The least number of samples, within a factor of 1.2, at which a row can hold a radius > 0."""
    samples = request.samples
    while samples < 10**9:
        samples = int(samples * 1.2) + 1
        for row in ceilings(request.replace(samples=samples), classes):
            if row[:2] == (classifier, certificate) and row[2] > 0:
                return samples
    return None


def began_with(store: Store) -> dict[str, str]:
    """Return what a run's first request chose, as text by name."""
    kept = {name: store.get(name) for name in (*SETTLED, "fixed_samples")}
    return {name: value for name, value in kept.items() if value is not None}


def settled(request: CertifyRequest) -> dict[str, str]:
    """Return what a request chooses that a run remembers, as text by name."""
    return {name: str(getattr(request, says)) for name, says in SETTLED.items()}


def choice_notes(first: Mapping[str, str], request: CertifyRequest) -> list[str]:
    """Return what to say of choices that are not those a run began with; see `began_with`."""
    found = []
    for name, own in settled(request).items():
        there = first.get(name, own)
        new = set(own.split(", ")) - set(there.split(", ")) if name == "gates" else there != own
        if new:
            found.append(
                f"The run was made with {name.replace('_', ' ')} {there}: another one is valid only if the "
                "choice does not rest on the run's results."
            )
    if "fixed_samples" in first and request.goal != "fixed":
        found.append(
            f"The run was made for exactly {first['fixed_samples']} samples an input: sequential sampling is "
            "valid only if the choice does not rest on the run's results."
        )
    return found
