"""Samples that sequential sampling saves on published logs, and what it loses.

Replays certification of the 10,000 images of a published log: the truth of an
image is p = Phi(printed radius / sigma), votes are drawn from it, and the
stopping rule and bounds are those of `certmix certify --goal radii`.  Every
figure is against a replay with n = 100,000 samples for every image.

    python benchmarks/sequential_replay.py ../shared/data/logs
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from certmix.bounds import clopper_pearson
from certmix.certification.request import CertifyRequest
from certmix.certification.stopping import Rule, Walk
from certmix.radii import exact_radius

FIXED = 100_000
TABLE = tuple(0.25 * k for k in range(7))


def truth(folder: Path, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (correct, p) of every image of a log."""
    path = folder / f"gaussian-resnet110-cifar10-sigma{sigma:.2f}-10000.tsv"
    label, prediction, radius = np.loadtxt(path, skiprows=1, usecols=(1, 2, 3)).T
    return label == prediction, ndtr(radius / sigma)


def hits(radius: np.ndarray, correct: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    """Return certified accuracy at each radius, in points."""
    return np.array([100 * np.mean(correct & (radius > 0) & (radius >= r)) for r in radii])


def fixed(
    correct: np.ndarray, p: np.ndarray, request: CertifyRequest, rng: np.random.Generator
) -> np.ndarray:
    """Return certified accuracy with n = 100,000 for every image."""
    lower = clopper_pearson.lower_bound(rng.binomial(FIXED, p), FIXED, request.failure_probability)
    radius = exact_radius(lower, 1 - np.maximum(lower, 0.5), request.sigma, request.alpha)
    return hits(np.where(lower > 0.5, radius, 0.0), correct, request.radii)


def sequential(
    correct: np.ndarray, p: np.ndarray, request: CertifyRequest, rng: np.random.Generator
) -> tuple[np.ndarray, float, float, float]:
    """Return accuracies, mean samples of all and of rightly classified images, and failure rate."""
    walk = Walk(Rule(request), np.zeros(len(p), int), np.where(correct, 0, 1))
    votes, drawn = np.zeros(len(p), int), 0
    for number, samples in enumerate(walk.rule.looks):
        rows = np.flatnonzero(walk.active)
        if len(rows) == 0:
            break
        votes[rows] += rng.binomial(samples - drawn, p[rows])
        drawn = samples
        walk.step(number, rows, np.stack([votes[rows], samples - votes[rows]], 1))
    issued = walk.samples > 0
    failures = float(np.mean(walk.p[issued] > p[issued]))
    radius = exact_radius(walk.p, walk.q, request.sigma, request.alpha)
    return hits(radius, correct, request.radii), walk.samples.mean(), walk.samples[correct].mean(), failures


def main() -> int:
    """Print one row a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path)
    parser.add_argument("--samples", type=int, default=100_000, help="cap of an image")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(
        "sigma radii         all images    right images     "
        "  loss in points at each radius               failures"
    )
    for sigma, radii in ((0.5, TABLE), (1.0, TABLE), (0.5, (0.5,))):
        request = CertifyRequest(sigma=sigma, alpha=0.76, radii=radii, samples=options.samples)
        correct, p = truth(options.logs, sigma)
        base = np.mean([fixed(correct, p, request, rng) for _ in range(options.repetitions)], axis=0)
        runs = [sequential(correct, p, request, rng) for _ in range(options.repetitions)]
        accuracy, mean, mean_right, failures = (np.mean([run[k] for run in runs], axis=0) for k in range(4))
        shown = "0..1.5 by .25" if len(radii) > 1 else f"{radii[0]}"
        losses = " ".join(f"{loss:5.2f}" for loss in base - accuracy)
        fewer, fewer_right = f"{FIXED / mean:.1f}x", f"{FIXED / mean_right:.1f}x"
        print(f"{sigma:<5} {shown:13} {fewer:>10} {fewer_right:>15}       {losses:42s} {failures:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
