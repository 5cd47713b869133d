"""The main study: from data and two models to a certified-accuracy table."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from certmix.data import spread
from certmix.engines import EngineChoice, make_engine
from certmix.errors import ParameterError, RunError
from certmix.radii import CERTIFICATES
from certmix.records import Identity, ImageRecord, RunFolder, Store, default_folder
from certmix.records.folder import DATABASE
from certmix.sampling import resolve_device
from certmix.studies.describe import description
from certmix.studies.deterministic import DeterministicResult, run_deterministic
from certmix.studies.deterministic_request import DeterministicRequest, draws_no_samples
from certmix.studies.drawing import Context, Progress, draw_samples, standard_outputs
from certmix.studies.evaluate import Evaluation, evaluate
from certmix.studies.expect import expectations
from certmix.studies.merge_parts import remember_planned
from certmix.studies.products import particulars, publish
from certmix.studies.request import CertifyRequest
from certmix.studies.shard import Shard
from certmix.studies.sources import Loaded, Sources, load_sources
from certmix.types import Summary

__all__ = ["CertifyResult", "CertmixWarning", "Progress", "certify", "run_certify", "run_identity"]

R = TypeVar("R", CertifyRequest, DeterministicRequest)


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
    progress: Callable[[Any], None] | None = None,
    workers: int = 1,
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
    device, batch_size
        Where and how to run; they do not change what is drawn on one device type.
    progress
        Called after each image, or batch of images.
    workers
        Processes that share the sampling; with another engine than ``local``
        (see **options**) workers of that.
    shard
        ``"2/8"`` does the second of eight shares of the images; see
        `certmix.studies.merge.merge`.
    **options
        Fields of `certmix.studies.request.CertifyRequest` (images, samples,
        certificates, radii, seed, ...), or, without sigma, ``certificates`` and
        fields of `certmix.studies.deterministic_request.DeterministicRequest`
        (norm, ...); of
        `certmix.studies.sources.Sources` (data, standard, robust, ...); and, with
        samples, of `certmix.engines.EngineChoice` (engine, gpus_per_worker, ray_address).

    Returns
    -------
    CertifyResult or DeterministicResult
        ``.summary`` is the table.

    Raises
    ------
    CertmixError
        For anything the user can mend: see `certmix.errors`.
    """
    certificates = tuple(options.get("certificates", CERTIFICATES))
    where: dict[str, Any] = {
        "output": output, "in_memory": output is None, "fresh": fresh, "device": device,
        "batch_size": batch_size, "progress": progress, "say": _warn,
    }  # fmt: skip
    spreading = {name: options.pop(name) for name in EngineChoice.__dataclass_fields__ if name in options}
    choice = EngineChoice(workers=workers, **spreading)
    if draws_no_samples(certificates, options.get("norm"), sigma):
        if choice != EngineChoice() or shard is not None:
            raise ParameterError(
                f"certificate {certificates[0]} draws no samples and runs in one process: leave out workers, "
                "engine and shard"
            )
        plain = {**options, "alpha": alpha, "certificate": certificates[0]}
        plain.pop("certificates")
        asked, named = _divided(DeterministicRequest, plain)
        return run_deterministic(asked, named, **where)
    options.pop("norm", None)
    if "radii" in options:
        options["radii"] = tuple(options["radii"])
    options.update(sigma=sigma, alpha=alpha, certificates=certificates)
    request, sources = _divided(CertifyRequest, options)
    part = None if shard is None else Shard.parse(shard)
    return run_certify(request, sources, engine=choice, shard=part, **where)


def _divided(kind: type[R], options: dict[str, Any]) -> tuple[R, Sources]:
    """Return the request and the sources that options by name describe."""
    fields = [field.name for field in dataclass_fields(kind)]
    wanted = {name: options[name] for name in options if name in fields}
    named = {name: options[name] for name in options if name in Sources.__dataclass_fields__}
    unknown = [name for name in options if name not in {**wanted, **named}]
    if unknown:
        raise ParameterError(f"unknown options: {', '.join(unknown)}; see help(certmix.certify)")
    return kind(**wanted), Sources(**named)


def run_certify(
    request: CertifyRequest,
    sources: Sources,
    *,
    output: str | Path | None = None,
    in_memory: bool = False,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = _warn,
    engine: EngineChoice | None = None,
    shard: Shard | None = None,
) -> CertifyResult:
    """Run or resume one certification; see `certify`.

    Without `output` and not `in_memory`, the folder is ``runs/<identity>``, with
    the shard's number if there is one.  A keyboard interrupt ends the sampling
    and returns what there is, marked as partial.
    """
    chosen = resolve_device(device)
    loaded = load_sources(sources, request.sigma, chosen, say)
    spread_by = make_engine(engine or EngineChoice(), chosen)
    context = Context(request, loaded, sources, chosen, batch_size, progress, say, spread_by, shard)
    for note in expectations(request, loaded.dataset.classes):
        say(note)
    if isinstance(request.images, int) and request.images > len(loaded.dataset):
        say(f"{request.images} images asked for, the data has {len(loaded.dataset)}: all are used")
    identity = run_identity(request, loaded)
    if in_memory:
        return _fill(context, Store(None, loaded.dataset.classes), None)
    folder = Path(output) if output is not None else _default_folder(identity, shard)
    classes = loaded.dataset.classes
    with RunFolder(folder, identity, lambda path: Store(path / DATABASE, classes), fresh=fresh) as run:
        return _fill(context, run.store, run)


def _default_folder(identity: Identity, shard: Shard | None) -> Path:
    folder = default_folder(identity)
    return folder if shard is None else folder.with_name(f"{folder.name}-shard{shard.number}of{shard.of}")


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
        scores="hard" if request.scores == "hard" else f"soft, temperature {request.temperature:g}",
    )


def _fill(context: Context, store: Store, run: RunFolder[Store] | None) -> CertifyResult:
    """Draw what is missing, then evaluate and publish."""
    request, dataset = context.request, context.loaded.dataset
    positions = spread(len(dataset), request.images)
    planned = len(positions)
    if context.shard is not None:
        remember_planned(store, dataset.indices[positions].tolist())
        positions = context.shard.of_positions(positions)
    _fix_design(store, request, run)
    _fix_bound(store, request, context.say)
    if run is not None:
        run.describe(_description(context))
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
    evaluation = evaluate(records, probabilities, request, planned, **_about(context))
    if not complete and evaluation.summary.complete:
        evaluation = replace(evaluation, summary=replace(evaluation.summary, complete=False))
    if run is not None and evaluation.records:
        publish(run, request, "" if model is None else model.checksum, evaluation)
    return CertifyResult(evaluation, None if run is None else run.path, not complete)


def _description(context: Context) -> dict[str, Any]:
    """Return what ``run.json`` says, with the engine and the shard."""
    found = description(context.request, context.loaded, context.sources, context.device, context.batch_size)
    shard = {} if context.shard is None else {"shard": context.shard.as_dict()}
    return {**found, "engine": context.engine.describe(), **shard}


def _fix_design(store: Store, request: CertifyRequest, run: RunFolder[Store] | None) -> None:
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
            "size would not be valid: use --goal radii, or take another --seed, another --output or --fresh"
        )
    if planned is None:
        store.put("fixed_samples", str(request.samples))
    elif int(planned) != request.samples:
        raise RunError(
            f"{where} was planned for exactly {planned} samples an image and its results may have been seen, "
            f"so bounds for {request.samples} would not be valid: repeat --samples {planned}, use "
            "--goal radii, or take another --seed, another --output or --fresh"
        )


def _fix_bound(store: Store, request: CertifyRequest, say: Callable[[str], None]) -> None:
    """Point out a bound that was not the run's first: choosing it after seeing results is not covered."""
    first = store.get("bound")
    if first is None:
        store.put("bound", request.bound_name)
    elif first != request.bound_name:
        say(
            f"this run began with --bound {first}: {request.bound_name} is valid only if it was not chosen "
            "because of what the samples showed"
        )


def _about(context: Context) -> dict[str, Any]:
    loaded, shard = context.loaded, context.shard
    remarks = [f"Shard {shard}: a share of the images, to be merged with the others."] if shard else []
    names = {
        "data": loaded.dataset.name,
        "standard": None if loaded.standard is None else loaded.standard.name,
        "robust": loaded.robust.name,
    }
    return particulars(context.request, loaded.dataset.classes, names, remarks)
