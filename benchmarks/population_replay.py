"""Samples that a gate takes by a claim about the population, and by per-input sequential certificates.

Replays the 10,000 inputs of a published log: the truth of an input is p = Phi(printed radius / sigma), votes
are drawn from it.  A gate asks for a share of inputs, right and certified at one radius, at one confidence.
The claim is that of `certmix certify --goal population`: inputs are drawn until the share is shown.  The
other way takes inputs in a random order, certifies each by the sequential looks of `certmix certify --goal
radii`, at that radius alone, and stops as soon as the lower bound of the share of certified inputs reaches
the threshold; half of the failure probability goes to that bound over inputs (betting, as of the claim), and
each certificate may be wrong with the other half of it, by which the share is lowered.  Both stop at 10,000
inputs.  Samples are medians over the repetitions; "-" where fewer than half of these decided.

    python benchmarks/population_replay.py ../shared/data/logs
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from sequential_replay import truth

from certmix.certification.population import Rule, cut, log_capital, looks_of, rule_of, scores_of
from certmix.certification.request.population import Population
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stopping import Rule as Stopping
from certmix.certification.stopping import Walk
from certmix.radii import exact_radius

SIGMA, RADIUS, ALPHA, DELTA, INPUTS, BLOCK = 0.5, 0.5, 0.76, 0.001, 10_000, 50


def first_shown(scores: np.ndarray, lowest: float, share: float, delta: float) -> int | None:
    """Return after how many draws, in blocks, the capital against a share reaches 1 / delta."""
    values = np.unique(scores)
    seen = np.stack([np.cumsum(scores == value) for value in values], 1)
    for draws in range(BLOCK, len(scores) + 1, BLOCK):
        if log_capital([(lowest, values, seen[draws - 1])], share) > -np.log(delta):
            return draws
    return None


def by_claim(p: np.ndarray, rule: Rule, share: float, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return draws and samples of a claim, None where it is not shown."""
    drawn = rng.choice(p, INPUTS)
    looks = np.array([look.samples for look in rule.looks])
    votes = np.cumsum(rng.binomial(np.diff(looks, prepend=0), drawn[:, None]), 1)
    score, at = np.zeros(INPUTS), np.zeros(INPUTS, np.int64)
    samples = np.zeros(INPUTS, np.int64)
    for number in range(1, len(looks) + 1):
        now, stands = scores_of(rule, np.where(np.arange(len(looks)) < number, votes, -1))
        going = at >= 0
        samples[going] = looks[number - 1]
        score[going], at[going] = now[going], stands[going]
    draws = first_shown(score, rule.lowest, share, DELTA)
    return None if draws is None else (draws, int(samples[:draws].sum()))


def by_certificates(
    right: np.ndarray, p: np.ndarray, most: int, share: float, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return inputs and samples of per-input sequential certificates, None where the share is not shown."""
    order = rng.permutation(len(p))
    right, p = right[order], p[order]
    request = CertifyRequest(
        SIGMA, ALPHA, samples=most, radii=(RADIUS,), certificates=("exact",), failure_probability=DELTA / 2
    )
    walk = Walk(Stopping(request), [np.zeros(len(p), np.int64)], np.where(right, 0, 1))
    votes, drawn = np.zeros(len(p), np.int64), 0
    for number, samples in enumerate(walk.rule.looks):
        rows = np.flatnonzero(walk.active)
        if not len(rows):
            break
        votes[rows] += rng.binomial(samples - drawn, p[rows])
        drawn = samples
        walk.step(number, rows, [np.stack([votes[rows], samples - votes[rows]], 1)])
    q = 1.0 - walk.p[0]
    certified = right & (exact_radius(walk.p[0], q, SIGMA, ALPHA) >= RADIUS)
    shown = first_shown(certified.astype(float), 0.0, share + DELTA / 2, DELTA / 2)
    taken = walk.samples + request.selection_samples
    return None if shown is None else (shown, int(taken[:shown].sum()))


def median(found: list[tuple[int, int] | None]) -> tuple[str, float]:
    """Return inputs and samples in print, and samples; those not decided count as infinite."""
    inputs, samples = np.median([one or (np.inf, np.inf) for one in found], axis=0)
    return (f"{inputs:8,.0f} {samples:12,.0f}" if np.isfinite(samples) else f"{'-':>8} {'-':>12}"), samples


def main() -> int:
    """Print one row a threshold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    right, p = truth(options.logs, SIGMA)
    p_of_label = np.where(right, p, 0.0)
    asked = Population(sigma=SIGMA, alpha=ALPHA, at_radius=RADIUS)
    level = rule_of(asked, 3072).p
    print(f"truth {np.mean(p_of_label >= level):.4f}; p* = {level:.6f}")
    names = [f"claim, n = {n:,}" for n in (1000, 100, 4000)]
    names += [f"certificates, n = {n:,}" for n in (1000, 10_000)]
    print("share", *(f"{name:>23}" for name in names), "  factor")
    for share in (0.15, 0.2, 0.25, 0.28, 0.3, 0.32):
        texts, samples = [], []
        for most in (1000, 100, 4000):
            rule = Rule(0, level, tuple(cut(looks_of(most), level)))
            found = [by_claim(p_of_label, rule, share, rng) for _ in range(options.repetitions)]
            text, drawn = median(found)
            texts.append(text)
            samples.append(drawn)
        for most in (1000, 10_000):
            found = [by_certificates(right, p, most, share, rng) for _ in range(options.repetitions)]
            text, drawn = median(found)
            texts.append(text)
            samples.append(drawn)
        best = min(samples[3:])
        factor = f"{best / samples[0]:6.1f}" if np.isfinite(best) else f"{'-':>6}"
        print(f"{share:<5}", *(f"{text:>23}" for text in texts), f"  {factor}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
