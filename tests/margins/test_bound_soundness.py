"""No point of the ball falls below a bound; the test itself catches planted faults."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_nets import NETS, images, random_net, worst_found
from torch import nn

from certmix.margins import intervals as intervals_module
from certmix.margins import linear_bounds
from certmix.margins.intervals import Ball, intervals
from certmix.margins.linear_bounds import METHODS
from certmix.margins.propagation import logit_differences_lower
from certmix.margins.translation import build_graph

EPS = {"linf": (0.003, 0.03, 0.2), "l2": (0.02, 0.2, 1.0)}


def slack(name, norm, eps, method, seed=0, count=3):
    """Smallest value found in the ball less its bound, (N, rivals): negative where unsound."""
    net, x = random_net(name, seed), images(count, seed)
    y = net(x).argmax(1)
    bounds = torch.from_numpy(logit_differences_lower(net, x, y.numpy(), norm, eps, method=method))
    found = worst_found(net, x, y, norm, eps, seed=seed)
    rival = torch.arange(found.shape[1])[None] != y[:, None]
    return found[rival].view_as(bounds) - bounds


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_attacks_stay_above_the_bounds(name, norm, method):
    for seed, eps in enumerate(EPS[norm]):
        gap = slack(name, norm, eps, method, seed)
        assert gap.isfinite().all()
        assert (gap >= 0).all()


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", NETS)
def test_every_layer_lies_in_its_interval(name, norm):
    graph, x = build_graph(random_net(name, 5), images(2)), images(2, 5)
    eps = torch.tensor([0.1, 0.3], dtype=torch.float64)
    boxes = intervals(graph, Ball(x.double(), norm, eps))
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        delta = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        delta = delta.sign() if norm == "linf" else delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        values = graph.values(x + (1 - 1e-9) * eps.view(-1, 1, 1, 1) * delta)
        for value, box in zip(values, boxes, strict=True):
            assert (value >= box.lower).all() and (value <= box.upper).all()


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


relax = linear_bounds.relax


@pytest.mark.parametrize("fault", [without_offset, wrong_sign, inactive])
def test_a_wrong_relaxation_is_caught(fault, monkeypatch):
    monkeypatch.setattr(linear_bounds, "relax", fault)
    gaps = [
        slack(name, "linf", 0.1, "crown-ibp", seed) for name in ("plain", "residual") for seed in range(3)
    ]
    assert min(float(gap.min()) for gap in gaps) < -1e-3


def test_a_maximum_that_trusts_one_entry_is_caught(monkeypatch):
    def trusting(state, node, layer, rows, box):
        return honest(state, node, layer, rows, replace(box, upper=box.lower))

    honest = linear_bounds._maximum
    monkeypatch.setattr(linear_bounds, "_maximum", trusting)
    gaps = [slack("largest", "linf", 0.1, "crown-ibp", seed, count=8) for seed in range(4)]
    assert min(float(gap.min()) for gap in gaps) < -1e-3


def test_an_interval_that_forgets_signs_is_caught(monkeypatch):
    def unsigned(layer, box):
        centre, width = box.centred()
        reach = layer.apply(layer.weight, width).abs()
        return intervals_module.Box(layer(centre) - reach, layer(centre) + reach)

    monkeypatch.setattr(intervals_module, "_linear", unsigned)
    assert float(slack("plain", "linf", 0.1, "interval").min()) < -1e-3


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
