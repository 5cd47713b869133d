"""Margins and radii: closed forms for linear models, order, abstention, messages."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from attacked import linear
from small_nets import inputs, random_net
from torch import nn

from certmix import margins
from certmix.errors import ParameterError
from certmix.margins import softmax_margin_lower
from certmix.margins.intervals import Ball
from certmix.margins.linear_bounds import METHODS, bounds_of_layers
from certmix.margins.translation import build_graph
from certmix.models.architectures import Normalize
from certmix.types import Status

# Closed forms are those of exact arithmetic.
logit_differences_lower = partial(margins.logit_differences_lower, arithmetic="exact")
margin_lower = partial(margins.margin_lower, arithmetic="exact")
certified_radius = partial(margins.certified_radius, arithmetic="exact")
ORDER = {"linf": 1, "l2": 2}


def drawn(classes=4, inputs=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(*size, generator=generator) for size in ((classes, inputs), (classes,)))
    net = linear(weight, bias, torch.float32).requires_grad_(False)
    return net, torch.rand((5, inputs), generator=generator)


def closed_form(net, x, y, norm, eps):
    """z_y - z_j - eps ||w_y - w_j||_dual, the dual of linf being l1."""
    w, z = net.weight.double(), net.double()(x.double())
    net.float()
    rows = w[y][:, None] - w[None]
    dual = rows.norm(ORDER[norm], dim=2)
    exact = z.gather(1, y[:, None]) - z - eps * dual
    rival = torch.arange(z.shape[1])[None] != y[:, None]
    return exact[rival].view(len(x), -1).detach().numpy()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ORDER)
def test_bounds_of_a_linear_model_are_exact(norm, method):
    net, x = drawn()
    y = torch.tensor([0, 1, 2, 3, 0])
    for eps in (0.0, 0.01, 1.0):
        found = logit_differences_lower(net, x, y, norm, eps, method=method)
        exact = closed_form(net, x, y, norm, eps)
        assert (found <= exact + 1e-15).all()
        np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ORDER)
def test_an_l2_ball_is_exact_through_normalisation_and_one_layer(norm):
    """Interval bounds too: the row's dual norm, not its sum, and padding counts as it should."""
    torch.manual_seed(0)
    net = nn.Sequential(Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)), nn.Conv2d(3, 2, 3, padding=1))
    graph = build_graph(nn.Sequential(net, nn.ReLU(), nn.Flatten()), torch.rand(2, 3, 5, 5))
    x = torch.rand(1, 3, 5, 5).double()
    ball = Ball(x, norm, torch.tensor([0.3], dtype=torch.float64))
    box = bounds_of_layers(graph, ball, "interval")[0][2]
    jacobian = torch.func.jacrev(net.double())(x)[0].reshape(2, 5, 5, -1)
    centre = net(x)[0]
    reach = 0.3 * jacobian.norm(ORDER[norm], dim=3)
    torch.testing.assert_close(box.upper[0], centre + reach, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(box.lower[0], centre - reach, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mu", [0.0, 6 / 19, 0.9])
@pytest.mark.parametrize("norm", ORDER)
def test_the_radius_of_two_classes_has_a_closed_form(norm, mu):
    """tanh(d / 2) >= mu with d = w.x + b - r ||w||_dual."""
    net, x = drawn(classes=2)
    x = x * 3
    y = net(x).argmax(1)
    d = closed_form(net, x, y, norm, 0.0)[:, 0]
    dual = float((net.weight[0] - net.weight[1]).double().norm(ORDER[norm]))
    exact = np.clip((d - 2 * np.arctanh(mu)) / dual, 0, 0.5)
    found = certified_radius(net, x, y, norm, mu, max_eps=0.5, tolerance=1e-7)
    assert (found.radius <= exact).all()
    np.testing.assert_allclose(found.radius, exact, atol=1.1e-7)
    assert ((found.status == Status.CERTIFIED) == (found.radius > 0)).all()
    assert (exact > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_input_range_narrows_linf_balls(method):
    net, x = linear([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.95]])
    cut = logit_differences_lower(net, x, [0], "linf", 0.1, method=method, input_range=(0, 1))
    assert cut[0, 0] == pytest.approx(0.0 - 2.0 * 1.0 + 3.0 * 0.85, abs=1e-6)


def test_dearer_methods_are_never_worse_and_gain():
    for name in ("plain", "residual", "largest", "pooled"):
        net, x = random_net(name, 0), inputs(4, 0)
        y = net(x).argmax(1)
        found = [logit_differences_lower(net, x, y, "linf", 0.2, method=method) for method in METHODS]
        assert (found[1] >= found[0]).all()
        assert name != "residual" or found[2].mean() > found[1].mean() + 0.1


def test_linear_bounds_gain_where_intervals_forget():
    """relu(x) - relu(x) is 0; intervals do not know, lines do."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.fill_(1.0), net[0].bias.fill_(2.0)
        net[2].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        net[2].bias.copy_(torch.tensor([0.1, 0.0]))
    x = torch.zeros(1, 1)
    interval, lines = (logit_differences_lower(net, x, [0], "linf", 1.0, method=m)[0, 0] for m in METHODS[:2])
    assert interval == pytest.approx(-1.9) and lines == pytest.approx(0.1)


def test_radii_fall_as_the_threshold_rises_and_inputs_are_independent():
    net, x = random_net("plain", 0), inputs(6)
    y = net(x).argmax(1).numpy()
    radii = [certified_radius(net, x, y, "linf", mu, max_eps=0.2).radius for mu in (0.0, 0.1, 0.3)]
    assert (radii[0] >= radii[1]).all() and (radii[1] >= radii[2]).all() and radii[0].max() > 0
    alone = [
        certified_radius(net, x[[i]], y[[i]], "linf", 0.0, max_eps=0.2, chunk=1).radius[0] for i in range(6)
    ]
    np.testing.assert_allclose(alone, radii[0], atol=1e-12)
    assert (margin_lower(net, x, y, "linf", radii[0])[radii[0] > 0] > 0).all()


def test_no_class_no_radius():
    """Ties and other classes than the prediction abstain; a margin below mu is not certified."""
    net = nn.Linear(1, 3, bias=False)
    net.weight.data = torch.tensor([[1.0], [1.0], [0.0]])
    x = torch.tensor([[1.0], [1.0], [1.0]])
    found = certified_radius(net, x, [0, 1, 2], "linf", 0.0, max_eps=1.0)
    assert (found.status == Status.ABSTAIN).all() and (found.radius == 0).all()
    net.weight.data = torch.tensor([[1.0], [0.5], [0.0]])
    found = certified_radius(net, x[:1], [0], "linf", 0.5, max_eps=1.0)
    assert found.status[0] == Status.NOT_CERTIFIED and found.radius[0] == 0 and found.evaluations == 1


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_is_not_certified(method):
    net = random_net("plain", 0)
    graph = build_graph(net, inputs(2))
    x = inputs(3)
    y = net(x).argmax(1)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = float("nan"), float("inf")
    margins = margin_lower(graph, x, y, "linf", 1e-4, method=method)
    assert margins[0] == -1 and margins[1] == -1 and margins[2] > 0
    huge = margin_lower(graph, inputs(1), y[:1], "l2", 1e308, method=method)
    assert huge[0] == -1


def test_margins_are_those_of_the_differences():
    net, x = random_net("pooled", 0), inputs(5)
    y = net(x).argmax(1)
    differences = logit_differences_lower(net, x, y, "l2", 0.05, chunk=2)
    np.testing.assert_array_equal(margin_lower(net, x, y, "l2", 0.05), softmax_margin_lower(differences))
    assert margin_lower(net, x[:0], y[:0], "l2", 0.05).shape == (0,)


@pytest.mark.parametrize("changes, message", [
    ({"norm": "l1"}, "norm 'l1'"), ({"method": "magic"}, "method 'magic'"), ({"y": [0, 1, 9]}, "0 to 9"),
    ({"y": [0]}, "3 inputs"), ({"y": [0.0, 1.0, 1.0]}, "whole number"), ({"mu": 1.5}, "mu = 1.5"),
    ({"max_eps": 0.0}, "max_eps = 0.0"), ({"max_eps": float("inf")}, "max_eps = inf"),
    ({"tolerance": float("nan")}, "tolerance = nan"), ({"eps": -1.0}, "eps = -1"),
])  # fmt: skip
def test_values_out_of_range_are_refused(changes, message):
    net, x = random_net("plain", 0), inputs(3)
    given = {"y": [0, 1, 2], "norm": "linf", "mu": 0.0, "max_eps": 0.1, **changes}
    if "eps" in changes:
        given = {"y": [0, 1, 2], "norm": "linf", **changes}
    with pytest.raises(ParameterError, match=message):
        (margin_lower if "eps" in changes else certified_radius)(net, x, **given)
