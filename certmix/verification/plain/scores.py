"""Bounds from soft scores once more, straight from their formulas: numpy and scipy, no kernel of the run.

`ScoreStatistics` holds whole numbers: sums, squares and 64 bins of scores in
steps of 2^-16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq

from certmix.types import FloatArray

if TYPE_CHECKING:
    from certmix.bounds.statistics import ScoreStatistics

__all__ = [
    "SCORE_BOUNDS",
    "PlainLayers",
    "bernstein",
    "betting",
    "bound_layers",
    "hoeffding",
    "relative_entropy",
]

STEPS, BINS = 65536, 64
ROW_SLACK = 2.0**-20
"""How far the scores of one sample may be from adding up to 1."""

_BETS = 4.0 * 2.0 ** (-0.5 * np.arange(28))
_NONE = np.empty(0)


@dataclass(frozen=True)
class Values:
    """What is kept of n values in [0, 1]: their sum, the sum of squares, and bins where there are any.

    ``counts`` and ``places`` (64,) are values in each bin and their mean place in it, 0 to 1.
    """

    n: int
    total: int
    square: int
    counts: FloatArray
    places: FloatArray
    deviation: float

    @property
    def mean(self) -> float:
        """Their average."""
        return self.total / (self.n * STEPS)


def _own(kept: ScoreStatistics) -> Values:
    """The selected class's scores."""
    y = kept.selected
    counts = kept.bin_counts[0].astype(np.float64)
    places = kept.bin_excess[0] / (np.maximum(counts, 1) * (STEPS // BINS))
    spread = int(kept.deviations[y]) / STEPS
    return Values(kept.samples, int(kept.totals[y]), int(kept.squares[y]), counts, places, spread)


def _against(kept: ScoreStatistics, rival: int) -> Values:
    """1 minus a rival's scores, so that a lower bound of their mean gives an upper bound of the rival's."""
    n, total, square = kept.samples, int(kept.totals[rival]), int(kept.squares[rival])
    counts = places = _NONE
    if rival in kept.rivals:
        row = 1 + kept.rivals.index(rival)
        counts = kept.bin_counts[row][::-1].astype(np.float64)
        places = 1.0 - kept.bin_excess[row][::-1] / (np.maximum(counts, 1) * (STEPS // BINS))
    flipped = n * STEPS**2 - 2 * STEPS * total + square
    return Values(n, n * STEPS - total, flipped, counts, places, int(kept.deviations[rival]) / STEPS)


def hoeffding(values: Values, delta: float) -> float:
    """mean - sqrt(ln(1/delta) / (2 n))."""
    return max(0.0, values.mean - math.sqrt(math.log(1 / delta) / (2 * values.n)))


@lru_cache(maxsize=1 << 16)
def _entropy(mean: float, n: int, delta: float) -> float:
    if mean <= 0.0:
        return 0.0
    if mean >= 1.0:
        return delta ** (1 / n)

    def excess(m: float) -> float:
        kl = mean * math.log(mean / m) + (1 - mean) * (math.log1p(-mean) - math.log1p(-m))
        return n * kl + math.log(delta)

    if excess(1e-300) <= 0:
        return 0.0
    return float(brentq(excess, 1e-300, mean, xtol=1e-300, rtol=4 * 2.0**-52, maxiter=1000))


def relative_entropy(values: Values, delta: float) -> float:
    """The largest m below the mean with n kl(mean, m) >= ln(1/delta)."""
    return _entropy(values.mean, values.n, delta)


def bernstein(values: Values, delta: float) -> float:
    """mean - sqrt(2 V ln(2/delta) / n) - 7 ln(2/delta) / (3 (n - 1)), V the unbiased variance."""
    n, log = values.n, math.log(2 / delta)
    variance = (n * values.square - values.total**2) / (n * (n - 1) * STEPS**2)
    return max(0.0, values.mean - math.sqrt(2 * variance * log / n) - 7 * log / (3 * (n - 1)))


def _capital(m: float, values: Values, weights: FloatArray) -> float:
    """Logarithm of a lower bound of sum_j w_j prod_t (1 + lambda_j (x_t - m))."""
    bets = np.minimum(_BETS, 0.99 / m)
    b, n, total = bets * m, values.n, values.total / STEPS
    second = max(values.square / STEPS**2 - 2 * m * total + n * m * m, 0.0) / (m * m)
    logs = bets * (total - n * m) + second * (np.log1p(-b) + b)
    if len(values.counts):
        edges = np.log1p(bets[:, None] * (np.arange(BINS + 1) / BINS - m))
        chords = edges[:, :-1] + np.diff(edges, axis=1) * values.places
        logs = np.maximum(logs, chords @ values.counts)
    return float(logs.max() + math.log(weights @ np.exp(logs - logs.max())))


def _weights(n: int, deviation: float) -> FloatArray:
    """Equal, or falling off around the bet that suits n values of this deviation."""
    if deviation == 0.0:
        return np.full(28, 1 / 28)
    best = math.sqrt(2 * math.log(1000) / n) / deviation
    place = min(max(2 * math.log2(4.0 / best), 0.0), 27.0)
    weights: FloatArray = 1 / (1 + (np.arange(28) - place) ** 2)
    return weights / weights.sum()


def betting(values: Values, delta: float, *, tuned: bool = False) -> float:
    """The largest m below the mean against which the capital reaches 1/delta, by halving."""
    weights = _weights(values.n, values.deviation if tuned else 0.0)
    low, high = 0.0, min(values.mean, 1.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        refuted = middle > 0 and _capital(middle, values, weights) >= math.log(1 / delta)
        low, high = (middle, high) if refuted else (low, middle)
    return low


Pair = tuple[float, float]


def _pair(kept: ScoreStatistics, delta: float, *, lower: Callable[[Values, float], float]) -> Pair:
    """p and q at half of delta each; then what a sum of 1 gives, less `ROW_SLACK`."""
    rivals = [i for i in range(len(kept.totals)) if i != kept.selected]
    p = lower(_own(kept), delta / 2)
    q = max(1.0 - lower(_against(kept, i), delta / 2) for i in rivals)
    p = max(p, 1.0 - len(rivals) * q - ROW_SLACK)
    return p, min(q, 1.0 - p + ROW_SLACK)


SCORE_BOUNDS: dict[str, Callable[[ScoreStatistics, float], Pair]] = {
    "betting": partial(_pair, lower=betting),
    "betting-fixed": partial(_pair, lower=partial(betting, tuned=True)),
    "bernstein": partial(_pair, lower=bernstein),
    "relative-entropy": partial(_pair, lower=relative_entropy),
    "hoeffding": partial(_pair, lower=hoeffding),
}
"""(statistics, failure probability) -> (p, q), by the name of the bound."""


@dataclass(frozen=True)
class PlainLayers:
    """Bounds of the means of K layers of scores: the class (K,), each followed rival (K,), the rest."""

    own: FloatArray
    rivals: tuple[FloatArray, ...]
    rest: float


def _layer_means(kept: ScoreStatistics, row: int, layers: int) -> list[float]:
    """Means of clip(K score - k, 0, 1): 1 above the layer, the place within it, 0 below."""
    counts, excess, width = kept.bin_counts[row], kept.bin_excess[row], BINS // layers
    found = []
    for k in range(layers):
        above = int(counts[(k + 1) * width :].sum()) * width * (STEPS // BINS)
        inside = sum(
            int(counts[k * width + i]) * i * (STEPS // BINS) + int(excess[k * width + i])
            for i in range(width)
        )
        found.append((above + inside) / (kept.samples * width * (STEPS // BINS)))
    return found


def bound_layers(kept: ScoreStatistics, delta: float) -> PlainLayers:
    """Half of delta for the class; half in equal parts for each followed rival and the rest."""
    n, layers = kept.samples, 16
    others = [i for i in range(len(kept.totals)) if i not in (kept.selected, *kept.rivals)]
    each = delta / 2 / max(1, len(kept.rivals) + bool(others))
    own = np.array([_entropy(mean, n, delta / 2 / layers) for mean in _layer_means(kept, 0, layers)])
    rivals = tuple(
        np.array(
            [1.0 - _entropy(1.0 - mean, n, each / layers) for mean in _layer_means(kept, 1 + row, layers)]
        )
        for row in range(len(kept.rivals))
    )
    means = [int(kept.totals[i]) / (n * STEPS) for i in others]
    return PlainLayers(own, rivals, 1.0 - _entropy(1.0 - max(means), n, each) if means else 0.0)
