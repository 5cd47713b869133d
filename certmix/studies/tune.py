"""Tuning: gate of h's votes, temperature of g and alpha, chosen on inputs of which nothing is reported."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

import numpy as np

from certmix.certification.describe import description
from certmix.certification.tuned import Tuned, TuneRequest, input_digests
from certmix.data import spread
from certmix.errors import ModelError
from certmix.runs import StudyIdentity
from certmix.runs.cells import Progress
from certmix.runs.folder import NOISE_VERSION
from certmix.runs.opening import open_run
from certmix.runs.sources import Sources, load_sources
from certmix.sampling import resolve_device
from certmix.studies.nuts_certified import NOISY, fill_noisy, noisy_logits
from certmix.studies.study import CLEAN, Numbers, Shown, StudyResult, Surroundings, some
from certmix.studies.tune_plan import GATED, SPLITS, TunePlan, plan_tuned
from certmix.tables.fronts import front_plot
from certmix.tables.table import Cell, Quantity, Share, Table
from certmix.text import as_given

__all__ = ["TuneRequest", "tune"]

STUDY = "tune"
DATA = "cifar10-tuning"
"""The data set for the shipped models."""
FILE = "tuned.toml"
TUNED = "tuned"
"""Key of the newest choice, as the file holds it."""


def tune(
    request: TuneRequest, sources: Sources | None = None, where: Surroundings | None = None
) -> StudyResult:
    """Choose a gate, a temperature of g and alpha for certified accuracy at a radius.

    They maximise the tuning inputs that are planned to be certified under a floor of the mix's clean
    accuracy; without one, the knee of the front is taken.  Nothing is certified here, and certificates
    of other inputs stand whatever is chosen.  h is the robust model, None for the shipped one of the noise
    level, smoothed.  ``.data`` of the result is the `TunePlan`; the file ``tuned.toml`` of the run folder is
    what ``certmix certify --tuned`` takes.
    """
    named, where = (sources or Sources(data=DATA)).at(request.sigma), where or Surroundings()
    device = resolve_device(where.device)
    loaded = load_sources(named, request.sigma, device, where.say)
    dataset, standard, base = loaded.dataset, loaded.standard, loaded.robust
    if standard is None:
        raise ModelError(f"{STUDY} mixes two classifiers: name the accurate one with --standard")
    for model in (standard, base):
        if model.card is not None and model.card.data_checksum == dataset.checksum:
            where.say(
                f"{model.name} was trained on these inputs, which it knows: what is chosen will do worse on "
                "others; tune on inputs that neither model was trained on"
            )
    parts = {
        "data_checksum": dataset.checksum, "standard_checksum": standard.checksum,
        "robust_checksum": base.checksum, **request.identity(), "noise_version": NOISE_VERSION,
    }  # fmt: skip
    identity = StudyIdentity(STUDY, f"{dataset.name}-{base.name}-sigma{request.sigma:g}", parts)
    described = description(request.as_dict(), loaded, named, device, request.batch_size or 0)

    def report(progress: Progress) -> None:
        if where.progress is not None:
            where.progress(Progress(progress.done, progress.total, "noisy logits", progress.seconds))

    with open_run(
        identity, loaded, device, lambda run: described,
        output=where.output, in_memory=where.in_memory, fresh=where.fresh, say=where.say, sigma=request.sigma,
    ) as run:  # fmt: skip
        positions = spread(len(dataset), request.inputs)
        fill_noisy(run.store, request, loaded, device, positions, np.empty(0, np.int64), report)
        shown = Shown(
            dataset.indices[positions].tolist(), dataset.labels[positions].tolist(), (CLEAN, NOISY), (), True
        )
        numbers = Numbers.of(run.store, run.path, {**described, "identity": identity.as_dict()}, shown)
        found = _result(numbers, request)
        best = found.data.best
        tuned = Tuned(
            sigma=request.sigma, gate=best.candidate.gate,
            standard_temperature=best.candidate.temperature, alpha=best.alpha,
            at_radius=request.at_radius, standard=standard.checksum, robust=base.checksum,
            data=dataset.name, data_checksum=dataset.checksum, inputs=input_digests(dataset, positions),
        )  # fmt: skip
        run.store.put(TUNED, tuned.toml())
        return numbers.publish(run, _result(numbers, request))


def view(numbers: Numbers) -> StudyResult:
    """Return the table, from the run's logits."""
    return _result(numbers, some(TuneRequest, numbers.asked))


def _result(numbers: Numbers, asked: TuneRequest) -> StudyResult:
    plan = plan_tuned(noisy_logits(numbers, asked), asked)
    files = {} if (text := numbers.store.get(TUNED)) is None else {FILE: text.encode()}
    draw = partial(front_plot, plan, asked.at_radius, asked.sigma)
    return StudyResult(_table(numbers, asked, plan), {"front": draw}, plan, files)


def command(numbers: Numbers, asked: TuneRequest, alpha: float) -> str:
    """Return the command that certifies the choice."""
    file = FILE if numbers.folder is None else str(numbers.folder / FILE)
    sigma = as_given(asked.sigma)
    return shlex.join(["certmix", "certify", "--sigma", sigma, "--alpha", as_given(alpha), "--tuned", file])


def _table(numbers: Numbers, asked: TuneRequest, plan: TunePlan) -> Table:
    """Return a row a family: what was chosen, how it does where it was chosen, and on other inputs."""
    best, rows = plan.best, list[tuple[Cell, ...]]()
    for one in plan.choices:
        seen = (None, None) if one.seen is None else (one.seen[1], one.seen[0])
        rows.append((
            one.family, one.candidate.name, Quantity(one.candidate.temperature, 2), Quantity(one.alpha, 3),
            one.clean, one.certified, *map(Share, seen),
        ))  # fmt: skip
    alone = ("", Quantity(None, 2), Quantity(None, 3))
    rows.append(("h alone (votes)", *alone, *plan.robust, Share(None), Share(None)))
    rows.append(("g alone", *alone, plan.standard, Share(None), Share(None), Share(None)))
    floor = (
        "the knee of the front, farthest from the line between h alone and g alone"
        if plan.floor is None
        else f"clean accuracy of at least {100 * plan.floor:.1f} % on these inputs"
    )
    inputs, copies = len(numbers.indices), f"{asked.noisy_samples:,} noisy copies of each input"
    notes = (
        f"Nothing is certified here: these are plans, from {copies}, of what "
        f"{asked.samples:,} samples will give at failure probability {asked.failure_probability:g}.",
        f"Chosen: {floor}. Figures on the inputs that chose are optimistic; on other inputs: the mean over "
        f"{SPLITS} halvings, chosen on one half and seen on the other.",
        f"Certify inputs that were not tuned on: {command(numbers, asked, best.alpha)}",
    )
    return Table(
        name=STUDY,
        title=f"Clean and planned certified accuracy (%) at l2 radius {as_given(asked.at_radius)}",
        settings=f"sigma = {as_given(asked.sigma)}, {inputs:,} tuning inputs of {numbers.data}",
        headings=(
            "family", "chosen", "T of g", "alpha", "clean", "certified", "clean, other inputs",
            "certified, other inputs",
        ),
        rows=tuple(rows),
        notes=notes,
        details=(numbers.provenance_of(asked.seed),),
        extra=_plain(asked, plan),
    )  # fmt: skip


def _plain(asked: TuneRequest, plan: TunePlan) -> dict[str, Any]:
    """Return the choice and the fronts as plain data."""
    best = plan.best
    return {
        "sigma": asked.sigma, "at_radius": asked.at_radius, "clean_accuracy_floor": plan.floor,
        "gate": best.candidate.gate, "standard_temperature": best.candidate.temperature, "alpha": best.alpha,
        "family": GATED,
        "fronts": [
            {"family": one.family, "clean_accuracy": one.clean, "certified_accuracy": one.certified}
            for one in plan.fronts
        ],
    }  # fmt: skip
