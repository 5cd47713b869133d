"""Hours, cost and size of a certification before it is made.  No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from certmix.certification.plan_truth import Truth
from certmix.certification.request import CertifyRequest
from certmix.certification.stopping import Rule, Walk
from certmix.errors import ParameterError
from certmix.sampling.schedule import looks

__all__ = ["Plan", "PlannedGoal", "plan"]

GOALS = ("fixed", "radii", "radius")
MODEL_SECONDS = 30.0
"""What a worker takes to start: an assumption."""


@dataclass(frozen=True)
class PlannedGoal:
    """One goal of sampling: what it draws, takes and costs.

    Parameters
    ----------
    goal
        A name in `certmix.certification.request.GOALS`.
    mean_samples
        Of an image, selection included.
    total_samples
        Of the run.
    worker_hours, hours
        Of all workers together, and until the run ends.
    cost
        None without a price.
    disk_bytes, memory_bytes
        Of the records on disk, and of the process that tabulates them.
    """

    goal: str
    mean_samples: float
    total_samples: float
    worker_hours: float
    hours: float
    cost: float | None
    disk_bytes: float
    memory_bytes: float


@dataclass(frozen=True)
class Plan:
    """What a run would take, goal by goal, and what that rests on."""

    images: int
    samples: int
    sigma: float
    alpha: float
    classes: int
    workers: int
    throughput: float
    price_per_hour: float | None
    goals: tuple[PlannedGoal, ...]
    assumptions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"schema_version": 1, **asdict(self)}


def plan(
    request: CertifyRequest,
    truth: Truth,
    *,
    images: int,
    throughput: float | None = None,
    workers: int = 1,
    price_per_hour: float | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> Plan:
    """Return what a certification would take.

    Parameters
    ----------
    request
        What would be asked; its goal is ignored, all are shown.
    truth
        Images to stand for those of the run.
    images
        How many there are.
    throughput
        Noisy samples that one worker takes in a second; None for what `truth` measured.
    workers, price_per_hour
        How many, and what one costs in an hour.
    classes
        Of the data; None for those of `truth`.
    seed
        Of the votes that are drawn in simulation.

    Raises
    ------
    ParameterError
        For values out of range, or without a throughput.
    """
    measured = truth.seconds_per_sample
    if throughput is None and measured is None:
        raise ParameterError(
            "no throughput: give --throughput, samples a second of one worker, or --like a run made here"
        )
    rate = 1.0 / measured if throughput is None and measured else throughput or 0.0
    for name, value in (("throughput", rate), ("workers", workers), ("images", images)):
        if not 0 < value < math.inf:
            raise ParameterError(f"{name} = {value:g}: give a positive number")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ParameterError(f"price per hour = {price_per_hour}: give a number of 0 or more")
    asked, shape = request.replace(images=images), replace(truth, classes=classes or truth.classes)
    goals = tuple(_goal(asked, goal, shape, rate, workers, price_per_hour, seed) for goal in GOALS)
    return Plan(
        images, request.samples, request.sigma, request.alpha, shape.classes, workers, rate, price_per_hour,
        goals, _assumptions(truth, throughput is None),
    )  # fmt: skip


def _goal(
    request: CertifyRequest,
    goal: str,
    truth: Truth,
    rate: float,
    workers: int,
    price: float | None,
    seed: int,
) -> PlannedGoal:
    images = int(request.images)
    drawn, kept = _simulated(request.replace(goal=goal), truth, seed)
    mean = float(drawn.mean()) + request.selection_samples
    worker_hours = images * mean / rate / 3600
    sharing = min(workers, images)
    longest = (
        (request.samples + request.selection_samples) / rate / 3600
    )  # one image has one worker at a time
    hours = max(worker_hours / sharing, min(longest, worker_hours)) + MODEL_SECONDS / 3600
    paid = None if price is None else price * workers * hours
    disk, memory = _sizes(truth, images, kept)
    return PlannedGoal(goal, mean, images * mean, worker_hours, hours, paid, disk, memory)


def _simulated(request: CertifyRequest, truth: Truth, seed: int) -> tuple[np.ndarray, float]:
    """Return the estimation samples of each image, and the mean number of looks kept."""
    if request.goal == "fixed":
        return np.full(len(truth.right), request.samples), float(
            len({*looks(request.samples), request.samples})
        )
    rule = Rule(request)
    rng = np.random.default_rng(seed)
    walk = Walk(rule, np.zeros(len(truth.right), np.int64), np.where(truth.right, 0, 1))
    votes, before, kept = np.zeros(len(truth.right), np.int64), 0, 0
    for number, samples in enumerate(rule.looks):
        rows = np.flatnonzero(walk.active)
        if len(rows) == 0:
            break
        votes[rows] += rng.binomial(samples - before, truth.probability[rows])
        before, kept = samples, kept + len(rows)
        walk.step(number, rows, np.stack([votes[rows], samples - votes[rows]], 1))
    return walk.samples, kept / len(truth.right)


def _sizes(truth: Truth, images: int, kept: float) -> tuple[float, float]:
    """Return bytes on disk and in memory: counts hold no zeros in either; see docs/scale.md."""
    voted = min(truth.voted, truth.classes)
    each_look = 12 + 10.5 * voted
    standard = 21.0 * truth.classes
    disk = images * (200 + each_look * (kept + 1) + standard)
    memory = 250e6 + images * (16.0 * truth.classes + kept * (8.0 * voted + 300) + 2000)
    return disk, memory


def _assumptions(truth: Truth, measured: bool) -> tuple[str, ...]:
    throughput = "Throughput is what that run had." if measured else "Throughput is as given, one worker's."
    return (
        *truth.doubts,
        truth.source,
        "Sampling is simulated with the stopping rule itself, on votes for the selected class or another.",
        f"{throughput} Batches are taken to be full, and workers to be equally fast.",
        f"A worker starts in {MODEL_SECONDS:.0f} s; you pay for all workers until the last one ends.",
        "Sizes hold for hard votes, with probabilities of a standard classifier.",
    )
