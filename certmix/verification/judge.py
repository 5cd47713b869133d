"""Figures of a run: proofs of what was derived from its numbers, verdicts on them, and proposals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import betting, clopper_pearson
from certmix.certification.evaluate import Evaluation, Outcomes, ceilings, evaluate, mean_below, tabulate
from certmix.certification.proved_table import clean_accuracy, largest_radii, stored_outcomes
from certmix.certification.publish import refuse_unfinished
from certmix.certification.request.parts import Row as Asked
from certmix.certification.request.population import Population
from certmix.certification.request.proved import (
    LABEL,
    ROBUST,
    DeterministicRequest,
    Enumerated,
    Margin,
    column_cell,
    margin_cell,
    standard_logits,
)
from certmix.certification.request.reading import Request
from certmix.certification.request.sampled import CertifyRequest
from certmix.data import spread
from certmix.errors import CertmixError, ParameterError, RunError
from certmix.files import digest_of, write_atomically
from certmix.models.kinds import is_factory
from certmix.runs.folder import DESCRIPTION
from certmix.runs.records import Answers, Records
from certmix.runs.sources import Sources, absolute, handed_over, load_data, with_classes
from certmix.sampling.ballots import LEVELS
from certmix.sampling.schedule import looks
from certmix.text import floor_digits
from certmix.types import CertifiedAccuracy, CleanAccuracy, Dataset, FloatArray, IntArray, Status
from certmix.verification import check_votes, plain, population
from certmix.verification.check_proof import FORMULAS, fails, proved
from certmix.verification.checks import CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.claim import Terms
from certmix.verification.groups import checksum_of, groups_of
from certmix.verification.guarantee import (
    GroupClaim,
    Guarantee,
    ModelClaim,
    guarantee_text,
    named_group,
    parse_guarantee,
    relative_claims,
)
from certmix.verification.proof import INEQUALITIES, formulas_of, proof_of
from certmix.verification.requirements import Requirement, written
from certmix.verification.stored import Run, impossible, load, opened

FIGURES = {
    "records": "predictions and sample numbers follow from the counts",
    "radii": "",
    "certified accuracy": "every cell counts proved radii",
    "intervals": "Clopper-Pearson intervals over inputs, proved at 1/40 on either side",
    "mean radii": "mean certified radii are means of proved ones",
    "clean accuracy": "shares follow from the stored outputs of both models",
}
"""Checks of what the product derives, and what is said where they hold."""
MARGIN_SLACK = 1e-4  # margins of stored logits, of float32, against what is proved of exact arithmetic


class Derived(NamedTuple):
    """What the stored numbers of finished inputs (m,) give: clean answers, classes and radii, and figures.

    ``right`` says who answers right by the stored outputs, ``clean`` the product's shares; ``numbers`` is
    what radii rest on, None of propagated ones; ``records`` is what is wrong with what the counts became.
    """

    found: Outcomes
    right: dict[str, NDArray[np.bool_]]
    tables: tuple[CertifiedAccuracy, ...]
    clean: CleanAccuracy
    numbers: Evaluation | FloatArray | IntArray | None
    records: Faults

    def certified(self, rows: Sequence[Asked]) -> Iterator[FloatArray]:
        """Yield the radii (m,) of each row, 0 where the class is wrong."""
        for row, radii in zip(rows, self.found.radii, strict=True):
            yield np.where(self.found.answers(row.classifier)[0] == self.found.labels, radii.radius, 0.0)


class NothingFollowsError(Exception):
    """Nothing follows from the numbers of some input: which check says so, the input or None, and why."""


def derive_figures(run: Run, wanted: Sequence[int], labels: IntArray | None) -> Derived:
    """Return what the numbers of finished inputs give; a sampled run has labels (m,) of its own."""
    request = run.request
    if isinstance(request, CertifyRequest):
        records = run.records.of_inputs(wanted)
        for row, fault in impossible(records, request, run.classes):
            index = int(records.indices[row])
            raise NothingFollowsError("counts", index, f"input {index}: {fault}")
        return _sampled(run, request, records)
    if labels is not None:
        known = run.proved_inputs
        ready = [index in known for index in wanted]
        if any(ready):
            return _proved(run, request, np.array(wanted, np.int64)[ready], np.asarray(labels)[ready])
    raise NothingFollowsError("inputs", None, "no input is finished yet")


def _sampled(run: Run, request: CertifyRequest, records: Records) -> Derived:
    every = _evaluated(run, request, records)
    found, records = every.outcomes, Records.of(every.records)
    if not len(records):
        raise NothingFollowsError("inputs", None, "no input is finished yet")
    faults: Faults = []
    for gate, view in every.views.items():
        shares = plain.shares_behind(records, gate)
        chosen = np.where(shares.any(1), shares.argmax(1), -1)
        for place in np.flatnonzero(chosen != view.selected).tolist():
            told = f"its class is {view.selected[place]}, the selection samples say {chosen[place]}"
            faults.append((int(found.indices[place]), f"input {found.indices[place]}: {told}"))
        for place in plain.other_votes(records, gate) if gate else ():
            index = int(found.indices[place])
            faults.append((index, f"input {index}: votes behind gate {gate:g} are not those of its ballots"))
    right: dict[str, NDArray[np.bool_]] = {}
    for row in reversed(request.rows()):
        if row.classifier != "robust" and row.classifier not in right:
            shares = plain.shares_behind(records, row.gate)
            right |= _right(run, found.indices, shares, found.labels, row)
    stood = next(iter(every.views.values())).standing
    ends = np.array([0, *looks(request.samples)], np.int64)
    used = np.full(len(records), request.samples) if stood is None else ends[1 + stood.look]
    said = every.summary.abstained, every.summary.mean_samples
    seen = int(np.sum((found.radii[0].status == Status.ABSTAIN) & (used > 0))), float(used.mean())
    if said != seen:
        faults.append((None, f"abstained and mean samples {said}, the counts give {seen}"))
    return Derived(found, right, every.summary.rows, every.summary.clean_accuracy, every, faults)


def _counted(run: Run, request: Enumerated, indices: IntArray, labels: IntArray) -> Derived:
    """Derive a run of votes on all cases."""
    ballots = np.stack([run.cells[request.cell][index] for index in indices.tolist()]).astype(np.int64)
    if (odd := ((ballots < 0) | (ballots >= run.classes * LEVELS)).any(1)).any():
        index = int(indices[odd][0])
        raise NothingFollowsError("radii", index, f"input {index}: an answer that no class can give")
    votes = np.where(ballots % LEVELS >= round(request.gate * LEVELS), ballots // LEVELS, -1)
    shares = np.stack([(votes == label).mean(1) for label in range(run.classes)], 1)
    right = _right(run, indices, shares, labels, request.rows()[1], logits=True)
    most = np.sort(shares, 1)
    right["robust"] &= most[:, -1] > most[:, -2]  # a tie is no class
    cell = standard_logits(str(run.standard_checksum)) if "standard" in right else None
    with closing(opened(run.folder, run.classes)) as store:
        found = stored_outcomes(request, store, indices, labels, cell)
    largest = largest_radii(request, votes.shape[1])
    tables = tabulate(found, request.rows(), request.radii, largest=largest)[0]
    return Derived(found, right, tables, clean_accuracy(found), ballots, Faults())


def _evaluated(run: Run, request: CertifyRequest, records: Records) -> Evaluation:
    """Return what certmix makes of records: what it made of the run, where that is of the same."""
    with suppress(CertmixError):
        if np.array_equal(run.evaluation.outcomes.indices, records.indices):
            return run.evaluation
    return evaluate(records, run.standard, request, len(records))


def _proved(run: Run, request: DeterministicRequest, indices: IntArray, labels: IntArray) -> Derived:
    if isinstance(request, Enumerated):
        return _counted(run, request, indices, labels)
    logits = np.stack([run.cells[ROBUST][index] for index in indices.tolist()])
    right = _right(run, indices, _softmax(logits), labels, request.rows()[1], logits=True)
    cell = standard_logits(str(run.standard_checksum)) if "standard" in right else None
    with closing(opened(run.folder)) as store:
        found = stored_outcomes(request, store, indices, labels, cell)
    tables, faults = tabulate(found, request.rows(), request.radii)[0], Faults()
    if isinstance(request, Margin):
        for radii, alpha in zip(found.radii, request.weights(), strict=True):
            own = zip(indices.tolist(), logits, radii.radius.tolist(), strict=True)
            for index, z, radius in own:
                if (stored := _verified(run, request, index, z, alpha)) != radius:
                    told = f"input {index}, alpha {alpha:g}: radius {radius!r}, {stored!r} was verified"
                    raise NothingFollowsError("radii", index, told)
    return Derived(
        found, right, tables, clean_accuracy(found), None if isinstance(request, Margin) else logits, faults
    )


def _verified(run: Run, request: Margin, index: int, logits: FloatArray, alpha: float) -> float:
    """Return the stored radius, or a column just beyond it; the clean margin must allow any."""

    def refusal(fault: str) -> NothingFollowsError:
        return NothingFollowsError("radii", index, f"input {index}, alpha {alpha:g}: {fault}")

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
    if best > 0 and request.arithmetic == "float32":  # it holds for what the network gave, too
        mu = 1 / Fraction(alpha) - 1 + Fraction(alpha < 1, 2**22)
        z = sorted(map(Fraction, logits.tolist()), reverse=True)
        if not proved(FORMULAS["constant of probabilities"], "null", mu, Fraction(0), *z):
            raise refusal(f"radius {best!r}, and the clean margin is too small")
    elif best > 0 and (margin := plain.softmax_margin(logits)) < (1 - alpha) / alpha - MARGIN_SLACK:
        raise refusal(f"radius {best!r} with a clean margin of {margin:.4g}")
    return best


def _softmax(logits: FloatArray) -> FloatArray:
    powers: FloatArray = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _right(
    run: Run, indices: IntArray, h: FloatArray, labels: IntArray, row: Asked, *, logits: bool = False
) -> dict[str, NDArray[np.bool_]]:
    """Which inputs the classifiers of a row get right; only h is known without g's outputs."""
    right = {"robust": (h.argmax(1) == labels) & (h.max(1) > 0)} if row.classifier != "gated" else {}
    g = Answers.of(run.standard).rows(indices)
    if run.standard_checksum is not None and g is not None:
        g = _softmax(g) if logits else g
        mixed = (1 - row.alpha) * plain.sharpened(g, row.temperature) + row.alpha * h
        name = "mixed" if row.classifier == "robust" else row.classifier
        answered = (mixed.argmax(1) == labels) & (mixed.max(1) > 0)  # h alone may abstain
        right |= {"standard": g.argmax(1) == labels, name: answered}
    return right


def check_figures(run: Run, data: Dataset | None) -> list[CheckResult]:
    """Which inputs there are of those asked for, and each kind of figure."""
    sampled = isinstance(run.request, CertifyRequest)
    names = [name for name in FIGURES if sampled or name != "records"]
    if data is None and not sampled:
        return [unchecked(name, "the data set cannot be loaded") for name in ("inputs", *names)]
    wanted, labels = run.records.indices.tolist(), None
    if data is not None:
        positions = spread(len(data), run.request.inputs)
        wanted, labels = data.indices[positions].tolist(), data.labels[positions]
    try:
        found = derive_figures(run, wanted, labels)
    except (CertmixError, NothingFollowsError) as error:
        check, input, why = error.args if isinstance(error, NothingFollowsError) else ("radii", None, error)
        told = f"nothing follows from the numbers: {why}"
        rest = [unchecked(name, told) for name in ("inputs", *names) if name != check]
        return [*rest, *(judged(name, [(input, told)], "") for name in names if name == check)]
    every: dict[str, Faults] = {**{name: [] for name in names}, "records": found.records}
    for name in ("standard", "robust", "mixed"):
        share = float(found.right[name].mean()) if name in found.right else None
        if (told := getattr(found.clean, name)) != share:
            text = f"clean accuracy {name} is {told}, the outputs give {share}"
            every["clean accuracy"].append((None, text))
    rows = run.request.rows()
    for row, table, radii in zip(rows, found.tables, found.certified(rows), strict=True):
        where = f"{row.classifier} {row.certificate}"
        share = float(found.right[row.classifier].mean()) if row.classifier in found.right else None
        if sampled and table.clean_accuracy != share:
            told = f"{where}: clean accuracy {table.clean_accuracy}, the outputs give {share}"
            every["clean accuracy"].append((None, told))
        for check, text in figure_faults(table, radii, run.request.radii):
            every[check].append((None, f"{where}: {text}"))
    proved, lacking = _prove(run, found)
    every["radii"] += proved
    ready, many = len(found.found.indices), f"{len(wanted):,}"
    there = judged("inputs", [], f"all {many} inputs that were asked for are there")
    if data is None:
        there = unchecked("inputs", "the data set cannot be loaded")
    elif ready < len(wanted):
        text = f"partial: {ready:,} of {many} inputs; finish or merge the run, all rows that are there"
        there = unchecked("inputs", f"{text} were derived")
    said = FIGURES | {"radii": _what_is_proved(run.request, found)}
    checks = [judged(name, every[name], said[name]) for name in names]
    return [
        there,
        *(unchecked("radii", lacking) if one.check == "radii" and lacking else one for one in checks),
    ]


def _prove(run: Run, found: Derived) -> tuple[Faults, str]:
    """Return what could not be proved of the bounds and radii, and why nothing could, if so."""
    if found.numbers is None:
        return [], ""
    try:
        proof = proof_of(run.request, run.classes, found.found, found.tables, found.numbers)
    except ParameterError as error:
        return [], str(error)
    votes = isinstance(run.request, Enumerated)
    wrong = check_votes.fails(proof) if votes else fails(proof, formulas_of(proof))
    return [(index, text if index is None else f"input {index}: {text}") for index, text in wrong], ""


def write_proof(folder: Path | Run, path: Path) -> CheckResult:
    """Write the proof of a run's table, for a script beside this module to check by itself.

    ParameterError if it rests on something that this script does not know, or that is not proved so.
    """
    run, labels = load(folder), None
    if isinstance(run.request, Population):
        return population.write_proof(run, run.request, path)
    wanted = run.records.indices.tolist()
    if not isinstance(run.request, CertifyRequest):
        wanted = sorted(run.proved_inputs)
        labels = np.array([run.cells[LABEL][index][0] for index in wanted], np.int64)
    try:
        found = derive_figures(run, wanted, labels)
    except NothingFollowsError as error:
        raise RunError(f"{run.folder}: {error.args[-1]}: no proof of it can be written") from None
    proof = proof_of(run.request, run.classes, found.found, found.tables, found.numbers)
    if own := sorted(set(proof.get("inequalities", ())) - set(INEQUALITIES)):
        raise ParameterError(f"{', '.join(own)}: check_proof.py knows no inequality of it: leave --proof out")
    write_atomically(path, json.dumps(proof, separators=(",", ":")).encode())
    script = "check_votes.py" if isinstance(run.request, Enumerated) else "check_proof.py"
    told = f"{path}: {len(proof['inputs']):,} inputs; {script} checks it without certmix (docs/proof.md)"
    return CheckResult("proof file", Outcome.HOLDS, told)


def _what_is_proved(request: Request, found: Derived) -> str:
    if isinstance(request, Enumerated):
        return "radii follow from the votes on all cases, by every rival and every place, in fractions"
    if found.numbers is None:
        return "radii are those that were verified by bound propagation, and no larger"
    of = (
        "bounds and radii are" if isinstance(request, CertifyRequest) else "radii from the given constant are"
    )
    return f"all {of} proved by ball arithmetic (docs/proof.md)"


def figure_faults(
    row: CertifiedAccuracy, radii: FloatArray, columns: Sequence[float]
) -> Iterator[tuple[str, str]]:
    """Compare one row with the radii (m,) of its inputs, 0 where the class is wrong."""
    inputs, tail = len(radii), Fraction(1, 40)
    for column, share, (low, high) in zip(columns, row.certified_accuracy, row.interval, strict=True):
        hits = int(np.sum((radii >= column) & (radii > 0)))
        if share != hits / inputs:
            yield "certified accuracy", f"{share} at radius {column:g}, the radii give {hits / inputs}"
            continue
        for votes, end, at in ((hits, low, Fraction(low)), (inputs - hits, high, 1 - Fraction(high))):
            seen = json.dumps({"samples": inputs, "votes": votes})
            if at and not proved(FORMULAS["clopper-pearson"], seen, tail, at):
                yield "intervals", f"{end} is no end at radius {column:g}, of {hits} in {inputs} inputs"
    mean, finite = row.mean_certified_radius, bool(np.isfinite(radii).all())
    if np.isnan(mean) or (finite and Fraction(mean) * inputs > sum(map(Fraction, radii.tolist()))):
        yield "mean radii", f"{mean} is more than the mean of the radii"


MISSED = 0.05  # failure probability of a lower bound that stands alone


@dataclass(frozen=True)
class Figures:
    """What is judged, by classifier: which inputs (m,) are right, where known, and certified radii (m,).

    Radii are 0 where nothing right is certified.  ``largest`` is the largest that any input could reach,
    whatever was drawn: the bound of a mean counts radii beyond it as this radius.  ``groups`` hold the name
    of each input in each, and an input's certificate is false with probability at most `failure_probability`.
    """

    indices: IntArray
    right: Mapping[str, NDArray[np.bool_]]
    radii: Mapping[str, FloatArray]
    largest: Mapping[str, float]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    failure_probability: float = 0.0

    def part(self, group: str | None, member: str | None) -> Figures:
        """Return the figures of a group's member, all of them of no group."""
        if group is None:
            return self
        held = self.groups[group] == member
        right, radii = ({name: one[held] for name, one in of.items()} for of in (self.right, self.radii))
        return replace(self, indices=self.indices[held], right=right, radii=radii)


def figures_of(
    run: Run,
    wanted: Sequence[int],
    labels: IntArray,
    groups: Mapping[str, NDArray[np.str_]] | None = None,
) -> Figures:
    """Return the figures of a run's inputs; `groups` name them (m,) in the order of those `wanted`."""
    try:
        found = derive_figures(run, wanted, labels)
    except NothingFollowsError as error:
        why = error.args[-1]
        raise RunError(f"{run.folder}: {why}: restore the run, or run certmix certify again") from None
    if len(found.found.indices) < len(wanted):
        raise RunError(f"{run.folder} lacks samples of some inputs: sample them, or take fewer inputs")
    request = run.request
    rows = list(zip(request.rows(), found.certified(request.rows()), strict=True))
    radii = {row.classifier: own for row, own in reversed(rows)}  # the first row of each classifier stands
    if isinstance(request, CertifyRequest):
        largest = {name: most for name, _, most in reversed(ceilings(request, run.classes))}
    else:  # of a given constant they have no largest value: the last column stands for it
        most = request.max_radius if request.certificate == "margin" else request.radii[-1]
        largest = dict.fromkeys(radii, most)
        if isinstance(request, Enumerated):
            reach = largest_radii(request, next(iter(run.cells[request.cell].values())).size)
            largest = {row.classifier: most for row, most in zip(request.rows(), reach, strict=True)}
    at = np.argsort(wanted)[np.searchsorted(np.sort(wanted), found.found.indices)]
    named = {name: names[at] for name, names in (groups or {}).items()}
    delta = request.of_one_input if isinstance(request, CertifyRequest) else 0.0
    return Figures(found.found.indices, found.right, radii, largest, named, delta)


class Judgement(NamedTuple):
    """The verdict on one requirement of so many inputs; value and lower bound are None where unknown.

    The lower bound is above the population's figure with probability at most `missed`.
    """

    requirement: Requirement
    outcome: Outcome
    value: float | None
    lower: float | None
    message: str
    inputs: int = 0
    missed: float = MISSED

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        asked, value = self.requirement, self.value
        return {
            "requirement": str(asked), "classifier": asked.classifier, "quantity": asked.quantity,
            "radius": asked.radius, "threshold": asked.threshold, "judged_on": asked.side,
            "group": asked.group, "member": asked.member, "inputs": self.inputs,
            "confidence": 1 - self.missed, "outcome": str(self.outcome),
            "value": value if value is not None and math.isfinite(value) else None,
            "lower_bound": self.lower, "message": self.message,
        }  # fmt: skip


def figure(requirement: Requirement, figures: Figures, missed: float = MISSED) -> tuple[float, float] | None:
    """Return a requirement's value and its lower bound for the population of inputs; None if unknown.

    Inputs are taken as independent.  The bound fails with probability `missed`; it is of what is true of the
    mix, not of what could be certified: a share l of certified inputs leaves (l - delta)/(1 - delta) of true
    ones, since an input that is not robust is certified with probability delta at most.
    """
    figures = figures.part(requirement.group, requirement.member)
    source: Mapping[str, Any] = figures.right if requirement.quantity == "clean_accuracy" else figures.radii
    found = source.get(requirement.classifier)
    if found is None or not len(found):
        return None
    delta = 0.0 if requirement.quantity == "clean_accuracy" else figures.failure_probability
    if requirement.is_share:
        hits = found
        if requirement.radius is not None:
            hits = (found >= requirement.radius) & (found > 0)
        count = int(np.sum(hits))
        return count / len(hits), _true(float(clopper_pearson.lower_bound(count, len(hits), missed)), delta)
    largest = figures.largest[requirement.classifier]
    value = mean_below(found) if np.isfinite(found).all() else math.inf
    if not 0 < largest < math.inf:
        return value, 0.0
    # The bound follows the order of the values, and sorted data would mislead it: this order is fixed by
    # the inputs' indices and looks random.
    order = np.argsort([digest_of(str(index).encode()) for index in figures.indices.tolist()])
    scaled = np.minimum(found[order], largest) / largest
    lower = _true(betting.lower_bound(np.minimum(scaled, 1.0), missed, planned=len(scaled)), delta)
    return value, max(0.0, float(np.nextafter(lower * largest, 0.0)) * (1 - 2.0**-50))


def _true(certified: float, delta: float) -> float:
    """Return a lower bound of what is true, of one of what is certified, in [0, 1]; rounded down."""
    return max(0.0, (certified - delta) / (1 - delta) * (1 - 2.0**-50) - 2.0**-52) if delta else certified


def judge(requirement: Requirement, figures: Figures, missed: float = MISSED) -> Judgement:
    """Return whether a requirement is met, a lower bound failing with probability `missed`."""
    inputs = len(figures.part(requirement.group, requirement.member).indices)
    found = figure(requirement, figures, missed)
    if found is None:
        why = "no input has been evaluated"
        if not inputs and len(figures.indices):
            why = f"none of the {len(figures.indices)} inputs that were taken is of it: take more"
        elif requirement.classifier != "robust" and inputs:
            why = "the run has no standard classifier"
        return Judgement(requirement, Outcome.UNCHECKED, None, None, f"unknown: {why}", inputs, missed)
    value, lower = found
    threshold = requirement.threshold
    holds = (value if requirement.side == "value" else lower) >= threshold
    shown = f"value {_at_most(value, threshold)}, lower bound {_at_most(lower, threshold)}"
    verb = "reaches" if holds else "is below"
    message = f"{shown}; the {requirement.side} {verb} {written(threshold)}"
    if requirement.group is not None:
        message = f"{inputs} input{'' if inputs == 1 else 's'}: {message}"
    certified = requirement.quantity != "clean_accuracy"
    most = most_that_can_be_shown(inputs, missed, figures.failure_probability if certified else 0.0)
    if not holds and requirement.side != "value" and requirement.is_share and threshold > most:
        told = f"with {inputs} inputs no lower bound exceeds {floor_digits(most, 4)}"
        message += f" ({told}: take more, or judge on value)"
    outcome = Outcome.HOLDS if holds else Outcome.FAILS
    return Judgement(requirement, outcome, value, lower, message, inputs, missed)


def _at_most(x: float, threshold: float) -> str:
    """Return x rounded down, with digits enough to lie on its own side of the threshold."""
    if not math.isfinite(x):
        return "unbounded"
    for digits in range(4, 18):
        text = floor_digits(x, digits)
        if (float(text) >= threshold) == (x >= threshold):
            return text
    return floor_digits(x, 20)


def most_that_can_be_shown(inputs: int, missed: float = MISSED, delta: float = 0.0) -> float:
    """Return the lower bound of a share when all inputs are right: no requirement above it can hold."""
    return _true(float(clopper_pearson.lower_bound(inputs, inputs, missed)), delta)


# A guarantee from a run: what the run shows, less a step.

HEADING = """A guarantee, checked by: certmix verify FILE
Requirements without "on value" are judged on lower bounds for the population of inputs."""


def propose(
    run: Path,
    path: Path,
    *,
    slack: float = 0.02,
    pin: bool = False,
    terms: Terms | None = None,
    groups: Mapping[str, GroupClaim] | None = None,
    per: Sequence[str] = (),
    budget: int | None = None,
    sources: Sources | None = None,
) -> tuple[Guarantee, dict[Requirement, str]]:
    """Return a guarantee whose thresholds lie `slack` below a run's lower bounds, and remarks.

    The bounds of all that was looked at hold together, so that it does not matter what the run showed before
    thresholds were chosen.  `per` are groups of whose members accuracies are asked for as well: ``class``, or
    one of `groups`, whose files are seen from the folder of `path`.  `sources` name the factories of data and
    models that a run had as Python objects.
    """
    if not 0 <= slack < 1:
        raise ParameterError(f"slack = {slack}: it must be at least 0 and below 1, such as 0.02")
    terms = terms or Terms()
    if terms.joint != "split":
        raise ParameterError(
            f"joint = {terms.joint}: thresholds below the bounds of a run need bounds that hold together: "
            "leave it out, or write it into a file whose thresholds were fixed before the run"
        )
    stored = load(Path(run))
    if isinstance(stored.request, Population):
        claim = f"population_certified_accuracy@{written(stored.request.at_radius)} >= SHARE"
        raise ParameterError(f"{run} is a claim about a population: write the guarantee yourself, of {claim}")
    refuse_unfinished(Path(run))
    described, request = stored.description, stored.request
    try:
        given = {} if sources is None else handed_over(described["sources"], sources.handed())
        if odd := [role for role, one in given.items() if not isinstance(one, str)]:
            told = "a file can only name it: give a factory, such as 'm.py:make'"
            raise ParameterError(f"{odd[0]} is an object: {told}")
        named: Sources = Sources.from_dict(described["sources"], Path(run) / DESCRIPTION, given=given)
        if "data" not in given and is_factory(str(named.data)):
            told = f"{named.data} is code that {run} names"
            raise ParameterError(f"{told}: read it, then name it yourself, with --data {named.data}")
        dataset = load_data(named.as_user() if "data" in given else named)
        data, standard, robust = relative_claims(absolute(named.as_dict()), path.parent)
        if robust is None:  # the shipped one, which the run chose itself
            robust = ModelClaim(str(described["models"]["robust"]["spec"]))
        claims: list[Any] = [
            claim and claim.replace(checksum=str(described["models"][role]["checksum"]), pin=pin)
            for role, claim in (("standard", standard), ("robust", robust))
        ]
        data = data.replace(checksum=str(described["data"]["checksum"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run}/run.json is damaged ({error}): restore it, or run it again") from None
    if dataset.checksum != data.checksum:
        raise RunError(f"{run} was made on other data than lie there now: restore the data, or run it again")
    dataset = with_classes(dataset, stored.classes)
    positions = spread(len(dataset), request.inputs)
    if isinstance(request, CertifyRequest):
        request = request.replace(certificates=request.certificates[:1])
    blank = Guarantee((), data, claims[0], claims[1], request, path, terms, dict(groups or {}), budget)
    names = groups_of(dataset, blank.groups, blank)
    found = figures_of(
        stored, dataset.indices[positions].tolist(), dataset.labels[positions],
        {name: own[positions] for name, own in names.items()},
    )  # fmt: skip
    if unknown := [one for one in per if one not in names]:
        raise ParameterError(f"group {unknown[0]} is unknown: use one of {', '.join(names)}")
    radii = [radius for radius in request.radii if radius > 0]
    clean = "robust" if standard is None else "mixed"
    wanted = [
        Requirement(clean, "clean_accuracy", None, 0.0),
        *(Requirement("mixed", "certified_accuracy", radius, 0.0) for radius in radii),
        Requirement("mixed", "mean_certified_radius", None, 0.0),
    ]
    for group in per:
        for member in sorted(set(found.groups[group].tolist())):
            part = {"group": group, "member": member}
            wanted += [one.replace(**part) for one in wanted[: 1 + len(radii[:1])]]
    wanted = [one for one in wanted if figure(one, found) is not None]
    proposed = {}
    for asked in wanted:
        seen = figure(asked, found, terms.missed(max(terms.bounds, len(wanted))))
        assert seen is not None
        value, lower = seen
        digits = 2
        threshold = lower - slack if asked.is_share else lower * (1 - slack)
        if threshold > 0 and not asked.is_share:  # two digits of its own
            digits = max(2, 1 - math.floor(math.log10(threshold)))
        threshold = float(floor_digits(max(threshold, 0.0), digits))
        if threshold > 0:
            shown = floor_digits(value, 4) if math.isfinite(value) else "unbounded"
            remark = f"seen: {shown}, lower bound {floor_digits(lower, 4)}"
            proposed[asked.replace(threshold=threshold)] = remark
    if not proposed:
        raise RunError(f"{run} shows nothing above {slack:g} to demand: give a smaller --slack")
    if len(proposed) < len(wanted):  # the others were looked at as well
        terms = terms.replace(bounds=max(terms.bounds, len(wanted)))
    held = {name: one.replace(checksum=checksum_of(names[name])) for name, one in blank.groups.items()}
    return replace(blank, requirements=tuple(proposed), terms=terms, groups=held), proposed


def proposed(
    run: Path, output: Path | None, *, groups: Sequence[str] = (), force: bool = False, **how: Any
) -> tuple[Guarantee, str]:
    """Write what `propose` proposes into a file, where there is one; return it and its text.

    `groups` are as `certmix.verification.guarantee.named_group` reads them.
    """
    path = output or Path("guarantee.toml")
    if output is not None and output.exists() and not force:
        raise ParameterError(f"{output} exists: name another --output, or add --force to replace it")
    named = dict(named_group(one, path.parent) for one in groups)
    made, remarks = propose(run, path, groups=named, **how)
    content = guarantee_text(made, remarks=remarks, heading=HEADING)
    parse_guarantee(content, made.path)  # names of models and data may be such as no file can hold
    if output is not None:
        write_atomically(output, content.encode())
    return made, content
