"""Bounds of the network as it runs in float32: below what any order of its operations gives."""

from __future__ import annotations

import copy
from itertools import permutations

import pytest
import torch
from small_nets import NETS, inputs, random_net, worst_found
from torch import nn

from certmix.margins.linear_bounds import METHODS
from certmix.margins.propagation import certified_radius, logit_differences_lower
from certmix.margins.translation import build_graph
from certmix.models.architectures import Normalize

LARGE = 2.0**24  # the float32 after it is 2 further


class Added(nn.Module):
    """The sum of two branches that cancel: (a + 2^24) + (b - 2^24)."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.one, self.two, self.sign = (
            dense([[1.0, 0.0]], [LARGE]),
            dense([[0.0, 1.0]], [sign * -LARGE]),
            sign,
        )

    def forward(self, x):
        a, b = self.one(x), self.two(x)
        return a + b if self.sign > 0 else a - b


class Shifted(nn.Module):
    def forward(self, x):
        return (x + LARGE) - LARGE


class Averaged(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def dense(rows, bias=None):
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def conv(rows, bias=None):
    layer = nn.Conv2d(len(rows[0]), len(rows), 1, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows)[:, :, None, None])
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def normed(layer):
    """1 + mean 2^24, taken away again."""
    with torch.no_grad():
        layer.running_mean.fill_(-LARGE)
        layer.running_var.fill_(1 - layer.eps)
        layer.bias.fill_(-LARGE)
    return layer


# Each gives less in float32 than its exact value, 1 or more at x = (1, 1): two classes, a value against a half.
CANCELLING = {
    "sum of products": (dense([[LARGE, 1.0, -LARGE]]), torch.ones(1, 3)),
    "bias": (nn.Sequential(dense([[1.0]], [LARGE]), dense([[1.0]], [-LARGE])), torch.ones(1, 1)),
    "convolution": (nn.Sequential(conv([[LARGE, 1.0, -LARGE]]), nn.Flatten()), torch.ones(1, 3, 1, 1)),
    "two branches, added": (Added(1), torch.ones(1, 2)),
    "two branches, subtracted": (Added(-1), torch.tensor([[1.0, 0.0]])),
    "constants": (Shifted(), torch.ones(1, 1)),
    "batch normalisation": (normed(nn.BatchNorm1d(1)), torch.ones(1, 1)),
    "normalisation": (
        nn.Sequential(Normalize((-LARGE,), (1.0,)), nn.Flatten(), dense([[1.0]], [-LARGE])),
        torch.ones(1, 1, 1, 1),
    ),
    "average": (nn.Sequential(Averaged()), torch.tensor([[[[LARGE, 1.0, -LARGE, 1.0]]]])),
    "leaky rectifier": (
        nn.Sequential(dense([[1.0]], [-3 * LARGE]), nn.LeakyReLU(1 / 3), dense([[3.0]], [3 * LARGE])),
        torch.ones(1, 1),
    ),
}  # fmt: skip


def runs_to(net, x):
    """The least value that float32 gives, in each order of what is added up."""
    found = [float(net(x))]
    first = net if isinstance(net, nn.Linear) else next(net.children(), None)
    if isinstance(net, nn.Linear) or isinstance(first, nn.Conv2d):
        parts = (first.weight[0].flatten() * x[0].flatten()).tolist()
        found += [float(sum(map(torch.tensor, order), torch.zeros(()))) for order in permutations(parts)]
    elif x.ndim == 4 and x.shape[3] > 1:
        orders = permutations(x.flatten().tolist())
        found += [float(net(torch.tensor(order).view(x.shape))) for order in orders]
    return min(found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CANCELLING)
def test_what_cancels_in_float32_is_below_the_exact_bound_and_above_the_other(name, method):
    net, x = CANCELLING[name]
    net = net.eval()

    class Against(nn.Module):
        """The value as class 0, a constant as class 1."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.last = net, dense([[1.0], [0.0]])

        def forward(self, x):
            return self.last(self.net(x))

    with torch.no_grad():
        least = runs_to(net, x)
    graph = build_graph(copy.deepcopy(Against()).eval().double(), x.double())
    exact, runs = (
        float(logit_differences_lower(graph, x, [0], "linf", 0.0, method=method, arithmetic=one)[0, 0])
        for one in ("exact", "float32")
    )
    assert exact > least, "the exact bound does not hold for what runs"
    assert runs <= least


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(name, norm, marks=[pytest.mark.long] * ((k + n) % 2))
        for k, name in enumerate(NETS)
        for n, norm in enumerate(("linf", "l2"))
    ],
)
def test_attacks_in_float32_stay_above_the_bounds(name, norm):
    """And the bounds are no looser than float32 is coarse."""
    net, x = random_net(name, 3), inputs(3, 3)
    y = net(x).argmax(1)
    rival = torch.arange(net(x).shape[1])[None] != y[:, None]
    for eps in (0.0, 0.05):
        found = worst_found(copy.deepcopy(net), x, y, norm, eps, starts=2, runs=net)[rival].view(len(x), -1)
        for method in METHODS:
            exact, runs = (
                torch.from_numpy(logit_differences_lower(net, x, y, norm, eps, method=method, arithmetic=one))
                for one in ("exact", "float32")
            )
            assert (runs <= found).all()
            assert (runs <= exact).all() and (exact - runs <= 1e-3 * (1 + exact.abs())).all()


def test_what_overflows_in_float32_is_not_bounded():
    net, x = nn.Sequential(dense([[1e30], [0.0]]), dense([[1e30, 0.0], [0.0, 0.0]])), torch.ones(1, 1)
    graph = build_graph(net.eval().double(), x.double())
    for method in METHODS:
        runs, exact = (
            logit_differences_lower(graph, x, [0], "linf", 0.0, method=method, arithmetic=one)[0, 0]
            for one in ("float32", "exact")
        )
        assert runs == -torch.inf and exact > 1e59


def test_radii_of_what_runs_are_hardly_smaller():
    net, x = random_net("residual", 1).float(), inputs(4, 1).float()
    y = net(x).argmax(1)
    exact, runs = (
        certified_radius(net, x, y, "linf", 0.0, max_eps=0.5, arithmetic=one, tolerance=1e-6).radius
        for one in ("exact", "float32")
    )
    assert (runs <= exact).all() and (exact > 0).any()
    assert (exact - runs <= 1e-3 * exact + 1e-5).all()
