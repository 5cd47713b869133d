"""Where in its ball a certificate is most likely to fail: candidates, by gradients.

Nothing here is evidence.  What is found is judged on fresh noise, or in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from certmix.attacks import pgd
from certmix.attacks._geometry import make_ball
from certmix.calling import call_model
from certmix.errors import ModelError

__all__ = ["plain_candidates", "smoothed_candidates"]

KEPT = 4
"""Candidates of lowest estimated margin that are looked at again."""
_MOMENTUM = 0.7
_LEAST = torch.finfo(torch.float64).tiny
LOSSES = ("probability-margin", "cross-entropy")
"""What the attacks without noise climb."""


def smoothed_candidates(
    model: nn.Module,
    image: Tensor,
    predicted: int,
    radius: float,
    sigma: float,
    *,
    steps: int,
    copies: int,
    generator: torch.Generator,
    soft_temperature: float | None = None,
) -> Tensor:
    """Return points strictly within l2 distance `radius` where h_y - max_i h_i seems smallest.

    The gradient of a smoothed margin is estimated by the mean, over noisy
    copies, of the gradient of the logit difference z_y - z_i to the rival that
    is nearest at the point.  Copies count by the slope of the sigmoid at the
    difference in units of its spread over the copies, so that no scale of the
    logits makes them vanish.  The first step goes straight to the sphere, along
    the averaged gradient at the image; the others are shorter and shorter steps
    of projected descent with momentum.  The point is not held to the data's
    range: certificates by noise are not.

    Parameters
    ----------
    model
        The base classifier: logits (N, classes).
    image
        One input, float32, on the model's device.
    predicted
        y.
    radius, sigma
        Of the certificate.
    steps, copies
        Steps, and noisy copies behind each gradient.
    generator
        Source of the noise, on the model's device.
    soft_temperature
        Temperature of soft scores; None for votes.

    Returns
    -------
    Tensor
        (n, ...): the last point, and up to `KEPT` others of lowest estimated margin.

    Raises
    ------
    ModelError
        If the model gives no gradient.
    """
    ball = make_ball(image[None], "l2", math.nextafter(radius, 0.0), (-math.inf, math.inf))
    point, velocity = ball.centre, torch.zeros_like(image[None], dtype=torch.float64)
    visited: list[tuple[float, Tensor]] = []
    for step in range(steps + 1):
        noise = torch.randn((copies, *image.shape), generator=generator, device=image.device)
        margin, slope = _margin_and_slope(model, point + sigma * noise, predicted, soft_temperature)
        visited.append((margin, point))
        velocity = _MOMENTUM * velocity - slope / slope.norm().clamp_min(_LEAST)
        if step < steps:
            length = radius * max(0.1, 1.0 - step / steps)
            point = ball.ascend(point, velocity, torch.tensor([length], dtype=torch.float64).to(image.device))
    best = sorted(visited[:-1], key=lambda pair: pair[0])[:KEPT]
    return torch.cat([visited[-1][1], *(candidate for _, candidate in best)])


def _margin_and_slope(
    model: nn.Module, copies: Tensor, predicted: int, temperature: float | None
) -> tuple[float, Tensor]:
    """Return the estimated margin to the nearest rival, and the gradient (1, ...) of its surrogate."""
    copies = copies.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = call_model(model, copies).double()
        with torch.no_grad():
            mean = _mean_scores(logits, temperature)
            rival = _nearest(mean, logits.mean(0), predicted)
        gap = logits[:, predicted] - logits[:, rival]
        if not gap.requires_grad:
            raise ModelError(
                "the model hides its gradient (it detaches, or leaves torch): it cannot be searched"
            )
        with torch.no_grad():
            width = max(float(_spread(gap)), temperature or 0.0)
            at = (gap / width).sigmoid()
            weight = at * (1 - at) / len(gap)
        (gradient,) = torch.autograd.grad((weight * gap).sum(), copies)
    slope = gradient.double().nan_to_num(0.0, 0.0, 0.0).sum(0, keepdim=True)
    return float(mean[predicted] - mean[rival]), slope


def _mean_scores(logits: Tensor, temperature: float | None) -> Tensor:
    """Return the mean (classes,) of votes, or of soft scores."""
    if temperature is not None:
        return (logits / temperature).softmax(1).mean(0)
    return torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).double().mean(0)


def _nearest(mean: Tensor, logits: Tensor, predicted: int) -> int:
    """Return the class besides `predicted` of largest mean score, or logit where no other has a score."""
    others = mean.clone()
    others[predicted] = -1.0
    if others.max() <= 0:
        others = logits.clone()
        others[predicted] = -math.inf
    return int(others.argmax())


def _spread(values: Tensor) -> Tensor:
    """Return the standard deviation over the first axis, never 0."""
    return values.detach().std(0).clamp_min(1e-12 * (1 + values.detach().abs().amax()))


def plain_candidates(
    model: nn.Module,
    image: Tensor,
    predicted: int,
    radius: float,
    norm: str,
    *,
    steps: int,
    starts: int,
    generator: torch.Generator,
    box: tuple[float, float] | None = None,
) -> Tensor:
    """Return points strictly within `radius` where h_y - max_i h_i, h = softmax(z), seems smallest.

    Projected gradient ascent (`certmix.attacks.pgd`) on each of `LOSSES`, from the image
    and from random starts.

    Parameters
    ----------
    model, image, predicted, radius, steps, generator
        As for `smoothed_candidates`.
    norm
        ``"linf"``, ``"l2"`` or ``"l1"``.
    starts
        Starting points for each loss, at least 1.
    box
        Range that the ball is cut to, None for none.

    Returns
    -------
    Tensor
        (n, ...): one point a start and loss.
    """
    low, high = (float(end) for end in image.aminmax())
    reach = max(1.0, abs(low), abs(high)) + 2 * radius
    found, inside = [], math.nextafter(radius, 0.0)
    for loss in LOSSES:
        for random_start, count in ((False, 1), (True, starts - 1)):
            if count < 1:
                continue
            images = image[None].expand(count, *image.shape).clone()
            labels = torch.full((count,), predicted, device=image.device)
            points = pgd(
                model, images, labels, norm, inside, steps=steps, loss=loss, random_start=random_start,
                box=box or (-reach, reach), early_stop=False, generator=generator,
            )  # fmt: skip
            found.append(points)
    return torch.cat([image[None], *found])
