"""PGD on a linear model, whose optimum is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from certmix.attacks import pgd
from certmix.errors import ParameterError


def linear() -> nn.Module:
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, -1.0, 0.5, 2.0], [-3.0, 1.0, -0.5, -2.0]]))
        net.bias.zero_()
    return net


@pytest.mark.parametrize("norm, eps", [("linf", 0.1), ("l2", 0.2)])
def test_the_optimum_of_a_linear_model_is_found(norm, eps):
    model, x = linear(), torch.full((3, 4), 0.5)
    found = pgd(model, x, torch.zeros(3, dtype=torch.long), norm, eps, steps=60, step_size=eps / 2)
    direction = -(model.weight[0] - model.weight[1]).detach()
    best = x + eps * (direction.sign() if norm == "linf" else direction / direction.norm())
    reached, optimum, clean = ((points - x) @ direction for points in (found, best, x))
    assert torch.all(reached >= (0.999 if norm == "linf" else 0.99) * optimum)
    assert torch.all(optimum > clean)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_stay_in_ball_and_box(norm):
    x = torch.tensor([[0.0, 1.0, 0.02, 0.99]]).repeat(5, 1)
    found = pgd(linear(), x, torch.zeros(5, dtype=torch.long), norm, 0.3, steps=5)
    assert found.min() >= 0
    assert found.max() <= 1
    size = (found - x).abs().amax(1) if norm == "linf" else (found - x).norm(dim=1)
    assert size.max() <= 0.3 + 1e-6


def test_the_generator_decides_and_bad_arguments_are_refused():
    x, y = torch.full((2, 4), 0.5), torch.zeros(2, dtype=torch.long)
    runs = [
        pgd(linear(), x, y, eps=0.1, steps=0, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    with pytest.raises(ParameterError, match="l7"):
        pgd(linear(), x, y, "l7")
    with pytest.raises(ParameterError, match="-1"):
        pgd(linear(), x, y, eps=-1.0)
