"""The plan of a certified mix: its transform and alpha, by what bounds will give, from stored noisy logits.

Nothing here is certified: these are averages over a few tuning samples, plans of what bounds will give for
h(x) = E softmax(M(base(x + noise))), and a choice among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri

from certmix.bounds import BOUNDS, bernstein, hoeffding
from certmix.errors import DataError, ParameterError, check_choice
from certmix.kernels import jit
from certmix.nuts.description import MixSettings
from certmix.nuts.grid import CLAMP_NAMES, TOP_K, Grid, TransformSettings
from certmix.nuts.margins import check_labels, check_logits, normalize_numpy, over_grid, softmax_numpy
from certmix.studies.nuts_choices import CertifiedRequest
from certmix.studies.shares import estimated_accuracy
from certmix.types import EstimatedAccuracy, FloatArray, IntArray

HARD_BOUNDS = ("clopper-pearson", "clopper-pearson-two-sided")
ALPHAS = tuple(k / 1000 for k in range(501, 1001))
"""Mixing weights that are tried: thousandths above 1/2."""

_LARGEST_GRID = 2**28  # means that are held at once


@dataclass(frozen=True, eq=False)
class NoisyLogits:
    """All that a choice depends on: logits of g on inputs (m, c), of h's base on noisy copies (m, n, c)."""

    standard: FloatArray
    noisy: FloatArray
    labels: IntArray
    indices: IntArray

    def __post_init__(self) -> None:
        shape = np.shape(self.noisy)
        if len(shape) != 3 or 0 in shape or np.shape(self.standard) != (shape[0], shape[2]):
            found = f"noisy logits have shape {shape}, the standard classifier's {np.shape(self.standard)}"
            raise DataError(f"{found}: give (inputs, samples, classes) and (inputs, classes)")
        check_logits(self.standard)
        check_logits(self.noisy.reshape(-1, shape[2]))
        check_labels(self.labels, shape[0], shape[2])


@dataclass(frozen=True, eq=False)
class ScoreSums:
    """Sums over n noisy copies of the scores of candidates, and of their squares: (candidates, m, c)."""

    totals: FloatArray
    squares: FloatArray
    samples: int

    @property
    def means(self) -> FloatArray:
        """Average scores (candidates, m, c): h as far as these samples tell."""
        return self.totals / self.samples


def score_sums(noisy: FloatArray, score: Callable[[FloatArray], FloatArray]) -> ScoreSums:
    """Return the sums of one candidate: `noisy` (m, n, c), `score` a map from logits to scores (..., c)."""
    scores = score(noisy)
    return ScoreSums(scores.sum(1)[None], (scores**2).sum(1)[None], noisy.shape[1])


def grid_sums(noisy: FloatArray, grid: Grid, *, clamp: str = "gelu", top_k: int | None = None) -> ScoreSums:
    """Return the sums over noise of softmax(M(z)), of base logits (m, n, c), in the order of `np.ndindex`."""
    check_choice("clamp", clamp, CLAMP_NAMES)
    inputs, samples, classes = noisy.shape
    size = math.prod(grid.shape) * inputs * classes
    if size > _LARGEST_GRID:
        raise ParameterError(
            f"{math.prod(grid.shape)} grid points, {inputs} inputs and {classes} classes are {size:,} means, "
            f"of which at most {_LARGEST_GRID:,} are held: take fewer inputs or a smaller grid"
        )
    normalized = normalize_numpy(noisy.reshape(-1, classes), top_k).reshape(noisy.shape)
    task = partial(_sums_over_scales, np.array(grid.s))
    sums = over_grid(task, normalized, grid, clamp, *[(inputs, classes)] * 2)
    totals, squares = (one.reshape(-1, inputs, classes) for one in sums)
    return ScoreSums(totals, squares, samples)


@jit()
def _sums_over_scales(
    scales: FloatArray, clamped: FloatArray, p: float, totals: FloatArray, squares: FloatArray
) -> None:
    """Write the sums over noise of softmax(s |z|^p sgn z) and of its squares, (scales, m, c).

    Input by input: neither their order nor the number of threads changes a bit.  clamped: z, (m, n, c).
    """
    inputs, samples, classes = clamped.shape
    below, score = np.empty(classes), np.empty(classes)
    totals[:] = 0.0
    squares[:] = 0.0
    for i in range(inputs):
        for t in range(samples):
            top = -math.inf
            for j in range(classes):
                z = clamped[i, t, j]
                below[j] = -((-z) ** p) if z < 0.0 else z**p
                top = max(top, below[j])
            for k in range(scales.size):
                total = 0.0
                for j in range(classes):
                    score[j] = math.exp(scales[k] * (below[j] - top))
                    total += score[j]
                for j in range(classes):
                    share = score[j] / total
                    totals[k, i, j] += share
                    squares[k, i, j] += share * share


Side = Callable[[FloatArray, FloatArray, int, float], FloatArray]


def _betting(bets: float, mean: FloatArray, variance: FloatArray, samples: int, delta: float) -> FloatArray:
    log = math.log(bets / delta)
    return mean - np.sqrt(2 * variance * log / samples) - log / (3 * samples)


def _bernstein(mean: FloatArray, variance: FloatArray, samples: int, delta: float) -> FloatArray:
    unbiased = np.minimum(variance * samples / (samples - 1), 0.5)
    return bernstein.lower_bound(mean, unbiased, samples, delta)


def _counts(mean: FloatArray, variance: FloatArray, samples: int, delta: float) -> FloatArray:
    return betaincinv(np.maximum(mean * samples, 1e-9), (1.0 - mean) * samples + 1.0, delta)


PLANNED_BOUNDS: dict[str, Side] = {
    "betting": partial(_betting, 28.0),
    "betting-fixed": partial(_betting, math.pi),
    "bernstein": _bernstein,
    "relative-entropy": lambda mean, variance, samples, delta: hoeffding.entropy_lower_bound(
        mean, samples, delta
    ),
    "hoeffding": lambda mean, variance, samples, delta: hoeffding.lower_bound(mean, samples, delta),
    "clopper-pearson": _counts,
    "clopper-pearson-two-sided": _counts,
}
"""Lower bounds (mean, variance, samples, failure probability) that a sample of these moments would give.

Betting has no formula: Bernstein's with the known variance stands in, at the failure probability divided by
what the mixture over its 28 bets costs, 28 for equal weights and about pi for tuned ones.
"""


def planned_margins(
    sums: ScoreSums,
    *,
    bound: str,
    samples: int,
    failure_probability: float,
    distance: float,
    gated: bool = False,
) -> FloatArray:
    """Return the lower bound of h's margin at t = radius / sigma that a certification is expected to reach.

    ``Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t)``, (candidates, m).  All of the failure probability goes to p
    for ``clopper-pearson``, half to p and half to q for others.  Scores that are `gated` add up to at most 1.
    """
    lower, one_sided = PLANNED_BOUNDS[bound], len(BOUNDS[bound].parts) == 1
    mean = (sums.totals + 0.5) / (sums.samples + 1)
    variance = (sums.squares + 0.5) / (sums.samples + 1) - mean**2
    delta = failure_probability if one_sided else failure_probability / 2
    top = sums.totals.argmax(-1)[..., None]
    own = [np.take_along_axis(values, top, -1)[..., 0] for values in (mean, variance)]
    p = np.clip(lower(own[0], own[1], samples, delta), 0.0, 1.0)
    if one_sided:
        q = 1.0 - p
    else:
        uppers = 1.0 - lower(1.0 - mean, variance, samples, delta)
        np.put_along_axis(uppers, top, 0.0, -1)
        q = np.clip(uppers.max(-1), 0.0, 1.0)
        p = p if gated else np.maximum(p, 1.0 - (mean.shape[-1] - 1) * q)
        q = np.minimum(q, 1.0 - p)
    margins: FloatArray = ndtr(ndtri(p) - distance) - ndtr(ndtri(q) + distance)
    return margins


@dataclass(frozen=True)
class Planned:
    """One way of scoring, at its best on the tuning inputs, where it was chosen: optimistic estimates.

    `ties` counts the candidates that reach the same two figures at some alpha.
    """

    name: str
    scores: str
    bound: str
    alpha: float
    certified: EstimatedAccuracy
    clean: EstimatedAccuracy
    candidate: int
    ties: int

    @property
    def how(self) -> tuple[str, str, float]:
        """What `CertifiedRequest.certify` takes."""
        return self.scores, self.bound, self.alpha


def choose(
    how: tuple[str, str, str], margins: FloatArray, robust: FloatArray, standard: FloatArray,
    labels: IntArray, floor: float,
) -> Planned | None:  # fmt: skip
    """Return the candidate and alpha that certify most inputs under a floor of clean accuracy, if any.

    An input counts as certified at alpha where h's class is its label and its planned margin (candidates, m)
    exceeds (1 - alpha) / alpha.  Of equals the first of these decides: more clean inputs right, the larger
    alpha, the earlier candidate.  h: (candidates, m, c); g: (m, c), probabilities.
    """
    clean, certified = right_over_alphas(standard, robust, labels), held_over_alphas(margins, robust, labels)
    feasible = clean >= np.ceil(round(floor * len(labels), 9))
    at = first_of(certified, clean, feasible)
    if at is None:
        return None
    same = feasible & (certified == certified[at]) & (clean == clean[at])
    inputs, ties = np.arange(len(labels)), int(same.any(1).sum())
    counts = estimated_accuracy(inputs < certified[at]), estimated_accuracy(inputs < clean[at])
    return Planned(*how, ALPHAS[at[1]], *counts, at[0], ties)


def first_of(wanted: IntArray, then: IntArray, feasible: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Return the place of the most that is wanted among what is feasible, None if nothing is.

    Of equals that with more of `then`, the larger alpha, the earlier candidate: (candidates, alphas) each.
    """
    rows, columns = np.nonzero(feasible)
    if not len(rows):
        return None
    best = np.lexsort((rows, -columns, -then[rows, columns], -wanted[rows, columns]))[0]
    return int(rows[best]), int(columns[best])


def held_over_alphas(margins: FloatArray, robust: FloatArray, labels: IntArray) -> IntArray:
    """Return how many inputs are right with a margin above (1 - alpha) / alpha: (candidates, alphas)."""
    weights, right = np.array(ALPHAS), (robust.argmax(2) == labels) & (robust.max(2) > 0)
    counted = np.sort(np.where(right, margins, -np.inf), 1)
    threshold = (1.0 - weights) / weights
    return np.stack([len(labels) - np.searchsorted(row, threshold, "right") for row in counted])


def right_over_alphas(standard: FloatArray, robust: FloatArray, labels: IntArray) -> IntArray:
    """Return how many inputs argmax((1 - alpha) g + alpha h) gets right: (candidates, alphas)."""
    g, h = np.ascontiguousarray(standard), np.ascontiguousarray(robust)
    counts: IntArray = _count_right(g, h, labels, np.array(ALPHAS))
    return counts


@jit()
def _count_right(standard: FloatArray, robust: FloatArray, labels: IntArray, alphas: FloatArray) -> IntArray:
    candidates, inputs, classes = robust.shape
    counts = np.zeros((candidates, alphas.size), np.int64)
    for k in range(candidates):
        for a in range(alphas.size):
            for i in range(inputs):
                best, first = -math.inf, 0
                for j in range(classes):
                    value = (1.0 - alphas[a]) * standard[i, j] + alphas[a] * robust[k, i, j]
                    if value > best:  # the lowest class wins ties
                        best, first = value, j
                counts[k, a] += first == labels[i]
    return counts


@dataclass(frozen=True)
class Plan:
    """What the tuning inputs say: the transform chosen, and how it and two others are expected to do.

    `floor` is the clean accuracy asked of each mix; `standard` and `votes` are g's own and the smoothed h's
    own. `softmax` (as it is) is None where no alpha takes it to the floor.
    """

    floor: float
    standard: EstimatedAccuracy
    votes: EstimatedAccuracy
    best: TransformSettings
    transform: Planned
    hard: Planned
    softmax: Planned | None
    on_edge: tuple[str, ...]

    @property
    def settings(self) -> MixSettings:
        return MixSettings(self.best, self.transform.alpha, standard_temperature=1.0)


def plan_mix(logits: NoisyLogits, asked: CertifiedRequest) -> Plan:
    """Choose (s, p, c, alpha), and for comparison alpha of the softmax as it is and of hard votes.

    Each maximises the tuning inputs planned to be certified at the radius, under the same floor of the mix's
    clean accuracy; hard votes also choose between two bounds.
    """
    standard, grid = softmax_numpy(logits.standard), asked.candidates
    votes = score_sums(logits.noisy, lambda scores: np.eye(scores.shape[-1])[scores.argmax(-1)])
    own = estimated_accuracy(standard.argmax(1) == logits.labels)
    alone = estimated_accuracy(votes.means[0].argmax(1) == logits.labels)
    floor = (own.accuracy + alone.accuracy) / 2
    if asked.clean_accuracy_floor is not None:
        floor = asked.clean_accuracy_floor

    def planned(name: str, scores: str, bound: str, sums: ScoreSums) -> Planned | None:
        margins = planned_margins(
            sums, bound=bound, samples=asked.samples, failure_probability=asked.failure_probability,
            distance=asked.at_radius / asked.sigma,
        )  # fmt: skip
        return choose((name, scores, bound), margins, sums.means, standard, logits.labels, floor)

    bent = grid_sums(logits.noisy, grid, clamp=asked.clamp, top_k=TOP_K[asked.preset])
    transform = planned("transform", "soft", asked.bound, bent)
    softmax = planned("softmax as it is", "soft", asked.bound, score_sums(logits.noisy, softmax_numpy))
    hard = [planned("hard votes", "hard", bound, votes) for bound in HARD_BOUNDS]
    if transform is None or hard[0] is None or hard[1] is None:
        which = "transform of the grid" if transform is None else "mix with hard votes"
        raise ParameterError(
            f"clean accuracy floor = {floor:.4g}: no {which} reaches it on the tuning inputs, where g alone "
            f"has {own.accuracy:.4g}: lower --clean-accuracy-floor"
        )

    better = max(hard[0], hard[1], key=lambda one: (one.certified.correct, one.clean.correct, one.alpha))
    i, j, k = (int(at) for at in np.unravel_index(transform.candidate, grid.shape))
    best = TransformSettings(grid.s[i], grid.p[j], grid.c[k], asked.clamp, TOP_K[asked.preset])
    return Plan(floor, own, alone, best, transform, better, softmax, grid.edges((i, j, k)))
