"""Pairs of half-spaces in image space, their smoothed probabilities in closed form, and faulty pipelines.

The base classifier says y on one half-space, i on another, and a third class in
between.  Its smoothed probabilities attain the Neyman-Pearson bounds along the
common normal u, so that the exact radius of the true (p, q) cannot be exceeded:
a point beyond it, along u, flips the mix against g = e_i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import nn

from certmix.bounds import bound_counts, clopper_pearson
from certmix.radii import Smoothing, exact_radius
from certmix.types import FloatArray, IntArray
from certmix.verification.falsify.attack import Claim, Claims, Target
from certmix.verification.falsify.falsify import Falsification, attack_claims
from certmix.verification.request import FalsifyRequest

SHAPE, SIGMA = (2, 4, 4), 0.5
STEEPNESS = 30.0


def normal() -> FloatArray:
    """The common unit normal u of all half-spaces."""
    drawn = np.random.default_rng(3).normal(size=np.prod(SHAPE))
    return drawn / np.linalg.norm(drawn)


def pair(gap: float = 0.0) -> nn.Module:
    """Class 0 where u.(x - 1/2) < 0, class 1 where it is above `gap`, class 2 in between."""
    u, net = torch.from_numpy(normal()), nn.Linear(int(np.prod(SHAPE)), 3)
    with torch.no_grad():
        net.weight.copy_(STEEPNESS * torch.stack([-u, u, torch.zeros_like(u)]))
        middle = STEEPNESS * float(u.sum()) / 2
        net.bias.copy_(torch.tensor([middle, -middle - STEEPNESS * gap, 0.0]))
    return nn.Sequential(nn.Flatten(), net).eval().requires_grad_(False)


def smoothed(depth: FloatArray, gap: float = 0.0) -> FloatArray:
    """h (m, 3) at inputs whose u.(x - 1/2) is -sigma * depth."""
    own, rival = ndtr(depth), ndtr(-depth - gap / SIGMA)
    return np.stack([own, rival, np.maximum(0.0, 1 - own - rival)], 1)


def inputs(depth: FloatArray, seed: int) -> torch.Tensor:
    """Inputs (m, *SHAPE), float32, at these depths within class 0, otherwise random."""
    u = normal()
    drawn = np.random.default_rng(seed).random((len(depth), len(u)))
    along = (drawn - 0.5) @ u
    placed = drawn + np.outer(-SIGMA * depth - along, u)
    return torch.from_numpy(placed.astype(np.float32)).view(-1, *SHAPE)


@dataclass(frozen=True)
class Votes:
    """Counts (m, 3) for selection and estimation, and what a pipeline makes radii of."""

    selection: IntArray
    estimation: IntArray
    alpha: float
    delta: float

    def radius(self, p: FloatArray, q: FloatArray | None = None, alpha: float | None = None) -> FloatArray:
        """The exact radius; q = 1 - p unless given."""
        q = 1 - p if q is None else q
        return exact_radius(p, np.minimum(q, 1.0), SIGMA, self.alpha if alpha is None else alpha)

    @property
    def total(self) -> IntArray:
        return self.estimation.sum(1)

    def of(self, classes: IntArray) -> IntArray:
        return self.estimation[np.arange(len(classes)), classes]


def honest(votes: Votes) -> tuple[IntArray, FloatArray]:
    """Class by selection votes; one-sided Clopper-Pearson; exact."""
    chosen = votes.selection.argmax(1)
    return chosen, votes.radius(clopper_pearson.lower_bound(votes.of(chosen), votes.total, votes.delta))


def honest_two_sided(votes: Votes) -> tuple[IntArray, FloatArray]:
    """The same with a bound of its own for the runner-up."""
    bounds = bound_counts(
        votes.estimation, votes.selection.argmax(1), votes.delta, "clopper-pearson-two-sided"
    )
    return votes.selection.argmax(1), votes.radius(bounds.p_lower, bounds.q_upper)


def stretched(votes: Votes) -> tuple[IntArray, FloatArray]:
    """Radii 1.2 times too large."""
    chosen, radius = honest(votes)
    return chosen, 1.2 * radius


def slightly_stretched(votes: Votes) -> tuple[IntArray, FloatArray]:
    """Radii 1.05 times too large."""
    chosen, radius = honest(votes)
    return chosen, 1.05 * radius


def threshold_forgotten(votes: Votes) -> tuple[IntArray, FloatArray]:
    """The radius of h alone, given for the mix."""
    chosen = votes.selection.argmax(1)
    p = clopper_pearson.lower_bound(votes.of(chosen), votes.total, votes.delta)
    return chosen, np.where(honest(votes)[1] > 0, votes.radius(p, alpha=1.0), 0.0)


def frequencies(votes: Votes) -> tuple[IntArray, FloatArray]:
    """Frequencies in the place of bounds."""
    chosen = votes.selection.argmax(1)
    return chosen, votes.radius(votes.of(chosen) / votes.total)


def wrong_side(votes: Votes) -> tuple[IntArray, FloatArray]:
    """The upper bound of p in the place of the lower."""
    chosen = votes.selection.argmax(1)
    return chosen, votes.radius(clopper_pearson.upper_bound(votes.of(chosen), votes.total, votes.delta))


def lower_runner_up(votes: Votes) -> tuple[IntArray, FloatArray]:
    """The lower bound of the runner-up in the place of the upper."""
    chosen = votes.selection.argmax(1)
    p = clopper_pearson.lower_bound(votes.of(chosen), votes.total, votes.delta / 2)
    others = votes.estimation.copy()
    others[np.arange(len(chosen)), chosen] = -1
    return chosen, votes.radius(p, clopper_pearson.lower_bound(others.max(1), votes.total, votes.delta / 2))


def selection_reused(votes: Votes) -> tuple[IntArray, FloatArray]:
    """The class chosen on the samples that bound it."""
    chosen = votes.estimation.argmax(1)
    return chosen, votes.radius(clopper_pearson.lower_bound(votes.of(chosen), votes.total, votes.delta))


Pipeline = Callable[[Votes], tuple[IntArray, FloatArray]]


def attack(
    pipeline: Pipeline,
    seed: int,
    *,
    count: int,
    samples: int = 10_000,
    gap: float = 0.0,
    alpha: float = 0.76,
    delta: float = 0.001,
    depths: tuple[float, float] = (0.7, 2.5),
    request: FalsifyRequest | None = None,
    model: nn.Module | None = None,
) -> Falsification:
    """Certify `count` inputs by a pipeline on fresh votes, and attack the certificates.

    Votes are drawn from the closed form, the attack's own from the network.
    """
    rng = np.random.default_rng(seed)
    depth = rng.uniform(*depths, count)
    h = smoothed(depth, gap)
    votes = Votes(rng.multinomial(100, h), rng.multinomial(samples, h), alpha, delta)
    chosen, radius = pipeline(votes)
    kept = [Claim(i, int(chosen[i]), float(radius[i])) for i in range(count) if radius[i] > 0]
    claims = Claims("exact", alpha, "l2", Smoothing.of(SIGMA), delta, count, tuple(kept), seed=seed)
    points = inputs(depth, seed)
    target = Target(model or pair(gap), 3, torch.device("cpu"))
    asked = request or FalsifyRequest(steps=4, copies=16, seed=seed)
    attacked = attack_claims(target, claims, lambda claim: points[claim.index], asked)
    return Falsification("half-spaces", claims, asked, attacked)


def true_margin(depth: float, moved: float, gap: float = 0.0) -> float:
    """h_0 - h_1 at distance `moved` towards class 1."""
    h = smoothed(np.array([depth - moved / SIGMA]), gap)[0]
    return float(h[0] - h[1])


def true_radius(depth: float, alpha: float, gap: float = 0.0) -> float:
    """The distance within which no g flips the mix at an input of class 0, by bisection; 0 if there is none.

    The margins depend on the distance along u alone.  Without gap it is
    sigma (depth - Phi^-1(1 / (2 alpha))).
    """
    steps = np.linspace(0.0, 8.0, 4001)
    for _ in range(3):
        h = smoothed(depth - steps, gap)
        below = np.flatnonzero(h[:, 0] - h[:, 1:].max(1) <= (1 - alpha) / alpha)
        if len(below) == 0 or below[0] == 0:
            return 0.0 if len(below) else SIGMA * float(steps[-1])
        steps = np.linspace(steps[below[0] - 1], steps[below[0]], 4001)
    return SIGMA * float(steps[0])
