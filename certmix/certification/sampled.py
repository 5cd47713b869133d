"""The recipe with noise: votes, or soft scores, of noisy copies, drawn look by look as long as it pays."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from certmix.bounds.statistics import ScoreStatistics, plan, start
from certmix.calling import call_model
from certmix.certification.describe import Recipe, robust_of, views_of
from certmix.certification.evaluate import (
    Bounded,
    Outcomes,
    began_with,
    bound_records,
    choice_notes,
    expectations,
    radii_of,
    settled,
    unanimous,
)
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.soft import sums_of, take_sums
from certmix.certification.stored import remember_planned
from certmix.errors import RunError
from certmix.files import digest_of
from certmix.models.spec import LoadedModel
from certmix.runs import InputRecord, Run, Store
from certmix.runs.cells import Batch, Cell, Found, Progress, Todo
from certmix.runs.engine import Handler, Open, Take, Work
from certmix.runs.opening import Named
from certmix.runs.records import Records, places_of
from certmix.runs.sources import Loaded
from certmix.runs.store import cells_of, standard_cell
from certmix.sampling import Draw, Sampler, looks
from certmix.sampling.compiling import pays
from certmix.sampling.devices import PARTLY, Passes
from certmix.sampling.grid import lost_by
from certmix.sampling.law import noise_error
from certmix.sampling.layout import LaidOut
from certmix.sampling.packing import Part
from certmix.sampling.sampler import Pending
from certmix.types import FloatArray, IntArray

EARLY = 50
"""Inputs after which a model near chance is pointed out."""

AHEAD = {"cuda": 2}
"""Rounds under way on a GPU: one is counted and judged while the other computes."""

SEQUENTIAL = 0.1
"""Share of the most samples that is reckoned with where sampling ends early: less than most runs draw."""

BATCHES = {"cuda": 4}
"""Batches that the first looks of a round's inputs fill on a GPU: short ones are one among several."""

MOST_INPUTS = {"cuda": 1024}
"""Inputs that are sampled together, at most; `FEW_INPUTS` elsewhere."""

FEW_INPUTS = 64


@dataclass(frozen=True)
class Job:
    """An input that wants samples: its index and position in the data, and what is known of it."""

    index: int
    position: int
    record: InputRecord | None


@dataclass
class Budget:
    """Samples that may still be drawn, at most; `short` once an input was left for want of them."""

    left: int
    short: bool = False

    def admits(self, job: Job, request: CertifyRequest) -> bool:
        """Put aside the most samples that an input may take, if they are there."""
        chosen = request.selection_samples if job.record is None else 0
        most = chosen + request.samples - (0 if job.record is None else job.record.drawn)
        self.short = self.short or most > self.left
        self.left -= 0 if self.short else most
        return not self.short


@dataclass(frozen=True)
class Sampling(Recipe):
    """A certification by noise."""

    request: CertifyRequest
    compiled: bool = False
    """Whether workers compile the model; `passes` says what was asked."""
    budget: Budget | None = None

    def settled(self, store: Store) -> Sampling:
        """Return the recipe that compiles the model if that was asked, or if the samples to come repay it."""
        asked, request = self.passes.compiled, self.request
        if asked is not None:
            return replace(self, compiled=asked)
        each = request.selection_samples + request.samples
        jobs = self._divided(store.records(ballots=True))[0]
        samples = sum(each - (0 if job.record is None else job.record.drawn) for job in jobs)
        if not samples:
            return self
        share = 1.0 if request.goal == "fixed" else SEQUENTIAL
        alone = self.engine.described["name"] == "serial"
        threads = torch.get_num_threads() if alone else self.engine.described["workers"]
        input = torch.from_numpy(self.loaded.dataset.read(0)).to(self.passes.device)
        model = self.loaded.robust.module
        return replace(
            self,
            compiled=pays(model, input, share * samples, threads, request.precision, self.engine.device),
        )

    @property
    def step(self) -> int:
        """Inputs in one batch of the standard model."""
        return self.passes.batch_size or 100

    def expectations(self) -> list[str]:
        """Return warnings about what so few samples cannot show."""
        return expectations(self.request, self.loaded.dataset.classes)[0]

    def admit(self, run: Run) -> dict[str, Any]:
        """Hold a run to its plan and its share of the inputs; return what ``run.json`` is to say."""
        request, store, dataset = self.request, run.store, self.loaded.dataset
        self._refuse_another_share(run)
        _ = self.positions  # more shards than inputs are refused here
        _fix_design(run, request)
        held = began_with(store)
        for name, value in settled(request).items():
            if name not in held:
                store.put(name, value)
        for remark in choice_notes(began_with(store), request):
            self.say(remark)
        remember_planned(store, request.inputs, dataset.indices[self.everyone].tolist())
        # Whether all of the run's samples are a compiled model's, some, or none.
        own: bool | str = PARTLY if self.compiled and self._tries_first else self.compiled
        earlier = run.described().get("compiled", False)
        compiled = own
        if own != earlier and (stored := store.records(ballots=True)):
            compiled = PARTLY if self._divided(stored)[0] else earlier
        coordinates = int(dataset.read(0).size) if len(dataset) else 0
        budget = {
            "failure_probability": request.of_one_input, "bound": request.bound_at(request.gate),
            "split": unanimous(request, dataset.classes, request.gate).split,
            "other_rows": {
                f"gate {gate:g}": {"bound": request.bound_at(gate), "split": agreed.split}
                for gate, agreed in ((g, unanimous(request, dataset.classes, g)) for g in request.gates[1:])
            },
            "looks": "certmix.sampling.schedule" if request.goal != "fixed" else None,
            "holds_for": "one input's certificate",
        }  # fmt: skip
        noise = self.noise(run, coordinates)
        asked = {None: "auto", True: "on", False: "off"}[self.passes.compiled]
        return self.described(failure_budget=budget, noise=noise, compile=asked, compiled=compiled)

    def _refuse_another_share(self, run: Run) -> None:
        """Keep whole runs and shards apart: each holds, and publishes, its own share of the inputs alone."""
        described, shard = run.described(), self.shard
        held = described.get("shard")
        if "request" not in described or held == (None if shard is None else shard.as_dict()):
            return
        if held is None:
            raise RunError(
                f"{run.path} holds a whole run: a shard needs a folder of its own, to be merged; name "
                "another --output, or leave --shard out"
            )
        number = f"{held.get('number')}/{held.get('of')}" if isinstance(held, dict) else "?"
        raise RunError(
            f"{run.path} holds shard {number}: repeat --shard {number}, name another --output for "
            f"{'the whole run' if shard is None else f'shard {shard}'}, or merge shards with certmix merge"
        )

    def standard(self, model: LoadedModel) -> Cell:
        """Return the cell of the standard classifier's probabilities."""

        def compute(batch: Batch) -> FloatArray:
            with torch.inference_mode():
                logits = call_model(model.module, batch.inputs, model.name)
                probabilities: FloatArray = logits.double().softmax(1).cpu().numpy()
            return probabilities

        return Cell(standard_cell(model.checksum), compute)

    def todo(self, store: Store) -> Todo:
        """Return which inputs want selection or estimation samples."""
        jobs, complete = self._divided(store.records(ballots=True))
        done = _found([], complete, self.request)
        here = replace(self._own, compiled=self.compiled and not self._tries_first)
        work = Work(
            here=lambda: handler_of(self.request, self.loaded, here, self.budget),
            elsewhere=self.elsewhere,
            name=lambda job: f"input {job.index}",
        )
        return Todo(work, jobs, len(self.positions), done)

    @property
    def _own(self) -> Passes:
        """How the model is run.

        Where nobody asked for compilation it must leave rows independent of their place, if they are: else h
        would be another average, and samples of before no part of it.
        """
        return replace(self.passes, compiled=self.compiled, places_alike=self.passes.compiled is None)

    @property
    def _tries_first(self) -> bool:
        """Whether this process draws a little with the model as it is, before workers that may compile it."""
        return self.passes.compiled is None and self.engine.begins_alone

    def watched(self, progress: Callable[[Progress], None] | None) -> Callable[[Progress], None]:
        """Return what takes progress, and points out once that the smoothed classifier is near chance."""
        total, looked = len(self.positions), False

        def take(found: Progress) -> None:
            nonlocal looked
            if not looked and found.done >= min(total, EARLY):
                looked = True
                self.near_chance(self.loaded.robust, found.right, found.done, " under noise")
            if progress is not None:
                progress(found)

        return take

    def look_at(self, found: Outcomes) -> None:
        """Nothing: what is near chance under noise was pointed out while it was sampled."""

    def _divided(self, stored: Records) -> tuple[list[Job], Bounded]:
        """Return the inputs that want samples, with what they have, and those that want none."""
        indices = self.loaded.dataset.indices[self.positions]
        complete = bound_records(stored.of_inputs(indices), self.request)
        lacking = places_of(complete.records.indices, indices) < 0
        held, columns = places_of(stored.indices, indices), (indices, self.positions)
        jobs = zip(*(column[lacking].tolist() for column in (*columns, held)), strict=True)
        return [Job(i, place, None if at < 0 else stored[at]) for i, place, at in jobs], complete

    def elsewhere(self) -> Open:
        """Return what makes, in another process, a handler of the same data and model."""
        request, passes = self.request, self._own
        robust = robust_of(request, self.sources)
        level, views = request.smoothing.level, views_of(request)
        named = Named.of(self.sources, robust, self.loaded, passes.device, level, views)
        return partial(_load, request, named, passes)


def _load(request: CertifyRequest, named: Named, passes: Passes, device: str) -> Handler:
    passes = replace(passes, device=torch.device(device))
    return handler_of(request, named.load(passes.device), passes)


def _fix_design(run: Run, request: CertifyRequest) -> None:
    """Hold a run to the number of samples its fixed-size bound was planned for.

    A fixed-size confidence bound is valid only if its number of samples did
    not depend on what earlier samples showed; sequential bounds always are.
    """
    if request.goal != "fixed":
        return
    store, where = run.store, "this run" if run.path is None else str(run.path)
    planned = store.get("fixed_samples")
    if planned is None and store.records().votes:
        raise RunError(
            f"{where} was sampled sequentially and its results may have been seen, so bounds of a fixed "
            "size would not be valid: use --goal radii or another --seed (docs/sequential.md#why-it-is-valid)"
        )
    if planned is None:
        store.put("fixed_samples", str(request.samples))
    elif int(planned) != request.samples:
        raise RunError(
            f"{where} was planned for exactly {planned} samples an input and its results may have been seen, "
            f"so bounds for {request.samples} would not be valid, and --fresh draws the same samples again: "
            f"repeat --samples {planned}, or take another --seed (docs/sequential.md#why-it-is-valid)"
        )


@dataclass
class _Round:
    """Inputs that are sampled together, what was asked for each, and since when."""

    inputs: list[_Active] = field(default_factory=list)
    asked: list[Draw] = field(default_factory=list)
    pending: Pending | Scoring | None = None
    since: float = 0.0


def handler_of(
    request: CertifyRequest, loaded: Loaded, passes: Passes, budget: Budget | None = None
) -> Handler:
    """Return what draws for jobs, round by round, all samples that the request wants.

    As many inputs are on their way at a time as fill one batch, or `BATCHES`, with their first looks, so that
    short requests do not leave a GPU idle; what is left of a last batch goes to looks ahead.  Counts do not
    depend on it.  Once time is up, rounds under way end and no more begin; the jobs that are returned go on
    where they are then.
    """
    module, compiled = loaded.robust.module, bool(passes.compiled)
    sampler = Sampler(
        module if compiled else LaidOut(module, request.precision), loaded.dataset.classes,
        request.smoothing, request.seed, device=passes.device, precision=request.precision,
        batch_size=passes.batch_size, compiled=compiled, places_alike=passes.places_alike,
        scale=loaded.dataset.scale,
    )  # fmt: skip
    fixed = request.goal == "fixed"
    first = request.samples if fixed else looks(request.samples)[0]
    shape, kind = loaded.dataset.read(0).shape, sampler.device.type
    ends = sorted({*looks(request.samples), request.samples})

    def handle(jobs: list[Job], seconds: float, take: Take) -> list[Job]:
        waiting, end = iter(jobs), time.monotonic() + seconds
        newest: dict[int, InputRecord] = {}
        finished: set[int] = set()
        rounds = [_Round() for _ in range(AHEAD.get(kind, 1))]
        while True:
            for one in rounds:
                if one.inputs:
                    records = _finish(request, sampler, one)
                    bounded = bound_records(records, request)
                    stops = dict(zip(bounded.records.indices.tolist(), bounded.samples.tolist(), strict=True))
                    records = [
                        up_to(record, max(input.drawn, stops.get(record.index, record.drawn)))
                        for record, input in zip(records, one.inputs, strict=True)
                    ]
                    drawn = sum(r.drawn - i.drawn for r, i in zip(records, one.inputs, strict=True))
                    newest.update((record.index, record) for record in records)
                    finished.update(record.index for record in bounded.records)
                    if budget is not None:
                        budget.left += sum(request.samples - record.drawn for record in bounded.records)
                    rest = zip(one.inputs, records, bounded.waiting.tolist(), strict=True)
                    one.inputs = [replace(input, record=record) for input, record, more in rest if more]
                    take(_found(records, bounded, request, drawn))
                if time.monotonic() >= end:
                    one.inputs = []
                    continue
                width = sampler.width(shape)
                room = BATCHES.get(kind, 1) * width // max(1, min(first, request.selection_samples))
                room = min(MOST_INPUTS.get(kind, FEW_INPUTS), max(1, room), -(-len(jobs) // len(rounds)))
                while len(one.inputs) < room and (job := next(waiting, None)):
                    if budget is not None and not budget.admits(job, request):
                        waiting = iter(())
                        break
                    one.inputs.append(_open(loaded, job, sampler))
                if one.inputs:
                    one.since, asked = time.monotonic(), [_next_draw(i, request, ends) for i in one.inputs]
                    # batches of one input each are filled by no other
                    one.asked = asked if fixed or sampler.places > 1 else filled(asked, width, ends)
                    one.pending = _begin(request, sampler, one)
            if not any(one.inputs for one in rounds):
                if budget is not None and budget.short:
                    return []
                left = [job for job in jobs if job.index not in finished]
                return [replace(job, record=newest.get(job.index, job.record)) for job in left]

    return handle


def filled(draws: list[Draw], width: int, ends: Sequence[int]) -> list[Draw]:
    """Return draws with further looks, of increasing `ends`, where a last batch would be padded otherwise.

    What is drawn past the look at which an input stops is forgotten: see `up_to`.
    """
    left, draws, went_on = -sum(draw.samples for draw in draws) % width, list(draws), True
    while went_on:
        went_on = False
        for place, draw in enumerate(draws):
            at = bisect_right(ends, draw.stops[-1])
            if draw.stream == "estimation" and at < len(ends) and ends[at] - draw.stops[-1] <= left:
                left -= ends[at] - draw.stops[-1]
                draws[place], went_on = replace(draw, stops=(*draw.stops, ends[at])), True
    return draws


def up_to(record: InputRecord, samples: int) -> InputRecord:
    """Return a record of so many estimation samples, or fewer."""
    if record.drawn <= samples:
        return record
    names = ("estimation", "scores", "ballots")
    kept: dict[str, Any] = {k: {n: x for n, x in getattr(record, k).items() if n <= samples} for k in names}
    return replace(record, **kept)


def _found(records: list[InputRecord], done: Bounded, request: CertifyRequest, drawn: int = 0) -> Found:
    """Return what a round brought: records as they are now, and those of inputs that are done."""
    right = done.first.selected == done.records.labels
    certified = 0
    if done.records:
        radii = radii_of(
            done.bounds, sigma=request.smoothing, alpha=request.alpha, certificate=request.certificates[0]
        )
        certified = int(((radii.radius > 0) & right).sum())
    numbers = [number for record in records for number in cells_of(record)]
    return Found(numbers, len(right), "samples", drawn, certified, int(right.sum()))


def _begin(request: CertifyRequest, sampler: Sampler, one: _Round) -> Pending | Scoring:
    """Begin to draw a round's samples."""
    if request.scores == "hard":
        return sampler.submit(one.asked)
    scorers = [_Scorer(*pair, sampler.classes) for pair in zip(one.inputs, one.asked, strict=True)]
    return Scoring(sampler, one.asked, scorers, request.score_temperature)


def _finish(request: CertifyRequest, sampler: Sampler, one: _Round) -> list[InputRecord]:
    """Wait for a round's samples; return the inputs' records."""
    if isinstance(one.pending, Scoring):
        records = [scorer.record() for scorer in one.pending.result()]
    else:
        assert one.pending is not None
        counts = one.pending.result()
        records = []
        for input, draw, cast in zip(one.inputs, one.asked, counts, strict=True):  # of each stop
            if input.record is None:
                chosen = input.begun(cast[0].votes(sampler.classes))
                records.append(replace(chosen, selection_ballots=cast[0]))
                continue
            before = input.record.ballots
            if input.drawn and input.drawn not in before:
                raise RunError(
                    f"input {input.index} has votes without their ballots, which cannot go on: use --fresh"
                )
            new = {
                stop: before[input.drawn] + ballots if input.drawn else ballots
                for stop, ballots in zip(draw.stops, cast, strict=True)
            }
            votes = {stop: ballots.votes(sampler.classes) for stop, ballots in new.items()}
            estimation = {**input.record.estimation, **votes}
            records.append(replace(input.record, estimation=estimation, ballots={**before, **new}))
    for input, record in zip(one.inputs, records, strict=True):
        if input.drawn and record.places != sampler.places:
            raise RunError(
                f"input {record.index} was begun with batches of another size, on whose places the model's "
                "logits depend: repeat that --batch-size, or name another --output"
            )
    seconds, kind = (time.monotonic() - one.since) / len(records), sampler.device.type
    return [
        replace(record, seconds=record.seconds + seconds, device=kind, places=sampler.places)
        for record in records
    ]


@dataclass(frozen=True)
class _Active:
    """An input between two looks, `point` on the device; ``record`` is None while its class is not chosen."""

    input: torch.Tensor
    point: torch.Tensor
    index: int
    label: int
    checksum: str
    record: InputRecord | None
    noise_error: float
    lost: float

    def begun(self, selection: IntArray, scores: dict[int, ScoreStatistics] | None = None) -> InputRecord:
        """Return the record that holds the selection samples alone."""
        about: dict[str, Any] = {"noise_error": self.noise_error, "lost": self.lost, "scores": scores or {}}
        return InputRecord(self.index, self.label, self.checksum, selection, **about)

    @property
    def drawn(self) -> int:
        """Estimation samples drawn so far."""
        return 0 if self.record is None else self.record.drawn


def _open(loaded: Loaded, job: Job, sampler: Sampler) -> _Active:
    """Read a job's input; RunError if it is not what it was when its first samples were drawn."""
    dataset = loaded.dataset
    values, index = dataset.read(job.position), int(dataset.indices[job.position])
    checksum = digest_of(values.tobytes())
    if job.record is not None and job.record.input_checksum != checksum:
        raise RunError(
            f"input {index} is not what it was when this run began: restore the data, or use --fresh"
        )
    begun_on = sampler.device.type if job.record is None else job.record.device.partition(":")[0]
    if job.record is not None and job.record.drawn and begun_on != sampler.device.type:
        raise RunError(
            f"input {index} was begun on {begun_on}, whose arithmetic is another: use --device {begun_on}, "
            "or name another --output"
        )
    label = int(dataset.labels[job.position])
    error = noise_error(sampler.smoothing, values.size)
    lost, input = lost_by(sampler.smoothing, values, dataset.scale), torch.from_numpy(values)
    return _Active(input, sampler.place(input), index, label, checksum, job.record, error, lost)


def _next_draw(one: _Active, request: CertifyRequest, ends: Sequence[int]) -> Draw:
    """Return an input's selection samples, the next of the looks' `ends`, or all of a fixed number."""
    if one.record is None:
        return Draw(one.input, one.index, (request.selection_samples,), 0, "selection", one.point)
    stops = [n for n in ends if n > one.drawn]
    if request.goal != "fixed":
        stops = stops[:1]
    return Draw(one.input, one.index, tuple(stops), one.drawn, point=one.point)


class _Scorer:
    """Soft scores of one input's draw, as they come; votes are counted besides.

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

    @property
    def followed(self) -> tuple[int, int]:
        """The selected class, and the rival whose bins are kept, or itself again."""
        statistics = self.statistics
        return statistics.selected, (*statistics.rivals, statistics.selected)[0]

    def take(self, sums: IntArray, part: Part) -> None:
        """Take the sums of the scores of a part's samples."""
        self.statistics, votes = take_sums(self.statistics, part.count, sums)
        self.votes = self.votes + votes
        if (end := part.begin + part.count) in self.stops:
            self.scores[end], self.estimation[end] = self.statistics, self.votes

    def record(self) -> InputRecord:
        """Return the input's record with all that was taken."""
        one = self.one
        if one.record is None:
            planned = {0: plan(self.statistics)}
            return one.begun(self.statistics.totals, scores=planned)
        return replace(
            one.record,
            scores={**one.record.scores, **self.scores},
            estimation={**one.record.estimation, **self.estimation},
        )


class Scoring:
    """Sums of soft scores of several inputs that may still be on their way from the device."""

    def __init__(
        self, sampler: Sampler, draws: list[Draw], scorers: list[_Scorer], temperature: float
    ) -> None:
        self._scorers = scorers
        followed = np.array([scorer.followed for scorer in scorers])
        self._sums = sampler.submit_scores(
            draws,
            lambda scores, parts: sums_of(scores, parts, followed[[part.draw for part in parts]]),
            temperature,
        )

    def result(self) -> list[_Scorer]:
        """Return what was taken of each input."""
        for parts, sums in self._sums():
            for part, row in zip(parts, sums.numpy(), strict=True):
                self._scorers[part.draw].take(row, part)
        return self._scorers
