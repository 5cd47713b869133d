"""Draws of a claim about a population: inputs at random, votes for their labels until each is decided."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certmix.certification.describe import Recipe, identity_of, robust_of, views_of
from certmix.certification.population import (
    ABOUT,
    CELL,
    STEPS,
    Claimed,
    PopulationResult,
    derive,
    looks_of,
    order_of,
    rule_of,
    scores_of,
    votes_in,
)
from certmix.certification.request.population import Population
from certmix.errors import ModelError
from certmix.files import digest_of, write_atomically
from certmix.runs import Run, Store
from certmix.runs.cells import Found, Progress, Todo, fill
from certmix.runs.engine import Handler, Open, Take, Work
from certmix.runs.opening import Named, open_run
from certmix.runs.settings import too_many_inputs
from certmix.runs.sources import Loaded
from certmix.sampling import Draw, Sampler
from certmix.sampling.devices import Passes
from certmix.sampling.grid import lost_by
from certmix.sampling.layout import LaidOut
from certmix.tables.formats import texts_of
from certmix.types import IntArray

BLOCK, GROWTH = 20, 8
"""Draws between two looks at the claim: so many, and one in so many of those there are."""
TOGETHER = 64
"""Inputs that are sampled together, at most."""


@dataclass(frozen=True)
class Job:
    """Draw number `draw`, of the input at a position of the data."""

    draw: int
    position: int


@dataclass(frozen=True)
class Drawing(Recipe):
    """The draws of a claim."""

    request: Population

    @property
    def coordinates(self) -> int:
        """How many values an input has."""
        return int(self.loaded.dataset.read(0).size)

    def admit(self, run: Run) -> dict[str, Any]:
        """Return what ``run.json`` is to say."""
        budget = {"failure_probability": self.request.failure_probability, "holds_for": "the whole claim"}
        return self.described(noise=self.noise(run, self.coordinates), failure_budget=budget)

    def block(self, store: Store, claimed: Claimed, order: IntArray) -> Todo:
        """Return the next draws that the claim wants."""
        drawn = claimed.claim.draws
        numbers = range(drawn, min(len(order), drawn + max(BLOCK, drawn // GROWTH)))
        held = store.known(CELL)
        jobs = [Job(number, int(order[number])) for number in numbers if number not in held]
        work = Work(
            here=lambda: handler_of(self.request, self.loaded, self.passes),
            elsewhere=self.elsewhere,
            name=lambda job: f"draw {job.draw}",
        )
        begun = Found([], drawn, "samples", 0, claimed.claim.accepted)
        return Todo(work, jobs, len(order), begun)

    def elsewhere(self) -> Open:
        """Return what makes, in another process, a handler of the same data and model."""
        robust, level = robust_of(self.request, self.sources), self.request.smoothing.level
        views = views_of(self.request)
        named = Named.of(self.sources, robust, self.loaded, self.passes.device, level, views)
        return partial(_load, self.request, named, self.passes)


def _load(request: Population, named: Named, passes: Passes, device: str) -> Handler:
    chosen = torch.device(device)
    return handler_of(request, named.load(chosen), Passes(chosen, passes.batch_size, False))


@dataclass
class _Active:
    """A draw between two looks: its input, what is kept of it before its votes, and these."""

    input: torch.Tensor
    draw: int
    label: int
    about: list[int]
    votes: list[int] = field(default_factory=list)


def handler_of(request: Population, loaded: Loaded, passes: Passes) -> Handler:
    """Return what counts the votes of draws until each is decided."""
    dataset = loaded.dataset
    sampler = Sampler(
        LaidOut(loaded.robust.module, request.precision), dataset.classes, request.smoothing, request.seed,
        device=passes.device, precision=request.precision, batch_size=passes.batch_size, scale=dataset.scale,
    )  # fmt: skip
    coordinates, looks = int(dataset.read(0).size), looks_of(request.samples)
    width = sampler.width(dataset.read(0).shape)

    def handle(jobs: list[Job], seconds: float, take: Take) -> list[Job]:
        waiting, end, done, active = iter(jobs), time.monotonic() + seconds, set[int](), list[_Active]()
        if jobs:  # of one input: votes of many rows tell whether these depend on their place
            first = _open(request, loaded, jobs[0])
            sampler.submit([Draw(first.input, first.draw, (width,))]).result()
            if sampler.places != 1:
                raise ModelError(
                    f"{loaded.robust.name}: its logits depend on a row's place in the batch, where votes of "
                    "one input have several probabilities: use --goal radii, or --precision fp32 "
                    "(docs/noise.md#rows-of-a-batch)"
                )
        while True:
            while (
                time.monotonic() < end
                and len(active) < min(TOGETHER, max(1, width // looks[0]))
                and (job := next(waiting, None))
            ):
                active.append(_open(request, loaded, job))
            if not active:
                return [job for job in jobs if job.draw not in done]
            asked = [
                Draw(one.input, one.draw, (looks[at],), start=looks[at - 1] if at else 0)
                for one in active
                for at in (len(one.votes),)
            ]
            going = []
            for one, cast in zip(active, sampler.submit(asked).result(), strict=True):
                before = one.votes[-1] if one.votes else 0
                one.votes.append(before + int(cast[0].votes(dataset.classes)[one.label]))
                vector = np.full(ABOUT + len(looks), -1, np.int64)
                vector[:ABOUT] = one.about
                vector[ABOUT : ABOUT + len(one.votes)] = one.votes
                rule = rule_of(request, coordinates, one.about[-1])
                stands = int(scores_of(rule, vector[None, ABOUT:])[1][0])
                if stands >= 0:
                    going.append(one)
                    continue
                done.add(one.draw)
                drawn = looks[len(one.votes) - 1]
                take(Found([(CELL, one.draw, vector)], 1, "samples", drawn, int(stands == -1)))
            active = going

    return handle


def _open(request: Population, loaded: Loaded, job: Job) -> _Active:
    dataset = loaded.dataset
    values, label = dataset.read(job.position), int(dataset.labels[job.position])
    words = np.frombuffer(bytes.fromhex(digest_of(values.tobytes())), "<i8").tolist()
    steps = steps_of(request, dataset.scale, values)
    about = [int(dataset.indices[job.position]), label, *words, steps]
    return _Active(torch.from_numpy(values), job.draw, label, about)


def steps_of(request: Population, scale: Any, values: Any) -> int:
    """Return how far an input lies from the grid, in scales of the noise / `STEPS`, rounded up."""
    smoothing = request.smoothing
    return int(np.ceil(lost_by(smoothing, values, scale) * STEPS / smoothing.scale * (1 + 1e-9)))


def run_population(
    recipe: Drawing,
    output: Path,
    *,
    in_memory: bool = False,
    fresh: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> PopulationResult:
    """Draw until a claim about a population is decided, or no input is left; resumes a run that is there."""
    request, loaded, say = recipe.request, recipe.loaded, recipe.say
    inputs = len(loaded.dataset)
    rule_of(request, recipe.coordinates)  # samples that could not do are refused before there is a folder
    if request.population == "distribution" and (told := too_many_inputs(request, inputs)):
        say(told)
    identity, order = identity_of(request, loaded), order_of(request, inputs)
    looks = len(looks_of(request.samples))
    with open_run(
        identity, loaded, recipe.passes.device, recipe.admit, output=output, in_memory=in_memory, fresh=fresh,
        classes=loaded.dataset.classes, sigma=request.smoothing.level, wanted=(), say=say,
    ) as run:  # fmt: skip
        described, complete = recipe.admit(run), True
        claimed = derive(request, run.store, described)
        while complete and not claimed.claim.ended and claimed.claim.draws < len(order):
            complete = fill(
                run.store, recipe.block(run.store, claimed, order), engine=recipe.engine, progress=progress
            )
            claimed = derive(request, run.store, described)
        if len(numbers := votes_in(run.store, looks)) and not claimed.claim.accepted:
            right = numbers[:, ABOUT] * 2 > looks_of(request.samples)[0]
            recipe.near_chance(loaded.robust, int(right.sum()), len(right), " under noise")
        if complete or not run.described().get("versions"):
            publish(run, claimed)
        return PopulationResult(claimed, run.path, not complete)


def publish(run: Run, claimed: Claimed) -> None:
    """Write the claim's table into the run's folder."""

    def write(folder: Path) -> None:
        for name, text in texts_of(claimed.summary).items():
            write_atomically(folder / name, text.encode())

    run.publish(write)
