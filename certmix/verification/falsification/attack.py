"""One certificate under attack: search, choose among what was found, judge."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from certmix.sampling.packing import Draw
from certmix.verification.falsification.claims import Claim, Claims
from certmix.verification.falsification.judge import (
    Attacked,
    Target,
    Trial,
    judge_plain,
    judge_smoothed,
    noise_seed,
    sampler_of,
)
from certmix.verification.falsification.request import FalsifyRequest
from certmix.verification.falsification.search import plain_candidates, smoothed_candidates

__all__ = ["attack_claim", "trial_of"]

SCREENED = 200
"""Samples that choose among the candidates."""
FURTHEST = 1e3
"""Radii beyond this many sigma are attacked within it."""


def attack_claim(
    target: Target, claims: Claims, claim: Claim, image: Tensor, request: FalsifyRequest
) -> Attacked:
    """Search the ball of one certificate, and judge the worst point found.

    Parameters
    ----------
    target
        The base classifier of a smoothed h, or h itself.
    claims, claim
        What is claimed.
    image
        The input, float32.
    request
        Budget and error rate: each judgement errs with probability at most
        ``error_rate / claims.looked_at``.
    """
    image = image.to(target.device, torch.float32)
    seed = noise_seed(request.seed, claims.seed, f"search {claim.index}")
    radius = min(claim.radius, FURTHEST * (claims.sigma or 1.0))
    if claims.sigma is None:
        points = plain_candidates(
            target.module, image, claim.predicted, radius, claims.norm, steps=request.steps,
            starts=request.restarts, generator=torch.Generator().manual_seed(seed),
            box=target.box if claims.clipped else None,
        )  # fmt: skip
        return judge_plain(target, claims, claim, image, points)
    points = smoothed_candidates(
        target.module, image, claim.predicted, radius, claims.sigma, steps=request.steps,
        copies=request.copies, generator=torch.Generator(target.device).manual_seed(seed),
        soft_temperature=claims.temperature if claims.scores == "soft" else None,
    )  # fmt: skip
    trial = trial_of(claims, request)
    point, rival = _screen(target, claims, claim, points, trial)
    return judge_smoothed(target, claims, claim, image, point, rival, trial)


def trial_of(claims: Claims, request: FalsifyRequest) -> Trial:
    """Return how points are judged: the error rate is divided over all images that are looked at."""
    seed = noise_seed(request.seed, claims.seed, "judgement")
    return Trial(request.samples, request.error_rate / claims.looked_at, seed)


def _screen(target: Target, claims: Claims, claim: Claim, points: Tensor, trial: Trial) -> tuple[Tensor, int]:
    """Return the candidate of lowest margin on common noise, and its rival."""
    sampler = sampler_of(target, claims, trial.seed)
    draws = [Draw(point, claim.index, (SCREENED,), stream="selection") for point in points]
    means = np.zeros((len(draws), target.classes))
    if claims.scores == "hard":
        for number, votes in enumerate(sampler.submit(draws).result()):
            means[number] = votes[-1] / SCREENED
    else:
        for part, scores in sampler.scores(draws, claims.temperature):
            means[part.draw] += scores.sum(0) / SCREENED
    own = means[:, claim.predicted].copy()
    means[:, claim.predicted] = -1.0
    at = int((own - means.max(1)).argmin())
    return points[at], int(means[at].argmax())
