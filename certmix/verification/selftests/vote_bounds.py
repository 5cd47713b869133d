"""Bounds of votes: the joint promise {p <= h_y and max_i h_i <= q}, once and at repeated looks."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from certmix.bounds import bound_counts, bounds_of, sequential
from certmix.sampling.schedule import looks
from certmix.types import FloatArray
from certmix.verification.selftests.draws import shown
from certmix.verification.selftests.enumeration import all_counts, multinomial
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

TRIALS, CLASSES = 10, 3
DELTAS = (0.3, 0.05)
SLOP = 1e-9
"""Relative rounding error of the enumeration itself."""
LAST_LOOK = 500


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Enumerate all votes of small samples, and all paths over the first looks."""
    for name in bounds_of("hard"):
        for delta in (*DELTAS, float(random.uniform(0.01, 0.5))):
            _joint(random, tally, cases, name, delta)
    for name in bounds_of("hard"):
        for delta in DELTAS:
            _repeated(random, tally, cases, name, delta)


def _joint(random: np.random.Generator, tally: Tally, cases: int, name: str, delta: float) -> None:
    counts = all_counts(TRIALS, CLASSES)
    found = bound_counts(counts, np.zeros(len(counts), np.int64), delta, name)
    grid = all_counts(20, CLASSES) / 20
    edges = np.clip(np.nextafter(found.p_lower, 0), 0, 1)
    share = random.random(len(edges))[:, None]
    near = np.column_stack([edges, (1 - edges)[:, None] * np.hstack([share, 1 - share])])
    alone = np.column_stack([edges, 1 - edges, np.zeros(len(edges))])
    laws = np.vstack([grid, near, alone, random.dirichlet(np.ones(CLASSES), cases)])
    low = found.p_lower > laws[:, :1]
    high = laws[:, 1:].max(1, keepdims=True) > found.q_upper * (1 + 4e-16)
    failure = (multinomial(counts, laws) * (low | high)).sum(1)
    tally.record(
        f"{name}: p and q fail together with probability at most delta", 1 + SLOP - failure / delta,
        lambda k: f"{shown(delta=delta)}, h {laws[k].tolist()}", unit="of delta",
    )  # fmt: skip
    gap = [float(Fraction(q) - (1 - Fraction(p))) for p, q in zip(found.p_lower, found.q_upper, strict=True)]
    if name == "clopper-pearson":
        tally.record(
            "its q = 1 - p is rounded up", gap, lambda k: f"p {found.p_lower[k]!r}", unit="probability"
        )


def _repeated(random: np.random.Generator, tally: Tally, cases: int, name: str, delta: float) -> None:
    """Two classes: the probability that some look's bounds miss the truth, path by path."""
    stops = looks(LAST_LOOK)
    tables = []
    for number, n in enumerate(stops):
        votes = np.stack([np.arange(n + 1), n - np.arange(n + 1)], 1)
        tables.append(sequential.look_bounds(name, number, votes, np.zeros(n + 1, np.int64), delta))
    edges = random.choice(np.nextafter(np.concatenate([p for p, _ in tables]), 0), cases // 2 + 1)
    truths = np.clip(np.concatenate([edges, random.random(cases // 2 + 1)]), 0, 1)
    failures = [_ever(float(truth), stops, tables) for truth in truths]
    tally.record(
        f"{name}: looks at {len(stops)} sample numbers fail with probability at most delta",
        1 + SLOP - np.array(failures) / delta,
        lambda k: shown(delta=delta, truth=truths[k]), unit="of delta",
    )  # fmt: skip


def _ever(truth: float, stops: tuple[int, ...], tables: list[tuple[FloatArray, FloatArray]]) -> float:
    """P(at some look p > truth or q < 1 - truth), by the law of the count on paths that have not failed."""
    alive, failed = np.ones(1), 0.0
    for (before, n), (p, q) in zip(pairwise((0, *stops)), tables, strict=True):
        alive = np.convolve(alive, _binomial(n - before, truth))
        wrong = (p > truth) | (q * (1 + 4e-16) < 1 - truth)
        failed += float(alive[wrong].sum())
        alive = np.where(wrong, 0.0, alive)
    return failed


def _binomial(n: int, p: float) -> FloatArray:
    k = np.arange(n + 1)
    logs = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p)
    law: FloatArray = np.exp(logs)
    return law
