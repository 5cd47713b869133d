"""A claim about a population, from votes for the labels of inputs drawn at random.  No torch.

Inputs are drawn; of each, the votes of its label are counted look by look.  A score follows whose mean is at
most the share of the population that is right and certified at the radius; docs/population.md has the proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from certmix.certification.request.population import Population
from certmix.certification.stopping import thresholds
from certmix.data.scales import about_scale
from certmix.errors import ParameterError, RunError
from certmix.runs.store import Store
from certmix.sampling.law import noise_error
from certmix.tables.result import Result
from certmix.tables.table import Share, Table
from certmix.tables.words import noise_words
from certmix.text import as_given, floor_digits, plain_decimal
from certmix.types import SCHEMA_VERSION, FloatArray, IntArray

CELL = "label votes"
"""Of each draw: its input's index, label, checksum (4), distance in `STEPS`; its votes at each look."""
ABOUT = 7
"""Numbers in that cell before the votes, which are -1 at looks that were not taken."""
STEPS = 1024
"""Distances from the grid are rounded up to multiples of sigma, or the scale, over STEPS."""
FIRST = 10
"""Samples of the first look, at least: each look has half of the samples of the next."""
HOPELESS, EARLY, LAST = 0.02, 0.02, 1 / 3
"""Chances, at the least probability that is certified, of being given up or accepted at a look, or at the
last one.  They decide how many samples are drawn; what holds does not depend on them."""
BETS = tuple(2.0 ** (-j / 2) for j in range(14))
"""Constant bets, equally weighted."""
RISKED = 0.99
"""Share of the capital that no bet exceeds."""
MOST_SAMPLES = 10**6


class Look(NamedTuple):
    """After so many `samples` an input with fewer than `stop` votes is given up, one with `accept` accepted.

    Either ends it.  Being accepted scores 1; `band` to accept - 1 votes cost `cost`.
    """

    samples: int
    stop: int
    band: int
    accept: int
    cost: float


class Rule(NamedTuple):
    """The looks of an input that lies `steps` from the grid; p is the least probability certified there."""

    steps: int
    p: float
    looks: tuple[Look, ...]

    @property
    def lowest(self) -> float:
        """How far a score may lie below 0."""
        return sum(look.cost for look in self.looks) * (1 + 1e-12)


def looks_of(samples: int) -> list[int]:
    """Return after how many samples there are looks.

    >>> looks_of(100)
    [13, 25, 50, 100]
    """
    found = [samples]
    while (half := (found[-1] + 1) // 2) >= FIRST:
        found.append(half)
    return found[::-1]


@lru_cache(maxsize=64)
def rule_of(request: Population, coordinates: int, steps: int = 0) -> Rule:
    """Return the rule of inputs of so many values, `steps` scales of the noise / `STEPS` from the grid.

    ParameterError where votes that all agree would not be accepted.
    """
    smoothing = request.smoothing
    lost = math.nextafter(steps * smoothing.scale / STEPS, math.inf) if steps else 0.0
    level = float(thresholds("exact", smoothing, request.alpha, [request.at_radius], lost)[0])
    p = level + noise_error(smoothing, coordinates)
    p = min(1.0, math.nextafter(p, 2.0))
    needed = math.inf if p >= 1 else math.ceil(math.log(LAST) / math.log(p))
    if request.samples < needed and not steps:  # an input off the grid is never accepted then
        told = (
            "none are enough: ask for a smaller --at-radius" if needed > MOST_SAMPLES else f"{needed:,} are"
        )
        raise ParameterError(
            f"samples = {request.samples}: even if all agree they say too little at radius "
            f"{as_given(request.at_radius)}: {told} needed"
            if needed <= MOST_SAMPLES
            else f"samples = {request.samples}: at radius {as_given(request.at_radius)} {told}"
        )
    if request.samples > MOST_SAMPLES:
        raise ParameterError(f"samples = {request.samples}: of a population at most {MOST_SAMPLES} are drawn")
    return Rule(steps, p, tuple(cut(looks_of(request.samples), p)))


def cut(looks: Sequence[int], p: float) -> list[Look]:
    """Return the looks with their cuts: at probability p, and below it, the score has a mean of at most 0."""
    from scipy.signal import fftconvolve  # both are slow to import, and only needed here
    from scipy.stats import binom

    found, law, before = list[Look](), np.ones(1), 0
    for number, n in enumerate(looks, 1):
        more = n - before
        law = fftconvolve(law, binom.pmf(np.arange(more + 1), more, p)).clip(0)
        before, last = n, number == len(looks)
        tails = np.append(law[::-1].cumsum()[::-1], 0.0)  # of at least k votes, and still going on
        accept = int(np.argmax(tails <= (min(LAST, tails[0] / 2) if last else EARLY)))
        stop = 0 if last else int(binom.ppf(HOPELESS, n, p))
        accept = max(accept, stop + 1)
        band, cost = stop, 0.0
        if accept <= n:
            gained = tails[accept]
            if last:
                band = int(np.flatnonzero(tails[:accept] - gained >= gained)[-1])
            cost = float(gained + 1e-12) / (tails[band] - gained - 1e-12) * (1 + 1e-9)
        else:
            accept = band = n + 1
        found.append(Look(n, stop, band, accept, cost))
        law[accept:] = 0.0
        law[:stop] = 0.0
    return found


def scores_of(rule: Rule, votes: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the scores (m,) of votes (m, looks), and where each stands.

    That is the number of the look it waits for; -1 where it was accepted, -2 where it was not.
    """
    score, at = np.zeros(len(votes)), np.zeros(len(votes), np.int64)
    for number, look in enumerate(rule.looks):
        k = votes[:, number]
        here = (at == number) & (k >= 0)
        score[here & (k >= look.accept)] += 1.0
        score[here & (k >= look.band) & (k < look.accept)] -= look.cost
        ended = k < (look.stop if number + 1 < len(rule.looks) else look.accept)
        at[here] = np.where(k >= look.accept, -1, np.where(ended, -2, number + 1))[here]
    return score, at


def log_capital(groups: Sequence[tuple[float, FloatArray, IntArray]], share: float) -> float:
    """Return the logarithm of the capital of bets against a `share`.

    Groups are of one rule each: how far its scores may lie below 0, different scores, how often each came.
    """
    logs = np.zeros(len(BETS))
    for lowest, values, counts in groups:
        for j, bet in enumerate(BETS):
            logs[j] += counts @ np.log1p(min(bet, RISKED / (share + lowest)) * (values - share))
    return float(logsumexp(logs)) - math.log(len(BETS))


def lower_bound(groups: Sequence[tuple[float, FloatArray, IntArray]], failure_probability: float) -> float:
    """Return the largest share that the scores refute, rounded down; 0 if none.

    It holds after any number of draws at once.  Scores are in the order of their draws, of which the bound
    depends on none: only on how often each came.

    >>> one = 0.5, np.array([1.0, 0.0]), np.array([80, 20])
    >>> round(lower_bound([one], 0.001), 3)
    0.603
    """
    size = sum(int(counts.sum()) for *_, counts in groups)
    wanted, low, high = -math.log(failure_probability) + 1e-9 + 1e-14 * size, 0.0, 1.0
    for _ in range(42):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if log_capital(groups, middle) > wanted else (low, middle)
    return max(0.0, low - 2.0**-40)


@dataclass(frozen=True)
class Claim:
    """What the draws show: with probability 1 - `failure_probability` at least `lower_bound` is right and
    certified at `radius`, of the population.

    `mean_score` estimates what more draws would come to, `accepted` inputs scored 1, `samples` were drawn in
    all.  `reached` says whether `at_least` was shown, None where nothing was asked; `out_of_reach` that no
    further draw of this request could show it.  Nothing is claimed of any one input.
    """

    radius: float
    lower_bound: float
    at_least: float | None
    draws: int
    accepted: int
    samples: int
    mean_score: float | None
    failure_probability: float
    population: str
    out_of_reach: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the share asked for is shown."""
        return None if self.at_least is None else self.lower_bound >= self.at_least

    @property
    def ended(self) -> bool:
        """Whether further draws are of no use."""
        return bool(self.reached) or self.out_of_reach


def votes_in(store: Store, looks: int) -> IntArray:
    """Return the numbers (m, ABOUT + looks) of the draws 0, 1, ... that lie there without a gap."""
    index, vectors = store.column(CELL, "int64", ABOUT + looks)
    whole = int((index == np.arange(len(index))).sum())
    return np.asarray(vectors[:whole], np.int64).reshape(whole, ABOUT + looks)


def groups_of(request: Population, coordinates: int, numbers: IntArray) -> list[tuple[Rule, IntArray]]:
    """Return the rules of draws, and the rows of each."""
    steps = numbers[:, ABOUT - 1]
    if len(steps) and not (steps.min() >= 0 and steps.max() <= 2**20):
        raise RunError("a draw lies too far from the grid: restore the run, or use --fresh")
    return [
        (rule_of(request, coordinates, one), np.flatnonzero(steps == one))
        for one in np.unique(steps).tolist()
    ]


def claim_of(request: Population, coordinates: int, inputs: int, numbers: IntArray) -> Claim:
    """Return what the votes of draws show; RunError if they cannot have come about."""
    groups, accepted, total, most = list[Any](), 0, 0.0, list[Any]()
    looks = np.array(looks_of(request.samples))
    for rule, rows in groups_of(request, coordinates, numbers):
        score, at = scores_of(rule, numbers[rows, ABOUT:])
        if np.any(at >= 0):
            raise RunError(f"draw {rows[at >= 0][0]} lacks a look: restore the run, or use --fresh")
        values, counts = np.unique(score, return_counts=True)
        groups.append((rule.lowest, values, counts))
        accepted, total = accepted + int((at == -1).sum()), total + float(score.sum())
    taken = numbers[:, ABOUT:] >= 0
    samples = int(np.where(taken, looks, 0).max(1).sum()) if len(numbers) else 0
    bound = lower_bound(groups, request.failure_probability)
    left, out = request.draws(inputs) - len(numbers), False
    if request.at_least is not None and bound < request.at_least:
        if left > 0:  # even if all that are left were accepted
            most = [*groups, (rule_of(request, coordinates).lowest, np.ones(1), np.array([left]))]
        out = lower_bound(most or groups, request.failure_probability) < request.at_least
    return Claim(
        request.at_radius, bound, request.at_least, len(numbers), accepted, samples,
        total / len(numbers) if len(numbers) else None, request.failure_probability, request.population, out,
    )  # fmt: skip


def order_of(request: Population, inputs: int) -> IntArray:
    """Return the positions of all inputs that may be drawn, in their order, by the seed.

    Of the population ``data`` each is any position, equally likely; of a ``distribution`` all differ.
    """
    count, stream = request.draws(inputs), np.random.Philox(key=request.seed)
    if request.population == "distribution":
        return np.argsort(stream.random_raw(inputs), kind="stable")[:count].astype(np.int64)
    limit, found = 2**64 - 2**64 % inputs, np.empty(0, np.uint64)
    while len(found) < count:  # of a word beyond the limit another is drawn: no position is likelier
        words = stream.random_raw(count - len(found))
        found = np.concatenate([found, words[words <= np.uint64(limit - 1)]])
    return (found % np.uint64(inputs)).astype(np.int64)


def table_of(
    request: Population, claim: Claim, data: str, inputs: int, complete: bool, **about: Any
) -> Table:
    """Return the claim as a table: one row, and what it does and does not say."""
    delta, whose = plain_decimal(claim.failure_probability), f"{data} ({inputs:,} inputs)"
    confidence = plain_decimal(float(f"{1 - claim.failure_probability:.15g}"))
    of = f"the data set {whose}" if request.population == "data" else (
        f"the distribution that the inputs of {whose} are independent draws of"
    )  # fmt: skip
    asked: list[tuple[str, Any]] = []
    if claim.at_least is not None:
        decision = "shown" if claim.reached else "not shown"
        asked = [("asked for", Share(claim.at_least)), ("claim", decision)]
    norm, smoothing = str(about.get("norm", request.norm)), request.smoothing
    converted = f" (converted from {smoothing.converted_from})" if smoothing.converted_from else ""
    notes = [
        *about.get("notes", ()),
        f"Of the population, at confidence 1 - delta = {confidence}: nothing is claimed of any one input.",
        f"The population is {of}. Shown: at least this share of it is right, and proved to stay so within "
        f"the {norm} radius{converted}, whatever g is.",
        f"One failure probability, {delta}, for the whole claim, however many inputs were drawn.",
    ]
    if claim.reached is False:
        notes.append(
            "Not shown is no proof of the contrary: more --inputs or --samples, or a smaller share, may do."
        )
    mean = "unknown" if claim.mean_score is None else floor_digits(claim.mean_score, 4)
    details = [
        f"Mean score {mean}: an estimate of what the bound comes to with more draws; with more --samples it "
        "grows towards the share itself.",
        f"Inputs drawn: {claim.draws:,}, accepted {claim.accepted:,}; looks after "
        f"{', '.join(f'{n:,}' for n in looks_of(request.samples))} samples.",
        f"Run: data {data}; robust {about.get('robust')}; seed {request.seed}.",
        *about.get("details", ()),
    ]
    mean_samples = claim.samples / claim.draws if claim.draws else 0.0
    return Table(
        name="population-claim",
        title=f"Share of the population (%), right and certified at {norm} radius >= "
        f"{as_given(claim.radius)}",
        settings=f"{noise_words(request)}, alpha = {plain_decimal(request.alpha)}, n at most "
        f"{request.samples:,} samples a draw ({mean_samples:,.0f} on average), "
        f"failure probability {delta} for the whole claim, {claim.draws:,} draws",
        headings=("population", "at least", *(name for name, _ in asked), "draws", "samples"),
        rows=((request.population, Share(claim.lower_bound), *(cell for _, cell in asked), f"{claim.draws:,}",
               f"{claim.samples:,}"),),
        notes=tuple(notes), details=tuple(details), complete=complete,
        extent=f"{claim.draws:,} of at most {request.draws(inputs):,} draws",
        data={
            "schema_version": SCHEMA_VERSION, "goal": "population", "population": request.population,
            "data": data, "inputs": inputs, "sigma": request.sigma, "noise": request.noise,
            "scale": smoothing.scale, "alpha": request.alpha, "norm": norm,
            "converted_from": smoothing.converted_from, "radius": claim.radius,
            "lower_bound": claim.lower_bound, "at_least": claim.at_least, "reached": claim.reached,
            "out_of_reach": claim.out_of_reach, "failure_probability": claim.failure_probability,
            "draws": claim.draws, "most_draws": request.draws(inputs), "accepted": claim.accepted,
            "samples": claim.samples, "mean_score": claim.mean_score, "complete": complete,
            "robust": about.get("robust"), "feature_scale": about.get("feature_scale"), "notes": notes,
        },
        records=(
            ("population", "data", "inputs", "noise", "scale", "alpha", "norm", "radius",
             "failure_probability", "lower_bound", "at_least", "reached", "draws", "samples", "complete"),
            (request.population, data, inputs, request.noise, smoothing.scale, request.alpha, norm,
             claim.radius, claim.failure_probability, claim.lower_bound, claim.at_least, claim.reached,
             claim.draws, claim.samples, complete),
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Claimed:
    """A claim and its table, as `certmix.certification.publish.derive` returns them."""

    claim: Claim
    summary: Table
    most: int
    """Draws that were asked for, at most."""


def derive(request: Population, store: Store, described: Mapping[str, Any]) -> Claimed:
    """Return what a run's numbers show; `described` is its ``run.json``."""
    data, noise = described["data"], described["noise"]
    inputs, coordinates = int(data["inputs"]), int(noise["coordinates"])
    claim = claim_of(request, coordinates, inputs, votes_in(store, len(looks_of(request.samples))))
    about = about_scale(data.get("settings"), [request.at_radius], norm=request.norm)
    about["robust"] = described["models"]["robust"]["name"]
    complete = claim.ended or claim.draws >= request.draws(inputs)
    table = table_of(request, claim, data["name"], inputs, complete, **about)
    return Claimed(claim, table, request.draws(inputs))


@dataclass(frozen=True, repr=False)
class PopulationResult(Result):
    """What a claim about a population came to, and where its run lies; ``folder`` None: in memory."""

    found: Claimed
    folder: Path | None
    interrupted: bool = False

    @property
    def claim(self) -> Claim:
        """The figures."""
        return self.found.claim

    @property
    def table(self) -> Table:
        """The claim as a table."""
        return self.found.summary

    summary = table
