"""A certification, from data and two models to a table: opened, filled by sampling, evaluated, published."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from certmix.certification.describe import description
from certmix.certification.deterministic_request import GivenConstant, Margin, draws_no_samples
from certmix.certification.evaluate import (
    SETTLED,
    Evaluation,
    began_with,
    choice_notes,
    evaluate,
    expectations,
)
from certmix.certification.proved import DeterministicResult, run_deterministic
from certmix.certification.publish import is_finished, particulars, publish, remarks
from certmix.certification.request import OPTION_OF, CertifyRequest, Shard, check_batch_size
from certmix.certification.sampled import Context, Progress, draw_samples, standard_outputs, wants_samples
from certmix.certification.stored import remember_planned
from certmix.data import spread
from certmix.errors import ParameterError, RunError
from certmix.radii import CERTIFICATES
from certmix.runs import Identity, ImageRecord, Run, Store, default_folder
from certmix.runs.behaviour import Original
from certmix.runs.engine import Engine, EngineChoice
from certmix.runs.opening import open_run
from certmix.runs.settings import check_known
from certmix.runs.sources import Loaded, Sources, load_sources
from certmix.sampling import resolve_device
from certmix.sampling.compiling import check_compilable
from certmix.sampling.devices import PARTLY, Passes
from certmix.types import IntArray, Summary

__all__ = [
    "CertifyResult",
    "CertmixWarning",
    "Progress",
    "admit",
    "certify",
    "fill",
    "run_certify",
    "run_identity",
]


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


HELP = "help(certmix.certify)"
KEYWORDS = {
    "sigma", "alpha", "output", "fresh", "device", "batch_size", "compiled", "progress", "workers",
    "executor", "shard",
    *(
        name
        for kind in (CertifyRequest, Margin, GivenConstant, Sources, EngineChoice)
        for name in kind.__struct_fields__
        if name != "certificate"
    ),
}  # fmt: skip
"""What `certify` takes by name, whatever the certificate."""


class CertmixWarning(UserWarning):
    """Something the user should know, though the result stands."""


@dataclass(frozen=True)
class CertifyResult:
    """What a certification run found, and where it lies.

    ``evaluation.summary`` is the table; ``folder`` is None for a run in memory.
    A shard that did its share is a partial result, but not ``interrupted``.
    """

    evaluation: Evaluation
    folder: Path | None
    interrupted: bool = False

    @property
    def summary(self) -> Summary:
        """The table."""
        return self.evaluation.summary

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """The images behind it, with their counts."""
        return self.evaluation.records


def _warn(message: str) -> None:
    warnings.warn(message, CertmixWarning, stacklevel=4)


def certify(
    sigma: float | None,
    alpha: float,
    *,
    output: str | Path | None = None,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    compiled: bool = False,
    progress: Callable[[Any], None] | None = None,
    workers: int | None = 1,
    executor: Executor | None = None,
    shard: str | None = None,
    **options: Any,
) -> CertifyResult | DeterministicResult:
    """Certify the mix of a standard and a robust classifier.

    Every option of ``certmix certify`` has its counterpart here.

    Parameters
    ----------
    sigma
        Noise level of the robust classifier, in units of the input; None for
        the certificates ``margin`` and ``lipschitz-constant``.
    alpha
        Mixing weight in [1/2, 1].
    output
        Run folder; None keeps the run in memory.
    fresh
        Start over in an existing folder.
    device, batch_size, compiled
        Where and how to run; they do not change what is drawn on one device type.  `compiled`
        compiles the robust model before the first batch (``--compile``).
    progress
        Called after each image, or batch of images.
    workers
        Processes that share the work; with another engine than ``local``
        (see **options**) workers of that.  None: on a CPU one a core, in runs that are long enough
        (a script must then call certmix under ``if __name__ == "__main__":``).
    executor
        A `concurrent.futures.Executor` that does the work instead, such as those of Dask or of
        MPI; it gets `workers` tasks at a time, or as many as it says it has workers.
    shard
        ``"2/8"`` does the second of eight shares of the images; see
        `certmix.certification.shards.merge`.
    **options
        Fields of `certmix.certification.request.CertifyRequest` (images, samples,
        certificates, radii, seed, ...), or, without sigma, ``certificates`` and
        fields of `certmix.certification.deterministic_request.DeterministicRequest`
        (norm, ...); of
        `certmix.runs.sources.Sources` (data, standard, robust, ...); and, with
        samples, of `certmix.runs.engine.EngineChoice` (engine, gpus_per_worker, ray_address).

    Returns
    -------
    CertifyResult or DeterministicResult
        ``.summary`` is the table.

    Raises
    ------
    CertmixError
        For anything the user can mend: see `certmix.errors`.
    """
    check_known(options, KEYWORDS, HELP)
    asked = options.get("certificates", tuple(CERTIFICATES))
    certificates = (asked,) if isinstance(asked, str) else tuple(asked)
    if options.get("radii") is None:
        options.pop("radii", None)
    where: dict[str, Any] = {
        "output": output, "in_memory": output is None, "fresh": fresh, "device": device,
        "batch_size": batch_size, "progress": progress, "say": _warn,
        "executor": executor,
    }  # fmt: skip
    spreading = {name: options.pop(name) for name in EngineChoice.__struct_fields__ if name in options}
    choice = EngineChoice(workers=workers, **spreading)
    if draws_no_samples(certificates, options.get("norm"), sigma):
        if shard is not None or compiled:
            raise ParameterError(
                f"certificate {certificates[0]} draws no samples: leave out shard and compiled"
            )
        plain = {**options, "alpha": alpha, "certificate": certificates[0]}
        plain.pop("certificates")
        if plain.get("norm") is None:
            plain.pop("norm", None)
        request, named = _divided(Margin if plain["certificate"] == "margin" else GivenConstant, plain)
        return run_deterministic(request, named, engine=choice, **where)
    options.pop("norm", None)
    for name, (other, wanted) in OPTION_OF.items():
        if name in options and options.get(other) != wanted:
            raise ParameterError(f"{name} = {options[name]} is for {other} = {wanted!r}: leave it out")
    options.update(sigma=sigma, alpha=alpha, certificates=certificates)
    request, sources = _divided(CertifyRequest, options)
    part = None if shard is None else Shard.parse(shard)
    return run_certify(request, sources, engine=choice, shard=part, compiled=compiled, **where)


def _divided(kind: Any, options: dict[str, Any]) -> tuple[Any, Sources]:
    """Return the request and the sources that options by name describe."""
    check_known(options, (*kind.__struct_fields__, *Sources.__struct_fields__), HELP)
    named = {name: options.pop(name) for name in Sources.__struct_fields__ if name in options}
    return kind(**options), Sources(**named)


def run_certify(
    request: CertifyRequest,
    sources: Sources,
    *,
    output: str | Path | None = None,
    in_memory: bool = False,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    compiled: bool = False,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = _warn,
    engine: EngineChoice | None = None,
    executor: Executor | None = None,
    shard: Shard | None = None,
    like: Original | None = None,
) -> CertifyResult:
    """Run or resume one certification; see `certify`.  The models must be those of the run `like`, if any.

    Without `output` and not `in_memory`, the folder is ``runs/<identity>``, with
    the shard's number if there is one.  A keyboard interrupt ends the sampling
    and returns what there is, marked as partial.
    """
    batch_size = check_batch_size(batch_size)
    chosen = resolve_device(device)
    if compiled:
        check_compilable(chosen)
    loaded = load_sources(sources, request.sigma, chosen, say)
    if like is not None:
        like.hold(loaded, chosen)
    spread_by = Engine(engine or EngineChoice(), chosen, executor)
    passes = Passes(chosen, batch_size, compiled)
    context = Context(request, loaded, sources, passes, progress, say, spread_by, shard)
    for note in expectations(request, loaded.dataset.classes):
        say(note)
    if isinstance(request.images, int) and request.images > len(loaded.dataset):
        say(f"{request.images} images asked for, the data has {len(loaded.dataset)}: all are used")
    identity = run_identity(request, loaded)
    if output is None and shard is not None:
        whole = default_folder(identity)
        output = whole.with_name(f"{whole.name}-shard{shard.number}of{shard.of}")
    dataset = loaded.dataset
    positions = spread(len(dataset), request.images)
    wanted = dataset.indices[positions if shard is None else positions[shard.number - 1 :: shard.of]]
    with open_run(
        identity, loaded, chosen, partial(admit, context), output=output, in_memory=in_memory, fresh=fresh,
        classes=dataset.classes, sigma=request.sigma, wanted=set(wanted.tolist()), step=batch_size or 100,
    ) as run:  # fmt: skip
        evaluation, complete = fill(context, run)
        return CertifyResult(evaluation, run.path, not complete)


def run_identity(request: CertifyRequest, loaded: Loaded) -> Identity:
    """Return what decides which samples a request draws: it names the run folder."""
    return Identity(
        data=loaded.dataset.name,
        data_checksum=loaded.dataset.checksum,
        robust=loaded.robust.name,
        robust_checksum=loaded.robust.checksum,
        sigma=request.sigma,
        seed=request.seed,
        selection_samples=request.selection_samples,
        precision=request.precision,
        scores=request.kept,
    )
