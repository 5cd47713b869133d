"""When an input has been sampled enough, one rule a goal, and what the samples it was spared could give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, ndtr, pdtr

from certmix.bounds import BOUNDS, bound_counts, bound_scores
from certmix.bounds.bound import selected_and_runner_up
from certmix.bounds.statistics import SCALE, ScoreStatistics
from certmix.certification.request.sampled import CertifyRequest
from certmix.kernels import kernel
from certmix.radii import Smoothing, margin_slack_of
from certmix.sampling.schedule import looks, share
from certmix.types import CertifiedRadii, ConfidenceBounds, FloatArray, IntArray

BoolArray = NDArray[np.bool_]

PRICE = 0.36
"""An input is given up when the next samples bring fewer than PRICE / --samples table cells each."""
_GRID = np.linspace(-8.0, 9.0, 341)


@lru_cache(maxsize=16)  # a request asks at each table and each plan
def give_up_below(
    looks: tuple[int, ...], shares: tuple[float, ...], thresholds: tuple[float, ...], price: float
) -> FloatArray:
    """Return the z (looks, thresholds) below which a threshold is no longer worth sampling for.

    Looks are sample numbers, the last one ends all; each may spend its share of failure probability.
    Thresholds are probabilities in (0, 1) to be exceeded, one a column of the table, and the price is the
    table cells that one sample must bring.  An input with standardised surplus z goes on while z >= this, for
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


def thresholds(
    certificate: str, sigma: float | Smoothing, alpha: float, radii: Sequence[float], lost: float = 0.0
) -> FloatArray:
    """Return the least p, with q = 1 - p, that a certificate needs for each radius; 1 if none will do.

    A radius of 0 stands for any radius > 0; `lost` is as for `Smoothing.radius`.
    """
    smoothing, wanted = Smoothing.of(sigma), np.asarray(radii, np.float64)
    slack = margin_slack_of(alpha)
    low, high = np.full(len(wanted), 0.5), np.ones(len(wanted))
    for _ in range(60):
        middle = 0.5 * (low + high)
        reached = smoothing.radius(certificate, middle, 1.0 - middle, alpha, slack, lost=lost)
        enough = np.where(wanted > 0, reached >= wanted, reached > 0)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


class Part:
    """What of a rule is about votes behind one gate: the columns, or radii, of its deciding rows."""

    def __init__(self, request: CertifyRequest, gate: float) -> None:
        self.request, self.gate = request, gate
        self.rows = [row for row in request.deciding() if row.gate == gate]
        self._wanted = np.asarray(request.radii)
        levels = [
            thresholds(row.certificate, request.smoothing, row.alpha, request.radii) for row in self.rows
        ]
        self._levels = np.concatenate([np.empty(0), *levels])
        self._attainable = self._levels < 1.0 - 1e-12
        self._levels[~self._attainable] = 0.5
        steps = looks(request.samples)
        each = request.of_one_input / (2 if gate else 1)
        spent, price = tuple(each * share(k) for k in range(len(steps))), PRICE / request.samples
        wanted = tuple(self._levels.tolist())
        self._border = give_up_below(steps, spent, wanted, price) if self.rows else None
        far = np.linspace(0.0, 1.25 * max(request.radii) + 1e-9, 400)
        self._lines = [  # radius -> the least p for it, with q = 1 - p
            (far, thresholds(row.certificate, request.smoothing, row.alpha, far.tolist()))
            for row in self.rows * (gate > 0)
        ]

    def goes_on(self, number: int, at: Standing, p: FloatArray, q: FloatArray) -> BoolArray:
        """Return for each input (m,) whether look `number`, which is not the last, should be followed.

        `at` are those inputs' means, and `p` and `q` the best bounds so far.
        """
        if self._border is None:
            return np.zeros(len(p), bool)
        radii, steps = self._reached(p, q), looks(self.request.samples)
        if self.request.goal == "radius":  # while one could still grow, to the upper end of the same width
            best_p = np.minimum(1.0, 2 * at.mean - p)
            best_q = np.maximum(0.0, 2 * at.rival - q) if self.gate else 1.0 - best_p
            result = np.zeros(len(p), bool)
            for radius, largest in zip(radii, self._reached(best_p, np.minimum(q, best_q)), strict=True):
                result |= radius < (1 - self.request.relative_precision) * largest
            return result
        if not self.gate:
            given = np.array(radii), self._wanted, self._attainable, self._levels, self._border[number]
            return _worth_it(*given, at.mean, at.spread, float(np.sqrt(steps[number])))
        reached = [np.where(self._wanted > 0, r[:, None] >= self._wanted, r[:, None] > 0) for r in radii]
        open_ = ~np.concatenate(reached, 1) & self._attainable
        mean, deviation = self._as_if_two(at, steps[number])
        surplus = np.sqrt(steps[number]) * (mean - self._levels) / deviation
        return (open_ & (surplus >= self._border[number])).any(1)

    def _as_if_two(self, at: Standing, samples: int) -> tuple[FloatArray, FloatArray]:
        """Return the shares (m, thresholds) that votes between two classes would need for the radii they seem
        to have, and their deviations; estimates, which only say when to stop."""
        mean = (at.mean * samples + 0.5) / (samples + 1)
        rival = np.minimum((at.rival * samples + 0.5) / (samples + 1), 1.0 - mean)
        margin, columns = mean - rival, len(self._wanted)
        found = [
            np.where(radius > 0, np.interp(radius, *line), 0.5 * (1 + margin))
            for radius, line in zip(self._reached(mean, rival), self._lines, strict=True)
        ]
        deviation = 0.5 * np.sqrt(np.maximum(mean + rival - margin**2, 1e-12))
        return np.repeat(np.stack(found, 1), columns, axis=1), deviation[:, None]

    def _reached(self, p: FloatArray, q: FloatArray) -> list[FloatArray]:
        """Return the radii (m,) of each deciding row."""
        smoothing = self.request.smoothing
        return [
            smoothing.radius(row.certificate, p, q, row.alpha, margin_slack_of(row.alpha))
            for row in self.rows
        ]


@kernel()
def _worth_it(
    radii: FloatArray, wanted: FloatArray, attainable: BoolArray, levels: FloatArray, border: FloatArray,
    mean: FloatArray, spread: FloatArray, root: float,
) -> BoolArray:  # fmt: skip
    """Return which inputs (m,) lack a column that is worth more samples; `radii` (rows, m), `root` of n."""
    found, columns = np.zeros(len(mean), np.bool_), len(wanted)
    votes = np.sqrt(levels * (1 - levels))
    for i in range(len(mean)):
        for k in range(len(levels)):
            radius, column = radii[k // columns, i], wanted[k % columns]
            if not attainable[k] or (radius >= column if column > 0 else radius > 0):
                continue
            deviation = votes[k] if np.isnan(spread[i]) else spread[i]
            if root * (mean[i] - levels[k]) / deviation >= border[k]:
                found[i] = True
                break
    return found


class Rule:
    """The looks of a request and when to go on: while any gate's part of it wants more."""

    def __init__(self, request: CertifyRequest) -> None:
        self.request, self.looks = request, looks(request.samples)
        self.parts = [Part(request, gate) for gate in request.gates]


@dataclass(frozen=True)
class Standing:
    """Where inputs (m,) stopped: the number of their last look, -1 before the first, and what it showed.

    `mean` and `spread` are those of one score of the selected class, the spread NaN for votes, and `rival` is
    the largest mean vote of another class.
    """

    look: IntArray
    mean: FloatArray
    spread: FloatArray
    rival: FloatArray

    def of(self, rows: IntArray | BoolArray) -> Standing:
        """Return that of some inputs."""
        return Standing(self.look[rows], self.mean[rows], self.spread[rows], self.rival[rows])


class Walk:
    """Inputs (m,) on their way through the looks of a rule.

    For each gate of the rule (G of them) there are the selected classes, -1 for none, and `p` and `q`
    (G, m), the best bounds so far, 0 and 1 before the first look.  `samples` are those behind them; `active`
    inputs wait for their next look.  One whose selected class, chosen on selection samples, is wrong behind
    every gate stops at once.
    """

    def __init__(self, rule: Rule, selected: Sequence[IntArray], labels: IntArray) -> None:
        self.rule, self.selected = rule, np.stack([np.asarray(one) for one in selected])
        shape = self.selected.shape
        self.p, self.q = np.zeros(shape), np.ones(shape)
        self.samples = np.zeros(shape[1], np.int64)
        zeros = np.zeros(shape)
        self._at = Standing(np.full(shape, -1), zeros, np.full(shape, np.nan), zeros.copy())
        self._right: BoolArray = self.selected == np.asarray(labels)
        self.active: BoolArray = self._right.any(0) & bool(rule.looks)

    def standing(self, gate: int) -> Standing:
        """Return where the inputs stand behind the gate of that number."""
        return Standing(
            *(one[gate] for one in (self._at.look, self._at.mean, self._at.spread, self._at.rival))
        )

    def step(
        self, number: int, rows: IntArray, shown: Sequence[IntArray | Sequence[ScoreStatistics]]
    ) -> None:
        """Take what look `number` shows of the inputs in `rows`: for each gate votes (len(rows), c), with a
        column of abstentions behind one, or score statistics."""
        goes_on = np.zeros(len(rows), bool)
        for k, (part, seen) in enumerate(zip(self.rule.parts, shown, strict=True)):
            some = self.selected[k, rows] >= 0
            self._take(k, number, rows[some], seen[some] if isinstance(seen, np.ndarray) else seen)
            if number + 1 < len(self.rule.looks):
                at = self.standing(k).of(rows)
                goes_on |= self._right[k, rows] & part.goes_on(number, at, self.p[k, rows], self.q[k, rows])
        self.samples[rows], self.active[rows] = self.rule.looks[number], goes_on

    def wanting(self, rule: Rule) -> BoolArray:
        """Return which inputs (m,) another rule, of the same looks and gates, would sample further."""
        found: BoolArray = np.zeros(len(self.samples), bool)
        for k, part in enumerate(rule.parts):
            at = self.standing(k)
            for number in range(len(rule.looks) - 1):
                rows = np.flatnonzero((at.look == number) & self._right[k])
                found[rows] |= part.goes_on(number, at.of(rows), self.p[k, rows], self.q[k, rows])
        return found

    def _take(self, k: int, number: int, rows: IntArray, shown: IntArray | Sequence[ScoreStatistics]) -> None:
        request, selected, spread = self.rule.request, self.selected[k, rows], np.full(len(rows), np.nan)
        if len(rows) == 0:
            return
        delta, gate = request.of_one_input, self.rule.parts[k].gate
        if isinstance(shown, np.ndarray):
            found = bound_counts(shown, selected, delta, request.bound, number, gated=gate > 0)
            votes, rivals = selected_and_runner_up(shown[:, :-1] if gate else shown, selected)
            total = shown.sum(1)
            mean, rival = votes / total, rivals / total
        else:
            found = bound_scores(shown, delta, request.bound, number)
            mean = np.array([input.means()[input.selected] for input in shown])
            squares = [input.squares[input.selected] / (input.samples * SCALE**2) for input in shown]
            spread, rival = np.sqrt(np.maximum(np.array(squares) - mean**2, 1e-6)), 1.0 - mean
        self.p[k, rows] = np.maximum(self.p[k, rows], found.p_lower)
        self.q[k, rows] = np.minimum(self.q[k, rows], found.q_upper)
        self._at.look[k, rows] = number
        self._at.mean[k, rows], self._at.spread[k, rows], self._at.rival[k, rows] = mean, spread, rival


LIKELY, _Z = 0.975, 1.96
"""With this probability no figure exceeds what `Prospects` says it could reach."""
_NODES = np.linspace(-4.0, 4.0, 33)


@dataclass(frozen=True)
class Prospects:
    """What inputs could reach if they had all samples: estimates, in which no certificate has a part.

    They are about the inputs that are right and lack samples, many of which are alike: `rows` (k,) are places
    of one of each kind, of which there are `counts` (k,).  For each kind, `bounds` holds those of the last
    look for the nodes of a normal law, from the least to the most favourable: that law is the predictive one
    of its mean score, with Jeffreys' prior.  Inputs are independent.
    """

    rows: IntArray
    counts: IntArray
    bounds: ConfidenceBounds

    @classmethod
    def of(
        cls,
        request: CertifyRequest,
        bounds: ConfidenceBounds,
        at: Standing,
        right: BoolArray,
        gate: float = 0.0,
    ) -> Prospects:
        """Return the prospects of inputs (m,) that stopped `at` with these bounds, behind a gate."""
        steps = looks(request.samples)
        lost = np.broadcast_to(np.asarray(bounds.lost, np.float64), right.shape)
        rows, counts, _ = alike(
            np.flatnonzero(right & (at.look >= 0) & (at.look < len(steps) - 1)),
            (at.look, at.mean, at.spread, *[at.rival] * bool(gate), bounds.p_lower, bounds.q_upper, lost),
        )
        mean, spread, last = at.mean[rows, None], at.spread[rows, None], steps[-1]
        now = np.asarray(steps)[at.look[rows], None]
        # The mean that all samples will have: normal for scores, by the angle of its square root for votes.
        angle = np.arcsin(np.sqrt((mean * now + 0.5) / (now + 1))) + _NODES / (2 * np.sqrt(now + 1))
        votes = np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2
        scores = np.clip(mean + spread / np.sqrt(now) * _NODES, 0.0, 1.0)
        truth = np.where(np.isnan(spread), votes, scores)
        left = np.sqrt(1 - now / last)
        final, rival = mean + (truth - mean) * left, None
        if gate:  # a rival's mean falls as the class's grows, by the correlation of a multinomial's parts
            second = at.rival[rows, None]
            odds = (mean * now + 0.5) / ((1 - mean) * now + 0.5) * (second * now + 0.5)
            angle = np.arcsin(np.sqrt((second * now + 0.5) / (now + 1)))
            angle = angle - np.sqrt(odds / ((1 - second) * now + 0.5)) * _NODES / (2 * np.sqrt(now + 1))
            rival = second + (np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2 - second) * left
            rival = np.minimum(rival, 1.0 - final).ravel()
        spreads = np.broadcast_to(spread, final.shape).ravel()
        p, q = _last_bounds(request, final.ravel(), spreads, rival)
        p, q = p.reshape(final.shape), q.reshape(final.shape)
        return cls(rows, counts, replace(
            bounds, p_lower=np.maximum(p, bounds.p_lower[rows, None]).ravel(),
            q_upper=np.minimum(q, bounds.q_upper[rows, None]).ravel(),
            lost=np.repeat(lost[rows], len(_NODES)),
        ))  # fmt: skip

    def reach(self, radius: FloatArray, ahead: FloatArray, columns: FloatArray) -> tuple[IntArray, float]:
        """Return how many more inputs each column could count, and how much more the radii could sum to.

        The sum is that of each input's own quantile, so no prior of all inputs together has a part in it.

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

    def reach_one(
        self, some: IntArray, radii: CertifiedRadii, column: float, smoothing: Smoothing
    ) -> tuple[int, BoolArray]:
        """Return how many more of some kinds (k,) a column could count, and which kinds could at all.

        `radii` (m,) are all inputs' as certified; those of the nodes are under the same certificate, of the
        same `smoothing`.
        """
        (p, q, node), alpha = self.bounds.kinds, radii.alpha
        nodes = np.arange(len(node)).reshape(-1, len(_NODES))[some]
        lost = np.asarray(self.bounds.lost)[nodes]
        given = radii.certificate, p, q, alpha, margin_slack_of(alpha)
        ahead = smoothing.radius(*given, lost=lost, rows=node[nodes])
        z = _short_of(radii.radius[self.rows[some]], ahead, np.array([column]), _NODES)[0]
        return _most(ndtr(z), self.counts[some]), z > -np.inf


def alike(rows: IntArray, columns: Sequence[NDArray[Any]]) -> tuple[IntArray, IntArray, IntArray]:
    """Return the places of one input of each kind among `rows`, how many there are of each, and the kind of
    each row."""
    values = [np.nan_to_num(column[rows], nan=-1.0) for column in columns]
    order = np.lexsort(values)
    begins = np.zeros(len(rows), bool)
    for value in values:
        begins[1:] |= np.diff(value[order]) != 0
    begins[:1] = True
    kind = np.empty(len(rows), np.int64)
    kind[order] = np.cumsum(begins) - 1
    return rows[order[begins]], np.diff(np.append(np.flatnonzero(begins), len(rows))), kind


def _last_bounds(
    request: CertifyRequest, mean: FloatArray, spread: FloatArray, rival: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Return the bounds that the last look gives for mean scores; the spread is NaN for votes.

    `rival` are the largest means of another class behind a gate, None where all that is left is one's.
    """
    last, hard = looks(request.samples)[-1], request.scores == "hard"
    votes = np.round(last * mean).astype(np.int64)
    if rival is None:
        counts, where = np.unique(votes, return_inverse=True)
        counts = np.column_stack([counts, last - counts])
    else:
        others = np.minimum(np.round(last * rival).astype(np.int64), last - votes)
        counts, where = np.unique(np.stack([votes, others], 1), axis=0, return_inverse=True)
        counts = np.column_stack([counts, last - counts.sum(1)])
    found = bound_counts(
        counts, np.zeros(len(counts), np.int64), request.of_one_input,
        request.bound if hard else next(iter(BOUNDS)), len(looks(request.samples)) - 1,
        gated=rival is not None,
    )  # fmt: skip
    where = where.ravel()
    if hard:
        return found.p_lower[where], found.q_upper[where]
    binomial = np.sqrt(np.maximum(mean * (1 - mean), 1e-12))  # of votes with that mean
    p = np.maximum(mean - (mean - found.p_lower[where]) * np.minimum(spread / binomial, 1.0), 0.0)
    return p, 1.0 - p


@kernel()
def _short_of(radius: FloatArray, ahead: FloatArray, columns: FloatArray, nodes: FloatArray) -> FloatArray:
    """Return z (k, m): an input that lacks a column reaches it with probability Phi(z); -inf if it has it.

    `ahead` (m, nodes) are its radii at the nodes of the normal law, which are equally far apart.
    """
    z, step = np.full((len(columns), len(radius)), -np.inf), nodes[1] - nodes[0]
    for i in range(len(radius)):
        least, most = ahead[i].min(), ahead[i].max()
        for k in range(len(columns)):
            column = columns[k]
            if radius[i] >= column if column > 0 else radius[i] > 0:
                continue
            if (most < column) if column > 0 else (most <= 0):
                continue
            if (least >= column) if column > 0 else (least > 0):
                z[k, i] = np.inf
                continue
            below = 0
            for node in range(len(nodes)):
                below += ahead[i, node] < column if column > 0 else ahead[i, node] <= 0
            low = ahead[i, below - 1]
            rise = ahead[i, below] - low
            z[k, i] = -(nodes[below - 1] + step * ((column - low) / rise if rise > 0 else 0.0))
    return z


def _most(chances: FloatArray, counts: IntArray) -> int:
    """Return the quantile `LIKELY` of how many of independent events happen; `counts` have each chance."""
    if not chances.any():  # as of most columns
        return 0
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
