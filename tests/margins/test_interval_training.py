"""The interval recipe: its logits are the worst in the ball, and its ball grows."""

from __future__ import annotations

import pytest
import torch
from small_nets import inputs, random_net
from torch import nn
from torch.nn import functional as F

from certmix.errors import ModelError
from certmix.margins.propagation import logit_differences_lower
from certmix.training import make_recipe
from certmix.training.intervals import interval_pass, warm_up_terms, worst_case_logits
from certmix.training.objectives import interval


def trainable(seed):
    net = random_net("plain", seed)
    net[3], net[7] = nn.Identity(), nn.ReLU()
    return net


def test_worst_case_logits_are_the_verified_bounds():
    net, x = trainable(0), inputs(4)
    y = net(x).argmax(1)
    worst = worst_case_logits(interval_pass(net, x, 0.02), y)
    assert (worst.gather(1, y[:, None]) == 0).all()
    rival = torch.arange(3)[None] != y[:, None]
    verified = logit_differences_lower(net, x, y, "linf", 0.02, method="interval", input_range=(0, 1))
    torch.testing.assert_close(
        -worst[rival].view(4, 2).double(), torch.from_numpy(verified), rtol=1e-4, atol=1e-5
    )


def test_without_a_ball_the_loss_is_the_cross_entropy():
    net, x = trainable(1), inputs(4)
    y = torch.tensor([0, 1, 2, 0])
    recipe = make_recipe("interval").at(0.0)
    assert recipe.eps == 0.0 and recipe.regulariser == make_recipe("interval").regulariser
    loss = interval(net, x, y, make_recipe("interval", regulariser=0.0).at(0.0), torch.Generator())
    torch.testing.assert_close(loss, F.cross_entropy(net(x), y))


def test_batch_statistics_are_those_of_the_centres():
    net, x = trainable(2), inputs(8)
    twin = trainable(2)
    for each in (net, twin):
        each.train()
    interval_pass(net, x, 0.0)
    twin(x)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(net[1], name), getattr(twin[1], name), rtol=0.05, atol=0.01)


def test_the_ball_grows_to_the_recipes_and_stays():
    recipe = make_recipe("interval")
    grown = [recipe.at(t / 100).eps for t in range(100)]
    assert grown == sorted(grown) and grown[0] == 0.0 and grown[-1] == recipe.eps
    assert recipe.at(0.05).eps == 0.0 and recipe.at(recipe.ramp).eps == recipe.eps
    assert recipe.at(0.99).regulariser == 0.0
    assert make_recipe("adversarial").at(0.0) == make_recipe("adversarial")


def test_warm_up_terms_punish_wide_bounds_and_one_sided_rectifiers():
    balanced = torch.linspace(-1, 1, 64).view(4, 16)
    narrow, wide = torch.full((4, 16), 0.01), torch.full((4, 16), 0.2)

    def terms(centre, width):
        found = type("Found", (), {"before_relu": ((centre, width),)})
        return float(warm_up_terms(found, 0.01))

    assert terms(balanced, narrow) == 0.0
    assert terms(balanced, wide) == pytest.approx(1 - 0.05 / 0.5)
    assert terms(balanced + 0.95, narrow) > 1.0


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ModelError, match="linear head"):
        interval_pass(nn.Sequential(nn.Flatten(), nn.Linear(98, 3), nn.ReLU()), inputs(1), 0.1)
    with pytest.raises(ModelError, match="Sigmoid has no rule"):
        interval_pass(nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(98, 3)), inputs(1), 0.1)
