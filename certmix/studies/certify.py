"""The main study: from data and two models to a certified-accuracy table."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from certmix.data import spread
from certmix.errors import ParameterError, RunError
from certmix.radii import CERTIFICATES
from certmix.records import Identity, ImageRecord, RunFolder, Store, default_folder, write_log
from certmix.records.folder import DATABASE
from certmix.report import write_products
from certmix.sampling import resolve_device
from certmix.studies.describe import description
from certmix.studies.deterministic import DeterministicResult, run_deterministic
from certmix.studies.deterministic_request import DeterministicRequest, draws_no_samples
from certmix.studies.drawing import Context, Progress, draw_samples, standard_outputs
from certmix.studies.evaluate import Evaluation, evaluate, log_rows
from certmix.studies.expect import expectations, reading_notes
from certmix.studies.request import CertifyRequest
from certmix.studies.sources import Loaded, Sources, load_sources
from certmix.types import Summary

__all__ = ["CertifyResult", "CertmixWarning", "Progress", "certify", "run_certify"]

R = TypeVar("R", CertifyRequest, DeterministicRequest)


class CertmixWarning(UserWarning):
    """Something the user should know, though the result stands."""


@dataclass(frozen=True)
class CertifyResult:
    """What a certification run found, and where it lies.

    ``evaluation.summary`` is the table; ``folder`` is None for a run in memory.
    """

    evaluation: Evaluation
    folder: Path | None

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
    **options
        Fields of `certmix.studies.request.CertifyRequest` (images, samples,
        certificates, radii, seed, ...), or, without sigma, ``certificates`` and
        fields of `certmix.studies.deterministic_request.DeterministicRequest`
        (norm, ...); and of
        `certmix.studies.sources.Sources` (data, standard, robust, ...).

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
    if draws_no_samples(certificates, options.get("norm"), sigma):
        plain = {**options, "alpha": alpha, "certificate": certificates[0]}
        plain.pop("certificates")
        asked, named = _divided(DeterministicRequest, plain)
        return run_deterministic(asked, named, **where)
    options.pop("norm", None)
    if "radii" in options:
        options["radii"] = tuple(options["radii"])
    options.update(sigma=sigma, alpha=alpha, certificates=certificates)
    request, sources = _divided(CertifyRequest, options)
    return run_certify(request, sources, **where)


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
) -> CertifyResult:
    """Run or resume one certification; see `certify`.

    Without `output` and not `in_memory`, the folder is ``runs/<identity>``.
    A keyboard interrupt ends the sampling and returns what there is, marked as partial.
    """
    chosen = resolve_device(device)
    loaded = load_sources(sources, request.sigma, chosen, say)
    context = Context(request, loaded, chosen, batch_size, progress, say)
    for note in expectations(request, loaded.dataset.classes):
        say(note)
    if isinstance(request.images, int) and request.images > len(loaded.dataset):
        say(f"{request.images} images asked for, the data has {len(loaded.dataset)}: all are used")
    identity = _identity(request, loaded)
    if in_memory:
        return _fill(context, Store(None, loaded.dataset.classes), None, sources)
    folder = Path(output) if output is not None else default_folder(identity)
    classes = loaded.dataset.classes
    with RunFolder(folder, identity, lambda path: Store(path / DATABASE, classes), fresh=fresh) as run:
        return _fill(context, run.store, run, sources)


def _identity(request: CertifyRequest, loaded: Loaded) -> Identity:
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


def _fill(context: Context, store: Store, run: RunFolder[Store] | None, sources: Sources) -> CertifyResult:
    """Draw what is missing, then evaluate and publish."""
    request, dataset = context.request, context.loaded.dataset
    positions = spread(len(dataset), request.images)
    _fix_design(store, request, run)
    _fix_bound(store, request, context.say)
    if run is not None:
        run.describe(description(request, context.loaded, sources, context.device, context.batch_size))
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
    evaluation = evaluate(records, probabilities, request, len(positions), **_about(context))
    if not complete and evaluation.summary.complete:
        evaluation = replace(evaluation, summary=replace(evaluation.summary, complete=False))
    if run is not None and evaluation.records:
        _publish(run, context, evaluation)
    return CertifyResult(evaluation, None if run is None else run.path)


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
    loaded = context.loaded
    classes = loaded.dataset.classes
    notes = expectations(context.request, classes) + reading_notes(context.request, classes)
    return {
        "data": loaded.dataset.name,
        "standard": None if loaded.standard is None else loaded.standard.name,
        "robust": loaded.robust.name,
        "notes": tuple(notes),
    }


def _publish(run: RunFolder[Store], context: Context, evaluation: Evaluation) -> None:
    """Write the products under the request's name, and the newest at the top."""
    model = context.loaded.standard
    folder = run.results(context.request.name("" if model is None else model.checksum))
    write_products(folder, evaluation.summary, evaluation.curves)
    write_log(folder / "records.tsv", log_rows(evaluation))
    run.publish(folder)
