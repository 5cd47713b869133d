"""Drawing what a run still lacks: the standard classifier's outputs and noisy votes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from certmix.bounds.statistics import ScoreStatistics, plan, start, update
from certmix.data import stack
from certmix.errors import RunError
from certmix.models.checks import near_chance
from certmix.models.spec import LoadedModel
from certmix.records import ImageRecord, Store
from certmix.sampling import Sampler, looks
from certmix.studies.evaluate import bound_records, radii_of
from certmix.studies.request import CertifyRequest
from certmix.studies.sources import Loaded
from certmix.types import IntArray

__all__ = ["Context", "Progress", "draw_samples", "standard_outputs"]


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
class Context:
    """What the steps of one run share."""

    request: CertifyRequest
    loaded: Loaded
    device: torch.device
    batch_size: int | None
    progress: Callable[[Progress], None] | None
    say: Callable[[str], None]


def standard_outputs(context: Context, store: Store, positions: IntArray) -> None:
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


def _warn_near_chance(context: Context, model: LoadedModel, right: int, total: int, where: str) -> None:
    if near_chance(right, total, context.loaded.dataset.classes):
        context.say(
            f"{model.name} is right on {right} of {total} images {where}, near chance: "
            "is its normalisation (MEAN/STD inside the model) or the class order wrong?"
        )


def _checksum(array: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def draw_samples(context: Context, store: Store, positions: IntArray) -> None:
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
    radii = radii_of(
        bound_records([record], request).bounds,
        sigma=request.sigma, alpha=request.alpha, certificate=request.certificates[0],
    )  # fmt: skip
    return bool(radii.radius[0] > 0 and record.selected == record.label)


def _sample_image(
    context: Context, sampler: Sampler, record: ImageRecord | None, position: int
) -> ImageRecord:
    """Return the image's record with all samples that the request wants."""
    request, dataset = context.request, context.loaded.dataset
    if record is not None and not bound_records([record], request).waiting[0]:
        return record
    values, index = dataset.read(position), int(dataset.indices[position])
    checksum, start = _checksum(values), time.monotonic()
    image = torch.from_numpy(values)
    if record is None:
        chosen, planned = _select(sampler, image, index, request)
        record = ImageRecord(index, int(dataset.labels[position]), checksum, chosen, scores=planned)
    elif record.input_checksum != checksum:
        raise RunError(
            f"image {index} is not what it was when this run began: restore the data, or use --fresh"
        )
    while bound_records([record], request).waiting[0]:
        record = _draw(sampler, image, record, request)
    seconds = record.seconds + time.monotonic() - start
    return replace(record, device=context.device.type, seconds=seconds)


def _select(
    sampler: Sampler, image: torch.Tensor, index: int, request: CertifyRequest
) -> tuple[IntArray, dict[int, ScoreStatistics]]:
    """Return the votes, or summed soft scores in steps, of the selection samples.

    Soft scores come with the empty statistics that estimation starts from:
    selected class, followed rival and expected deviations are fixed here.
    """
    samples = request.selection_samples
    if request.scores == "hard":
        return sampler.votes(image, index, [samples], stream="selection")[0], {}
    seen = start(sampler.classes, 0)
    for batch in sampler.scores(image, index, samples, stream="selection", temperature=request.temperature):
        seen = update(seen, batch)
    return seen.totals, {0: plan(seen)}


def _draw(sampler: Sampler, image: torch.Tensor, record: ImageRecord, request: CertifyRequest) -> ImageRecord:
    """Return the record with its next look, or with all looks of a fixed number of samples."""
    stops = sorted(n for n in {*looks(request.samples), request.samples} if n > record.drawn)
    if request.goal != "fixed":
        stops = stops[:1]
    if request.scores == "soft":
        return _draw_scores(sampler, image, record, request, stops)
    counts = sampler.votes(image, record.index, stops, start=record.drawn)
    base = record.estimation.get(record.drawn, np.zeros(sampler.classes, np.int64))
    new = {n: base + c for n, c in zip(stops, counts, strict=True)}
    return replace(record, estimation={**record.estimation, **new})


def _draw_scores(
    sampler: Sampler, image: torch.Tensor, record: ImageRecord, request: CertifyRequest, stops: list[int]
) -> ImageRecord:
    """The same for soft scores; votes are counted besides."""
    statistics = record.scores[record.drawn]
    votes = record.estimation.get(record.drawn, np.zeros(sampler.classes, np.int64))
    scores, estimation = dict(record.scores), dict(record.estimation)
    for stop in stops:
        batches = sampler.scores(
            image, record.index, stop, start=statistics.samples, temperature=request.temperature
        )
        for batch in batches:
            statistics = update(statistics, batch)
            votes = votes + np.bincount(batch.argmax(1), minlength=sampler.classes)
        scores[stop], estimation[stop] = statistics, votes
    return replace(record, scores=scores, estimation=estimation)
