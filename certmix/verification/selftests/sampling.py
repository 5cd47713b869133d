"""Noise and votes: linear models, whose smoothed probabilities and distances are known."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtr
from torch import nn

from certmix.bounds import clopper_pearson
from certmix.models.smoothed import SmoothedClassifier
from certmix.sampling import votes
from certmix.types import FloatArray, IntArray
from certmix.verification.selftests.draws import shown
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

RARE = 1e-9
"""Failure probability of one comparison: with the wrong noise it fails, by chance it does not."""
SAMPLES, DIMENSION = 2000, 12


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Half-spaces at several noise levels, and noise that depends on its key alone."""
    for k in range(cases // 5 + 2):
        sigma = (0.12, 0.25, 0.5, 1.0)[k % 4]
        model, distance = half_space(random, sigma)
        _probability(random, tally, model, distance, sigma, k)
        _radius(random, tally, model, distance, sigma, k)
    _keyed(random, tally)


def half_space(random: np.random.Generator, sigma: float) -> tuple[nn.Linear, FloatArray]:
    """Return a linear model of two classes and the point 0's distance to its boundary, (1,)."""
    model = nn.Linear(DIMENSION, 2).requires_grad_(False)
    w = random.normal(size=DIMENSION)
    w /= np.linalg.norm(w)
    distance = sigma * random.uniform(0.1, 2.5, 1)
    model.weight.copy_(torch.from_numpy(np.stack([w, -w])))
    model.bias.copy_(torch.from_numpy(np.array([distance[0], -distance[0]])))
    return model, distance


def _probability(
    random: np.random.Generator,
    tally: Tally,
    model: nn.Module,
    distance: FloatArray,
    sigma: float,
    index: int,
) -> None:
    seed = int(random.integers(0, 2**31))
    counts = votes.count_votes(
        model, torch.zeros(DIMENSION), sigma, SAMPLES, seed, classes=2, index=index, batch_size=500
    )
    true = float(ndtr(distance[0] / sigma))
    low = float(clopper_pearson.lower_bound(counts[0], SAMPLES, RARE))
    high = float(clopper_pearson.upper_bound(counts[0], SAMPLES, RARE))
    tally.record(
        "a half-space's true probability lies within the bounds of its votes", [min(true - low, high - true)],
        lambda _: f"{shown(sigma=sigma, true=true)}, votes {counts.tolist()}", unit="probability",
    )  # fmt: skip


def _radius(
    random: np.random.Generator,
    tally: Tally,
    model: nn.Module,
    distance: FloatArray,
    sigma: float,
    index: int,
) -> None:
    """From noise to radius in one go: at alpha = 1 the distance itself is the largest sound radius."""
    smooth = SmoothedClassifier(model, sigma, classes=2, seed=index, batch_size=500)
    found = smooth.certify(torch.zeros(1, DIMENSION), SAMPLES, RARE)
    if found.classes[0] == 0:
        tally.record(
            "a certified radius is at most the true distance", distance - found.radii.radius,
            lambda _: shown(sigma=sigma, distance=distance[0], radius=found.radii.radius[0]), unit="input",
        )  # fmt: skip


def _keyed(random: np.random.Generator, tally: Tally) -> None:
    """Batch size, looks and resuming change no vote; another image, seed or stream changes the noise."""
    model, _ = half_space(random, 1.0)
    model.bias.zero_()
    image, seed, samples = torch.zeros(DIMENSION), int(random.integers(0, 2**31)), 330

    def drawn(size: int | None, seed: int = seed, index: int = 3, stream: str = "estimation") -> IntArray:
        sampler = votes.Sampler(model, 2, 1.0, seed, batch_size=size)
        ahead = sampler.votes(image, index, range(1, samples + 1), stream=stream)[:, 0]
        return np.diff(ahead, prepend=0)

    first = drawn(100)
    same = [np.array_equal(drawn(size), first) for size in (7, 25, 330, None)]
    tally.record(
        "votes do not depend on the batch size", np.array(same) - 1.0,
        lambda k: f"batch size {(7, 25, 330, 'automatic')[k]}", unit="",
    )  # fmt: skip
    other = [drawn(100, seed=seed + 1), drawn(100, index=4), drawn(100, stream="selection")]
    equal = np.array([np.mean(one == first) for one in other])
    tally.record(
        "each seed, image and stream has noise of its own", 0.7 - equal,
        lambda k: ("another seed", "another image", "another stream")[k], unit="equal votes",
    )  # fmt: skip
    sampler = votes.Sampler(model, 2, 1.0, seed, batch_size=100)
    rest = sampler.votes(image, 3, [samples], start=110)[0, 0]
    tally.record("votes go on where they stopped", [-abs(int(rest) - int(first[110:].sum()))], unit="votes")
