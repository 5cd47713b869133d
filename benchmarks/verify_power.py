"""How often `certmix verify` catches counts that were changed, and how often it accuses an honest run.

A linear model's run is changed in one way, certmix publishes what follows, and
samples are drawn again with several new seeds.  `--shipped` takes the shipped
models, which is slow.

    python benchmarks/verify_power.py --seeds 20
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import forged
import torch

from certmix.verification.checks import Outcome
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import resample


def near(run: Path) -> int:
    """Return an image that is certified, though little more than nothing."""
    lines = [line.split("\t") for line in (run / "records.tsv").read_text().splitlines()[1:]]
    certified = [(float(line[3]), int(line[0])) for line in lines if line[4] == "1" and float(line[3]) > 0]
    return min(certified)[1]


def swapped(run: Path) -> None:
    """Exchange the counts of two images of different classes."""
    first: dict[str, int] = {}
    for index, selection in forged.sql(run, "SELECT idx, selection FROM images ORDER BY idx"):
        votes = json.loads(selection)
        first.setdefault(max(votes, key=lambda label: votes[label]), index)
    forged.swap(run, *list(first.values())[:2])


def on_a_gpu(run: Path) -> None:
    """3 % more votes everywhere, and another device."""
    forged.more_votes(run, 0.03)
    forged.sql(run, "UPDATE images SET device = 'cuda'")


def faults(samples: int) -> dict[str, Callable[[Path], object]]:
    """Return what is changed in runs of so many samples an image, by name."""
    more, tenth, half = forged.more_votes, samples // 10, samples // 2
    return {
        "nothing": lambda run: None,
        "3 % more votes everywhere, device `cuda`": on_a_gpu,
        "1 % more votes everywhere": lambda run: more(run, 0.01),
        f"3 % more votes after sample {tenth:,}": lambda run: more(run, 0.03, after=tenth),
        f"3 % more votes after sample {half:,}": lambda run: more(run, 0.03, after=half),
        "two images swapped": swapped,
        "3 % more votes of one image": lambda run: more(run, 0.03, where=f"idx = {near(run)}"),
        f"3 % more votes of one image after sample {half:,}": lambda run: more(
            run, 0.03, after=half, where=f"idx = {near(run)}"
        ),
    }


def linear(folder: Path, images: int) -> tuple[dict[str, Any], float]:
    """Return options and noise level of a linear model and points with p from 0.5 to 0.95."""
    named = forged.sources(folder)
    inputs = np.random.default_rng(0).random((images, 2)).astype(np.float32)
    scores = np.stack([4 * inputs[:, 0] - 0.8, 0.8 - 4 * inputs[:, 0] + inputs[:, 1]], 1)
    np.savez(folder / "points.npz", inputs=inputs, labels=scores.argmax(1), class_names=list("abc"))
    return {**named, "images": "all"}, 0.5


def main() -> int:
    """Print one row a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10_000, help="of a run, an image")
    parser.add_argument("--resample", type=int, default=5)
    parser.add_argument("--resample-samples", type=int, default=1000)
    parser.add_argument("--goal", default="fixed", choices=["fixed", "radius"])
    parser.add_argument("--shipped", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| what was changed | same seed | new seed | caught | seconds |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        named, sigma = ({"images": asked.images}, 0.5) if asked.shipped else linear(folder, asked.images)
        options = {**named, "sigma": sigma, "samples": asked.samples, "goal": asked.goal}
        honest = forged.certified(folder / "honest", {}, **options)
        for name, change in faults(asked.samples).items():
            run = forged.copied(honest, folder / name)
            change(run)
            forged.certified(run, {}, **options)
            found, begun = [], time.monotonic()
            for seed in range(1, asked.seeds + 1):
                again = VerifyRequest(
                    device="cpu",
                    new_seed=seed,
                    images=asked.resample,
                    samples=asked.resample_samples,
                    run_code=True,
                )
                checks = resample(run, again)
                found.append([one.outcome is Outcome.FAILS for one in checks[:2]])
            same, new = np.array(found).T
            spent = (time.monotonic() - begun) / asked.seeds
            shares = " | ".join(f"{caught.mean():.0%}" for caught in (same, new, same | new))
            print(f"| {name} | {shares} | {spent:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
