"""Certified MixedNUTS: choose a transform inside the expectation on some inputs, certify it on the others."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import asdict
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri

from certmix.certification.describe import description
from certmix.certification.evaluate import Evaluation, evaluate
from certmix.certification.run import run_certify
from certmix.certification.tuned import TuneRequest
from certmix.data import restrict, spread
from certmix.errors import DataError, Interrupted, ModelError
from certmix.files import COPY_IT, LINK_OUT, digest_of, leads_out, read_file, write_atomically
from certmix.nuts.description import MixSettings
from certmix.nuts.folder import FILE
from certmix.nuts.margins import softmax_numpy
from certmix.nuts.mixture import TransformedRobust
from certmix.nuts.transform import NonlinearTransform
from certmix.runs import Store, StudyIdentity
from certmix.runs.attacking import outputs
from certmix.runs.cells import Batch, Cell, Cells, Progress, fill
from certmix.runs.folder import DATABASE, NOISE_VERSION
from certmix.runs.opening import open_run
from certmix.runs.records import InputRecord
from certmix.runs.sources import Loaded, Sources, load_sources
from certmix.sampling import Draw, Sampler, resolve_device
from certmix.studies.nuts_certified_plan import ALPHAS, NoisyLogits, Plan, plan_mix, right_over_alphas
from certmix.studies.nuts_choices import CertifiedRequest
from certmix.studies.nuts_fit import save_mix
from certmix.studies.shares import estimated_accuracy
from certmix.studies.study import CLEAN, Numbers, Shown, StudyResult, Surroundings, some
from certmix.tables.table import Quantity, Table
from certmix.types import CertifiedShare, EstimatedAccuracy, FloatArray, IntArray

__all__ = ["CertifiedFit", "CertifiedRequest", "CertifiedRow", "nuts_certified"]

STUDY = "nuts-certified"
NOISY = "noisy"
CERTIFIED = "certified"
"""Folder of the runs that certify, below the study's; key of all transforms that were certified."""

COMPARED = "compared"
"""Key of the runs and inputs behind the table that was published last."""

FLATTERED = "the transform was changed after another had been certified"


@dataclass(frozen=True, eq=False)
class CertifiedRow:
    """One certification of inputs that were not tuned on; ``evaluation`` is all that was found.

    ``clean``, of the mix, is a plug-in estimate; ``certified`` is at the radius, of the inputs ``held``, bool
    (m,).  ``margins`` (m,) are h's at the radius if its means were those seen, -1 where h is wrong:
    estimates.
    """

    name: str
    evaluation: Evaluation
    clean: EstimatedAccuracy
    certified: CertifiedShare
    held: NDArray[np.bool_]
    margins: FloatArray

    @property
    def alpha(self) -> float:
        """The mixing weight."""
        return self.evaluation.summary.alpha

    @property
    def threshold(self) -> float:
        """(1 - alpha) / alpha: what the margin must exceed."""
        return (1.0 - self.alpha) / self.alpha


@dataclass(frozen=True, eq=False)
class CertifiedFit:
    """The plan, the logits behind it, and the certifications: ``transform`` and ``hard`` as planned.

    ``matched`` are votes where their mix is as accurate as the transform's, None where no alpha makes it so.
    """

    plan: Plan
    logits: NoisyLogits
    transform: CertifiedRow
    hard: CertifiedRow
    matched: CertifiedRow | None

    @property
    def settings(self) -> MixSettings:
        """The numbers of the mix."""
        return self.plan.settings


def nuts_certified(
    request: CertifiedRequest, sources: Sources | None = None, where: Surroundings | None = None
) -> StudyResult:
    """Choose s, p, c and alpha for certified accuracy at a radius, and certify the mix on other inputs.

    The transform acts on each noisy copy's logits, before the average: h(x) = E softmax(M(base(x + noise))),
    so that all certificates of a smoothed h stand.  It is chosen on noise and inputs of its own; the other
    inputs are then certified, with the transform and with hard votes, by `certmix.certification.run` and its
    confidence bounds.  The robust model of the sources is h's base; None takes the shipped one of the noise
    level.  ``.data`` of the result is the `CertifiedFit`; ``.folder`` loads as ``nuts:FOLDER``.
    """
    named, where = (sources or Sources()).at(request.sigma), where or Surroundings()
    said: set[str] = set()

    def say(message: str) -> None:
        """Tell each warning once, though both certifications load the models again."""
        if message not in said:
            said.add(message)
            where.say(message)

    def report(step: str, progress: Any) -> None:
        if where.progress is not None:
            where.progress(Progress(progress.done, progress.total, step, progress.seconds))

    device = resolve_device(where.device)
    loaded = load_sources(named, request.sigma, device, say)
    dataset, standard, base = loaded.dataset, loaded.standard, loaded.robust
    if standard is None:
        raise ModelError(f"{STUDY} mixes two classifiers: name the accurate one with --standard")
    parts = {
        "data_checksum": dataset.checksum,
        "standard_checksum": standard.checksum,
        "robust_checksum": base.checksum,
        **request.identity(),
        "noise_version": NOISE_VERSION,
    }
    identity = StudyIdentity(STUDY, f"{dataset.name}-{base.name}-sigma{request.sigma:g}", parts)
    described = description(request.as_dict(), loaded, named, device, request.batch_size or 0)
    with open_run(
        identity, loaded, device, lambda run: described,
        output=where.output, in_memory=where.in_memory, fresh=where.fresh, say=where.say, sigma=request.sigma,
    ) as run:  # fmt: skip
        store, positions = run.store, spread(len(dataset), request.inputs)
        rest = np.setdiff1d(np.arange(len(dataset)), positions)
        if len(rest) == 0:
            raise DataError(
                f"{request.inputs} tuning inputs of {len(dataset)} leave none to certify: lower --inputs"
            )
        chosen = rest[spread(len(rest), request.certify_inputs)]
        fill_noisy(store, request, loaded, device, positions, chosen, partial(report, "noisy logits"))
        inputs = dataset.indices[positions].tolist(), dataset.labels[positions].tolist()
        shown = Shown(*inputs, (CLEAN, NOISY), (), True)
        numbers = Numbers.of(store, run.path, {**described, "identity": identity.as_dict()}, shown)
        logits = noisy_logits(numbers, request)
        plan = plan_mix(logits, request)
        # Transforms whose certified rows were shown: another one may rest on what they showed.
        own = json.dumps(asdict(plan.best), sort_keys=True)
        before: list[str] = json.loads(store.get(CERTIFIED) or "[]")
        with _restored(run.path):
            bent = TransformedRobust(base.module, NonlinearTransform.of(plan.best))
            robust: Any = bent.eval()
            keys = ("at_radius", "sigma", "noisy_samples", "samples", "clean_accuracy_floor", "seed")
            how = {"study": STUDY, **{key: getattr(request, key) for key in keys}}
            if run.path is not None and save_mix(
                run.path, plan.settings, named, loaded, logits.indices, how, say,
                copy_weights=request.copy_weights,
            ):  # fmt: skip
                robust = f"nuts:{run.path}#robust"
            if [one for one in before if one != own]:
                note = (
                    f"{FLATTERED} with the same noise: certificates stand only if it was not changed because "
                    "of what that certification showed; otherwise take another --seed"
                )
                say(note)
                numbers = replace(numbers, blind=(f"{note[0].upper()}{note[1:]}.",))
            part = restrict(dataset, rest)
            plain = named.replace(data=part)
            bare = {f"robust_{what}": None for what in ("weights", "normalize", "outputs")}
            soft = plain.replace(
                robust=robust, **bare, robust_files=(), run_code=True
            )  # of the base, which runs already
            runs, records = [], []
            for planned, given in ((plan.transform, soft), (plan.hard, plain)):
                transform = asdict(plan.best) if planned.scores == "soft" else None
                text = json.dumps([part.checksum, planned.scores, transform, request.seed])
                runs.append(f"{planned.scores}-{digest_of(text.encode())[:8]}")
                folder = None if run.path is None else run.path / CERTIFIED / runs[-1]
                result = run_certify(
                    request.certify(*planned.how), given, output=folder, in_memory=folder is None,
                    device=str(device), batch_size=request.batch_size, compiled=False, say=say,
                    progress=partial(report, planned.name),
                )  # fmt: skip
                if not result.summary.complete:
                    raise Interrupted("interrupted before all inputs were certified")
                records.append(result.records)
        if own not in before:
            store.put(CERTIFIED, json.dumps([*before, own]))
        store.put(COMPARED, json.dumps({"runs": runs, "inputs": dataset.indices[chosen].tolist()}))
        return numbers.publish(run, _compared(numbers, request, logits, plan, records))


def fill_noisy(
    store: Store, request: CertifiedRequest | TuneRequest, loaded: Loaded, device: torch.device,
    tuning: IntArray, certified: IntArray, progress: Callable[[Progress], None],
) -> None:  # fmt: skip
    """Compute what the store lacks: noisy logits of the tuning inputs, and g's of all inputs."""
    dataset, standard = loaded.dataset, loaded.standard
    assert standard is not None
    sampler = Sampler(
        loaded.robust.module, dataset.classes, request.sigma, tuning_seed(request.seed), device=device,
        precision=request.precision, batch_size=request.batch_size, scale=dataset.scale,
    )  # fmt: skip

    def drawn(batch: Batch) -> FloatArray:
        input, index = batch.inputs[0].cpu(), int(batch.indices[0])
        wanted = Draw(input, index, (request.noisy_samples,), stream="selection")
        logits: FloatArray = torch.cat([part for _, part in sampler.logits([wanted])]).numpy()
        return logits.reshape(1, -1)

    clean = Cell(CLEAN, lambda batch: outputs([standard.module], batch.inputs))
    todo = Cells([Cell(NOISY, drawn), clean], dataset, device, 1).todo(store, tuning)
    if not fill(store, todo, progress=progress):
        raise Interrupted("interrupted before all tuning logits were drawn")
    if not fill(store, Cells([clean], dataset, device, request.batch_size or 100).todo(store, certified)):
        raise Interrupted("interrupted before all inputs were certified")


def tuning_seed(seed: int) -> int:
    """Return the seed of the tuning noise: another one than certifications with `seed` use."""
    digest = hashlib.blake2b(f"certmix tuning noise 1/{seed}".encode(), digest_size=8).digest()
    return (1 << 63) + (int.from_bytes(digest, "little") >> 1)


def noisy_logits(numbers: Numbers, asked: CertifiedRequest | TuneRequest) -> NoisyLogits:
    """Return what was drawn, from a run's numbers."""
    noisy = numbers.read(NOISY).reshape(len(numbers.indices), asked.noisy_samples, -1)
    return NoisyLogits(numbers.read(CLEAN), noisy, numbers.labels, numbers.indices)


@contextmanager
def _restored(folder: Path | None) -> Iterator[None]:
    """Put the mix back that lay in the run folder, if another is not certified to the end."""
    path = None if folder is None else folder / FILE
    before = None if path is None or not os.path.isfile(path) else read_file(path)
    try:
        yield
    except BaseException:
        if path is not None and before is not None:
            write_atomically(path, before)
        raise


def view(numbers: Numbers) -> StudyResult:
    """Return the table, from the run's logits and from the records of the runs that certify."""
    asked, compared = some(CertifiedRequest, numbers.asked), json.loads(numbers.store.get(COMPARED) or "{}")
    assert numbers.folder is not None
    records = []
    for name in compared["runs"]:
        if Path(name).name != name:
            raise ValueError(f"run {name}")
        database = numbers.folder / CERTIFIED / name / DATABASE
        if leads_out(numbers.folder, f"{CERTIFIED}/{name}/{DATABASE}"):
            raise ValueError(f"run {name} {LINK_OUT}: {COPY_IT}")
        with closing(Store(database, len(numbers.class_names), read_only=True)) as store:
            held = store.inputs()
        records.append([held[index] for index in compared["inputs"]])
    logits = noisy_logits(numbers, asked)
    return _compared(numbers, asked, logits, plan_mix(logits, asked), records)


def _compared(
    numbers: Numbers,
    asked: CertifiedRequest,
    logits: NoisyLogits,
    plan: Plan,
    certified: Sequence[Any],
) -> StudyResult:
    """Return the rows as planned, and votes once more, at an alpha of equal clean accuracy."""
    soft, votes = certified
    indices = [record.index for record in votes]
    standard = softmax_numpy(numbers.store.read(CLEAN, indices))
    probabilities = dict(zip(indices, standard, strict=True))

    def row(name: str, records: Sequence[InputRecord], request: Any) -> CertifiedRow:
        evaluation = evaluate(records, probabilities, request, len(records))
        summary, radii = evaluation.summary, evaluation.radii[1].radius
        selected, samples = np.array([record.selected for record in records]), summary.samples or 0
        right = selected == [record.label for record in records]
        held = right & (radii > 0) & (radii >= asked.at_radius)
        mixed = summary.clean_accuracy.mixed or 0.0
        clean = estimated_accuracy(np.arange(len(records)) < round(mixed * len(records)))
        share = estimated_accuracy(held)
        certified = CertifiedShare(share.correct, share.inputs, share.interval)
        means = np.stack([
            one.scores[samples].means() if samples in one.scores else one.estimation[samples] / samples
            for one in records
        ])  # fmt: skip
        rows, distance = np.arange(len(means)), asked.at_radius / asked.sigma
        p = np.clip(means[rows, selected], 0.0, 1.0)
        means[rows, selected] = 0.0
        q = np.minimum(means.max(1), 1.0 - p)
        margins = np.where(right, ndtr(ndtri(p) - distance) - ndtr(ndtri(q) + distance), -1.0)
        return CertifiedRow(name, evaluation, clean, certified, held, margins)

    transform = row(plan.transform.name, soft, asked.certify(*plan.transform.how))
    hard = row(plan.hard.name, votes, asked.certify(*plan.hard.how))
    frequencies = np.stack([record.selection / record.selection.sum() for record in votes])
    labels = np.array([record.label for record in votes])
    clean = right_over_alphas(standard, frequencies[None], labels)[0]
    enough = np.flatnonzero(clean >= transform.clean.correct)
    matched = None
    if len(enough):
        request = asked.certify(plan.hard.scores, plan.hard.bound, ALPHAS[int(enough[-1])])
        matched = row("hard votes, as accurate", votes, request)
    found = CertifiedFit(plan, logits, transform, hard, matched)
    return StudyResult(_table(numbers, asked, found), data=found)


def _table(numbers: Numbers, asked: CertifiedRequest, found: CertifiedFit) -> Table:
    """Return the study's table: certified rows with the plans beside them, who wins and why."""
    plan, transform, hard, matched = found.plan, found.transform, found.hard, found.matched
    best, models, rows = plan.best, numbers.models, []
    for name, planned, row in (
        (transform.name, plan.transform, transform),
        (f"{hard.name} ({plan.hard.bound})", plan.hard, hard),
        ("softmax as it is", plan.softmax, None),
        ("" if matched is None else matched.name, None, matched),
    ):
        one = row or planned
        if one is not None:
            expected = (None, None) if planned is None else (planned.clean, planned.certified)
            seen: tuple[Any, ...] = (None, None, None)
            if row is not None:
                mean = row.evaluation.summary.rows[1].mean_certified_radius
                seen = (row.clean, row.certified, Quantity(mean, 4, rounding="down"))
            rows.append((name, Quantity(one.alpha, 3), *expected, *seen))
    how = "as asked" if asked.clean_accuracy_floor is not None else "the middle between h's votes and g"
    planning = [
        f"Planned figures are estimates on {plan.transform.clean.inputs:,} tuning inputs, the best there and "
        "therefore optimistic; the other figures are of inputs that were not tuned on.",
        f"Clean accuracy of every mix on the tuning inputs: at least {100 * plan.floor:.1f} % ({how}); "
        f"g alone {100 * plan.standard.accuracy:.1f} %, h's votes alone {100 * plan.votes.accuracy:.1f} %. "
        "Clean accuracies of mixes are plug-in estimates.",
    ]
    if plan.transform.ties > 1:
        planning.append(f"{plan.transform.ties} transforms do equally well on the tuning inputs.")
    if plan.on_edge:
        edges = ", ".join(plan.on_edge)
        planning.append(f"The optimum lies on the grid's edge in {edges}: try a wider --grid.")
    verdict = [_winner(transform, hard, asked.at_radius), _why(transform, hard)]
    if matched is not None:
        verdict.append(
            f"Votes at alpha {matched.alpha:g} are as accurate on these inputs as the transform's mix; "
            "that alpha was chosen on them, which flatters votes. "
            + _winner(transform, matched, asked.at_radius)
        )
    certified = [
        {
            "classifier": row.name, "alpha": row.alpha, "bound": row.evaluation.summary.bound or "",
            "radius": asked.at_radius,
            "correct": row.certified.correct, "inputs": row.certified.inputs,
            "interval": list(row.certified.interval), "failure_probability": asked.failure_probability,
        }
        for row in (transform, hard, matched)
        if row is not None
    ]  # fmt: skip
    return Table(
        name=STUDY,
        title=f"Certified MixedNUTS at l2 radius {asked.at_radius:g}: a transform inside the expectation (%)",
        settings=(
            f"sigma {asked.sigma:g}; s = {best.s:g}, p = {best.p:g}, c = {best.c:g}, "
            f"{best.clamp}; {asked.samples:,} samples, bound {plan.transform.bound}, "
            f"failure probability {asked.failure_probability:g} an input; seed {asked.seed}"
        ),
        headings=(
            "candidate", "alpha", "planned clean", "planned certified", "clean (estimate)", "certified",
            "mean certified radius",
        ),
        rows=tuple(rows),
        notes=(
            *planning,
            *verdict,
            *numbers.blind,
            f"Run: data {numbers.data}; standard {models['standard']}; base of h {models['robust']}.",
        ),
        extra={
            "at_radius": asked.at_radius, "sigma": asked.sigma, "clean_accuracy_floor": plan.floor,
            "transform": asdict(best), "ties": plan.transform.ties, "on_edge": list(plan.on_edge),
            "certified": certified,
        },
    )  # fmt: skip


def _winner(one: CertifiedRow, two: CertifiedRow, at_radius: float) -> str:
    """Say who certifies more at the radius, and whether chance could do it."""
    alone, other = int(np.sum(one.held & ~two.held)), int(np.sum(two.held & ~one.held))
    inputs = one.certified.inputs
    counts = f"{one.name} {one.certified.correct}, {two.name} {two.certified.correct} of {inputs} inputs"
    if alone == other:
        return f"Neither is ahead at {at_radius:g}: {counts}."
    chance = min(1.0, 2.0 * float(bdtr(min(alone, other), alone + other, 0.5)))
    ahead = one.name if alone > other else two.name
    doubt = "" if chance <= 0.05 else ", which chance could do"
    return (
        f"Ahead at {at_radius:g}: {ahead}; {counts} ({alone} by the first alone, {other} by the second "
        f"alone; sign test over inputs p = {chance:.2g}{doubt})."
    )


def _why(one: CertifiedRow, two: CertifiedRow) -> str:
    """Compare margins, margins needed and what the bounds cost, and name those that favour the winner."""
    both = (one.margins > -1.0) & (two.margins > -1.0)
    margins = [float(row.margins[both].mean()) if both.any() else 0.0 for row in (one, two)]
    # Inputs that would be certified if the means seen were the true ones, less those that are.
    lost = [int(np.sum(row.margins > row.threshold)) - row.certified.correct for row in (one, two)]
    gains = {
        "margins": margins[0] - margins[1],
        "margin needed": two.threshold - one.threshold,
        "cost of confidence bounds": float(lost[1] - lost[0]),
    }
    sign = np.sign(one.certified.correct - two.certified.correct)
    favours = [name for name, gain in gains.items() if sign * gain > 0]
    against = [name for name, gain in gains.items() if sign * gain < 0]
    cause = "what favours one is made up for by what favours the other"
    if sign:
        cause = f"{(one if sign > 0 else two).name} ahead by {' and '.join(favours) or 'chance'}"
        cause += f", in spite of {' and '.join(against)}" if against else ""
    return (
        f"Why: {cause}. Margin of h at the radius, averaged over inputs that both have "
        f"right, {margins[0]:.3f} against {margins[1]:.3f}; margin needed, (1 - alpha) / alpha, "
        f"{one.threshold:.3f} against {two.threshold:.3f}; inputs that bounds cost {lost[0]} against "
        f"{lost[1]} (means taken as known: estimates)."
    )
