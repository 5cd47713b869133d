"""Figures of a run, derived from its numbers again and proved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.certification.evaluate import Evaluation, Outcomes, evaluate, tabulate
from certmix.certification.proved_table import clean_accuracy, largest_radii, stored_outcomes
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
from certmix.files import write_atomically
from certmix.runs.records import Answers, Records
from certmix.sampling.ballots import LEVELS
from certmix.sampling.schedule import looks
from certmix.types import CertifiedAccuracy, CleanAccuracy, Dataset, FloatArray, IntArray, Status
from certmix.verification import plain
from certmix.verification.checks import CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.proofs import check_votes, population
from certmix.verification.proofs.check_proof import FORMULAS, fails, proved
from certmix.verification.proofs.proof import INEQUALITIES, formulas_of, proof_of
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
