"""Bounds of mean scores, and of their distributions: coverage by enumerating small samples."""

from __future__ import annotations

import itertools

import numpy as np

from certmix.bounds import bound_scores, bounds_of
from certmix.bounds.layers import bound_layers
from certmix.bounds.statistics import ScoreStatistics, start, update
from certmix.types import FloatArray, IntArray
from certmix.verification.selftests.draws import shown
from certmix.verification.selftests.enumeration import all_counts, multinomial
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

TRIALS = 8
SLOP = 1e-9
VALUES = {
    "two classes": np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]),
    "three votes": np.eye(3),
}
"""What one sample's scores can be: multiples of 2^-16, so that rounding them changes nothing."""


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Every outcome of a sample under laws of a grid, at random, and near each bound."""
    for values in VALUES.values():
        counts = all_counts(TRIALS, len(values))
        kept = [update(start(values.shape[1], 0, (1,)), np.repeat(values, row, axis=0)) for row in counts]
        for delta in (0.2, 0.01):
            for name in bounds_of("soft", distribution=False):
                _means(random, cases, tally, name, delta, values, counts, kept)
            _layers(random, cases, tally, "layers", delta, values, counts, kept)


def _laws(random: np.random.Generator, cases: int, values: FloatArray, p: FloatArray) -> FloatArray:
    """Laws over the rows of `values`, those with a mean just below each p among them."""
    own, kinds, near = values[:, 0], len(values), []
    for target in np.unique(np.clip(np.nextafter(p, 0), own.min(), own.max())).tolist():
        for i, j in itertools.permutations(range(kinds), 2):
            if own[i] <= target <= own[j] and own[i] < own[j]:
                weight = (target - own[i]) / (own[j] - own[i])
                near.append(np.eye(kinds)[i] * (1 - weight) + np.eye(kinds)[j] * weight)
    grid = all_counts(12, kinds) / 12
    return np.vstack([grid, random.dirichlet(np.ones(kinds), cases), *near])


def _means(
    random: np.random.Generator, cases: int, tally: Tally, name: str, delta: float,
    values: FloatArray, counts: IntArray, kept: list[ScoreStatistics],
) -> None:  # fmt: skip
    found = bound_scores(kept, delta, name)
    laws = _laws(random, cases, values, found.p_lower)
    means = laws @ values
    low = found.p_lower > means[:, :1] + 1e-15
    high = means[:, 1:].max(1, keepdims=True) - 1e-15 > found.q_upper
    failure = (multinomial(counts, laws) * (low | high)).sum(1)
    tally.record(
        f"{name}: p and q fail together with probability at most delta", 1 + SLOP - failure / delta,
        lambda k: f"{shown(delta=delta)}, law {laws[k].tolist()}", unit="of delta",
    )  # fmt: skip


def _layers(
    random: np.random.Generator, cases: int, tally: Tally, name: str, delta: float,
    values: FloatArray, counts: IntArray, kept: list[ScoreStatistics],
) -> None:  # fmt: skip
    """All layers of the selected class and of the followed rival hold at once."""
    found = bound_layers(kept, delta)
    own, rival = found.own_lower, found.rival_upper[:, 0]
    laws = _laws(random, cases, values, own.mean(1))
    fails = np.zeros((len(laws), len(counts)), bool)
    for scores, side, bound in ((values[:, 0], 1, own), (values[:, 1], -1, rival)):
        layers = bound.shape[1]
        parts = np.clip(layers * scores[:, None] - np.arange(layers), 0, 1)
        true = laws @ parts
        fails |= (side * (bound[None] - true[:, None]) > 1e-15).any(2)
    failure = (multinomial(counts, laws) * fails).sum(1)
    tally.record(
        f"{name}: all layers fail with probability at most delta", 1 + SLOP - failure / delta,
        lambda k: f"{shown(delta=delta)}, law {laws[k].tolist()}", unit="of delta",
    )  # fmt: skip
