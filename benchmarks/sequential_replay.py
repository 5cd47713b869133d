"""Samples that a table takes by sequential sampling, what it loses, and how wide its ranges are.

Replays certification of the 10,000 inputs of a published log: the truth of an input is
p = Phi(printed radius / sigma), votes are drawn from it, and the stopping rule and bounds are those of
`certmix certify --goal radii`.  Three sets of rows decide when an input has enough: that of the mix alone,
the exact ones (the default, --settle exact), and all (--settle all).  Samples and losses are against a replay
with all samples for every input and a bound for that fixed number; the last column, near the largest radius
that n can certify at all, is left out of both.

    python benchmarks/sequential_replay.py ../shared/data/logs
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from certmix.bounds import bound_counts
from certmix.certification.evaluate import radii_of
from certmix.certification.request.parts import Row
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stopping import Prospects, Rule, Walk
from certmix.types import ConfidenceBounds

TABLE = tuple(0.25 * k for k in range(7))


class MixedAlone(CertifyRequest, frozen=True):
    """The exact row of the mix decides alone."""

    def deciding(self) -> list[Row]:
        """Return that row."""
        return self.rows()[1:2]


def truth(folder: Path, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (correct, p) of every input of a log."""
    path = folder / f"gaussian-resnet110-cifar10-sigma{sigma:.2f}-10000.tsv"
    label, prediction, radius = np.loadtxt(path, skiprows=1, usecols=(1, 2, 3)).T
    return label == prediction, ndtr(radius / sigma)


def hits(radius: np.ndarray, correct: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    """Return certified accuracy at each radius, in points."""
    return np.array([100 * np.mean(correct & (radius > 0) & (radius >= r)) for r in radii])


def table(bounds: ConfidenceBounds, correct: np.ndarray, request: CertifyRequest) -> np.ndarray:
    """Return certified accuracy in points, (rows, columns)."""
    radii = (
        radii_of(bounds, sigma=request.smoothing, alpha=row.alpha, certificate=row.certificate).radius
        for row in request.rows()
    )
    return np.array([hits(radius, correct, request.radii) for radius in radii])


def fixed(
    correct: np.ndarray, p: np.ndarray, request: CertifyRequest, rng: np.random.Generator
) -> np.ndarray:
    """Return the table with all samples for every input."""
    votes = rng.binomial(request.samples, p)
    counts, zeros = np.stack([votes, request.samples - votes], 1), np.zeros(len(p), np.int64)
    return table(bound_counts(counts, zeros, request.failure_probability, request.bound), correct, request)


def sequential(
    correct: np.ndarray, p: np.ndarray, rule: Rule, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return the table, how much higher it could reach, mean samples and failure rate."""
    request = rule.request
    walk = Walk(rule, [np.zeros(len(p), np.int64)], np.where(correct, 0, 1))
    votes, drawn = np.zeros(len(p), np.int64), 0
    for number, samples in enumerate(walk.rule.looks):
        rows = np.flatnonzero(walk.active)
        if len(rows) == 0:
            break
        votes[rows] += rng.binomial(samples - drawn, p[rows])
        drawn = samples
        walk.step(number, rows, [np.stack([votes[rows], samples - votes[rows]], 1)])
    failures = float(np.mean(walk.p[0, walk.samples > 0] > p[walk.samples > 0]))
    bounds = ConfidenceBounds(walk.p[0], walk.q[0], request.failure_probability, request.bound, {})
    ahead, gains = Prospects.of(request, bounds, walk.standing(0), correct), []
    for row in request.rows():
        now, then = (
            radii_of(one, sigma=request.smoothing, alpha=row.alpha, certificate=row.certificate).radius
            for one in (bounds, ahead.bounds)
        )
        gains.append(100 * ahead.reach(now, then, np.array(request.radii))[0] / len(p))
    return table(bounds, correct, request), np.array(gains), float(walk.samples.mean()), failures


def main() -> int:
    """Print one row a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(
        "sigma  n        rows that decide   samples  of fixed   loss: h    mix  theorems"
        "   range: h    mix  theorems   failures"
    )
    for sigma, samples in ((0.5, 10_000), (0.5, 100_000), (1.0, 100_000)):
        correct, p = truth(options.logs, sigma)
        asked: dict[str, Any] = {"sigma": sigma, "alpha": 0.76, "radii": TABLE, "samples": samples}
        base = np.mean(
            [fixed(correct, p, CertifyRequest(**asked), rng) for _ in range(options.repetitions)], axis=0
        )
        for name, request in (
            ("mixed", MixedAlone(**asked)), ("exact", CertifyRequest(**asked)),
            ("all", CertifyRequest(**asked, settle="all")),
        ):  # fmt: skip
            rule = Rule(request)
            runs = [sequential(correct, p, rule, rng) for _ in range(options.repetitions)]
            found, gains, mean, failures = (
                np.mean([np.asarray(run[k]) for run in runs], axis=0) for k in range(4)
            )
            lost, wide = (part[:, :-1].max(1) for part in (base - found, gains))
            print(
                f"{sigma:<6} {samples:<8,} {name:<16} {mean:9,.0f} {mean / samples:9.3f}"
                f"   {lost[0]:7.2f} {lost[1]:6.2f} {lost[2:].max():9.2f}"
                f"   {wide[0]:8.2f} {wide[1]:6.2f} {wide[2:].max():9.2f}   {failures:.1e}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
