"""One certificate under attack: search its ball, judge the worst point on fresh noise or in float64."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc
from torch import Tensor, nn

from certmix.attacks import pgd, square
from certmix.attacks.geometry import distance, make_ball
from certmix.bounds import betting, clopper_pearson
from certmix.calling import backward, call_model
from certmix.margins.local_search import float64_twin
from certmix.radii.smoothings import Smoothing
from certmix.sampling import Sampler
from certmix.sampling.devices import full_float32
from certmix.sampling.enumerated import Shown, Views
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error
from certmix.sampling.noise import NoiseKey, noise_of
from certmix.sampling.packing import Draw
from certmix.types import FloatArray, IntArray
from certmix.verification.falsify.cases import Search, flips, lead_of, size_of, worst_point
from certmix.verification.request import FalsifyRequest

SCREENED = 200  # samples that choose among the candidates
KEPT = 4  # candidates of lowest estimated margin that are looked at again
QUERIES = 50  # of `square`, in place of a step along the gradient
FURTHEST = 1e3  # radii beyond this many sigma are attacked within it
LOSSES = ("probability-margin", "cross-entropy")  # what the attacks without noise climb
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far below the threshold a margin without noise must lie, by the precision it is computed in."""
_OPTIMISM, _NEEDED = 2.5, 3.0  # standard deviations: of the margin so far, and below mu at the end


# What counts as evidence.


def threshold(alpha: float) -> float:
    """Return mu = (1 - alpha) / alpha, rounded down: a smaller margin lets some g flip the mix."""
    return 0.0 if alpha == 1.0 else math.nextafter((1.0 - alpha) / alpha, 0.0)


def vote_margin_upper(counts: IntArray, selected: int, rival: int, failure_probability: float) -> float:
    """Return an upper confidence bound of h_y - h_i from votes (c,), their number, y and i fixed before."""
    half, total = failure_probability / 2, int(counts.sum())
    most = clopper_pearson.upper_bound(int(counts[selected]), total, half)
    least = clopper_pearson.lower_bound(int(counts[rival]), total, half)
    return math.nextafter(float(most - least), 2.0)


def score_margin_upper(differences: ArrayLike, failure_probability: float) -> float:
    """Return an upper confidence bound of the mean of score_y - score_i (n,), in order, n fixed before."""
    values = np.clip((1.0 - np.asarray(differences, np.float64)) / 2.0, 0.0, 1.0)
    return math.nextafter(1.0 - 2.0 * betting.lower_bound(values, failure_probability, values.size), 2.0)


def stops(samples: int) -> list[int]:
    """Return the numbers of samples after which a hopeless point is given up; the last one decides."""
    return [*(200 << k for k in range(64) if 200 << k < samples), samples]


def hopeless(margin: float, square: float, drawn: int, samples: int, mu: float) -> bool:
    """Whether `drawn` samples, by the means of score_y - score_i and its square, say all will hardly do."""
    deviation = math.sqrt(max(square - margin**2, 1.0 / drawn))
    lowest = margin - _OPTIMISM * deviation / math.sqrt(drawn)
    return lowest > mu - _NEEDED * deviation / math.sqrt(samples)


def chance_of(findings: int, inputs: int, rate: float) -> float:
    """Return the probability of so many findings or more among honest certificates of inputs looked at."""
    return 1.0 if findings < 1 else float(bdtrc(findings - 1, inputs, min(rate, 1.0)))


def findings_needed(inputs: int, rate: float, error_rate: float) -> int:
    """Return the least number of findings that honest certificates have with at most `error_rate`."""
    chances: FloatArray = bdtrc(np.arange(inputs + 1), inputs, min(rate, 1.0))
    return 1 + int(np.argmax(chances <= error_rate))


# Attacks.


@dataclass(frozen=True)
class Claim:
    """One input's certificate; the checksum is of its float32 bytes, empty where the run keeps none."""

    index: int
    predicted: int
    radius: float
    input_checksum: str = ""


class Claims(NamedTuple):
    """The certificates with a radius > 0 of `looked_at` inputs, and what they are about.

    Without noise `smoothing` is None and `failure_probability`, that of one certificate, 0.  `clipped` balls
    are cut to the input range.  `run` is ``run.json``, None for claims that no run made.  Votes are counted
    behind `gate`; `views` are what all votes of an input are of, where none is drawn at random.
    """

    certificate: str
    alpha: float
    norm: str
    smoothing: Smoothing | None
    failure_probability: float
    looked_at: int
    claims: tuple[Claim, ...]
    scores: str = "hard"
    temperature: float = 1.0
    precision: str = "fp32"
    seed: int = 0
    clipped: bool = False
    run: dict[str, Any] | None = None
    gate: float = 0.0
    views: Views | None = None


class Target(NamedTuple):
    """The network whose certificates are attacked: classes, device, range and scale of inputs."""

    module: nn.Module
    classes: int
    device: torch.device
    box: tuple[float, float] | None = None
    batch_size: int | None = None
    scale: FloatArray | None = None

    def unit(self, like: Tensor) -> Tensor:
        """Return what distances count in, float64."""
        return torch.as_tensor(1.0 if self.scale is None else self.scale).to(like.device)


class Trial(NamedTuple):
    """How a point of a smoothed classifier is tried: fresh samples, failure probability, key of the noise."""

    samples: int
    failure_probability: float
    seed: int


class Attacked(NamedTuple):
    """What an attack on a certificate came to at the worst `point` found, `distance` from the input.

    `margin`, of h_y - h_rival, is an estimate from `samples` fresh samples, or exact where these are 0;
    `upper` its upper confidence bound, None where the point was given up early: below `threshold`, mu, some g
    flips the mix.  `counts` are votes (c,).
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


def attack_claim(
    target: Target, claims: Claims, claim: Claim, input: Tensor, request: FalsifyRequest
) -> Attacked:
    """Search the ball of one certificate, and judge the worst point found."""
    input = input.to(target.device, torch.float32)
    if claims.views is not None:
        return judge_cases(
            target, claims, claim, input, cases_candidate(target, claims, claim, input, request)
        )
    if claims.smoothing is None:
        points = plain_candidates(target, claims, claim, input, request)
        return judge_plain(target, claims, claim, input, points)
    points = smoothed_candidates(target, claims, claim, input, request)
    trial = trial_of(claims, request)
    # The candidate of lowest margin on common noise is judged, against its rival there.
    sampler = sampler_of(target, claims, trial.seed)
    draws = [Draw(point, claim.index, (SCREENED,), stream="selection") for point in points]
    means = np.zeros((len(draws), target.classes))
    if claims.scores == "hard":
        votes = [one[-1].votes(target.classes, claims.gate) for one in sampler.submit(draws).result()]
        means += np.stack(votes)[:, : target.classes] / SCREENED
    else:
        for part, scores in sampler.scores(draws, claims.temperature):
            means[part.draw] += scores.sum(0) / SCREENED
    own = means[:, claim.predicted].copy()
    means[:, claim.predicted] = -1.0
    at = int((own - means.max(1)).argmin())
    return judge_smoothed(target, claims, claim, input, points[at], int(means[at].argmax()), trial)


def trial_of(claims: Claims, request: FalsifyRequest) -> Trial:
    """Return how points are judged: the error rate is divided over all inputs that are looked at."""
    seed = noise_seed(request.seed, claims.seed, "judgement")
    return Trial(request.samples, request.error_rate / claims.looked_at, seed)


def noise_seed(seed: int, run_seed: int, purpose: str) -> int:
    """Return a seed whose noise is independent of the run's, whatever the two seeds are."""
    text = f"certmix falsify 1/{purpose}/{seed}/{run_seed}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def sampler_of(target: Target, claims: Claims, seed: int) -> Sampler:
    """Return what draws the votes or scores that the claims are about."""
    assert claims.smoothing is not None
    return Sampler(
        target.module, target.classes, claims.smoothing, seed, device=target.device,
        precision=claims.precision, batch_size=target.batch_size, scale=target.scale,
    )  # fmt: skip


@full_float32()
def smoothed_candidates(
    target: Target, claims: Claims, claim: Claim, input: Tensor, request: FalsifyRequest
) -> Tensor:
    """Return points strictly within the radius where h_y - max_i h_i seems smallest, y certified.

    These are the last point, and up to `KEPT` others of lowest estimated margin.  The gradient of a smoothed
    margin is estimated by the mean, over noisy copies, of that of the logit difference z_y - z_i to the
    nearest rival.  Copies count by the slope of the sigmoid at the difference in units of its spread over the
    copies, so that no scale of the logits makes them vanish.  Where the model has no gradient, that of the
    mean sigmoid is estimated from its values alone (Stein's identity).  The first step goes straight to the
    sphere, the others are shorter and shorter steps of projected descent with momentum.  The point is not
    held to the data's range: certificates by noise are not.  The search is in units of the features' scales.
    """
    assert claims.smoothing is not None
    steps, radius = request.steps, min(claim.radius, FURTHEST * claims.smoothing.scale)
    temperature = claims.temperature if claims.scores == "soft" else None
    seed = noise_seed(request.seed, claims.seed, f"search {claim.index}")
    generator = torch.Generator(target.device).manual_seed(seed)
    unit = target.unit(input)
    input = (input / unit).float()
    if claims.norm == "l0":
        return _hidden_candidates(target, claims, claim, input, request, generator)
    ball = make_ball(input[None], claims.norm, math.nextafter(radius, 0.0), (-math.inf, math.inf))
    point, velocity = ball.centre, torch.zeros_like(input[None], dtype=torch.float64)
    visited: list[tuple[float, Tensor]] = []
    for step in range(steps + 1):
        noise = _unit_noise(claims.smoothing, (request.copies, *input.shape), generator, input.device, step)
        copies = point + claims.smoothing.scale * noise
        margin, slope = _margin_and_slope(
            target.module, copies, noise, claim.predicted, temperature, claims.gate, unit.float()
        )
        visited.append((margin, point))
        velocity = 0.7 * velocity - slope / slope.norm().clamp_min(torch.finfo(torch.float64).tiny)
        if step < steps:
            length = radius * max(0.1, 1.0 - step / steps)
            point = ball.ascend(point, velocity, torch.tensor([length], dtype=torch.float64).to(input.device))
    best = sorted(visited[:-1], key=lambda pair: pair[0])[:KEPT]
    return (torch.cat([visited[-1][1], *(candidate for _, candidate in best)]) * unit).float()


def _unit_noise(
    smoothing: Smoothing, shape: tuple[int, ...], generator: torch.Generator, device: torch.device, step: int
) -> Tensor:
    """Return noise (n, ...) of a kind in units of its scale."""
    if smoothing.sigma is not None:
        return torch.randn(shape, generator=generator, device=device)
    made, zero = noise_of(smoothing, device), torch.zeros(shape[1:])
    out = torch.empty((shape[0], zero.numel()), device=device)
    key = NoiseKey(int(generator.initial_seed()) & (2**63 - 1), step)
    made.fill(out, made.steps(zero), key, 0)
    if len(shape) == 4:  # channels last
        out = out.view(shape[0], shape[2], shape[3], shape[1]).movedim(-1, 1)
    return out.reshape(shape) / smoothing.scale


def _hidden_candidates(
    target: Target, claims: Claims, claim: Claim, input: Tensor, request: FalsifyRequest, generator: Any
) -> Tensor:
    """Return points that differ in as many pixels as the radius, where h_y - max_i h_i seems smallest.

    At each step the pixels that gain most by the gradient, over copies of which some pixels are shown, go to
    the ends of the inputs' range: the projection of a long step on the ball.
    """
    assert claims.smoothing is not None
    made, inputs = noise_of(claims.smoothing, input.device), input.ndim == 3
    low, high = target.box or tuple(float(end) for end in input.aminmax())
    pixels, point, found = int(claim.radius), input[None].clone(), [input[None]]
    seen = made.seen(input.shape)
    for step in range(request.steps):
        out = torch.empty((request.copies, seen.numel()), device=input.device)
        made.fill(out, made.steps(point[0]), NoiseKey(int(generator.initial_seed()) & (2**63 - 1), step), 0)
        copies = out.view(-1, *seen[1:], seen[0]).movedim(-1, 1) if inputs else out
        mask = copies[:, -1:] if inputs else copies[:, input.numel() :].view(-1, *input.shape)
        temperature = claims.temperature if claims.scores == "soft" else None
        _, slope = _margin_and_slope(
            target.module, copies, copies, claim.predicted, temperature, claims.gate, torch.ones(())
        )
        slope = slope[:, : input.shape[0]] * (mask.amax(0) > 0)
        gain = torch.maximum(slope * (point - low), slope * (point - high))  # how much the margin falls
        each = gain.sum(1).flatten() if inputs else gain.flatten()
        changed = torch.zeros_like(each, dtype=torch.bool)
        changed[each.topk(min(pixels, len(each))).indices] = True
        changed = changed.view(1, 1, *input.shape[1:]) if inputs else changed.view(1, *input.shape)
        ends = torch.where(slope > 0, low, high).to(point.dtype)
        point = torch.where(changed, ends, input[None])
        found.append(point)
    return torch.cat(found[-1 - KEPT :])


def inside(norm: str, away: float, radius: float) -> bool:
    """Return whether a distance lies in the ball that a certificate is about."""
    return away <= radius if norm == "l0" else away < radius


def _margin_and_slope(
    model: nn.Module,
    copies: Tensor,
    noise: Tensor,
    predicted: int,
    temperature: float | None,
    gate: float,
    unit: Tensor,
) -> tuple[float, Tensor]:
    """Return the estimated margin to the nearest rival, and a multiple of its surrogate's gradient (1, ...).

    The copies are a point and a multiple of `noise`; the model sees them times `unit`.
    """
    copies = copies.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = call_model(model, copies * unit).double()
        with torch.no_grad():
            if temperature is None:
                votes = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).double()
                mean = (votes * (logits.softmax(1).amax(1, keepdim=True) >= gate)).mean(0)
            else:
                mean = (logits / temperature).softmax(1).mean(0)
            others = mean.clone()
            others[predicted] = -1.0
            if others.max() <= 0:  # no rival has a vote yet: the nearest by logit
                others = logits.mean(0)
                others[predicted] = -math.inf
            rival = int(others.argmax())
        gap = logits[:, predicted] - logits[:, rival]
        with torch.no_grad():
            spread = gap.std(0).clamp_min(1e-12 * (1 + gap.abs().amax()))
            at = (gap / max(float(spread), temperature or 0.0)).sigmoid()
            weight = at * (1 - at) / len(gap)
        if gap.requires_grad:
            (gradient,) = backward((weight * gap).sum(), copies)
        else:  # it detaches, or leaves torch
            gradient = noise * (at - at.mean()).view(-1, *[1] * (noise.ndim - 1))
    slope = gradient.double().nan_to_num(0.0, 0.0, 0.0).sum(0, keepdim=True)
    return float(mean[predicted] - mean[rival]), slope


@full_float32()
def plain_candidates(
    target: Target, claims: Claims, claim: Claim, input: Tensor, request: FalsifyRequest
) -> Tensor:
    """Return points (n, ...) strictly within the radius where h_y - max_i h_i of softmax(z) seems least.

    They come from `pgd`, or from `square` where the model has no gradient.
    """
    seed = noise_seed(request.seed, claims.seed, f"search {claim.index}")
    generator, radius = torch.Generator().manual_seed(seed), min(claim.radius, FURTHEST)
    low, high = (float(end) for end in input.aminmax())
    reach = max(1.0, abs(low), abs(high)) + 2 * radius
    box = target.box if claims.clipped and target.box is not None else (-reach, reach)
    found = [input[None]]
    with torch.enable_grad():
        sloped = call_model(target.module, input[None].clone().requires_grad_()).requires_grad
    if not sloped:
        labels = torch.tensor([claim.predicted], device=input.device)
        points = square(
            target.module, input[None].clone(), labels, claims.norm, math.nextafter(radius, 0.0),
            queries=request.steps * QUERIES, restarts=request.restarts, box=box, early_stop=False,
            generator=generator,
        )  # fmt: skip
        return torch.cat([input[None], points])
    for loss in LOSSES:
        for random_start, count in ((False, 1), (True, request.restarts - 1)):
            if count < 1:
                continue
            inputs = input[None].expand(count, *input.shape).clone()
            labels = torch.full((count,), claim.predicted, device=input.device)
            points = pgd(
                target.module, inputs, labels, claims.norm, math.nextafter(radius, 0.0), steps=request.steps,
                loss=loss, random_start=random_start, box=box, early_stop=False, generator=generator,
            )  # fmt: skip
            found.append(points)
    return torch.cat(found)


def cases_candidate(
    target: Target, claims: Claims, claim: Claim, input: Tensor, request: FalsifyRequest
) -> Tensor:
    """Return a point within a certificate from votes on all cases where y leads least."""
    seed = noise_seed(request.seed, claims.seed, f"search {claim.index}")
    how = Search(
        target.box or (float(input.min()), float(input.max())), request.steps, request.restarts,
        torch.Generator().manual_seed(seed),
    )  # fmt: skip
    shown = target.module
    assert isinstance(shown, Shown)
    return worst_point(shown, input, claim.predicted, claim.radius, target.classes, claims.gate, how)


@full_float32()
def judge_cases(target: Target, claims: Claims, claim: Claim, input: Tensor, point: Tensor) -> Attacked:
    """Judge a point by all of its votes: nothing is left to chance or to rounding."""
    shown = target.module
    assert isinstance(shown, Shown)
    lead, rival, counts = lead_of(
        shown, point, target.classes, claims.gate, claim.predicted, target.batch_size
    )
    away, votes = size_of(shown.views, point, input), int(counts.sum())
    found = away <= claim.radius and flips(lead, votes, claims.alpha)
    kept, margin = counts if claims.gate else counts[: target.classes], lead / votes
    return Attacked(
        claim, rival, away, margin, margin, threshold(claims.alpha), 0, kept, found, point.cpu().numpy()
    )


@full_float32()
def judge_plain(target: Target, claims: Claims, claim: Claim, input: Tensor, points: Tensor) -> Attacked:
    """Judge the worst of points (n, ...) within the ball; h = softmax(z) in float64 where the model can."""
    mu, away = threshold(claims.alpha), distance(points, input[None].expand(points.shape), claims.norm)
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
    target: Target, claims: Claims, claim: Claim, input: Tensor, point: Tensor, rival: int, trial: Trial
) -> Attacked:
    """Judge one point against one rival, both chosen on other noise, by fresh samples.

    The certificate is shown to be wrong if the upper confidence bound of h_y - h_i lies below mu.
    Giving up is always valid: a point that is given up is no finding.
    """
    mu = threshold(claims.alpha)
    point, away = _on_grid(target, claims, claim, input, point)
    sampler = sampler_of(target, claims, trial.seed)
    hard, own, upper = claims.scores == "hard", claim.predicted, None
    counts: IntArray = np.zeros(target.classes + (claims.gate > 0), np.int64)
    differences, drawn, margin = np.empty(0), 0, 0.0
    for stop in stops(trial.samples):
        if hard:
            counts = counts + sampler.votes(point, claim.index, [stop], start=drawn, gate=claims.gate)[0]
            mine, other = counts[own] / stop, counts[rival] / stop
            margin, square = float(mine - other), float(mine + other)
        else:
            fresh = sampler.scores([Draw(point, claim.index, (stop,), drawn)], claims.temperature)
            parts = [batch[:, own] - batch[:, rival] for _, batch in fresh]
            differences = np.concatenate([differences, *parts])
            margin, square = float(differences.mean()), float((differences**2).mean())
        drawn = stop
        if drawn < trial.samples and hopeless(margin, square, drawn, trial.samples, mu):
            break
    else:
        delta, soft = trial.failure_probability, score_margin_upper
        upper = vote_margin_upper(counts, own, rival, delta) if hard else soft(differences, delta)
    eps = noise_error(sampler.smoothing, point.numel())  # of each of the two probabilities
    found = inside(claims.norm, away, claim.radius) and upper is not None and upper + 2 * eps < mu
    return Attacked(
        claim, rival, away, margin, upper, mu, drawn, counts if hard else None, found, point.cpu().numpy()
    )


def _on_grid(
    target: Target, claims: Claims, claim: Claim, input: Tensor, point: Tensor
) -> tuple[Tensor, float]:
    """Return the grid point next to a point, pulled in until it lies in the ball, and its distance."""
    assert claims.smoothing is not None
    if claims.norm == "l0":
        changed = (point != input).any(0) if input.ndim == 3 else point != input
        return point, float(changed.sum())
    grid, away, there = Grid.of(claims.smoothing, target.scale), math.inf, point
    centre = torch.from_numpy(grid.real(grid.nearest(input.cpu().numpy()).steps))
    # A certificate is about the 8-bit image, or about the float one: the larger distance counts.
    both = torch.stack([centre, input.cpu().double() / target.unit(centre)])
    for part in (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3, 1 - 1e-2):
        value = grid.value(grid.nearest(torch.lerp(input, point, part).cpu().numpy()).steps)
        seen = torch.from_numpy(grid.real(grid.nearest(value).steps))  # what large values round to
        away = float(distance(seen.expand(both.shape), both, claims.norm).max())
        there = torch.from_numpy(value).to(point)
        if away < claim.radius:
            break
    return there, away
