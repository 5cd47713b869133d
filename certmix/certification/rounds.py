"""Rounds of sampling: several images side by side, each from one look to the next."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from certmix.bounds.statistics import ScoreStatistics, plan, start, update
from certmix.certification.evaluate import bound_records
from certmix.certification.request import CertifyRequest
from certmix.errors import RunError
from certmix.runs import ImageRecord
from certmix.runs.sources import Loaded
from certmix.sampling import Draw, Sampler, looks
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.passes import Passes
from certmix.sampling.pending import Pending
from certmix.types import FloatArray, IntArray

__all__ = ["Job", "Keep", "sample", "sampler_of"]

Keep = Callable[[list[ImageRecord], list[ImageRecord], int], None]
"""Takes the records a round changed, those that want no more samples, and the number drawn."""

AHEAD = 2
"""Rounds under way on a GPU: one is counted and judged while the other computes."""

MOST_IMAGES = 64


@dataclass(frozen=True)
class Job:
    """An image that wants samples: its index and position in the data, and what is known of it."""

    index: int
    position: int
    record: ImageRecord | None


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


def sampler_of(request: CertifyRequest, loaded: Loaded, passes: Passes) -> Sampler:
    """Return what draws the samples of a request."""
    return Sampler(
        loaded.robust.module, loaded.dataset.classes, request.sigma, request.seed, device=passes.device,
        precision=request.precision, batch_size=passes.batch_size, compiled=passes.compiled,
    )  # fmt: skip


def sample(
    request: CertifyRequest,
    loaded: Loaded,
    jobs: Iterable[Job],
    keep: Keep,
    *,
    sampler: Sampler,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Draw, for every job, all samples that the request wants.

    As many images are on their way at a time as fill a batch with their
    first looks, so that short requests do not leave a GPU idle; counts do not
    depend on it.

    Parameters
    ----------
    request, loaded
        What is wanted, and of which model and data.
    jobs
        Images that want samples.
    keep
        Called after every round.
    sampler
        What `sampler_of` returns for the request, once for all its jobs.
    enough
        Asked before every round; once it says so, rounds under way end and no
        more begin, and images may be left between two looks.

    Raises
    ------
    RunError
        If an image is not what it was.
    """
    waiting = iter(jobs)
    ahead = AHEAD if sampler.device.type == "cuda" else 1
    pools = [_Pool(sampler, request, loaded, keep) for _ in range(ahead)]
    while True:
        for pool in pools:
            pool.finish()
            if not enough():
                pool.begin(waiting)
            else:
                pool.active = []
        if not any(pool.active for pool in pools):
            return


class _Pool:
    """Images that are sampled together, one round after another."""

    def __init__(self, sampler: Sampler, request: CertifyRequest, loaded: Loaded, keep: Keep) -> None:
        self.sampler, self.request, self.loaded, self.keep = sampler, request, loaded, keep
        self.active: list[_Active] = []
        self._asked: list[Draw] = []
        self._pending: Pending | None = None
        self._since = 0.0
        self._shape = loaded.dataset.read(0).shape

    def begin(self, jobs: Iterator[Job]) -> None:
        """Take in new images while there is room, and ask for everybody's next samples."""
        room = self._room()
        while len(self.active) < room:
            job = next(jobs, None)
            if job is None:
                break
            self.active.append(_open(self.loaded, job, self.sampler))
        if not self.active:
            return
        self._since = time.monotonic()
        self._asked = [_next_draw(one, self.request) for one in self.active]
        if self.request.scores == "hard":
            self._pending = self.sampler.submit(self._asked)

    def finish(self) -> None:
        """Wait for the samples that were asked for, keep them, and let go who wants no more."""
        if not self.active:
            return
        records = self._records()
        share = (time.monotonic() - self._since) / len(records)
        device = self.sampler.device.type
        places = self.sampler.places
        records = [_by(one, r, places, device, share) for one, r in zip(self.active, records, strict=True)]
        drawn = sum(r.drawn - one.drawn for r, one in zip(records, self.active, strict=True))
        more = bound_records(records, self.request).waiting.tolist()
        pairs = list(zip(self.active, records, more, strict=True))
        self.active = [replace(one, record=record) for one, record, on in pairs if on]
        self.keep(records, [record for _, record, on in pairs if not on], drawn)

    def _records(self) -> list[ImageRecord]:
        """Return the records of the active images with what was asked for."""
        if self._pending is not None:
            counts = self._pending.result()
            return [
                _with_votes(one, draw, rows)
                for one, draw, rows in zip(self.active, self._asked, counts, strict=True)
            ]
        scorers = [
            _Scorer(one, draw, self.sampler.classes)
            for one, draw in zip(self.active, self._asked, strict=True)
        ]
        for part, scores in self.sampler.scores(self._asked, self.request.temperature):
            scorers[part.draw].take(scores, part.begin + part.count)
        return [scorer.record() for scorer in scorers]

    def _room(self) -> int:
        """How many images fill a batch with their first looks."""
        size = self.sampler.width(self._shape)
        samples = self.request.samples if self.request.goal == "fixed" else looks(self.request.samples)[0]
        return min(MOST_IMAGES, max(1, size // max(1, min(samples, self.request.selection_samples))))


def _by(one: _Active, record: ImageRecord, places: int, device: str, seconds: float) -> ImageRecord:
    """Note how a record's newest samples were computed.

    Raises
    ------
    RunError
        If its earlier ones were averaged over other places of a batch.
    """
    if one.drawn and record.places != places:
        raise RunError(
            f"image {record.index} was begun with batches of another size, on whose places the model's "
            "logits depend: repeat that --batch-size, or name another --output"
        )
    return replace(record, seconds=record.seconds + seconds, device=device, places=places)


def _open(loaded: Loaded, job: Job, sampler: Sampler) -> _Active:
    """Read a job's image.

    Raises
    ------
    RunError
        If it is not what it was when its first samples were drawn.
    """
    dataset = loaded.dataset
    values, index = dataset.read(job.position), int(dataset.indices[job.position])
    checksum = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
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
