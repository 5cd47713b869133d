"""The main study: from data and two models to a certified-accuracy table."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certmix.data import spread, stack
from certmix.errors import ParameterError, RunError
from certmix.models.checks import near_chance
from certmix.models.spec import LoadedModel
from certmix.radii import certify_radii
from certmix.records import Identity, ImageRecord, RunFolder, Store, default_folder, write_log
from certmix.report import write_products
from certmix.sampling import Sampler, looks, resolve_device
from certmix.studies.describe import description
from certmix.studies.evaluate import Evaluation, bound_records, evaluate, log_rows
from certmix.studies.expect import expectations, reading_notes
from certmix.studies.request import CertifyRequest
from certmix.studies.sources import Loaded, Sources, load_sources
from certmix.types import IntArray, Summary

__all__ = ["CertifyResult", "CertmixWarning", "Progress", "certify", "run_certify"]


class CertmixWarning(UserWarning):
    """Something the user should know, though the result stands."""


@dataclass(frozen=True)
class Progress:
    """Reported after each image.

    ``certified`` counts images certified, at any radius > 0, by the row that decides.
    """

    done: int
    total: int
    drawn: int
    certified: int
    seconds: float


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


@dataclass(frozen=True)
class _Context:
    """What the steps of one run share."""

    request: CertifyRequest
    loaded: Loaded
    device: torch.device
    batch_size: int | None
    progress: Callable[[Progress], None] | None
    say: Callable[[str], None]


def _warn(message: str) -> None:
    warnings.warn(message, CertmixWarning, stacklevel=4)


def certify(
    sigma: float,
    alpha: float,
    *,
    output: str | Path | None = None,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> CertifyResult:
    """Certify the mix of a standard and a smoothed robust classifier.

    Every option of ``certmix certify`` has its counterpart here.

    Parameters
    ----------
    sigma
        Noise level of the robust classifier, in units of the input.
    alpha
        Mixing weight in [1/2, 1].
    output
        Run folder; None keeps the run in memory.
    fresh
        Start over in an existing folder.
    device, batch_size
        Where and how to run; they do not change what is drawn on one device type.
    progress
        Called after each image.
    **options
        Fields of `certmix.studies.request.CertifyRequest` (images, samples,
        certificates, radii, seed, ...) and of
        `certmix.studies.sources.Sources` (data, standard, robust, ...).

    Returns
    -------
    CertifyResult
        ``.summary`` is the table.

    Raises
    ------
    CertmixError
        For anything the user can mend: see `certmix.errors`.
    """
    wanted = {
        name: options.pop(name) for name in list(options) if name in CertifyRequest.__dataclass_fields__
    }
    named = {name: options.pop(name) for name in list(options) if name in Sources.__dataclass_fields__}
    if options:
        raise ParameterError(f"unknown options: {', '.join(options)}; see help(certmix.certify)")
    for name in ("certificates", "radii"):
        if name in wanted:
            wanted[name] = tuple(wanted[name])
    request = CertifyRequest(sigma=sigma, alpha=alpha, **wanted)
    return run_certify(
        request, Sources(**named), output=output, in_memory=output is None, fresh=fresh,
        device=device, batch_size=batch_size, progress=progress, say=_warn,
    )  # fmt: skip


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
    context = _Context(request, loaded, chosen, batch_size, progress, say)
    for note in expectations(request, loaded.dataset.classes):
        say(note)
    if isinstance(request.images, int) and request.images > len(loaded.dataset):
        say(f"{request.images} images asked for, the data has {len(loaded.dataset)}: all are used")
    identity = _identity(request, loaded)
    if in_memory:
        return _fill(context, Store(None, loaded.dataset.classes), None, sources)
    folder = Path(output) if output is not None else default_folder(identity)
    with RunFolder(folder, identity, loaded.dataset.classes, fresh=fresh) as run:
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
    )


def _fill(context: _Context, store: Store, run: RunFolder | None, sources: Sources) -> CertifyResult:
    """Draw what is missing, then evaluate and publish."""
    request, dataset = context.request, context.loaded.dataset
    positions = spread(len(dataset), request.images)
    _fix_design(store, request, run)
    if run is not None:
        run.describe(description(request, context.loaded, sources, context.device, context.batch_size))
    complete = True
    try:
        _standard_outputs(context, store, positions)
        _sample(context, store, positions)
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


def _standard_outputs(context: _Context, store: Store, positions: IntArray) -> None:
    """Keep the standard classifier's probabilities for every image that lacks them."""
    model, dataset = context.loaded.standard, context.loaded.dataset
    if model is None:
        return
    known = store.standard(model.checksum)
    missing = [int(p) for p in positions if int(dataset.indices[p]) not in known]
    step = context.batch_size or 100
    for begin in range(0, len(missing), step):
        part = missing[begin : begin + step]
        with torch.inference_mode():
            logits = model.module(torch.from_numpy(stack(dataset, part)).to(context.device))
            probabilities = logits.double().softmax(1).cpu().numpy()
        store.write_standard(model.checksum, dataset.indices[part], probabilities)
    known = store.standard(model.checksum)
    right = sum(int(known[int(dataset.indices[p])].argmax() == dataset.labels[p]) for p in positions)
    _warn_near_chance(context, model, right, len(positions), "on clean inputs")


def _warn_near_chance(context: _Context, model: LoadedModel, right: int, total: int, where: str) -> None:
    if near_chance(right, total, context.loaded.dataset.classes):
        context.say(
            f"{model.name} is right on {right} of {total} images {where}, near chance: "
            "is its normalisation (MEAN/STD inside the model) or the class order wrong?"
        )


def _checksum(array: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _sample(context: _Context, store: Store, positions: IntArray) -> None:
    """Draw selection and estimation samples for every image that lacks them."""
    request, dataset = context.request, context.loaded.dataset
    sampler = Sampler(
        context.loaded.robust.module, dataset.classes, request.sigma, request.seed,
        device=context.device, precision=request.precision, batch_size=context.batch_size,
    )  # fmt: skip
    stored, start, drawn, certified, right = store.images(), time.monotonic(), 0, 0, 0
    for done, position in enumerate(positions, 1):
        index = int(dataset.indices[position])
        before = stored.get(index)
        record = _sample_image(context, sampler, before, int(position))
        if record is not before:
            store.write_image(record)
            drawn += record.drawn - (before.drawn if before else 0)
        right += record.selected == record.label
        certified += _is_certified(record, request)
        if done == min(len(positions), 50):
            _warn_near_chance(context, context.loaded.robust, right, done, "under noise")
        if context.progress is not None:
            elapsed = time.monotonic() - start
            context.progress(Progress(done, len(positions), drawn, certified, elapsed))


def _is_certified(record: ImageRecord, request: CertifyRequest) -> bool:
    """Whether the deciding row certifies the image at some radius > 0."""
    radii = certify_radii(
        bound_records([record], request).bounds,
        sigma=request.sigma, alpha=request.alpha, certificate=request.certificates[0],
    )  # fmt: skip
    return bool(radii.radius[0] > 0 and record.selected == record.label)


def _sample_image(
    context: _Context, sampler: Sampler, record: ImageRecord | None, position: int
) -> ImageRecord:
    """Return the image's record with all samples that the request wants."""
    request, dataset = context.request, context.loaded.dataset
    if record is not None and not bound_records([record], request).waiting[0]:
        return record
    values, index = dataset.read(position), int(dataset.indices[position])
    checksum, start = _checksum(values), time.monotonic()
    image = torch.from_numpy(values)
    if record is None:
        chosen = sampler.votes(image, index, [request.selection_samples], stream="selection")[0]
        record = ImageRecord(index, int(dataset.labels[position]), checksum, chosen)
    elif record.input_checksum != checksum:
        raise RunError(
            f"image {index} is not what it was when this run began: restore the data, or use --fresh"
        )
    while bound_records([record], request).waiting[0]:
        record = _draw(sampler, image, record, request)
    seconds = record.seconds + time.monotonic() - start
    return replace(record, device=context.device.type, seconds=seconds)


def _draw(sampler: Sampler, image: torch.Tensor, record: ImageRecord, request: CertifyRequest) -> ImageRecord:
    """Return the record with its next look, or with all looks of a fixed number of samples."""
    stops = sorted(n for n in {*looks(request.samples), request.samples} if n > record.drawn)
    if request.goal != "fixed":
        stops = stops[:1]
    counts = sampler.votes(image, record.index, stops, start=record.drawn)
    base = record.estimation.get(record.drawn, np.zeros(sampler.classes, np.int64))
    new = {n: base + c for n, c in zip(stops, counts, strict=True)}
    return replace(record, estimation={**record.estimation, **new})


def _about(context: _Context) -> dict[str, Any]:
    loaded = context.loaded
    classes = loaded.dataset.classes
    notes = expectations(context.request, classes) + reading_notes(context.request, classes)
    return {
        "data": loaded.dataset.name,
        "standard": None if loaded.standard is None else loaded.standard.name,
        "robust": loaded.robust.name,
        "notes": tuple(notes),
    }


def _publish(run: RunFolder, context: _Context, evaluation: Evaluation) -> None:
    """Write the products under the request's name, and the newest at the top."""
    model = context.loaded.standard
    folder = run.results(context.request.name("" if model is None else model.checksum))
    write_products(folder, evaluation.summary, evaluation.curves)
    write_log(folder / "records.tsv", log_rows(evaluation))
    run.publish(folder)
