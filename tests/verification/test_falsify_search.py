"""Where attacks look: the worst direction of half-spaces and of linear models is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacked import best_offset, linear
from half_spaces import SIGMA, images, normal, pair
from torch import nn

from certmix.attacks.geometry import distance
from certmix.errors import ModelError
from certmix.verification.falsify.attack import plain_candidates, smoothed_candidates


class Scaled(nn.Module):
    """Logits of another scale."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x):
        return self.net(x) * self.scale


def candidates(scale=1.0, radius=0.4, seed=0, temperature=None, gap=0.0):
    image = images(np.array([1.5]), 0)[0]
    points = smoothed_candidates(
        Scaled(pair(gap), scale).eval(), image, 0, radius, SIGMA, steps=4, copies=16,
        generator=torch.Generator().manual_seed(seed), soft_temperature=temperature,
    )  # fmt: skip
    return image, points


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("temperature", [None, 1.0])
def test_the_normal_is_found_whatever_the_scale_of_logits(scale, temperature):
    image, points = candidates(scale, temperature=temperature)
    moved = (points[0].double() - image.double()).flatten().numpy()
    assert moved @ normal() > 0.4 * (1 - 1e-5)


def test_the_rival_is_approached_where_it_has_no_votes_yet():
    image, points = candidates(gap=3.0)
    moved = (points[0].double() - image.double()).flatten().numpy()
    assert moved @ normal() > 0.4 * (1 - 1e-5)  # towards class 2, which lies that way too


@pytest.mark.parametrize("radius", [1e-3, 0.4, 7.3, 300.0])
def test_candidates_lie_strictly_within_the_ball(radius):
    image, points = candidates(radius=radius)
    away = distance(points, image[None].expand(points.shape), "l2")
    assert bool((away < radius).all())
    assert float(away.max()) > 0.99 * radius


def test_the_seed_decides():
    first, again, other = (candidates(seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_linear_models_are_attacked_to_their_optimum(norm, box):
    rng = np.random.default_rng(0)
    slope, image = rng.normal(size=8), rng.uniform(0.1, 0.9, 8)
    model = linear(np.stack([-slope, slope]), bias=[float(slope @ image), -float(slope @ image)])
    points = plain_candidates(
        model, torch.from_numpy(image), 0, 0.3, norm, steps=20, starts=2,
        generator=torch.Generator().manual_seed(0), box=box,
    )  # fmt: skip
    best = image + best_offset(slope, image, norm, 0.3, box or (-9.0, 9.0))
    reached = [float((m[0] - m[1]).detach()) for m in model(points)]
    optimum = model(torch.from_numpy(best)[None])[0]
    assert min(reached) == pytest.approx(float((optimum[0] - optimum[1]).detach()), rel=1e-3)
    away = distance(points, torch.from_numpy(image)[None].expand(points.shape), norm)
    assert bool((away < 0.3).all())
    if box is not None:
        assert bool(((points >= 0) & (points <= 1)).all())


class Hidden(nn.Module):
    """A model whose gradient is hidden."""

    def forward(self, x):
        return pair()(x.detach())


def test_a_model_without_gradients_is_refused():
    image = images(np.array([1.5]), 0)[0]
    with pytest.raises(ModelError, match="hides its gradient"):
        smoothed_candidates(
            Hidden().eval(), image, 0, 0.4, SIGMA, steps=2, copies=4, generator=torch.Generator()
        )
