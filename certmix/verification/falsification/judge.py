"""Judgement of a point: fresh noise and a confidence bound, or float64 where nothing is random."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certmix.attacks._geometry import distance
from certmix.calling import call_model
from certmix.margins.local_constants import float64_twin
from certmix.sampling import Sampler
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.packing import Draw
from certmix.types import IntArray
from certmix.verification.falsification.claims import Claim, Claims
from certmix.verification.falsification.evidence import (
    hopeless,
    score_margin_upper,
    stops,
    threshold,
    vote_margin_upper,
)

__all__ = ["Attacked", "Target", "Trial", "judge_plain", "judge_smoothed", "noise_seed", "sampler_of"]

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far below the threshold a margin without noise must lie, by the precision it is computed in."""


@dataclass(frozen=True)
class Target:
    """The network whose certificates are attacked: classes, device, range of inputs."""

    module: nn.Module
    classes: int
    device: torch.device
    box: tuple[float, float] | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Trial:
    """How a point of a smoothed classifier is tried: fresh samples, failure probability, key of the noise."""

    samples: int
    failure_probability: float
    seed: int


@dataclass(frozen=True)
class Attacked:
    """What an attack on one certificate came to.

    Parameters
    ----------
    claim
        The certificate.
    rival
        The class i whose g = e_i is worst at the point.
    distance
        Of the point, in the certificate's norm.
    margin
        h_y - h_i at the point: an estimate where `samples` is not 0.
    upper
        Its upper confidence bound, None where the point was given up before all
        samples were drawn.  Without noise, the margin.
    threshold
        mu: some g flips the mix where the margin is less.
    samples
        Fresh samples behind the margin; 0 without noise.
    counts
        Their votes (c,); None for soft scores and without noise.
    found
        Whether the certificate is shown to be wrong.
    point
        The point, float32.
    """

    claim: Claim
    rival: int
    distance: float
    margin: float
    upper: float | None
    threshold: float
    samples: int
    counts: IntArray | None
    found: bool
    point: NDArray[np.float32]


def noise_seed(seed: int, run_seed: int, purpose: str) -> int:
    """Return a seed whose noise is independent of the run's, whatever the two seeds are."""
    text = f"certmix falsify 1/{purpose}/{seed}/{run_seed}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def sampler_of(target: Target, claims: Claims, seed: int) -> Sampler:
    """Return what draws the votes or scores that the claims are about."""
    assert claims.sigma is not None
    return Sampler(
        target.module, target.classes, claims.sigma, seed, device=target.device, precision=claims.precision,
        batch_size=target.batch_size,
    )  # fmt: skip


def judge_plain(target: Target, claims: Claims, claim: Claim, image: Tensor, points: Tensor) -> Attacked:
    """Judge the worst of points (n, ...) within the ball; h = softmax(z) in float64 where the model can."""
    mu, away = threshold(claims.alpha), distance(points, image[None].expand(points.shape), claims.norm)
    twin = float64_twin(target.module, points)
    with torch.inference_mode():
        logits = call_model(target.module, points) if twin is None else call_model(twin, points.double())
    precision = torch.float32 if twin is None else torch.float64
    h = logits.double().softmax(1)
    own = torch.tensor([claim.predicted], device=h.device)
    largest, rivals = h.index_fill(1, own, -1.0).max(1)
    margins, inside = h[:, claim.predicted] - largest, away < claim.radius
    at = int(torch.where(inside, margins, math.inf).argmin())
    margin = float(margins[at])
    found = bool(inside[at]) and margin < mu - ROUNDING[precision]
    return Attacked(
        claim, int(rivals[at]), float(away[at]), margin, margin, mu, 0, None, found, points[at].cpu().numpy()
    )


def judge_smoothed(
    target: Target, claims: Claims, claim: Claim, image: Tensor, point: Tensor, rival: int, trial: Trial
) -> Attacked:
    """Judge one point against one rival, both chosen on other noise, by fresh samples.

    The certificate is shown to be wrong if the upper confidence bound of h_y - h_i lies below mu.
    A point that is not worth all samples is given up, and is no finding.
    """
    mu = threshold(claims.alpha)
    point, away = _on_grid(claims, claim, image, point)
    sampler = sampler_of(target, claims, trial.seed)
    draw = _votes if claims.scores == "hard" else _scores
    margin, upper, samples, counts = draw(sampler, claims, claim, point, rival, trial)
    eps = noise_error(sampler.sigma, point.numel())  # of each of the two probabilities
    found = away < claim.radius and upper is not None and upper + 2 * eps < mu
    return Attacked(claim, rival, away, margin, upper, mu, samples, counts, found, point.cpu().numpy())


def _on_grid(claims: Claims, claim: Claim, image: Tensor, point: Tensor) -> tuple[Tensor, float]:
    """Return the grid point next to a point, pulled in until it lies in the ball, and its distance.

    A certificate is about the 8-bit image, or about the float one: the larger distance counts.
    """
    assert claims.sigma is not None
    grid, away, there = Grid.of(claims.sigma), math.inf, point
    centre = torch.from_numpy(grid.real(grid.nearest(image.cpu().numpy()).steps))
    both = torch.stack([centre, image.cpu().double()])
    for part in (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3, 1 - 1e-2):
        steps = grid.nearest(torch.lerp(image, point, part).cpu().numpy()).steps
        away = float(distance(torch.from_numpy(grid.real(steps)).expand(both.shape), both, claims.norm).max())
        there = torch.from_numpy(grid.value(steps)).to(point)
        if away < claim.radius:
            break
    return there, away


_Drawn = tuple[float, float | None, int, IntArray | None]
"""Margin, its upper bound, samples, votes."""


def _votes(sampler: Sampler, claims: Claims, claim: Claim, point: Tensor, rival: int, trial: Trial) -> _Drawn:
    counts, drawn, margin = np.zeros(sampler.classes, np.int64), 0, 0.0
    for stop in stops(trial.samples):
        counts = counts + sampler.votes(point, claim.index, [stop], start=drawn)[0]
        drawn = stop
        own, other = counts[claim.predicted] / drawn, counts[rival] / drawn
        margin = float(own - other)
        if _given_up(margin, float(own + other), drawn, trial, claims):
            return margin, None, drawn, counts
    return margin, vote_margin_upper(counts, claim.predicted, rival, trial.failure_probability), drawn, counts


def _scores(
    sampler: Sampler, claims: Claims, claim: Claim, point: Tensor, rival: int, trial: Trial
) -> _Drawn:
    kept, drawn, margin = np.empty(0), 0, 0.0
    for stop in stops(trial.samples):
        fresh = sampler.scores([Draw(point, claim.index, (stop,), drawn)], claims.temperature)
        kept = np.concatenate([kept, *(batch[:, claim.predicted] - batch[:, rival] for _, batch in fresh)])
        drawn, margin = stop, float(kept.mean())
        if _given_up(margin, float((kept**2).mean()), drawn, trial, claims):
            return margin, None, drawn, None
    return margin, score_margin_upper(kept, trial.failure_probability), drawn, None


def _given_up(margin: float, square: float, drawn: int, trial: Trial, claims: Claims) -> bool:
    return drawn < trial.samples and hopeless(margin, square, drawn, trial.samples, threshold(claims.alpha))
