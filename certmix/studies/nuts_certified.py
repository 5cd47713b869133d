"""Certified MixedNUTS: choose a transform inside the expectation on some images, certify it on the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from msgspec.structs import asdict
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri

from certmix.certification.describe import surroundings
from certmix.certification.evaluate import Evaluation, evaluate
from certmix.certification.run import CertifyResult, run_certify
from certmix.data import restrict, spread, stack
from certmix.errors import DataError, Interrupted, ModelError
from certmix.files import digest_of, write_atomically
from certmix.nuts.certified import ALPHAS, NoisyLogits, right_over_alphas, softmax_numpy
from certmix.nuts.description import MixSettings, TuningImages
from certmix.nuts.folder import FILE, save_nuts
from certmix.nuts.mixture import TransformedRobust
from certmix.nuts.transform import NonlinearTransform
from certmix.runs import Run, Store, StudyIdentity
from certmix.runs.attacking import outputs
from certmix.runs.cells import Batch, Cell, Cells, Progress, fill
from certmix.runs.identity import NOISE_VERSION
from certmix.runs.opening import open_run
from certmix.runs.sources import Loaded, Sources, load_sources
from certmix.sampling import Draw, Sampler, resolve_device
from certmix.studies.nuts_certified_plan import CertifiedRequest, Plan, plan_mix
from certmix.studies.nuts_fit import base_models, have_names
from certmix.studies.study import StudyResult, Surroundings, estimated_accuracy
from certmix.tables.formats import write_files
from certmix.tables.table import Quantity, Table
from certmix.types import CertifiedShare, Dataset, EstimatedAccuracy, FloatArray, IntArray

__all__ = ["CertifiedFit", "CertifiedRequest", "CertifiedRow", "Comparison", "nuts_certified"]

STUDY = "nuts-certified"
CLEAN, NOISY = "clean", "noisy"
FLATTERED = "the transform was changed after another had been certified"


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


@dataclass(frozen=True, eq=False)
class CertifiedFit:
    """The plan, the logits behind it, and the certifications of the transform and of hard votes."""

    plan: Plan
    logits: NoisyLogits
    settings: MixSettings
    soft: CertifyResult
    hard: CertifyResult
    comparison: Comparison


@dataclass(frozen=True, eq=False)
class Bench:
    """What the steps of one study share."""

    asked: CertifiedRequest
    sources: Sources
    loaded: Loaded
    device: torch.device
    where: Surroundings
    say: Callable[[str], None]
    store: Store
    run: Run

    def report(self, done: int, total: int, cell: str, seconds: float) -> None:
        """Tell how far the step called `cell` is."""
        if self.where.progress is not None:
            self.where.progress(Progress(done, total, cell, seconds))


def nuts_certified(
    request: CertifiedRequest, sources: Sources | None = None, where: Surroundings | None = None
) -> StudyResult:
    """Choose s, p, c and alpha for certified accuracy at a radius, and certify the mix on other images.

    The transform acts on each noisy copy's logits, before the average: h(x) =
    E softmax(M(base(x + noise))), so that all certificates of a smoothed h
    stand.  It is chosen on noise and images of its own; the other images are
    then certified, with the transform and with hard votes, by
    `certmix.certification.run` and its confidence bounds.

    Parameters
    ----------
    request
        Radius, noise level, and how to choose and certify.
    sources, where
        Data and models (the robust one is h's base; None takes the shipped one
        of the noise level); where and how to run.

    Returns
    -------
    StudyResult
        ``.data`` is the `CertifiedFit`; ``.folder`` loads as ``nuts:FOLDER``.

    Raises
    ------
    CertmixError
        For anything the user can mend.
    """
    named, where = sources or Sources(), where or Surroundings()
    with _open(request, named, where) as bench:
        dataset = bench.loaded.dataset
        positions = spread(len(dataset), request.images)
        rest = np.setdiff1d(np.arange(len(dataset)), positions)
        if len(rest) == 0:
            raise DataError(
                f"{request.images} tuning images of {len(dataset)} leave none to certify: lower --images"
            )
        logits = _draw(bench, positions)
        plan = plan_mix(logits, request)
        settings = MixSettings(plan.best, plan.transform.alpha, temperature=1.0)
        # Transforms whose certified rows were shown: another one may rest on what they showed.
        own = json.dumps(asdict(plan.best), sort_keys=True)
        shown: list[str] = json.loads(bench.store.get("certified") or "[]")
        notes: list[str] = []
        with _restored(bench):
            spec = _save(bench, settings, logits)
            if [one for one in shown if one != own]:
                note = (
                    f"{FLATTERED} with the same noise: certificates stand only if it was not changed because "
                    "of what that certification showed; otherwise take another --seed"
                )
                bench.say(note)
                notes.append(f"{note[0].upper()}{note[1:]}.")
            certified = restrict(dataset, rest)
            soft, hard = _certify(bench, certified, plan, spec)
        if own not in shown:
            bench.store.put("certified", json.dumps([*shown, own]))
        comparison = _compare(bench, certified, plan, soft, hard)
        loaded = bench.loaded
        assert loaded.standard is not None
        notes.append(
            f"Run: data {dataset.name}; standard {loaded.standard.name}; base of h {loaded.robust.name}."
        )
        table = comparison_table(plan, comparison, request, tuple(notes))
        found = CertifiedFit(plan, logits, settings, soft, hard, comparison)
        bench.run.publish(lambda folder: write_files(folder, table))
        return StudyResult(table, data=found, folder=bench.run.path)


# ------------------------------------------------------------ the run folder, and noise of its own for tuning


@contextmanager
def _open(asked: CertifiedRequest, named: Sources, where: Surroundings) -> Iterator[Bench]:
    """Load data and models, and open the run folder; each warning is said once."""
    said: set[str] = set()

    def say(message: str) -> None:
        if message not in said:
            said.add(message)
            where.say(message)

    device = resolve_device(where.device)
    loaded = load_sources(named, asked.sigma, device, say)
    if loaded.standard is None:
        raise ModelError(f"{STUDY} mixes two classifiers: name the accurate one with --standard")
    parts = {
        "data_checksum": loaded.dataset.checksum,
        "standard_checksum": loaded.standard.checksum,
        "robust_checksum": loaded.robust.checksum,
        **asked.identity(),
        "noise_version": NOISE_VERSION,
    }
    label = f"{loaded.dataset.name}-{loaded.robust.name}-sigma{asked.sigma:g}"
    with open_run(
        StudyIdentity(STUDY, label, parts), loaded, device,
        lambda run: surroundings(asked.as_dict(), loaded, named, device, asked.batch_size or 0),
        output=where.output, in_memory=where.in_memory, fresh=where.fresh, sigma=asked.sigma,
    ) as run:  # fmt: skip
        yield Bench(asked, named, loaded, device, where, say, run.store, run)


def tuning_seed(seed: int) -> int:
    """Return the seed of the tuning noise: another one than certifications with `seed` use."""
    digest = hashlib.blake2b(f"certmix tuning noise 1/{seed}".encode(), digest_size=8).digest()
    return (1 << 63) + (int.from_bytes(digest, "little") >> 1)


def _draw(bench: Bench, positions: IntArray) -> NoisyLogits:
    """Draw what the store lacks of the tuning images' logits, and return all of them."""
    asked, loaded, dataset, store = bench.asked, bench.loaded, bench.loaded.dataset, bench.store
    assert loaded.standard is not None
    sampler = Sampler(
        loaded.robust.module, dataset.classes, asked.sigma, tuning_seed(asked.seed), device=bench.device,
        precision=asked.precision, batch_size=asked.batch_size,
    )  # fmt: skip

    def drawn(batch: Batch) -> FloatArray:
        image, index = batch.images[0].cpu(), int(batch.indices[0])
        wanted = Draw(image, index, (asked.noisy_samples,), stream="selection")
        logits: FloatArray = torch.cat([part for _, part in sampler.logits([wanted])]).numpy()
        return logits.reshape(1, -1)

    standard = [loaded.standard.module]
    both = [Cell(NOISY, drawn), Cell(CLEAN, lambda batch: outputs(standard, batch.images))]
    todo = Cells(both, dataset, bench.device, 1).todo(store, positions)
    if not fill(store, todo, progress=lambda p: bench.report(p.done, p.total, "noisy logits", p.seconds)):
        raise Interrupted("interrupted before all tuning logits were drawn")
    indices = dataset.indices[positions]
    noisy = store.read(NOISY, indices.tolist()).reshape(len(positions), asked.noisy_samples, dataset.classes)
    return NoisyLogits(store.read(CLEAN, indices.tolist()), noisy, dataset.labels[positions], indices)


@contextmanager
def _restored(bench: Bench) -> Iterator[None]:
    """Put the mix back that lay in the run folder, if another is not certified to the end."""
    path = None if bench.run.path is None else bench.run.path / FILE
    before = None if path is None or not path.is_file() else path.read_bytes()
    try:
        yield
    except BaseException:
        if path is not None and before is not None:
            write_atomically(path, before)
        raise


def _save(bench: Bench, settings: MixSettings, logits: NoisyLogits) -> str | None:
    """Save the mix into the run folder; return the transformed base's name for certify, None without one."""
    asked, data = bench.asked, bench.loaded.dataset
    if bench.run.path is None or not have_names(bench.sources, bench.say):
        return None
    keys = ("at_radius", "sigma", "noisy_samples", "samples", "clean_accuracy_floor", "seed")
    how = {"study": STUDY, **{key: getattr(asked, key) for key in keys}}
    tuning = TuningImages(data.name, data.split, data.checksum, tuple(logits.indices.tolist()), how)
    bases = base_models(bench.sources, bench.loaded)
    save_nuts(bench.run.path, settings, *bases, tuning=tuning, copy_weights=asked.copy_weights)
    return f"nuts:{bench.run.path.resolve()}#robust"


# ------------------------------------------------------------ certified on other images


def _certify(
    bench: Bench, rest: Dataset, plan: Plan, spec: str | None
) -> tuple[CertifyResult, CertifyResult]:
    """Certify the transform and hard votes on the same images, which were not tuned on."""
    plain = bench.sources.replace(data=rest)
    bent = TransformedRobust(bench.loaded.robust.module, NonlinearTransform.of(plan.best))
    robust = bent.eval() if spec is None else spec
    soft = plain.replace(robust=robust, robust_weights=None, robust_normalize=None, robust_files=())
    results = []
    for planned, named in ((plan.transform, soft), (plan.hard, plain)):
        request = bench.asked.certify(planned.scores, planned.bound, planned.alpha)
        transform = asdict(plan.best) if planned.scores == "soft" else None
        text = json.dumps([rest.checksum, planned.scores, transform, request.seed])
        digest = digest_of(text.encode())[:8]
        folder = (
            None if bench.run.path is None else bench.run.path / "certified" / f"{planned.scores}-{digest}"
        )
        result = run_certify(
            request, named, output=folder, in_memory=folder is None, device=str(bench.device),
            batch_size=bench.asked.batch_size, say=bench.say,
            progress=lambda p, name=planned.name: bench.report(p.done, p.total, name, p.seconds),  # type: ignore[misc]
        )  # fmt: skip
        if not result.summary.complete:
            raise Interrupted("interrupted before all images were certified")
        results.append(result)
    return results[0], results[1]


def _compare(bench: Bench, rest: Dataset, plan: Plan, soft: CertifyResult, hard: CertifyResult) -> Comparison:
    """Return the rows; votes once more, at the alpha that makes their mix as accurate as the transform's."""
    asked, model = bench.asked, bench.loaded.standard
    assert model is not None
    first = certified_row(plan.transform.name, soft.evaluation, asked.at_radius)
    second = certified_row(plan.hard.name, hard.evaluation, asked.at_radius)
    records = hard.records
    images = torch.from_numpy(stack(rest, spread(len(rest), asked.certify_images))).to(bench.device)
    standard: FloatArray = softmax_numpy(outputs([model.module], images))
    frequencies = np.stack([record.selection / record.selection.sum() for record in records])
    clean = np.empty((1, len(ALPHAS)), np.int64)
    labels = np.array([record.label for record in records])
    right_over_alphas(standard, frequencies[None], labels, np.array(ALPHAS), clean)
    enough = np.flatnonzero(clean[0] >= first.clean.correct)
    if not len(enough):
        return Comparison(first, second, None)
    probabilities = dict(zip((record.index for record in records), standard, strict=True))
    request = asked.certify(plan.hard.scores, plan.hard.bound, ALPHAS[int(enough[-1])])
    matched = evaluate(records, probabilities, request, len(records))
    return Comparison(first, second, certified_row("hard votes, as accurate", matched, asked.at_radius))


def certified_row(name: str, evaluation: Evaluation, at_radius: float) -> CertifiedRow:
    """Return the row of one certification."""
    summary, radii, records = evaluation.summary, evaluation.radii[1].radius, evaluation.records
    selected, samples = np.array([record.selected for record in records]), summary.samples or 0
    right = selected == [record.label for record in records]
    held = right & (radii > 0) & (radii >= at_radius)
    mixed = summary.clean_accuracy.mixed or 0.0
    clean = estimated_accuracy(np.arange(len(records)) < round(mixed * len(records)))
    share = estimated_accuracy(held)
    means = np.stack([
        record.scores[samples].means() if samples in record.scores else record.estimation[samples] / samples
        for record in records
    ])  # fmt: skip
    rows, distance = np.arange(len(means)), at_radius / (summary.sigma or 1.0)
    p = np.clip(means[rows, selected], 0.0, 1.0)
    means[rows, selected] = 0.0
    q = np.minimum(means.max(1), 1.0 - p)
    margins = np.where(right, ndtr(ndtri(p) - distance) - ndtr(ndtri(q) + distance), -1.0)
    return CertifiedRow(
        name, summary.alpha, summary.bound or "", clean,
        CertifiedShare(share.correct, share.images, share.interval), summary.rows[1].mean_certified_radius,
        held, margins,
    )  # fmt: skip


def comparison_table(plan: Plan, found: Comparison, asked: CertifiedRequest, notes: tuple[str, ...]) -> Table:
    """Return the study's table: certified rows with the plans beside them, who wins and why."""
    transform, hard, matched, best = found.transform, found.hard, found.matched, plan.best
    rows = []
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
                seen = (row.clean, row.certified, Quantity(row.mean_radius, 4, rounding="down"))
            rows.append((name, Quantity(one.alpha, 3), *expected, *seen))
    how = "as asked" if asked.clean_accuracy_floor is not None else "the middle between h's votes and g"
    planning = [
        f"Planned figures are estimates on {plan.transform.clean.images:,} tuning images, the best there and "
        "therefore optimistic; the other figures are of images that were not tuned on.",
        f"Clean accuracy of every mix on the tuning images: at least {100 * plan.floor:.1f} % ({how}); "
        f"g alone {100 * plan.standard.accuracy:.1f} %, h's votes alone {100 * plan.votes.accuracy:.1f} %. "
        "Clean accuracies of mixes are plug-in estimates.",
    ]
    if plan.ties > 1:
        planning.append(f"{plan.ties} transforms do equally well on the tuning images.")
    if plan.on_edge:
        edges = ", ".join(plan.on_edge)
        planning.append(f"The optimum lies on the grid's edge in {edges}: try a wider --grid.")
    verdict = [_winner(transform, hard, asked.at_radius), _why(transform, hard)]
    if matched is not None:
        verdict.append(
            f"Votes at alpha {matched.alpha:g} are as accurate on these images as the transform's mix; "
            "that alpha was chosen on them, which flatters votes. "
            + _winner(transform, matched, asked.at_radius)
        )
    certified = [
        {
            "classifier": row.name, "alpha": row.alpha, "bound": row.bound, "radius": asked.at_radius,
            "correct": row.certified.correct, "images": row.certified.images,
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
            f"failure probability {asked.failure_probability:g} an image; seed {asked.seed}"
        ),
        headings=(
            "candidate", "alpha", "planned clean", "planned certified", "clean (estimate)", "certified",
            "mean certified radius",
        ),
        rows=tuple(rows),
        notes=(*planning, *verdict, *notes),
        extra={
            "at_radius": asked.at_radius, "sigma": asked.sigma, "clean_accuracy_floor": plan.floor,
            "transform": asdict(best), "ties": plan.ties, "on_edge": list(plan.on_edge),
            "certified": certified,
        },
    )  # fmt: skip


def _winner(one: CertifiedRow, two: CertifiedRow, at_radius: float) -> str:
    """Say who certifies more at the radius, and whether chance could do it."""
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
    sign = np.sign(one.certified.correct - two.certified.correct)
    favours = [name for name, gain in gains.items() if sign * gain > 0]
    against = [name for name, gain in gains.items() if sign * gain < 0]
    cause = "what favours one is made up for by what favours the other"
    if sign:
        cause = f"{(one if sign > 0 else two).name} ahead by {' and '.join(favours) or 'chance'}"
        cause += f", in spite of {' and '.join(against)}" if against else ""
    return (
        f"Why: {cause}. Margin of h at the radius, averaged over images that both have "
        f"right, {margins[0]:.3f} against {margins[1]:.3f}; margin needed, (1 - alpha) / alpha, "
        f"{one.threshold:.3f} against {two.threshold:.3f}; images that bounds cost {lost[0]} against "
        f"{lost[1]} (means taken as known: estimates)."
    )
