"""When an image has been sampled enough: one rule a goal, over the fixed sequence of looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, ndtr

from certmix.bounds import bound_counts, bound_scores
from certmix.bounds.statistics import SCALE, ScoreStatistics
from certmix.certification.request import CertifyRequest
from certmix.radii import CERTIFICATES, margin_slack_of
from certmix.sampling.schedule import looks, share
from certmix.types import ConfidenceBounds, FloatArray, IntArray

BoolArray = NDArray[np.bool_]

PRICE = 0.36
"""An image is given up when the next samples bring fewer than PRICE / --samples table cells each."""
_GRID = np.linspace(-8.0, 9.0, 341)


def give_up_below(
    looks: Sequence[int], shares: Sequence[float], thresholds: Sequence[float], price: float
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
    """The looks of a request and when to go on; the deciding row is its first certificate at its alpha."""

    def __init__(self, request: CertifyRequest) -> None:
        self.request = request
        self.looks = looks(request.samples)
        self._radius = CERTIFICATES[request.certificates[0]].radius
        self._wanted = np.asarray(request.radii)
        levels = thresholds(request.certificates[0], request.sigma, request.alpha, request.radii)
        self._attainable = levels < 1.0 - 1e-12
        self._levels = np.where(self._attainable, levels, 0.5)
        spent = [request.failure_probability * share(k) for k in range(len(self.looks))]
        self._border = give_up_below(self.looks, spent, self._levels.tolist(), PRICE / request.samples)

    def goes_on(
        self, number: int, mean: FloatArray, spread: FloatArray | None, p: FloatArray, q: FloatArray
    ) -> BoolArray:
        """Return for each image (m,) whether look `number` should be followed by another.

        `mean` and `spread` are those of one score of the selected class, the spread None for votes; `p` and
        `q` are the best bounds so far.
        """
        if number + 1 >= len(self.looks):
            return np.zeros(len(mean), bool)
        result: BoolArray
        if self.request.goal == "radius":  # while it could still grow, to the upper end of the same width
            optimistic = np.minimum(1.0, 2 * mean - p)
            most = self._reached(optimistic, np.minimum(q, 1.0 - optimistic))
            result = self._reached(p, q) < (1 - self.request.relative_precision) * most
            return result
        radius = self._reached(p, q)[:, None]
        open_ = ~np.where(self._wanted > 0, radius >= self._wanted, radius > 0)
        deviation = np.sqrt(self._levels * (1 - self._levels)) if spread is None else spread[:, None]
        surplus = np.sqrt(self.looks[number]) * (mean[:, None] - self._levels) / deviation
        result = (open_ & self._attainable & (surplus >= self._border[number])).any(1)
        return result

    def _reached(self, p: FloatArray, q: FloatArray) -> FloatArray:
        alpha = self.request.alpha
        return self._radius(p, q, self.request.sigma, alpha, margin_slack=margin_slack_of(alpha))


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
        self.active: BoolArray = np.asarray(selected) == np.asarray(labels)
        if not rule.looks:
            self.active = np.zeros(len(selected), bool)

    def step(self, number: int, rows: IntArray, counts: IntArray) -> None:
        """Take the votes (len(rows), c) of look `number` for the images in `rows`."""
        request, selected = self.rule.request, self.selected[rows]
        found = bound_counts(counts, selected, request.failure_probability, request.bound, number)
        mean = counts[np.arange(len(rows)), selected] / counts.sum(1)
        self._take(number, rows, found, mean, None)

    def step_scores(self, number: int, rows: IntArray, statistics: Sequence[ScoreStatistics]) -> None:
        """Take the score statistics of look `number` for the images in `rows`."""
        request = self.rule.request
        found = bound_scores(statistics, request.failure_probability, request.bound, number)
        mean = np.array([image.means()[image.selected] for image in statistics])
        square = np.array(
            [image.squares[image.selected] / (image.samples * SCALE**2) for image in statistics]
        )
        self._take(number, rows, found, mean, np.sqrt(np.maximum(square - mean**2, 1e-6)))

    def _take(
        self,
        number: int,
        rows: IntArray,
        found: ConfidenceBounds,
        mean: FloatArray,
        spread: FloatArray | None,
    ) -> None:
        self.p[rows] = np.maximum(self.p[rows], found.p_lower)
        self.q[rows] = np.minimum(self.q[rows], found.q_upper)
        self.samples[rows] = self.rule.looks[number]
        self.active[rows] = self.rule.goes_on(number, mean, spread, self.p[rows], self.q[rows])
