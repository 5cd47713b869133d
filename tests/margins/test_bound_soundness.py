"""No point of the ball falls below a bound; the test itself catches planted faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_nets import NETS, inputs, random_net, worst_found
from torch import nn

from certmix.margins import intervals as intervals_module
from certmix.margins import linear_bounds
from certmix.margins.intervals import Ball, Box
from certmix.margins.linear_bounds import METHODS, bounds_of_layers
from certmix.margins.propagation import logit_differences_lower
from certmix.margins.translation import build_graph

EPS = {"linf": (0.003, 0.03, 0.2), "l2": (0.02, 0.2, 1.0)}


def slack(name, norm, eps, methods, seed=0, count=3):
    """Smallest values found in the ball less their bounds, (methods, N, rivals): negative where unsound."""
    net, x = random_net(name, seed), inputs(count, seed)
    y = net(x).argmax(1)
    bounds = [logit_differences_lower(net, x, y.numpy(), norm, eps, method=method) for method in methods]
    found = worst_found(net, x, y, norm, eps, seed=seed)
    rival = torch.arange(found.shape[1])[None] != y[:, None]
    return found[rival].view(count, -1) - torch.from_numpy(np.array(bounds))


def alternately():
    """Each net in one norm; the other is for the long suite."""
    first = [list(EPS)[k % len(EPS)] for k in range(len(NETS))]
    pairs = [(name, norm, own) for name, own in zip(NETS, first, strict=True) for norm in EPS]
    return [pytest.param(name, norm, marks=[pytest.mark.long] * (norm != own)) for name, norm, own in pairs]


@pytest.mark.parametrize(("name", "norm"), alternately())
def test_attacks_stay_above_the_bounds(name, norm):
    for seed, eps in enumerate(EPS[norm]):
        gap = slack(name, norm, eps, METHODS, seed)
        assert gap.isfinite().all()
        assert (gap >= 0).all()


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", NETS)
def test_every_layer_lies_in_its_interval(name, norm):
    graph, x = build_graph(random_net(name, 5), inputs(2)), inputs(2, 5)
    eps = torch.tensor([0.1, 0.3], dtype=torch.float64)
    boxes, _ = bounds_of_layers(graph, Ball(x.double(), norm, eps), "interval")
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        delta = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        delta = delta.sign() if norm == "linf" else delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        values = graph.values(x + (1 - 1e-9) * eps.view(-1, 1, 1, 1) * delta)
        for value, box in zip(values, boxes, strict=True):
            assert (value >= box.lower).all() and (value <= box.upper).all()


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_the_interval_of_a_linear_layer_ends_where_the_ball_takes_it(norm, dual):
    """No random point comes near these ends, which Hoelder's inequality names."""
    net, x = (
        nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).double().requires_grad_(False),
        torch.rand(2, 3, 4, 4),
    )
    eps, x = torch.tensor([0.1, 0.3], dtype=torch.float64), x.double()
    (*_, box), _ = bounds_of_layers(build_graph(net, x), Ball(x, norm, eps), "interval")
    reach = eps[:, None] * net[1].weight.norm(dual, dim=1)
    for end, true, beyond in ((box.lower, net(x) - reach, -1), (box.upper, net(x) + reach, 1)):
        assert (beyond * (end - true) >= -1e-15).all()
        torch.testing.assert_close(end, true, rtol=1e-12, atol=1e-12)


relax, maximum = linear_bounds.relax, linear_bounds._maximum


def without_offset(layer, box):
    lines = relax(layer, box)
    return replace(lines, offset=torch.zeros_like(lines.offset))


def wrong_sign(layer, box):
    """The slope of the line above, with its sign turned where the rectifier bends."""
    lines = relax(layer, box)
    return replace(lines, high=torch.where((box.lower < 0) & (box.upper > 0), -lines.high, lines.high))


def inactive(layer, box):
    lines = relax(layer, box)
    return replace(lines, high=torch.where(box.lower < 0, layer.slope, 1.0), offset=0 * lines.offset)


def trusting_one_entry(state, node, layer, rows, box):
    return maximum(state, node, layer, rows, replace(box, upper=box.lower))


def forgetting_signs(layer, box):
    centre, width = box.centred()
    reach = layer.apply(layer.weight, width).abs()
    return Box(layer(centre) - reach, layer(centre) + reach)


@pytest.mark.parametrize("module, name, fault, net, method", [
    *((linear_bounds, "relax", fault, "residual", "crown-ibp") for fault in (without_offset, wrong_sign, inactive)),
    (linear_bounds, "_maximum", trusting_one_entry, "largest", "crown-ibp"),
    (intervals_module, "_linear", forgetting_signs, "plain", "interval"),
])  # fmt: skip
def test_a_planted_fault_is_caught(module, name, fault, net, method, monkeypatch):
    monkeypatch.setattr(module, name, fault)
    gaps = [slack(net, "linf", 0.1, [method], seed, count=8) for seed in range(3)]
    assert min(float(gap.min()) for gap in gaps) < -1e-3


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("small", [1e-170, 1e-290])
def test_what_underflows_is_inside_the_bounds(small, flush):
    """Weights whose squares, or whose products with the rows, underflow, and others that undo them."""
    net = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.LeakyReLU(1 / 3), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    ).double().requires_grad_(False)  # fmt: skip
    for layer, size in ((0, small), (2, small**0.5), (3, small**-0.75)):
        net[layer].weight.copy_(size * torch.tensor([[1.0, -0.5], [-0.25, 1.5]]).double())
    x, y = torch.tensor([[0.4, 0.3]], dtype=torch.float64), torch.tensor([0])
    torch.set_flush_denormal(flush)
    try:
        for norm, eps in (("linf", 0.2), ("l2", 0.4)):
            worst = (net(around(x, norm, eps)) @ torch.tensor([1.0, -1.0]).double()).min()
            for method in METHODS:
                assert logit_differences_lower(net, x, y, norm, eps, method=method)[0, 0] <= worst
    finally:
        torch.set_flush_denormal(False)


def around(x, norm, eps):
    """Points of the ball's boundary in the plane."""
    angle = torch.linspace(0, 2 * torch.pi, 401, dtype=torch.float64)
    unit = torch.stack([angle.cos(), angle.sin()], 1)
    return x + (1 - 1e-9) * eps * (unit if norm == "l2" else unit / unit.abs().amax(1, keepdim=True))
