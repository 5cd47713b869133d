"""When an image has been sampled enough, one rule a goal, and what the samples it was spared could give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import bdtrik, ndtr, pdtr

from certmix.bounds import BOUNDS, bound_counts, bound_scores
from certmix.bounds.statistics import SCALE, ScoreStatistics
from certmix.certification.request import CertifyRequest
from certmix.radii import CERTIFICATES, margin_slack_of
from certmix.sampling.schedule import looks, share
from certmix.types import ConfidenceBounds, FloatArray, IntArray

BoolArray = NDArray[np.bool_]

PRICE = 0.36
"""An image is given up when the next samples bring fewer than PRICE / --samples table cells each."""
_GRID = np.linspace(-8.0, 9.0, 341)


@lru_cache(maxsize=16)  # a request asks at each table and each plan
def give_up_below(
    looks: tuple[int, ...], shares: tuple[float, ...], thresholds: tuple[float, ...], price: float
) -> FloatArray:
    """Return the z (looks, thresholds) below which a threshold is no longer worth sampling for.

    Looks are sample numbers, the last one ends all; each may spend its share of failure probability.
    Thresholds are probabilities in (0, 1) to be exceeded, one a column of the table, and the price is the
    table cells that one sample must bring.  An image with standardised surplus z goes on while z >= this, for
    some threshold not yet reached; at the last look it is infinite.
    """
    steps, levels = np.asarray(looks, np.float64), np.asarray(thresholds, np.float64)
    spent = np.asarray(shares, np.float64)[:, None]
    with np.errstate(all="ignore"):  # standardised votes that Clopper-Pearson needs at each look's share
        votes = np.ceil(bdtrik(1.0 - spent, steps[:, None], levels)) + 1
        z = (votes - steps[:, None] * levels) / np.sqrt(steps[:, None] * levels * (1 - levels))
    needed = np.where(np.isfinite(z) & (votes <= steps[:, None]) & (spent > 0), z, np.inf)
    border = np.full((len(steps), len(levels)), np.inf)
    value = (_GRID[:, None] >= needed[-1]).astype(np.float64)
    for k in range(len(steps) - 2, -1, -1):
        expected = _transition(steps[k], steps[k + 1]) @ value - price * (steps[k + 1] - steps[k])
        value = np.where(_GRID[:, None] >= needed[k], 1.0, np.maximum(expected, 0.0))
        worth = expected > 0
        border[k] = np.where(worth.any(0), _GRID[worth.argmax(0)], np.inf)
    border.setflags(write=False)
    return border


def _transition(now: float, then: float) -> FloatArray:
    """Predictive distribution of z at `then` samples given z at `now`, on the grid."""
    mean = _GRID / np.sqrt(now)
    spread = np.sqrt(1.0 / now - 1.0 / then)
    edges = 0.5 * (_GRID[1:] + _GRID[:-1]) / np.sqrt(then)
    below = ndtr((edges[None, :] - mean[:, None]) / spread)
    padded = np.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0.0, 1.0)))
    return np.diff(padded, axis=1)


def thresholds(certificate: str, sigma: float, alpha: float, radii: Sequence[float]) -> FloatArray:
    """Return the least p, with q = 1 - p, that a certificate needs for each radius; 1 if none will do.

    A radius of 0 stands for any radius > 0.
    """
    rule, wanted = CERTIFICATES[certificate], np.asarray(radii, np.float64)
    slack = margin_slack_of(alpha)
    low, high = np.full(len(wanted), 0.5), np.ones(len(wanted))
    for _ in range(60):
        middle = 0.5 * (low + high)
        reached = rule.radius(middle, 1.0 - middle, sigma, alpha, margin_slack=slack)
        enough = np.where(wanted > 0, reached >= wanted, reached > 0)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


class Rule:
    """The looks of a request and when to go on: the columns, or radii, of its deciding rows are one set."""

    def __init__(self, request: CertifyRequest) -> None:
        self.request = request
        self.looks = looks(request.samples)
        self._rows = [(CERTIFICATES[name].radius, alpha) for _, name, alpha in request.deciding()]
        self._wanted = np.asarray(request.radii)
        levels = [
            thresholds(name, request.sigma, alpha, request.radii) for _, name, alpha in request.deciding()
        ]
        self._levels = np.concatenate(levels)
        self._attainable = self._levels < 1.0 - 1e-12
        self._levels[~self._attainable] = 0.5
        spent = tuple(request.failure_probability * share(k) for k in range(len(self.looks)))
        wanted, price = tuple(self._levels.tolist()), PRICE / request.samples
        self._border = give_up_below(self.looks, spent, wanted, price)

    def goes_on(
        self, number: int, mean: FloatArray, spread: FloatArray | None, p: FloatArray, q: FloatArray
    ) -> BoolArray:
        """Return for each image (m,) whether look `number` should be followed by another.

        `mean` and `spread` are those of one score of the selected class, the spread None for votes; `p` and
        `q` are the best bounds so far.
        """
        if number + 1 >= len(self.looks):
            return np.zeros(len(mean), bool)
        radii = self._reached(p, q)
        if self.request.goal == "radius":  # while one could still grow, to the upper end of the same width
            optimistic = np.minimum(1.0, 2 * mean - p)
            most = self._reached(optimistic, np.minimum(q, 1.0 - optimistic))
            result = np.zeros(len(mean), bool)
            for radius, largest in zip(radii, most, strict=True):
                result |= radius < (1 - self.request.relative_precision) * largest
            return result
        reached = [np.where(self._wanted > 0, r[:, None] >= self._wanted, r[:, None] > 0) for r in radii]
        open_ = ~np.concatenate(reached, 1) & self._attainable
        deviation = np.sqrt(self._levels * (1 - self._levels)) if spread is None else spread[:, None]
        surplus = np.sqrt(self.looks[number]) * (mean[:, None] - self._levels) / deviation
        return (open_ & (surplus >= self._border[number])).any(1)

    def _reached(self, p: FloatArray, q: FloatArray) -> list[FloatArray]:
        """Return the radii (m,) of each deciding row."""
        return [
            radius(p, q, self.request.sigma, alpha, margin_slack=margin_slack_of(alpha))
            for radius, alpha in self._rows
        ]


@dataclass(frozen=True)
class Standing:
    """Where images (m,) stopped: the number of their last look, -1 before the first, and what it showed.

    `mean` and `spread` are those of one score of the selected class; the spread is NaN for votes.
    """

    look: IntArray
    mean: FloatArray
    spread: FloatArray


class Walk:
    """Images (m,) on their way through the looks of a rule.

    `p` and `q` are the best bounds so far, 0 and 1 before the first look, and `samples` those behind them;
    `active` images wait for their next look.  One whose selected class, chosen on selection samples, is wrong
    stops at once.
    """

    def __init__(self, rule: Rule, selected: IntArray, labels: IntArray) -> None:
        self.rule, self.selected = rule, np.asarray(selected)
        self.p, self.q = np.zeros(len(selected)), np.ones(len(selected))
        self.samples = np.zeros(len(selected), np.int64)
        self.standing = Standing(
            np.full(len(selected), -1), np.zeros(len(selected)), np.full(len(selected), np.nan)
        )
        self.active: BoolArray = np.asarray(selected) == np.asarray(labels)
        if not rule.looks:
            self.active = np.zeros(len(selected), bool)

    def step(self, number: int, rows: IntArray, shown: IntArray | Sequence[ScoreStatistics]) -> None:
        """Take the votes (len(rows), c), or score statistics, of look `number` for the images in `rows`."""
        request, selected, spread = self.rule.request, self.selected[rows], None
        if isinstance(shown, np.ndarray):
            found = bound_counts(shown, selected, request.failure_probability, request.bound, number)
            mean = shown[np.arange(len(rows)), selected] / shown.sum(1)
        else:
            found = bound_scores(shown, request.failure_probability, request.bound, number)
            mean = np.array([image.means()[image.selected] for image in shown])
            squares = [image.squares[image.selected] / (image.samples * SCALE**2) for image in shown]
            spread = np.sqrt(np.maximum(np.array(squares) - mean**2, 1e-6))
        self.p[rows] = np.maximum(self.p[rows], found.p_lower)
        self.q[rows] = np.minimum(self.q[rows], found.q_upper)
        self.samples[rows] = self.rule.looks[number]
        self.standing.look[rows], self.standing.mean[rows] = number, mean
        self.standing.spread[rows] = np.nan if spread is None else spread
        self.active[rows] = self.rule.goes_on(number, mean, spread, self.p[rows], self.q[rows])


LIKELY, _Z = 0.975, 1.96
"""With this probability no figure exceeds what `Prospects` says it could reach."""
_NODES = np.linspace(-4.0, 4.0, 33)


@dataclass(frozen=True)
class Prospects:
    """What images could reach if they had all samples: estimates, in which no certificate has a part.

    They are about the images that are right and lack samples, many of which are alike: `rows` (k,) are places
    of one of each kind, of which there are `counts` (k,).  For each kind, `bounds` holds those of the last
    look for the nodes of a normal law, from the least to the most favourable: that law is the predictive one
    of its mean score, with Jeffreys' prior.  Images are independent.
    """

    rows: IntArray
    counts: IntArray
    bounds: ConfidenceBounds

    @classmethod
    def of(
        cls, request: CertifyRequest, bounds: ConfidenceBounds, at: Standing, right: BoolArray
    ) -> Prospects:
        """Return the prospects of images (m,) that stopped `at` with these bounds."""
        steps = looks(request.samples)
        lost = np.broadcast_to(np.asarray(bounds.lost, np.float64), right.shape)
        rows, counts = _alike(
            np.flatnonzero(right & (at.look >= 0) & (at.look < len(steps) - 1)),
            (at.look, at.mean, at.spread, bounds.p_lower, bounds.q_upper, lost),
        )
        mean, spread, last = at.mean[rows, None], at.spread[rows, None], steps[-1]
        now = np.asarray(steps)[at.look[rows], None]
        # The mean that all samples will have: normal for scores, by the angle of its square root for votes.
        angle = np.arcsin(np.sqrt((mean * now + 0.5) / (now + 1))) + _NODES / (2 * np.sqrt(now + 1))
        votes = np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2
        scores = np.clip(mean + spread / np.sqrt(now) * _NODES, 0.0, 1.0)
        truth = np.where(np.isnan(spread), votes, scores)
        final = mean + (truth - mean) * np.sqrt(1 - now / last)
        p, q = _last_bounds(request, final.ravel(), np.broadcast_to(spread, final.shape).ravel())
        p, q = p.reshape(final.shape), q.reshape(final.shape)
        return cls(rows, counts, replace(
            bounds, p_lower=np.maximum(p, bounds.p_lower[rows, None]).ravel(),
            q_upper=np.minimum(q, bounds.q_upper[rows, None]).ravel(),
            lost=np.repeat(lost[rows], len(_NODES)),
        ))  # fmt: skip

    def reach(self, radius: FloatArray, ahead: FloatArray, columns: FloatArray) -> tuple[IntArray, float]:
        """Return how many more images each column could count, and how much more the radii could sum to.

        The sum is that of each image's own quantile, so no prior of all images together has a part in it.

        Parameters
        ----------
        radius
            float64 (m,): the radii of a row, as certified.
        ahead
            Its radii for `bounds`.
        columns
            float64 (k,): radii of the table.
        """
        now, ahead = radius[self.rows], ahead.reshape(-1, len(_NODES))
        gain = [_most(ndtr(z), self.counts) for z in _short_of(now, ahead, columns, _NODES)]
        likely = ahead[:, np.searchsorted(_NODES, _Z)]
        growth = np.where(np.isfinite(likely), np.maximum(likely - now, 0.0), 0.0)
        return np.array(gain, np.int64), float((growth * self.counts).sum())


def _alike(rows: IntArray, columns: Sequence[NDArray[Any]]) -> tuple[IntArray, IntArray]:
    """Return the places of one image of each kind among `rows`, and how many there are of each."""
    values = [np.nan_to_num(column[rows], nan=-1.0) for column in columns]
    order = np.lexsort(values)
    begins = np.zeros(len(rows), bool)
    for value in values:
        begins[1:] |= np.diff(value[order]) != 0
    begins[:1] = True
    return rows[order[begins]], np.diff(np.append(np.flatnonzero(begins), len(rows)))


def _last_bounds(
    request: CertifyRequest, mean: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the bounds that the last look gives for mean scores; the spread is NaN for votes."""
    steps, hard = looks(request.samples), request.scores == "hard"
    counts, where = np.unique(np.round(steps[-1] * mean).astype(np.int64), return_inverse=True)
    found = bound_counts(
        np.stack([counts, steps[-1] - counts], 1), np.zeros(len(counts), np.int64),
        request.failure_probability, request.bound if hard else next(iter(BOUNDS)), len(steps) - 1,
    )  # fmt: skip
    if hard:
        return found.p_lower[where], found.q_upper[where]
    binomial = np.sqrt(np.maximum(mean * (1 - mean), 1e-12))  # of votes with that mean
    p = np.maximum(mean - (mean - found.p_lower[where]) * np.minimum(spread / binomial, 1.0), 0.0)
    return p, 1.0 - p


@njit(cache=True, nogil=True)
def _short_of(radius: FloatArray, ahead: FloatArray, columns: FloatArray, nodes: FloatArray) -> FloatArray:
    """Return z (k, m): an image that lacks a column reaches it with probability Phi(z); -inf if it has it.

    `ahead` (m, nodes) are its radii at the nodes of the normal law, which are equally far apart.
    """
    z, last, step = np.full((len(columns), len(radius)), -np.inf), len(nodes) - 1, nodes[1] - nodes[0]
    for i in range(len(radius)):
        for k in range(len(columns)):
            column = columns[k]
            if radius[i] >= column if column > 0 else radius[i] > 0:
                continue
            below = 0
            for node in range(len(nodes)):
                below += ahead[i, node] < column if column > 0 else ahead[i, node] <= 0
            if below == 0:
                z[k, i] = np.inf
            elif below <= last:
                low = ahead[i, below - 1]
                rise = ahead[i, below] - low
                z[k, i] = -(nodes[below - 1] + step * ((column - low) / rise if rise > 0 else 0.0))
    return z


def _most(chances: FloatArray, counts: IntArray) -> int:
    """Return the quantile `LIKELY` of how many of independent events happen; `counts` have each chance."""
    likely = chances >= 1e-3
    if counts[likely].sum() > 500:
        return int(chances @ counts + _Z * math.sqrt(float((chances * (1 - chances)) @ counts)) + 0.5)
    rare = float(chances[~likely] @ counts[~likely])
    laws = [np.array([1 - c, c]) for c in np.repeat(chances[likely], counts[likely]).tolist()]
    reach = np.arange(math.ceil(rare + 10 * math.sqrt(rare) + 10))
    laws.append(np.diff(pdtr(reach, rare), prepend=0.0))
    while len(laws) > 1:
        paired = [np.convolve(laws[k], laws[k + 1]) for k in range(0, len(laws) - 1, 2)]
        laws = [*paired, *laws[2 * len(paired) :]]
    return int(np.searchsorted(laws[0].cumsum(), LIKELY))
