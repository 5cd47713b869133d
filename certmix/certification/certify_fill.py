"""One certification's run: held to its plan, filled with what it lacks, evaluated and published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from certmix.certification.begun import forget_begun
from certmix.certification.describe import description
from certmix.certification.evaluate import SETTLED, Evaluation, began_with, choice_notes, evaluate
from certmix.certification.products import particulars, publish
from certmix.certification.request import CertifyRequest
from certmix.certification.sampled import Context, draw_samples, standard_outputs, wants_samples
from certmix.certification.shards import Shard, remember_planned
from certmix.certification.unfinished import is_finished
from certmix.data import spread
from certmix.errors import RunError
from certmix.runs import RunFolder, Store
from certmix.runs.behaviour import hold
from certmix.sampling.devices import PARTLY
from certmix.types import IntArray

__all__ = ["fill"]


def fill(context: Context, store: Store, run: RunFolder | None) -> tuple[Evaluation, bool]:
    """Draw what is missing, then evaluate and publish.

    Parameters
    ----------
    context
        What is asked for, of which data and models.
    store
        Where the samples are kept.
    run
        The folder that `store` lies in; None keeps the run in memory.

    Returns
    -------
    evaluation
        Of what there is now.
    complete
        Whether nothing interrupted the sampling; a shard that did its share is complete.

    Raises
    ------
    RunError
        If bounds of a fixed number of samples would not be valid for this run, or it holds another share of
        the images.
    """
    request, dataset = context.request, context.loaded.dataset
    positions = spread(len(dataset), request.images)
    planned = len(positions)
    everyone = dataset.indices[positions].tolist()
    if run is not None:
        _refuse_another_share(run, context.shard)
    if context.shard is not None:
        positions = context.shard.of_positions(positions)
    new = {} if run is None else _hold_models(context, store, run, positions)
    _fix_design(store, request, run)
    first = began_with(store)
    for name in set(SETTLED) - set(first):
        store.put(name, str(getattr(request, name)))
    remarks = choice_notes(first, request)
    for remark in remarks:
        context.say(remark)
    for key, value in new.items():
        store.put(key, value)
    if context.shard is not None:
        remember_planned(store, everyone)
    if run is not None:
        run.begin(_description(context) | _compiled(context, store, positions, run.described()))
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
    evaluation = evaluate(records, probabilities, request, planned, **_about(context, remarks))
    if not complete and evaluation.summary.complete:
        evaluation = replace(evaluation, summary=replace(evaluation.summary, complete=False))
    if run is not None and evaluation.records and (complete or not is_finished(run.path)):
        publish(run, request, "" if model is None else model.checksum, evaluation)
        if complete:
            forget_begun(store, request.images)
    return evaluation, complete


def _hold_models(context: Context, store: Store, run: RunFolder, positions: IntArray) -> dict[str, str]:
    """Refuse models that are not those of the run; return what is to be kept of new ones, see `hold`."""
    loaded, passes = context.loaded, context.passes
    return hold(
        store, loaded, passes.device, run.path, context.request.sigma,
        wanted=set(loaded.dataset.indices[positions].tolist()), step=passes.batch_size or 100,
    )  # fmt: skip


def _description(context: Context) -> dict[str, Any]:
    """Return what ``run.json`` says, with the engine and the shard."""
    found = description(context.request, context.loaded, context.sources, context.passes)
    shard = {} if context.shard is None else {"shard": context.shard.as_dict()}
    return {**found, "engine": context.engine.described, **shard}


def _compiled(
    context: Context, store: Store, positions: IntArray, before: dict[str, Any]
) -> dict[str, bool | str]:
    """Return whether all of the run's samples are a compiled model's, some, or none."""
    own, earlier = context.passes.compiled, before.get("compiled", False)
    if own == earlier or not store.images():
        return {"compiled": own}
    return {"compiled": PARTLY if wants_samples(context, store, positions) else earlier}


def _refuse_another_share(run: RunFolder, shard: Shard | None) -> None:
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


def _fix_design(store: Store, request: CertifyRequest, run: RunFolder | None) -> None:
    """Hold a run to the number of samples its fixed-size bound was planned for.

    A fixed-size confidence bound is valid only if its number of samples did
    not depend on what earlier samples showed; sequential bounds always are.
    """
    if request.goal != "fixed":
        return
    planned, where = store.get("fixed_samples"), "this run" if run is None else str(run.path)
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


def _about(context: Context, remarks: list[str]) -> dict[str, Any]:
    loaded, shard = context.loaded, context.shard
    if shard:
        remarks = [*remarks, f"Shard {shard}: a share of the images, to be merged with the others."]
    names = {
        "data": loaded.dataset.name,
        "standard": None if loaded.standard is None else loaded.standard.name,
        "robust": loaded.robust.name,
    }
    return particulars(context.request, loaded.dataset.classes, names, remarks)
