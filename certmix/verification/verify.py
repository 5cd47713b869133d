"""Verification of a guarantee or of a run: what was promised, checked from data, models and counts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from certmix import guard
from certmix.certification.describe import about_data, identity_of
from certmix.certification.describe import load as load_models
from certmix.certification.evaluate import bound_records
from certmix.certification.publish import RADII_FILE, is_finished, show, unfinished
from certmix.certification.request.population import Population
from certmix.certification.request.proved import needed_cells, standard_logits
from certmix.certification.request.reading import Request
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.run import run_certify
from certmix.certification.sampled import Budget
from certmix.certification.stored import LOG
from certmix.data import spread
from certmix.errors import Interrupted, ParameterError, RunError
from certmix.files import digest_of
from certmix.models.spec import LoadedModel
from certmix.runs import Run, read_run
from certmix.runs.behaviour import changed_parts, key_of
from certmix.runs.folder import CERTIFY, DATABASE, DESCRIPTION
from certmix.runs.sources import Loaded, Sources, SourcesOf, absolute, handed_over, load_data
from certmix.runs.store import WRITES
from certmix.sampling import resolve_device
from certmix.tables.result import Result
from certmix.tables.table import Table
from certmix.verification.checks import CheckResult, Outcome, judged, worst
from certmix.verification.checks import unchecked as unchecked_
from certmix.verification.figures import write_proof
from certmix.verification.guarantees.claim import Claim
from certmix.verification.guarantees.groups import Groups, checksum_of, expanded, groups_of
from certmix.verification.guarantees.guarantee import Guarantee, read_guarantee, source_options
from certmix.verification.guarantees.requirements import Requirement
from certmix.verification.judge import Judgement, figures_of, judge
from certmix.verification.proofs.population import judge_claim
from certmix.verification.rederive import MODEL_CHECKS, PUBLISHED, TABLE, behaviour, recheck, rederive
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import most_drawn_again, resample
from certmix.verification.stored import Run as StoredRun
from certmix.verification.stored import load, opened, read_description

__all__ = ["EXIT_CODES", "Verification", "unchecked", "verify", "verify_guarantee"]

LOOKED_THROUGH = 200  # run folders, for one that serves, and to say what changed
_NAMES = {  # parts of a request whose names are not their words
    "certificates": "certificate", "lipschitz_constant": "Lipschitz constant",
    "constant_of": "what it is a constant of",
}  # fmt: skip


class Stored(NamedTuple):
    """A run of a guarantee's identity: inputs that lack samples or bounds, and how many lack g's answer.

    ``asked``: it was made for this very request, with these models and sources.  ``trusted``: it is finished,
    so that it can be checked whole before it is continued; of others only what they store can.
    """

    folder: Path
    request: dict[str, Any]
    standard: str | None
    lacking: tuple[int, ...]
    unanswered: int
    same_models: bool
    asked: bool
    trusted: bool

    @property
    def current(self) -> bool:
        """Whether nothing needs to be done."""
        whole = self.trusted and self.published and not self.lacking and not self.unanswered
        return self.asked and whole

    @property
    def published(self) -> bool:
        """Whether the run came to the last of its files: one that ended before wants them."""
        logs = [name for name in (LOG, RADII_FILE) if os.path.isfile(self.folder / name)]
        told = LOG not in logs or "rows_independent" in read_run(self.folder)  # after its log
        return bool(logs) and told and os.path.isfile(self.folder / TABLE)


class Plan(NamedTuple):
    """Where the run lies or will, and the run whose samples serve: in another folder it is only read."""

    folder: Path
    indices: tuple[int, ...]
    found: Stored | None
    why: tuple[str, ...]


class Sampling(NamedTuple):
    """What was done: inputs reused and drawn for, samples (selection included) reused and drawn."""

    reused_inputs: int
    drawn_inputs: int
    reused_samples: int
    drawn_samples: int
    why: tuple[str, ...] = ()


def plan(guarantee: Guarantee, sources: Sources, loaded: Loaded, runs: Path) -> Plan:
    """Return what a guarantee lacks in the folder of runs `runs`; RunError if none there can be read."""
    request, dataset, g = guarantee.asked, loaded.dataset, loaded.standard
    indices = tuple(int(dataset.indices[p]) for p in spread(len(dataset), request.inputs))
    identity = identity_of(request, loaded)
    usual = runs / identity.folder_name()
    others = [
        (folder, identity.differences(stored))
        for folder, described in _run_folders(runs)
        if isinstance(stored := described.get("identity"), dict)
        and str(stored.get("study", CERTIFY)) == identity.study
    ]
    same = [folder for folder, differences in others if not differences]
    found, errors, why = [], [], []
    for folder in dict.fromkeys([*([usual] if os.path.isfile(usual / DESCRIPTION) else []), *same]):
        try:
            if _begun(folder):
                found.append(_stored(folder, request, indices, sources, loaded))
        except RunError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    for role, so in (("robust", "its samples are its own"), ("standard", "no certificate rests on it")):
        claim, model = getattr(guarantee, role), getattr(loaded, role)
        if claim is not None and model is not None and claim.checksum not in (None, model.checksum):
            sums = f"({claim.checksum[:12]} then, {model.checksum[:12]} now)"
            why.append(f"The {role} classifier changed since the guarantee was written {sums}; {so}.")
    if not found:
        work = "sampled" if isinstance(request, CertifyRequest) else "computed"
        path, differences = min(others, key=lambda other: len(other[1]), default=(usual, []))
        seen = f"; the nearest run is {path.name} ({'; '.join(differences)})" if differences else ""
        none = f"No run of these data, model and noise is in {runs}: {len(indices)} inputs are {work}{seen}."
        return Plan(usual, indices, None, (*why, none))
    mark = digest_of([request.as_dict(), "" if g is None else g.checksum])[:8]
    own = usual.with_name(f"{usual.name}.{mark}")

    def rank(one: Stored) -> tuple[Any, ...]:
        """How well it serves: it is gone on with for the first three; with the same g, with few to come."""
        begun = one.asked and not (one.trusted and one.published)
        return one.current, one.folder == own, begun, one.same_models, -len(one.lacking), -one.unanswered

    best = max(found, key=rank)
    continued = any(rank(best)[:3])
    why.append(_what_is_done(request, best.request, best.lacking, len(indices)))
    if g is not None and best.unanswered:
        changed = "changed" if best.standard not in (None, g.checksum) else "has not seen all inputs"
        told = f"its answers to {best.unanswered} clean inputs are computed, for which no noise is drawn"
        why.append(f"The standard classifier {changed}: {told}.")
    if not continued:
        why.append(f"{best.folder} is only read: its samples are copied to {own.name}.")
    return Plan(best.folder if continued else own, indices, best, tuple(why))


def _begun(folder: Path) -> bool:
    """Whether a run has a request or numbers; one that was stopped before is begun again where it lies."""
    if "request" in read_run(folder):
        return True
    with suppress(RunError), closing(opened(folder)) as store:
        return store.begun()
    return False


def _stored(
    folder: Path, request: Request, indices: tuple[int, ...], sources: Sources, loaded: Loaded
) -> Stored:
    described = read_run(folder)
    if "request" in described:
        described, _ = read_description(folder)
    else:  # it was stopped before it began: nothing was asked for
        described = {**described, "request": {}, "models": {}}
    g, answered = loaded.standard, set(indices)
    with closing(opened(folder, loaded.dataset.classes)) as store:
        if isinstance(request, CertifyRequest):
            inputs = store.inputs(ballots=request.gated)
            there = [inputs[i] for i in indices if i in inputs]
            ready = {record.index for record in bound_records(there, request).records}
            answered = answered if g is None else set(store.standard(g.checksum))
        else:
            ready = set.intersection(*map(store.known, needed_cells(request)))
            answered = answered if g is None else store.known(standard_logits(g.checksum))
    own = {role: None if model is None else model.checksum for role, model in loaded.models.items()}
    models = {role: described["models"].get(role) for role in own}
    sums = {role: one.get("checksum") if isinstance(one, dict) else None for role, one in models.items()}
    same_models = sums == own
    same = same_models and absolute(described.get("sources", {})) == _plain(absolute(sources.as_dict()))
    asked = same and described["request"] == _plain(request.as_dict())
    lacking = tuple(index for index in indices if index not in ready)
    unanswered = sum(index not in answered for index in indices)
    trusted = same and is_finished(folder)
    before = described["request"], sums["standard"]
    return Stored(folder, *before, lacking, unanswered, same_models, asked, trusted)


def _plain(settings: dict[str, Any]) -> Any:
    """Return settings as JSON has them: lists for tuples."""
    return json.loads(json.dumps(settings))


def _run_folders(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the readable run folders of a folder, by name, with their descriptions."""
    for path in sorted(runs.glob(f"*/{DESCRIPTION}"))[:LOOKED_THROUGH]:
        with suppress(RunError):
            yield path.parent, read_run(path.parent)


# What changed since a guarantee was written and since its run was made, in words.


def _what_changed(runs: Path, checksum: str, model: LoadedModel) -> str:
    """Say which parts of a model changed since a run in `runs` was made with one of that checksum."""
    for _, described in _run_folders(runs):
        with suppress(KeyError, TypeError, AttributeError):
            for one in described["models"].values():
                if one is not None and one["checksum"] == checksum:
                    return changed_parts(one["parts"], model.parts)
    return ""


def _what_is_done(request: Request, before: dict[str, Any], lacking: Sequence[int], count: int) -> str:
    """Say what the stored run was asked differently, and how many inputs it is enough for."""
    now = _plain(request.as_dict())
    changed = []
    for name in now:
        if before.get(name) != now[name]:
            was, wanted = (
                ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                for value in (before.get(name), now[name])
            )
            changed.append(f"{_NAMES.get(name, name.replace('_', ' '))} ({was} before, {wanted} now)")
    what, done = ("samples", "drawn") if isinstance(request, CertifyRequest) else ("results", "computed")
    reason = f"Changed: {', '.join(changed)}. " if changed else ""
    if not lacking:
        return f"{reason}The stored {what} of all {count} inputs are enough: nothing is {done}."
    reason = reason or "The run was interrupted. "
    return f"{reason}{count - len(lacking)} inputs have all {what}, {len(lacking)} lack some or all."


# Drawing.


def draw(
    guarantee: Guarantee, sources: Sources, loaded: Loaded, planned: Plan, *, fresh: bool,
    budget: Budget | None = None, **work: Any,
) -> Sampling:  # fmt: skip
    """Draw what is lacking by `run_certify`, whose options `work` are; Interrupted if it was.

    What a `budget` was too short for is lacking still, and the budget says so.
    """
    request, classes, wanted = guarantee.asked, loaded.dataset.classes, set(planned.indices)
    folder, found, sampled = planned.folder, planned.found, isinstance(guarantee.asked, CertifyRequest)

    def samples() -> int:
        if not isinstance(request, CertifyRequest) or not os.path.isfile(folder / DATABASE):
            return 0
        with closing(opened(folder, classes)) as store:
            drawn = [one.drawn for index, one in store.inputs().items() if index in wanted]
        return sum(drawn) + request.selection_samples * len(drawn)

    if found is not None and found.current and not fresh:
        if os.path.exists(found.folder / f"{DATABASE}{WRITES}"):  # of a process that was killed
            with suppress(RunError):  # or that is at work
                Run(found.folder, identity_of(request, loaded), classes).close()
        return Sampling(len(wanted), 0, samples(), 0, planned.why)
    if found is not None and found.folder != folder and not fresh:  # copy what can be used of it
        models = [model for model in loaded.models.values() if model is not None]
        sums = [model.checksum for model in models]
        identity = identity_of(request, loaded)
        with closing(opened(found.folder, classes)) as stored, Run(folder, identity, classes) as run:
            for key in ["bound", "gates", "fixed_samples", *map(key_of, models)]:
                if (value := stored.get(key)) is not None:
                    run.store.put(key, value)
            if sampled:
                run.store.write_inputs(
                    one for index, one in stored.inputs(ballots=True).items() if index in wanted
                )
            for cell in stored.cells():
                answers = cell.startswith("standard ")
                indices = sorted(stored.known(cell) & wanted)
                if indices and (cell.rpartition(" ")[2] in sums if answers else not sampled):
                    run.store.write(cell, indices, stored.read(cell, indices))
    lacking = planned.indices if fresh or found is None else found.lacking
    before = 0 if fresh or found is None else samples()
    drawn = run_certify(request, sources, output=folder, fresh=fresh, budget=budget, **work)
    if not (drawn.summary.complete or (budget is not None and budget.short)):
        raise Interrupted("interrupted before all samples of the guarantee were drawn")
    return Sampling(len(wanted) - len(lacking), len(lacking), before, samples() - before, planned.why)


EXIT_CODES = {Outcome.HOLDS: 0, Outcome.FAILS: 1, Outcome.UNCHECKED: 2}  # what a shell is told

Again = Callable[[int, int], None] | None


@dataclass(frozen=True, repr=False)
class Verification(Result):
    """What came out of a guarantee or a run: checks, and verdicts on requirements.

    ``run`` is the run folder, None if none was reached; ``sampling`` what was reused and drawn, and ``claim``
    of what and at which confidence verdicts are, None for runs; ``lines`` those of the requirements in the
    guarantee file.
    """

    target: str
    kind: str
    run: Path | None
    sampling: Sampling | None
    checks: tuple[CheckResult, ...]
    judgements: tuple[Judgement, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)
    claim: Claim | None = None

    @property
    def outcome(self) -> Outcome:
        """The gravest outcome of all."""
        return worst([*self.checks, *self.judgements])

    def __str__(self) -> str:
        lines = [f"{one[2]}: {one[1]}: {one[3]}" for one in self.table.rows]
        return "\n  ".join([self.table.title, *lines, *self.table.notes]) + "\n"

    @property
    def table(self) -> Table:
        """The requirements and checks, a row each."""
        judged = [("requirement", str(one.requirement), one.outcome, one.message) for one in self.judgements]
        checked = [("check", one.check, one.outcome, one.message) for one in self.checks]
        rows = tuple((kind, name, str(outcome), said) for kind, name, outcome, said in judged + checked)
        held = sum(outcome is Outcome.HOLDS for _, _, outcome, _ in judged + checked)
        title, about = f"{self.kind} {self.target}: {self.outcome}", f"{held} of {len(rows)} hold"
        notes = () if self.claim is None else tuple(self.claim.sentences())
        return Table("verification", title, about, ("kind", "name", "outcome", "message"), rows, notes)

    @property
    def exit_code(self) -> int:
        """0 holds, 1 falls short or was tampered with, 2 could not be checked."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema_version": 1, "target": self.target, "kind": self.kind,
            "outcome": str(self.outcome), "exit_code": self.exit_code,
            "run": None if self.run is None else str(self.run),
            "sampling": None if self.sampling is None else self.sampling._asdict(),
            "requirements": [one.as_dict() for one in self.judgements],
            "confidence": None if self.claim is None else self.claim.confidence,
            "claim": None if self.claim is None else self.claim.as_dict(),
            "checks": [check.as_dict() for check in self.checks],
        }  # fmt: skip


CONTRADICTS = "the stored run contradicts itself; restore it, or start over with --fresh"
CHANGED = "a model is not the one that the stored run was made with; restore it, or start over with --fresh"


def verify(
    target: str | Path,
    request: VerifyRequest | None = None,
    *,
    sources: Sources | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[Any], None] | None = None,
    again: Again = None,
) -> Verification:
    """Verify a guarantee file, or the folder of a run.

    `sources` hold the data and models of a run that was made from Python objects.  `say`, `progress` and
    `again` receive remarks, the progress of sampling, and (done, total) of sampling again.  Raises
    CertmixError if something that is needed is missing, unreadable or malformed.
    """
    request = request or VerifyRequest()
    run = Path(target)
    with guard.failing_closed():
        if not os.path.isdir(run):
            if sources is not None:
                remedy = "a guarantee names its own models and data: leave them out"
                raise ParameterError(f"{target} is no run folder: {remedy}")
            return verify_guarantee(read_guarantee(run), request, say=say, progress=progress, again=again)
        given = _given(run, sources)
        stored = load(run)
        checks = rederive(stored, device=request.device, run_code=request.run_code, **given)
        told = None if worst(checks) is Outcome.FAILS or is_finished(run) else unfinished(run)
        if told is None:
            checks += [] if _changed(checks) else resample(stored, request, progress=again, **given)
            checks += _proof(stored, request, checks)
        else:  # no check but this one of a run that contradicts nothing
            checks = [CheckResult("complete run", Outcome.UNCHECKED, told)]
        return Verification(str(run), "run", run, None, tuple(checks))


def _proof(run: StoredRun, request: VerifyRequest, checks: Iterable[CheckResult]) -> list[CheckResult]:
    """Write the proof file that was asked for, unless a check fails: none is left of an earlier time."""
    if request.proof is None:
        return []
    path = Path(request.proof)
    path.unlink(missing_ok=True)
    if worst(checks) is Outcome.FAILS:
        return [CheckResult("proof file", Outcome.UNCHECKED, f"{path} is not written: a check fails")]
    return [write_proof(run, path)]


def _given(run: Path, sources: Sources | None) -> dict[str, Any]:
    """Return the data set and the models by role that were handed over; data are read as the run did."""
    if sources is None:
        return {"models": {}}
    stored: Any = read_run(run).get("sources")
    handed = handed_over(stored, sources.handed())
    models = {role: one for role, one in handed.items() if role != "data"}
    if "data" not in handed:
        return {"models": models}
    try:
        named = Sources.from_dict(
            stored, run / DESCRIPTION, given={"standard": None, "robust": None, **handed}
        )
    except TypeError as error:
        raise RunError(f"the sources in {run}/{DESCRIPTION} are not {error}: restore the file") from None
    return {"dataset": load_data(named.as_user()), "models": models}


def unchecked(target: str | Path, reason: str) -> Verification:
    """Return what is reported where verification could not begin or go on."""
    kind = "run" if os.path.isdir(target) else "guarantee"
    check = CheckResult("verification", Outcome.UNCHECKED, reason)
    return Verification(str(target), kind, None, None, (check,))


def _changed(checks: Iterable[CheckResult]) -> bool:
    """Whether a model is not the one that a run was made with: then its samples are others."""
    return any(one.check in MODEL_CHECKS and one.outcome is Outcome.FAILS for one in checks)


def verify_guarantee(
    guarantee: Guarantee,
    request: VerifyRequest,
    *,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[Any], None] | None = None,
    again: Again = None,
) -> Verification:
    """Draw the samples that a guarantee lacks, derive the run again, and judge the requirements.

    A pinned model or data set that changed ends it before anything is drawn, and so does a stored run
    that contradicts itself.  Interrupted if sampling was; what was drawn is kept.
    """
    named: dict[str, Any] = {"named_by": str(guarantee.path), "run_code": request.run_code}
    sources, chosen = SourcesOf(**source_options(guarantee), **named), resolve_device(request.device)
    loaded = load_models(guarantee.request, sources, chosen, say)
    dataset = loaded.dataset
    guarantee = replace(guarantee, request=about_data(guarantee.request, dataset))
    groups = groups_of(dataset, guarantee.groups, guarantee)
    asked = _Asked.of(guarantee, loaded, groups)
    broken = _identity_checks(guarantee, loaded, groups, Path(request.runs))
    if worst(broken) is Outcome.FAILS:
        return _result(asked, None, broken, why="data, a group or a pinned model changed")
    if isinstance(guarantee.request, Population):
        work: dict[str, Any] = {"progress": progress, "say": say}
        return _verify_population(asked, guarantee.request, request, sources, loaded, broken, again, work)
    planned = plan(guarantee, sources, loaded, Path(request.runs))
    for sentence in planned.why:
        say(sentence)
    stored = planned.found
    if stored is not None and not stored.current and not request.fresh:
        if stored.trusted:
            before = rederive(stored.folder, device=request.device, run_code=request.run_code)
            before = [one for one in before if one.check != PUBLISHED]  # they are written anew
        else:
            before = recheck(stored.folder, loaded.dataset) + behaviour(stored.folder, loaded, chosen)
        if worst(before) is Outcome.FAILS:
            return _result(asked, planned.folder, [*broken, *before])
    budget = _budget(guarantee, request)
    sampling = draw(
        guarantee, sources, loaded, planned, fresh=request.fresh, budget=budget, device=request.device,
        batch_size=request.batch_size, progress=progress, say=say,
    )  # fmt: skip
    if budget is not None and budget.short:
        told = (
            f"{sampling.drawn_samples:,} samples were drawn, and those left are too few for another input: "
            "repeat the command, which goes on from here, or raise the budget"
        )
        checks = [*broken, unchecked_("budget", told)]
        return _result(asked, planned.folder, checks, why="the budget is spent", sampling=sampling)
    derived = load(planned.folder)
    checks = broken + rederive(derived, device=request.device, run_code=request.run_code)
    checks += [] if _changed(checks) else resample(derived, request, progress=again)
    if worst(checks) is Outcome.FAILS:
        return _result(asked, planned.folder, checks, sampling=sampling)
    checks += _proof(derived, request, checks)
    positions = spread(len(dataset), guarantee.asked.inputs)
    labels, parts = np.asarray(dataset.labels)[positions], {k: own[positions] for k, own in groups.items()}
    found = figures_of(derived, planned.indices, labels, parts)
    verdicts = [judge(one, found, asked.claim.missed) for one, _ in asked.requirements]
    return _result(asked, planned.folder, checks, verdicts, sampling=sampling)


def _budget(guarantee: Guarantee, request: VerifyRequest) -> Budget | None:
    """Return what may be drawn of what is lacking; ParameterError if less than is drawn again."""
    most = request.budget or guarantee.budget
    if most is None:
        return None
    if not isinstance(guarantee.request, CertifyRequest):
        raise ParameterError(f"budget = {most:,}: the guarantee's certificate draws no samples: leave it out")
    again = most_drawn_again(request, guarantee.request)
    if again > most:
        raise ParameterError(
            f"budget = {most:,}: up to {again:,} samples are drawn again alone: raise it, or lower --resample"
        )
    return Budget(most - again)


class _Asked(NamedTuple):
    """What is judged: requirements, each with the one of the file that asks for it, and what that claims."""

    guarantee: Guarantee
    requirements: list[tuple[Requirement, Requirement]]
    claim: Claim

    @classmethod
    def of(cls, guarantee: Guarantee, loaded: Loaded, groups: Groups) -> _Asked:
        """Return what a guarantee asks of data and models."""
        wanted = expanded(guarantee, groups)
        bounds = guarantee.terms.sharing(one for one, _ in wanted)
        norms = {
            role: model.parts["normalisation"]
            for role, model in loaded.models.items()
            if model is not None and model.parts.get("normalisation", "None") != "None"
        }
        return cls(
            guarantee, wanted,
            Claim.of(guarantee.terms, bounds, guarantee.asked, loaded.dataset, norms),
        )  # fmt: skip


def _verify_population(
    judged_of: _Asked,
    asked: Population,
    request: VerifyRequest,
    sources: Sources,
    loaded: Loaded,
    broken: list[CheckResult],
    again: Again,
    work: dict[str, Any],
) -> Verification:
    """Draw what a claim about a population lacks, derive it again, and judge it."""
    if request.budget is not None:
        told = "a claim about a population draws inputs times samples at most"
        raise ParameterError(f"budget = {request.budget:,}: {told}: leave it out")
    run = Path(request.runs) / identity_of(asked, loaded).folder_name()

    def there() -> tuple[int, int]:
        if not os.path.isfile(run / DATABASE) or "request" not in read_run(run):
            return 0, 0
        claim: Any = show(run)
        return claim.data["draws"], claim.data["samples"]

    before = (0, 0) if request.fresh else there()
    how = {"fresh": request.fresh, "device": request.device, "batch_size": request.batch_size, **work}
    found = run_certify(asked, sources, output=run, **how)
    if found.interrupted:
        raise Interrupted("interrupted before the claim was decided")
    claim = found.claim
    sampling = Sampling(before[0], claim.draws - before[0], before[1], claim.samples - before[1])
    derived = load(run)
    checks = broken + rederive(derived, device=request.device, run_code=request.run_code)
    checks += [] if _changed(checks) else resample(derived, request, progress=again)
    if worst(checks) is Outcome.FAILS:
        return _result(judged_of, run, checks, sampling=sampling)
    checks += _proof(derived, request, checks)
    verdicts = [Judgement(one, *judge_claim(one, claim)) for one, _ in judged_of.requirements]
    return _result(judged_of, run, checks, verdicts, sampling=sampling)


def _result(
    asked: _Asked,
    run: Path | None,
    checks: Iterable[CheckResult],
    verdicts: Iterable[Judgement] | None = None,
    *,
    why: str = "",
    sampling: Sampling | None = None,
) -> Verification:
    """Return what came out: verdicts, or why nothing was judged."""
    if verdicts is None:
        why = why or (CHANGED if _changed(checks) else CONTRADICTS)
        sampling = sampling or Sampling(0, 0, 0, 0, (f"Not sampled: {why}.",))
        told = f"not judged: {why}"
        verdicts = [Judgement(one, Outcome.UNCHECKED, None, None, told) for one, _ in asked.requirements]
    guarantee = asked.guarantee
    lines = {
        str(one): guarantee.lines[named] for one, named in asked.requirements if named in guarantee.lines
    }
    return Verification(
        str(guarantee.path), "guarantee", run, sampling, tuple(checks), tuple(verdicts), lines, asked.claim
    )


def _identity_checks(guarantee: Guarantee, loaded: Loaded, groups: Groups, runs: Path) -> list[CheckResult]:
    """Are the data, their groups, and the models that are pinned, those that the guarantee is about?"""
    pins: list[tuple[str, str | None, Any]] = [("data", guarantee.data.checksum, loaded.dataset)]
    for role in ("standard", "robust"):
        claim = getattr(guarantee, role)
        if claim is not None and claim.pin:
            pins.append((f"{role} classifier", claim.checksum, getattr(loaded, role)))
    found = []
    for name, named in guarantee.groups.items():
        if named.checksum is not None:
            own, what = checksum_of(groups[name]), f"pinned group {name}"
            said = f"{own[:12]} is not {named.checksum[:12]}, that of the guarantee: restore its names"
            found.append(judged(what, [(None, said)] * (own != named.checksum), f"checksum {own[:12]}"))
    for what, wanted, now in pins:
        doubt, outcome = getattr(now, "doubt", ""), Outcome.HOLDS
        said = f"checksum {now.checksum[:12]} as in the guarantee"
        if wanted is None:
            continue
        if wanted != now.checksum:
            told = "" if what == "data" else _what_changed(runs, wanted, now)
            said = f"checksum {now.checksum[:12]} is not {wanted[:12]}, that of the guarantee"
            said += f"{told and f' ({told})'}: restore what it was written for, or write a new guarantee"
            outcome = Outcome.FAILS
        elif doubt:  # nothing vouches for the model: that it is not refuted is all that is known
            outcome, said = Outcome.UNCHECKED, f"{said}, which does not vouch for it: {doubt}"
        found.append(CheckResult(f"pinned {what}", outcome, said))
    return found
