"""Drawing what a run lacks: the standard classifier's outputs, and noisy votes from look to look."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from certmix.bounds.statistics import ScoreStatistics, plan, start, update
from certmix.calling import call_model
from certmix.certification.evaluate import bound_records, radii_of
from certmix.certification.request import CertifyRequest, Shard
from certmix.data import stack
from certmix.errors import RunError
from certmix.files import digest_of
from certmix.models.checks import chance_warning, resolve_robust
from certmix.models.spec import LoadedModel
from certmix.runs import ImageRecord, Store
from certmix.runs.engine import Engine, Handler, Take, Work
from certmix.runs.opening import Named
from certmix.runs.sources import Loaded, Sources
from certmix.sampling import Draw, Sampler, looks
from certmix.sampling.devices import Passes
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.sampler import Pending
from certmix.types import FloatArray, IntArray

EARLY = 50
"""Images after which a model near chance is pointed out."""

AHEAD = {"cuda": 2}
"""Rounds under way on a GPU: one is counted and judged while the other computes."""

MOST_IMAGES = 64
"""Images that are sampled together, at most."""


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
    engine: Engine
    shard: Shard | None = None


@dataclass(frozen=True)
class Job:
    """An image that wants samples: its index and position in the data, and what is known of it."""

    index: int
    position: int
    record: ImageRecord | None


@dataclass(frozen=True)
class Drawn:
    """What a round brought: records as they are now, those that want no more samples, samples drawn."""

    records: list[ImageRecord]
    finished: list[ImageRecord]
    drawn: int


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


def draw_samples(context: Context, store: Store, positions: IntArray) -> None:
    """Draw selection and estimation samples for every image that lacks them, and keep them at once."""
    request, begin = context.request, time.monotonic()
    jobs, complete = _divided(context, store.images(), positions)
    done = right = certified = drawn = 0

    def finish(records: list[ImageRecord]) -> None:
        nonlocal done, right, certified
        if not records:
            return
        before, done = done, done + len(records)
        right += sum(record.selected == record.label for record in records)
        certified += _certified(records, request)
        if before < min(len(positions), EARLY) <= done:
            _warn_near_chance(context, context.loaded.robust, right, done, " under noise")
        if context.progress is not None:
            seconds = time.monotonic() - begin
            context.progress(Progress(done, len(positions), drawn, certified, seconds))

    def keep(found: Drawn) -> None:
        nonlocal drawn
        store.write_images(found.records)
        drawn += found.drawn
        finish(found.finished)

    finish(complete)
    work = Work(
        here=lambda: handler_of(request, context.loaded, context.passes),
        elsewhere=lambda: elsewhere(request, context.sources, context.loaded, context.passes),
        name=lambda job: f"image {job.index}",
    )
    context.engine.run(work, jobs, keep)


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


def elsewhere(
    request: CertifyRequest, sources: Sources, loaded: Loaded, passes: Passes
) -> Callable[[str], Handler]:
    """Return what makes, in another process, a handler of the same data and model."""
    robust = sources.robust
    if not isinstance(robust, torch.nn.Module):
        robust = resolve_robust(robust, request.sigma)
    return partial(_load, request, Named.of(sources, robust, loaded, passes.device, request.sigma), passes)


def _load(request: CertifyRequest, named: Named, passes: Passes, device: str) -> Handler:
    passes = replace(passes, device=torch.device(device))
    return handler_of(request, named.load(passes.device), passes)


@dataclass
class _Round:
    """Images that are sampled together, what was asked for each, and since when."""

    images: list[_Active] = field(default_factory=list)
    asked: list[Draw] = field(default_factory=list)
    pending: Pending | None = None
    since: float = 0.0


def handler_of(request: CertifyRequest, loaded: Loaded, passes: Passes) -> Handler:
    """Return what draws for jobs, round by round, all samples that the request wants.

    As many images are on their way at a time as fill a batch with their first
    looks, so that short requests do not leave a GPU idle; counts do not depend
    on it.  Once time is up, rounds under way end and no more begin; the jobs
    that are returned go on where they are then.
    """
    sampler = Sampler(
        loaded.robust.module, loaded.dataset.classes, request.sigma, request.seed, device=passes.device,
        precision=request.precision, batch_size=passes.batch_size, compiled=passes.compiled,
    )  # fmt: skip
    first = request.samples if request.goal == "fixed" else looks(request.samples)[0]
    shape = loaded.dataset.read(0).shape

    def handle(jobs: list[Job], seconds: float, take: Take) -> list[Job]:
        waiting, end = iter(jobs), time.monotonic() + seconds
        newest: dict[int, ImageRecord] = {}
        finished: set[int] = set()
        rounds = [_Round() for _ in range(AHEAD.get(sampler.device.type, 1))]
        while True:
            for one in rounds:
                if one.images:
                    found, one.images = _finish(request, sampler, one)
                    newest.update((record.index, record) for record in found.records)
                    finished.update(record.index for record in found.finished)
                    take(found)
                if time.monotonic() >= end:
                    one.images = []
                    continue
                room = sampler.width(shape) // max(1, min(first, request.selection_samples))
                while len(one.images) < min(MOST_IMAGES, max(1, room)) and (job := next(waiting, None)):
                    one.images.append(_open(loaded, job, sampler))
                if one.images:
                    one.since, one.asked = time.monotonic(), [_next_draw(i, request) for i in one.images]
                    if request.scores == "hard":
                        one.pending = sampler.submit(one.asked)
            if not any(one.images for one in rounds):
                left = [job for job in jobs if job.index not in finished]
                return [replace(job, record=newest.get(job.index, job.record)) for job in left]

    return handle


def _finish(request: CertifyRequest, sampler: Sampler, one: _Round) -> tuple[Drawn, list[_Active]]:
    """Wait for a round's samples; return what they brought, and the images that want more."""
    if one.pending is not None:
        counts = one.pending.result()
        records = [_with_votes(*three) for three in zip(one.images, one.asked, counts, strict=True)]
    else:
        scorers = [_Scorer(*pair, sampler.classes) for pair in zip(one.images, one.asked, strict=True)]
        for part, scores in sampler.scores(one.asked, request.temperature):
            scorers[part.draw].take(scores, part.begin + part.count)
        records = [scorer.record() for scorer in scorers]
    seconds = (time.monotonic() - one.since) / len(records)
    records = [
        _by(image, record, sampler, seconds) for image, record in zip(one.images, records, strict=True)
    ]
    more = bound_records(records, request).waiting.tolist()
    drawn = sum(record.drawn - image.drawn for record, image in zip(records, one.images, strict=True))
    found = Drawn(records, [record for record, on in zip(records, more, strict=True) if not on], drawn)
    rest = zip(one.images, records, more, strict=True)
    return found, [replace(image, record=record) for image, record, on in rest if on]


@dataclass(frozen=True)
class _Active:
    """An image between two looks; ``record`` is None while its class is not chosen."""

    image: torch.Tensor
    index: int
    label: int
    checksum: str
    record: ImageRecord | None
    noise_error: float
    lost: float

    def begun(self, selection: IntArray, **more: Any) -> ImageRecord:
        """Return the record that holds the selection samples alone."""
        return ImageRecord(
            self.index, self.label, self.checksum, selection, noise_error=self.noise_error, lost=self.lost,
            **more,
        )  # fmt: skip

    @property
    def drawn(self) -> int:
        """Estimation samples drawn so far."""
        return 0 if self.record is None else self.record.drawn


def _by(image: _Active, record: ImageRecord, sampler: Sampler, seconds: float) -> ImageRecord:
    """Note how a record's newest samples were computed.

    Raises
    ------
    RunError
        If its earlier ones were averaged over other places of a batch.
    """
    if image.drawn and record.places != sampler.places:
        raise RunError(
            f"image {record.index} was begun with batches of another size, on whose places the model's "
            "logits depend: repeat that --batch-size, or name another --output"
        )
    seconds += record.seconds
    return replace(record, seconds=seconds, device=sampler.device.type, places=sampler.places)


def _open(loaded: Loaded, job: Job, sampler: Sampler) -> _Active:
    """Read a job's image.

    Raises
    ------
    RunError
        If it is not what it was when its first samples were drawn.
    """
    dataset = loaded.dataset
    values, index = dataset.read(job.position), int(dataset.indices[job.position])
    checksum = digest_of(values.tobytes())
    if job.record is not None and job.record.input_checksum != checksum:
        raise RunError(
            f"image {index} is not what it was when this run began: restore the data, or use --fresh"
        )
    begun_on = sampler.device.type if job.record is None else job.record.device.partition(":")[0]
    if job.record is not None and job.record.drawn and begun_on != sampler.device.type:
        raise RunError(
            f"image {index} was begun on {begun_on}, whose arithmetic is another: use --device {begun_on}, "
            "or name another --output"
        )
    label = int(dataset.labels[job.position])
    error, point = noise_error(sampler.sigma, values.size), Grid.of(sampler.sigma).nearest(values)
    return _Active(torch.from_numpy(values), index, label, checksum, job.record, error, point.lost)


def _next_draw(one: _Active, request: CertifyRequest) -> Draw:
    """Return an image's selection samples, its next look, or all looks of a fixed number of samples."""
    if one.record is None:
        return Draw(one.image, one.index, (request.selection_samples,), stream="selection")
    stops = sorted(n for n in {*looks(request.samples), request.samples} if n > one.drawn)
    if request.goal != "fixed":
        stops = stops[:1]
    return Draw(one.image, one.index, tuple(stops), start=one.drawn)


def _with_votes(one: _Active, draw: Draw, counts: IntArray) -> ImageRecord:
    """Return the image's record with the votes (len(stops), c) of a draw."""
    if one.record is None:
        return one.begun(counts[0])
    base = one.record.estimation.get(one.drawn, 0)
    new = {stop: base + row for stop, row in zip(draw.stops, counts, strict=True)}
    return replace(one.record, estimation={**one.record.estimation, **new})


class _Scorer:
    """Soft scores of one image's draw, as they come; votes are counted besides.

    Selected class, followed rival and expected deviations are fixed by the
    selection samples, in the empty statistics that estimation starts from.
    """

    def __init__(self, one: _Active, draw: Draw, classes: int) -> None:
        self.one, self.stops = one, draw.stops
        record = one.record
        self.statistics = start(classes, 0) if record is None else record.scores[record.drawn]
        self.votes: IntArray = np.zeros(classes, np.int64)
        if record is not None:
            self.votes = record.estimation.get(record.drawn, self.votes)
        self.scores: dict[int, ScoreStatistics] = {}
        self.estimation: dict[int, IntArray] = {}

    def take(self, batch: FloatArray, end: int) -> None:
        """Take the scores of the samples before `end`."""
        self.statistics = update(self.statistics, batch)
        self.votes = self.votes + np.bincount(batch.argmax(1), minlength=len(self.votes))
        if end in self.stops:
            self.scores[end], self.estimation[end] = self.statistics, self.votes

    def record(self) -> ImageRecord:
        """Return the image's record with all that was taken."""
        one = self.one
        if one.record is None:
            planned = {0: plan(self.statistics)}
            return one.begun(self.statistics.totals, scores=planned)
        return replace(
            one.record,
            scores={**one.record.scores, **self.scores},
            estimation={**one.record.estimation, **self.estimation},
        )
