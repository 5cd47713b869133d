"""What a certification will take: hours, cost, samples.  No torch."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from certmix.certification.proved_table import held_votes
from certmix.certification.request.sampled import NO_ROW, CertifyRequest
from certmix.certification.stopping import Rule, Walk
from certmix.certification.stored import (
    Doubt,
    Reading,
    is_enumerated,
    open_enumerated,
    open_run,
    read_stored,
    refuse_empty,
)
from certmix.errors import ParameterError, check_choice
from certmix.radii import Smoothing, counted, norms_of
from certmix.sampling.schedule import looks
from certmix.tables.words import PATCH
from certmix.types import FloatArray

__all__ = ["Plan", "PlannedGoal", "Truth", "plan", "scenario", "truth_of"]

SCENARIOS: dict[str, dict[float, tuple[tuple[float, float], ...]]] = {
    "cifar10": {
        0.25: ((0, 0.766), (0.25, 0.612), (0.5, 0.422), (0.75, 0.251)),
        0.5: (
            (0, 0.657), (0.25, 0.549), (0.5, 0.428), (0.75, 0.325), (1, 0.220), (1.25, 0.141), (1.5, 0.083),
        ),
        1.0: (
            (0, 0.471), (0.25, 0.409), (0.5, 0.338), (0.75, 0.277), (1, 0.221), (1.25, 0.172), (1.5, 0.133),
            (2, 0.066), (2.5, 0.027), (3, 0.009),
        ),
    },
    "imagenet": {
        0.25: ((0, 0.67), (0.5, 0.49)),
        0.5: ((0, 0.57), (0.5, 0.46), (1, 0.37), (1.5, 0.29)),
        1.0: ((0, 0.44), (0.5, 0.38), (1, 0.33), (1.5, 0.26), (2, 0.19), (2.5, 0.15), (3, 0.12)),
    },
}  # fmt: skip
"""Certified accuracy by radius of Gaussian-trained networks, n = 100,000: ResNet-110 on CIFAR-10, from the
logs of all 10,000 inputs by Salman et al. (NeurIPS 2019); ResNet-50 on ImageNet, from Cohen, Rosenfeld and
Kolter (ICML 2019)."""

CLASSES = {"cifar10": 10, "imagenet": 1000}
SPREAD = {"cifar10": 6, "imagenet": 30}
"""Classes that get votes of an input: an assumption, for sizes alone."""
_LARGEST = 3.81
"""Radius in units of sigma that 100,000 agreeing samples give: where published radii end."""
_DOUBTFUL = 0.5
_INPUTS = 10_000
GOALS = ("fixed", "radii", "radius")
MODEL_SECONDS = 30.0
"""What a worker takes to start: an assumption."""


@dataclass(frozen=True)
class Truth:
    """Inputs (m,) to stand for those of the run that is planned.

    ``probability`` is that of the selected class under noise, float64 (m,); an input whose class is not
    ``right`` stops after selection.  Of ``classes``, ``voted`` get votes of an input.  ``source`` says where
    this comes from, ``doubts`` why it may be wrong; ``seconds_per_sample`` is None where nothing was timed.
    """

    probability: FloatArray
    right: NDArray[np.bool_]
    classes: int
    voted: float
    seconds_per_sample: float | None
    source: str
    doubts: tuple[Doubt, ...] = ()


def scenario(name: str, sigma: float) -> Truth:
    """Return inputs whose certified accuracies are those published of a network and noise level.

    Raises
    ------
    ParameterError
        If the scenario or its noise level is unknown.
    """
    check_choice("scenario", name, SCENARIOS)
    if sigma not in SCENARIOS[name]:
        known = ", ".join(f"{level:g}" for level in SCENARIOS[name])
        raise ParameterError(f"scenario {name} knows sigma {known}, not {sigma:g}: choose one, or use --like")
    radii, shares = np.array(SCENARIOS[name][sigma], np.float64).T
    radii = np.append(radii, max(_LARGEST * sigma, radii[-1] + 1e-6))
    share = (np.arange(_INPUTS) + 0.5) / _INPUTS
    certified = share < shares[0]
    radius = np.interp(-share, -np.append(shares, 0.0), radii)
    rest = share >= shares[0]
    doubtful = rest & (share < shares[0] + _DOUBTFUL * (1 - shares[0]))
    place = (share - shares[0]) / max(_DOUBTFUL * (1 - shares[0]), 1e-9)
    p = np.where(certified, ndtr(radius / sigma), 0.5 - 0.3 * place)
    return Truth(
        p, certified | doubtful, CLASSES[name], SPREAD[name], None,
        f"Inputs are as published of Gaussian-trained networks ({name}, sigma {sigma:g}); of those not "
        "certified at any radius, half are taken to be selected rightly, with probabilities from 0.2 to 0.5.",
    )  # fmt: skip


def truth_of(path: Path, how: Reading) -> tuple[Truth, Smoothing, CertifyRequest | None]:
    """Return the inputs of a run folder with its noise and request, or of a published log or class counts.

    Raises
    ------
    CertmixError
        If it cannot be read, or holds no inputs.
    """
    if not os.path.isdir(path):
        stored = read_stored(path, how)
        refuse_empty(stored)
        p, abstained, classes = stored.bounds.p_lower, stored.selected < 0, 10
        if stored.frequencies is not None:
            p, classes = stored.frequencies.max(1), stored.frequencies.shape[1]
        source = (
            f"Inputs are like the {len(p):,} of {path}; its abstentions are taken to be selected rightly, "
            "with probability 0.45."
        )
        doubts = tuple(note for note in stored.notes if isinstance(note, Doubt))
        p = np.where(abstained, 0.45, p)
        return (
            Truth(p, stored.right | abstained, classes, min(classes, 6), None, source, doubts),
            stored.smoothing,
            None,
        )
    run = open_run(path, how.sigma)
    if not len(run.records):
        raise ParameterError(f"{path} holds no finished inputs: name another run or a log")
    votes = [record.estimation.get(record.drawn, record.selection) for record in run.records]
    selected = np.array([record.selected for record in run.records])
    top = np.array([count[k] for count, k in zip(votes, selected, strict=True)])
    total = np.array([count.sum() for count in votes])
    drawn = sum(record.drawn + int(record.selection.sum()) for record in run.records)
    seconds = sum(record.seconds for record in run.records)
    timed = drawn and seconds > 0 and run.request.scores == "hard"
    truth = Truth(
        np.clip((top + 0.5) / (total + 1.0), 0.0, 1.0), selected == [record.label for record in run.records],
        run.classes, float(np.mean([np.count_nonzero(count) for count in votes])),
        seconds / drawn if timed else None, f"Inputs are like the {len(run.records):,} of {path}.",
    )  # fmt: skip
    return truth, run.request.smoothing, run.request


@dataclass(frozen=True)
class PlannedGoal:
    """One goal of sampling: what it draws, takes and costs.

    Samples of an input include those of selection.  ``worker_hours`` are those of all workers together,
    ``hours`` pass until the run ends; ``cost`` is None without a price.  ``disk_bytes`` are those of the
    records, ``memory_bytes`` those of the process that tabulates them.
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

    inputs: int
    samples: int
    noise: str
    scale: float
    alpha: float | None
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
    inputs: int,
    throughput: float | None = None,
    workers: int = 1,
    price_per_hour: float | None = None,
    classes: int | None = None,
) -> Plan:
    """Return what a certification would take: that of `request`, whose goal is ignored, all are shown.

    `truth` are inputs to stand for those of the run, of which there are `inputs`.  One of `workers`, which
    costs `price_per_hour`, takes `throughput` noisy samples in a second; None takes what `truth` measured,
    and its number of classes.  Values out of range, or no throughput at all, are a ParameterError.
    """
    measured = truth.seconds_per_sample
    if throughput is None and measured is None:
        raise ParameterError(
            "no throughput: give --throughput, samples a second of one worker, or --like a run made here"
        )
    rate = 1.0 / measured if throughput is None and measured else throughput or 0.0
    _check(rate, workers, inputs, price_per_hour)
    shape = replace(truth, classes=classes or truth.classes)
    goals, gated = [], request.gated
    request = request.replace(gate=0.0, tuned=NO_ROW)
    for goal in GOALS:
        drawn, kept = _simulated(request.replace(goal=goal), shape)
        mean = float(drawn.mean()) + request.selection_samples
        longest = request.samples + request.selection_samples  # of one input, by one worker
        taken = _taken(inputs, mean, longest, rate, workers, price_per_hour)
        goals.append(PlannedGoal(goal, *taken, *_sizes(shape, inputs, kept)))
    told = "as given, one worker's" if throughput is not None else "what that run had"
    assumptions = (
        *truth.doubts,
        truth.source,
        "Sampling is simulated with the stopping rule itself, on votes for the selected class or another.",
        f"Throughput is {told}. Batches are taken to be full, and workers to be equally fast.",
        f"A worker starts in {MODEL_SECONDS:.0f} s; you pay for all workers until the last one ends.",
        "Sizes hold for hard votes, with probabilities of a standard classifier.",
        *["No vote is behind a gate here: rows of gated votes may take more samples."] * gated,
    )
    return Plan(
        inputs, request.samples, request.noise, request.smoothing.scale, request.alpha, shape.classes,
        workers, rate, price_per_hour, tuple(goals), assumptions,
    )  # fmt: skip


def plan_cases(
    like: Path | None,
    noise: str | None,
    scale: float | None,
    columns: int | None,
    *,
    inputs: int,
    throughput: float | None = None,
    workers: int = 1,
    price_per_hour: float | None = None,
    classes: int | None = None,
) -> Plan:
    """Return what a certification by votes on all cases of an input would take, a forward pass each.

    Kind, scale and cases are those named, `columns` an input's, or of the run `like`.  The rest is as for
    `plan`, but that there is nothing to simulate: one goal, ``all``.
    """
    known = 10
    if like is not None:
        if columns is not None or not is_enumerated(like):
            told = f"{like} is no run of {noise}, or knows its columns"
            raise ParameterError(f"{told}: leave --like out, or these")
        with open_enumerated(like) as (request, store, described):
            own = (request.noise, request.scale)
            cases, known = held_votes(request, store), len(described["data"]["class_names"])
        if (noise or own[0], scale or own[1]) != own or not cases:
            told = f"{like} is of {own[0]}, scale {own[1]:g}, with {cases} votes an input"
            raise ParameterError(f"{told}: drop --noise and --scale, or name a run with some")
        noise, scale = own
    else:
        kind, of_columns = counted.cases_of(str(noise)), norms_of(str(noise)) == (PATCH,)
        if of_columns != (columns is not None):
            how = "give --columns of the inputs, such as 32" if of_columns else "leave --columns out"
            raise ParameterError(f"noise = {noise}: {how}, or name a run with --like")
        scale = kind.scale if scale is None else scale
        cases = kind.count(scale, (1, 1, columns or 1))
    classes = classes or known
    if throughput is None:
        raise ParameterError("no throughput: give --throughput, forward passes a second of one worker")
    _check(throughput, workers, inputs, price_per_hour)
    sizes = inputs * (200 + 8.0 * (cases + classes)), 250e6 + inputs * 16.0 * (cases + classes)
    taken = _taken(inputs, cases, cases, throughput, workers, price_per_hour)
    goal = PlannedGoal("all", *taken, *sizes)
    assumptions = (
        "All cases of an input are gone through, whatever the weight: nothing is drawn.",
        "Throughput is as given, one worker's. Workers are taken to be equally fast.",
        f"A worker starts in {MODEL_SECONDS:.0f} s; you pay for all workers until the last one ends.",
    )
    return Plan(
        inputs, cases, str(noise), scale, None, classes, workers, throughput, price_per_hour, (goal,),
        assumptions,
    )  # fmt: skip


def _check(rate: float, workers: int, inputs: int, price_per_hour: float | None) -> None:
    for name, value in (("throughput", rate), ("workers", workers), ("inputs", inputs)):
        if not 0 < value < math.inf:
            raise ParameterError(f"{name} = {value:g}: give a positive number")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ParameterError(f"price per hour = {price_per_hour}: give a number of 0 or more")


def _taken(
    inputs: int, mean: float, longest: float, rate: float, workers: int, price_per_hour: float | None
) -> tuple[float, float, float, float, float | None]:
    """Return samples of an input and in all, the workers' hours, those that pass, and the cost."""
    worker_hours, most = inputs * mean / rate / 3600, longest / rate / 3600
    hours = max(worker_hours / min(workers, inputs), min(most, worker_hours)) + MODEL_SECONDS / 3600
    paid = None if price_per_hour is None else price_per_hour * workers * hours
    return mean, inputs * mean, worker_hours, hours, paid


def _simulated(request: CertifyRequest, truth: Truth) -> tuple[np.ndarray, float]:
    """Return the estimation samples of each input, and the mean number of looks kept."""
    if request.goal == "fixed":
        kept = float(len({*looks(request.samples), request.samples}))
        return np.full(len(truth.right), request.samples), kept
    rule = Rule(request)
    rng = np.random.default_rng(0)
    walk = Walk(rule, [np.zeros(len(truth.right), np.int64)], np.where(truth.right, 0, 1))
    votes, before, kept = np.zeros(len(truth.right), np.int64), 0, 0.0
    for number, samples in enumerate(rule.looks):
        rows = np.flatnonzero(walk.active)
        if len(rows) == 0:
            break
        votes[rows] += rng.binomial(samples - before, truth.probability[rows])
        before, kept = samples, kept + len(rows)
        walk.step(number, rows, [np.stack([votes[rows], samples - votes[rows]], 1)])
    return walk.samples, kept / len(truth.right)


def _sizes(truth: Truth, inputs: int, kept: float) -> tuple[float, float]:
    """Return bytes on disk and in memory: counts hold no zeros in either; see docs/scale.md."""
    voted = min(truth.voted, truth.classes)
    each_look = 72 + min(8.0 * truth.classes, 7.5 * voted) + 24.0 * voted  # votes, and their ballots
    disk = inputs * (200 + each_look * (kept + 1) + 8.0 * truth.classes)
    memory = 250e6 + inputs * (16.0 * truth.classes + kept * (8.0 * voted + 300) + 2000)
    return disk, memory
