"""One certification's run: held to its plan, filled with what it lacks, evaluated and published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from certmix.certification.describe import description
from certmix.certification.evaluate import SETTLED, Evaluation, began_with, choice_notes, evaluate
from certmix.certification.products import particulars, publish, remarks
from certmix.certification.request import CertifyRequest, Shard
from certmix.certification.sampled import Context, draw_samples, standard_outputs, wants_samples
from certmix.certification.stored import remember_planned
from certmix.certification.unfinished import is_finished
from certmix.data import spread
from certmix.errors import RunError
from certmix.runs import Run, Store
from certmix.sampling.devices import PARTLY
from certmix.types import IntArray

__all__ = ["admit", "fill"]


def fill(context: Context, run: Run) -> tuple[Evaluation, bool]:
    """Draw what a run lacks, then evaluate and publish.

    Returns
    -------
    evaluation
        Of what there is now.
    complete
        Whether nothing interrupted the sampling; a shard that did its share is complete.
    """
    request, dataset, store = context.request, context.loaded.dataset, run.store
    everyone = spread(len(dataset), request.images)
    positions = everyone if context.shard is None else context.shard.of_positions(everyone)
    complete = True
    try:
        standard_outputs(context, store, positions)
        draw_samples(context, store, positions)
    except KeyboardInterrupt:
        complete = False
    stored = store.images()
    wanted = [int(dataset.indices[p]) for p in positions]
    records = [stored[i] for i in wanted if i in stored]
    model = context.loaded.standard
    probabilities = {} if model is None else store.standard(model.checksum)
    names = {
        "data": dataset.name,
        "standard": None if model is None else model.name,
        "robust": context.loaded.robust.name,
    }
    about = particulars(request, dataset.classes, names, remarks(began_with(store), request, context.shard))
    evaluation = evaluate(records, probabilities, request, len(everyone), **about)
    if not complete and evaluation.summary.complete:
        evaluation = replace(evaluation, summary=replace(evaluation.summary, complete=False))
    if evaluation.records and (complete or not (run.path and is_finished(run.path))):
        publish(run, request, evaluation)
    return evaluation, complete


def admit(context: Context, run: Run) -> dict[str, Any]:
    """Hold a run to its plan and return what ``run.json`` says of this request.

    Raises
    ------
    RunError
        If bounds of a fixed number of samples would not be valid for this run, or it holds another share of
        the images.
    """
    request, store, dataset, shard = context.request, run.store, context.loaded.dataset, context.shard
    _refuse_another_share(run, shard)
    everyone = spread(len(dataset), request.images)
    positions = everyone if shard is None else shard.of_positions(everyone)
    _fix_design(run, request)
    for name in set(SETTLED) - set(began_with(store)):
        store.put(name, str(getattr(request, name)))
    for remark in choice_notes(began_with(store), request):
        context.say(remark)
    remember_planned(store, request.images, dataset.indices[everyone].tolist())
    found = description(request, context.loaded, context.sources, context.passes)
    described = {**found, "engine": context.engine.described}
    if shard is not None:
        described["shard"] = shard.as_dict()
    return described | _compiled(context, store, positions, run.described())


def _compiled(
    context: Context, store: Store, positions: IntArray, before: dict[str, Any]
) -> dict[str, bool | str]:
    """Return whether all of the run's samples are a compiled model's, some, or none."""
    own, earlier = context.passes.compiled, before.get("compiled", False)
    if own == earlier or not store.images():
        return {"compiled": own}
    return {"compiled": PARTLY if wants_samples(context, store, positions) else earlier}


def _refuse_another_share(run: Run, shard: Shard | None) -> None:
    """Keep whole runs and shards apart: each holds, and publishes, its own share of the images alone.

    Raises
    ------
    RunError
        If the folder's run is of another share.
    """
    described = run.described()
    held = described.get("shard")
    if "request" not in described or held == (None if shard is None else shard.as_dict()):
        return
    if held is None:
        raise RunError(
            f"{run.path} holds a whole run: a shard needs a folder of its own, to be merged; name another "
            "--output, or leave --shard out"
        )
    number = f"{held.get('number')}/{held.get('of')}" if isinstance(held, dict) else "?"
    raise RunError(
        f"{run.path} holds shard {number}: repeat --shard {number}, name another --output for "
        f"{'the whole run' if shard is None else f'shard {shard}'}, or merge shards with certmix merge"
    )


def _fix_design(run: Run, request: CertifyRequest) -> None:
    """Hold a run to the number of samples its fixed-size bound was planned for.

    A fixed-size confidence bound is valid only if its number of samples did
    not depend on what earlier samples showed; sequential bounds always are.
    """
    if request.goal != "fixed":
        return
    store, where = run.store, "this run" if run.path is None else str(run.path)
    planned = store.get("fixed_samples")
    if planned is None and any(record.estimation for record in store.images().values()):
        raise RunError(
            f"{where} was sampled sequentially and its results may have been seen, so bounds of a fixed "
            "size would not be valid: use --goal radii or another --seed (docs/sequential.md#why-it-is-valid)"
        )
    if planned is None:
        store.put("fixed_samples", str(request.samples))
    elif int(planned) != request.samples:
        raise RunError(
            f"{where} was planned for exactly {planned} samples an image and its results may have been seen, "
            f"so bounds for {request.samples} would not be valid, and --fresh draws the same samples again: "
            f"repeat --samples {planned}, or take another --seed (docs/sequential.md#why-it-is-valid)"
        )
