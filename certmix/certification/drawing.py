"""Drawing what a run still lacks: the standard classifier's outputs and noisy votes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from certmix.calling import call_model
from certmix.certification.begun import remember_begun
from certmix.certification.evaluate import bound_records, radii_of
from certmix.certification.request import CertifyRequest
from certmix.certification.rounds import Job
from certmix.certification.shards import Shard
from certmix.certification.workload import Drawn, Elsewhere, Here
from certmix.data import stack
from certmix.engines import Engine, SerialEngine
from certmix.models.checks import chance_warning
from certmix.models.spec import LoadedModel
from certmix.runs import ImageRecord, Store
from certmix.runs.sources import Loaded, Sources
from certmix.sampling.passes import Passes
from certmix.types import IntArray

__all__ = ["Context", "Progress", "draw_samples", "standard_outputs", "wants_samples"]

EARLY = 50
"""Images after which a model near chance is pointed out."""


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
    """What the steps of one run share; `sources` is what other processes load `loaded` from."""

    request: CertifyRequest
    loaded: Loaded
    sources: Sources
    passes: Passes
    progress: Callable[[Progress], None] | None
    say: Callable[[str], None]
    engine: Engine = field(default_factory=SerialEngine)
    shard: Shard | None = None

    def work(self) -> Here | Elsewhere:
        """Return what the engine's workers do."""
        if self.engine.remote:
            return Elsewhere.of(self.request, self.sources, self.loaded, self.passes)
        return Here(self.request, self.loaded, self.passes)


def standard_outputs(context: Context, store: Store, positions: IntArray) -> None:
    """Keep the standard classifier's probabilities for every image that lacks them."""
    model, dataset = context.loaded.standard, context.loaded.dataset
    if model is None:
        return
    known = store.standard(model.checksum)
    missing = [int(p) for p in positions if int(dataset.indices[p]) not in known]
    step = context.passes.batch_size or 100
    for begin in range(0, len(missing), step):
        part = missing[begin : begin + step]
        with torch.inference_mode():
            inputs = torch.from_numpy(stack(dataset, part)).to(context.passes.device)
            logits = call_model(model.module, inputs, model.name)
            probabilities = logits.double().softmax(1).cpu().numpy()
        store.write_standard(model.checksum, dataset.indices[part], probabilities)
    known = store.standard(model.checksum)
    right = sum(int(known[int(dataset.indices[p])].argmax() == dataset.labels[p]) for p in positions)
    _warn_near_chance(context, model, right, len(positions), " on clean inputs")


def _warn_near_chance(context: Context, model: LoadedModel, right: int, total: int, where: str) -> None:
    warning = chance_warning(model.name, right, total, context.loaded.dataset.classes, where)
    if warning:
        context.say(warning)


class _Tally:
    """Counts what is done, and tells."""

    def __init__(self, context: Context, total: int) -> None:
        self.context, self.total, self.start = context, total, time.monotonic()
        self.done = self.right = self.certified = self.drawn = 0

    def finished(self, records: list[ImageRecord]) -> None:
        """Take images that want no more samples."""
        if not records:
            return
        before, context = self.done, self.context
        self.done += len(records)
        self.right += sum(record.selected == record.label for record in records)
        self.certified += _certified(records, context.request)
        if before < min(self.total, EARLY) <= self.done:
            _warn_near_chance(context, context.loaded.robust, self.right, self.done, " under noise")
        if context.progress is not None:
            elapsed = time.monotonic() - self.start
            context.progress(Progress(self.done, self.total, self.drawn, self.certified, elapsed))


def draw_samples(context: Context, store: Store, positions: IntArray) -> None:
    """Draw selection and estimation samples for every image that lacks them, and keep them at once."""
    tally, stored = _Tally(context, len(positions)), store.images()
    lacking, complete = _divided(context, stored, positions)
    tally.finished(complete)

    def keep(found: Drawn) -> None:
        if found.records:
            remember_begun(store, context.request.images)
        store.write_images(found.records)
        tally.drawn += found.drawn
        tally.finished(found.finished)

    context.engine.run(context.work(), lacking, keep)


def wants_samples(context: Context, store: Store, positions: IntArray) -> bool:
    """Whether any image lacks samples."""
    return bool(_divided(context, store.images(), positions)[0])


def _divided(
    context: Context, stored: dict[int, ImageRecord], positions: IntArray
) -> tuple[list[Job], list[ImageRecord]]:
    """Return the images that want samples, with what they have, and the records that want none."""
    indices = context.loaded.dataset.indices[positions].tolist()
    known = [stored[index] for index in indices if index in stored]
    waiting = bound_records(known, context.request).waiting.tolist() if known else []
    complete = {record.index: record for record, more in zip(known, waiting, strict=True) if not more}
    lacking = [
        Job(index, position, stored.get(index))
        for position, index in zip(positions.tolist(), indices, strict=True)
        if index not in complete
    ]
    return lacking, list(complete.values())


def _certified(records: list[ImageRecord], request: CertifyRequest) -> int:
    """How many images the deciding row certifies at some radius > 0."""
    radii = radii_of(
        bound_records(records, request).bounds,
        sigma=request.sigma, alpha=request.alpha, certificate=request.certificates[0],
    )  # fmt: skip
    correct = np.array([record.selected == record.label for record in records])
    return int(((radii.radius > 0) & correct).sum())
