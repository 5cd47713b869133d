"""How often `certmix falsify` catches a faulty certificate, and how often it accuses an honest one.

Pairs of half-spaces in image space have smoothed probabilities in closed form
and radii that cannot be exceeded.  Each row certifies fresh inputs by one
pipeline, some of them faulty on purpose, and attacks the certificates.

    python benchmarks/falsify_power.py --runs 20 --inputs 50
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import half_spaces

from certmix.verification.falsify.attack import FalsifyRequest

ROWS: list[tuple[str, dict[str, Any], int]] = [
    ("honest", {}, 10_000),
    ("honest", {"samples": 100}, 10_000),
    ("honest", {"alpha": 1.0}, 10_000),
    ("honest_two_sided", {"gap": 0.3}, 10_000),
    ("threshold_forgotten", {}, 10_000),
    ("stretched", {}, 10_000),
    ("stretched", {}, 1_000),
    ("slightly_stretched", {}, 10_000),
    ("slightly_stretched", {}, 100_000),
    ("frequencies", {"samples": 100}, 10_000),
    ("frequencies", {"samples": 1_000}, 10_000),
    ("frequencies", {"samples": 10_000}, 10_000),
    ("frequencies", {"samples": 10_000}, 100_000),
    ("wrong_side", {"samples": 100}, 10_000),
    ("wrong_side", {"samples": 10_000}, 10_000),
    ("lower_runner_up", {"gap": 0.3, "samples": 300}, 10_000),
    ("lower_runner_up", {"gap": 0.3, "samples": 10_000}, 10_000),
    ("selection_reused", {"samples": 100}, 10_000),
    ("selection_reused", {"samples": 100, "alpha": 1.0, "depths": (-0.3, 0.3)}, 10_000),
    ("honest", {"samples": 5, "alpha": 1.0, "depths": (0.0, 0.0), "delta": 0.04, "count": 3000}, 20_000),
    (
        "selection_reused",
        {"samples": 5, "alpha": 1.0, "depths": (0.0, 0.0), "delta": 0.04, "count": 3000},
        20_000,
    ),
]
"""Pipeline, how inputs are certified (`count` in place of --inputs), and fresh samples that decide."""


def measure(name: str, options: dict[str, Any], samples: int, runs: int, inputs: int) -> tuple[int, ...]:
    """Return runs falsified, certificates attacked, wrong in truth, found, and found though not wrong."""
    falsified = attacked = wrong = found = accused = 0
    low, high = options.get("depths", (0.7, 2.5))
    inputs = options.get("count", inputs)
    options = {key: value for key, value in options.items() if key != "count"}
    for seed in range(runs):
        request = FalsifyRequest(steps=4, copies=16, samples=samples, seed=seed)
        result = half_spaces.attack(
            getattr(half_spaces, name), seed, count=inputs, request=request, **options
        )
        depth = np.random.default_rng(seed).uniform(low, high, inputs)
        falsified += result.falsified
        attacked += len(result.attacked)
        found += len(result.findings)
        wrong += sum(_is_wrong(one.claim, depth, options) for one in result.attacked)
        accused += sum(not _is_wrong(one.claim, depth, options) for one in result.findings)
    return falsified, attacked, wrong, found, accused


def _is_wrong(claim: Any, depth: np.ndarray, options: dict[str, Any]) -> bool:
    at = float(depth[claim.index]) * (1 if claim.predicted == 0 else -1)
    return claim.radius > half_spaces.true_radius(at, options.get("alpha", 0.76), options.get("gap", 0.0))


def main() -> int:
    """Print one row a pipeline."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--only", help="name of one pipeline")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| pipeline | settings | deciding samples | falsified | attacked | wrong | found | falsely |",
        flush=True,
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, settings, samples in ROWS:
        if options.only not in (None, name):
            continue
        falsified, *rest = measure(name, settings, samples, options.runs, options.inputs)
        shown = ", ".join(f"{k} {v}" for k, v in settings.items()) or "-"
        cells = " | ".join(f"{value:,}" for value in rest)
        print(f"| {name} | {shown} | {samples:,} | {falsified} of {options.runs} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
