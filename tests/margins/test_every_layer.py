"""Every supported layer and operation under attack, in nets whose logits cancel: one rounded constant shows.

A row of the tables that has no net here fails the first test.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import partial

import pytest
import torch
from small_nets import inputs, worst_found
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from certmix.margins import linear_bounds, propagation
from certmix.margins.graph import ARITHMETIC, FUNCTIONS, IN_PLACE, Builder
from certmix.margins.graph import METHODS as OPERATIONS
from certmix.margins.layers import RULES, LinearMap, Rectifier
from certmix.margins.linear_bounds import METHODS
from certmix.margins.propagation import NORMS
from certmix.margins.translation import build_graph
from certmix.models.architectures import Normalize, Normalized
from certmix.types import Status

# The nets run in float64 here, which stands for exact arithmetic.
logit_differences_lower = partial(propagation.logit_differences_lower, arithmetic="exact")
certified_radius = partial(propagation.certified_radius, arithmetic="exact")
TOLERANCE = 1e-13
"""Of what is added up to a logit: the attacked net's own rounding in float64."""


class Framed(nn.Module):
    """A convolution, what is tested, and a linear head whose logits cancel at the first input."""

    def __init__(self, tested, *, flat=False):
        super().__init__()
        self.entry, self.flat = nn.Conv2d(2, 3, 3), flat
        self.tested = tested if isinstance(tested, nn.Module) else Called(tested)
        with torch.no_grad():
            self.head = nn.Linear(self.eval().features(inputs(2)).shape[1], 3)

    def features(self, x):
        x = self.entry(x)
        return self.tested(x.flatten(1) if self.flat else x).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


class Called(nn.Module):
    """A function of a tensor, and of constants 0.1, 1e6 or one a channel."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("channels", torch.tensor([0.1, -1 / 3, 1e6]).view(3, 1, 1))

    def forward(self, x):
        return (
            self.function(x, self.channels) if self.function.__code__.co_argcount == 2 else self.function(x)
        )


def flat(layer):
    return Framed(layer, flat=True)


def normed(kind, **settings):
    """Batch normalisation whose statistics are as unpleasant as may be."""
    layer = kind(75 if kind is nn.BatchNorm1d else 3, **settings)
    layer.running_var.uniform_(1e-12, 1e-10)
    layer.running_mean.normal_(0, 0.3)
    return layer


def series(*layers):
    """Convolutions of 3 channels of 25 steps."""
    return Framed(nn.Sequential(nn.Flatten(2), *layers))


LAYERS = {
    nn.Conv1d: [lambda: series(nn.Conv1d(3, 4, 3)),
                lambda: series(nn.Conv1d(3, 6, 5, 2, 3, 2, groups=3, bias=False)),
                lambda: series(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 4, stride=3))],
    nn.Conv2d: [lambda: Framed(nn.Conv2d(3, 4, 3)),
                lambda: Framed(nn.Conv2d(3, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=3, bias=False)),
                lambda: Framed(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))],
    nn.Linear: [lambda: flat(nn.Linear(75, 5)), lambda: flat(nn.Linear(75, 5, bias=False)),
                lambda: flat(parametrizations.spectral_norm(nn.Linear(75, 5))),
                lambda: flat(parametrizations.orthogonal(nn.Linear(75, 5)))],
    nn.BatchNorm1d: [lambda: flat(normed(nn.BatchNorm1d, eps=1e-12)), lambda: flat(normed(nn.BatchNorm1d, affine=False))],
    nn.BatchNorm2d: [lambda: Framed(normed(nn.BatchNorm2d)), lambda: Framed(normed(nn.BatchNorm2d, eps=0.0))],
    Normalize: [lambda: Framed(Normalize((0.1, 1e6, 0.3), (0.2616, 1e-3, 1 / 3)))],
    Normalized: [lambda: Normalized(Framed(nn.ReLU()), (0.1, 1 / 3), (0.2616,))],
    nn.ReLU: [lambda: Framed(nn.ReLU()), lambda: Framed(nn.ReLU(inplace=True))],
    nn.LeakyReLU: [lambda slope=slope: Framed(nn.LeakyReLU(slope)) for slope in (0.01, 1 / 3, 0.99, 1.0, 0.0, 1e-9)],
    nn.MaxPool2d: [lambda: Framed(nn.MaxPool2d(2)), lambda: Framed(nn.MaxPool2d((3, 2), (2, 1), (1, 1), 2))],
    nn.AvgPool2d: [lambda: Framed(nn.AvgPool2d(3)), lambda: Framed(nn.AvgPool2d((3, 2), (2, 1), (1, 1)))],
    nn.AdaptiveAvgPool2d: [lambda: Framed(nn.AdaptiveAvgPool2d(1))],
    nn.Flatten: [lambda: Framed(nn.Flatten())],
    nn.Identity: [lambda: Framed(nn.Identity())],
    nn.Dropout: [lambda: Framed(nn.Dropout())],
    nn.Dropout2d: [lambda: Framed(nn.Dropout2d(0.9, inplace=True))],
}  # fmt: skip

CALLS = {
    F.relu: [lambda x: F.relu(x), lambda x: F.relu(input=x, inplace=True)],
    torch.relu: [lambda x: torch.relu(x)],
    "relu": [lambda x: x.relu()],
    F.leaky_relu: [lambda x: F.leaky_relu(x), lambda x: F.leaky_relu(x, 1 / 3, True)],
    F.max_pool2d: [lambda x: F.max_pool2d(x, 3, stride=2, padding=1)],
    F.avg_pool2d: [lambda x: F.avg_pool2d(x, 3, stride=2, padding=1)],
    F.adaptive_avg_pool2d: [lambda x: F.adaptive_avg_pool2d(x, (1, 1))],
    F.dropout: [lambda x: F.dropout(x, training=False), lambda x: F.dropout(x, 0.3, False)],
    F.dropout2d: [lambda x: F.dropout2d(x, 0.3, training=False, inplace=True)],
    "mean": [lambda x: x.mean((2, 3)), lambda x: x.mean(dim=[-1, -2], keepdim=True)],
    torch.mean: [lambda x: torch.mean(x, dim=(2, 3))],
    "amax": [lambda x: x.amax((2, 3)), lambda x: x.amax(dim=(3, 2), keepdim=True)],
    torch.amax: [lambda x: torch.amax(x, (2, 3))],
    "flatten": [lambda x: x.flatten(1), lambda x: x.flatten(start_dim=1)],
    torch.flatten: [lambda x: torch.flatten(x, 1), lambda x: torch.flatten(input=x, start_dim=1, end_dim=-1)],
    "view": [lambda x: x.view(x.shape[0], -1), lambda x: x.view(-1, 75), lambda x: x.view(x.size()[0], 5, -1, 5),
             lambda x: x.view((x.size(0), x.size(1) * x.size(-1) * 5))],
    "reshape": [lambda x: x.reshape(x.size(0), -1), lambda x: x.relu().reshape((-1, 25, 3, 1))],
    torch.reshape: [lambda x: torch.reshape(x, (x.shape[0], -1))],
    "size": [lambda x: x.view(x.size(dim=0), x.size(1) * 25) / x.size(3)],
    "contiguous": [lambda x: x.contiguous().relu()],
}  # fmt: skip


def arithmetic(target):
    """A scalar, a tensor, 1e6 that comes and goes, the constant first, and two tensors."""
    found = [
        lambda x: target(x, 0.7), lambda x, c: target(x, c), lambda x: target(x * 0.7, 1e6) - 1e6,
        lambda x: (x * 1e6 - 1e6) / 1e6 + 0.1,
    ]  # fmt: skip
    if ARITHMETIC[target] != "/" and target not in IN_PLACE:
        found.append(lambda x, c: target(c, x))
    if ARITHMETIC[target] in "+-":
        found.append(lambda x: target(x * 0.7, x.relu()))
    return found


CALLS |= {target: arithmetic(target) for target in ARITHMETIC}


def named(key, number):
    kind = getattr(key, "__name__", key)
    return f"{kind if kind != 'fn' else 'max_pool2d'}-{number}"


NETS = {named(kind, k): make for kind in LAYERS for k, make in enumerate(LAYERS[kind])} | {
    f"{named(key, k)} called {type(key).__name__}": lambda function=function: Framed(function)
    for key in CALLS
    for k, function in enumerate(CALLS[key])
}


def test_every_row_of_the_tables_has_a_net():
    assert LAYERS.keys() == RULES.keys()
    assert CALLS.keys() == FUNCTIONS.keys() | ARITHMETIC.keys() | OPERATIONS.keys()
    assert operator.itruediv in CALLS


def cancelling(name, seed=0):
    """A float64 net of weights that no float32 holds, whose logits differ by 1e-3 at the first input, and inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net, x = NETS[name]().double().eval().requires_grad_(False), inputs(2, seed).double()
        for values in [*net.parameters(), *net.buffers()]:
            if values.is_floating_point():
                values.mul_(1 + 1e-6 * torch.rand_like(values))
        framed = net.model if isinstance(net, Normalized) else net
        framed.head.weight.mul_(2.0**20)
        framed.head.bias.zero_()
        framed.head.bias.copy_(1e-3 * torch.randn(3) - net(x[:1])[0])
    return net, x


def added_up(net, graph, x):
    """At least the magnitudes that are added up to a logit, wherever in the net they arise."""
    head = next(layer for layer in net.modules() if getattr(layer, "out_features", 0) == 3)
    largest = max(float(value.abs().max()) for value in graph.values(x))
    return float(head.weight.abs().sum(1).max()) * (1 + largest)


def rivals(differences, y):
    keep = torch.arange(differences.shape[1])[None] != y[:, None]
    return differences[keep].view(len(y), -1)


def corners(net, x, y, norm, eps, seed):
    """Smallest z_y - z_j at 300 random corners of the ball, or points of its sphere."""
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn((300, *x.shape), dtype=torch.float64, generator=generator)
    size = delta.flatten(2).norm(dim=2).view(300, -1, 1, 1, 1)
    delta = (1 - 1e-12) * eps * (delta.sign() if norm == "linf" else delta / size)
    z = net((x + delta).flatten(0, 1)).view(300, len(x), -1)
    return (z.gather(2, y.expand(300, -1)[..., None]) - z).amin(0)


def own_norm(name):
    """Each net in one norm, alternately; the other is for the long suite."""
    first = NORMS[list(NETS).index(name) % len(NORMS)]
    return [pytest.param(name, norm, marks=[pytest.mark.long] * (norm != first)) for norm in NORMS]


@pytest.mark.parametrize(("name", "norm"), [one for name in NETS for one in own_norm(name)])
def test_nothing_in_the_ball_lies_below_a_bound(name, norm):
    net, x = cancelling(name)
    x, y = torch.cat([x, x]), torch.tensor([0, 0, 1, 2])
    graph, eps, z = build_graph(net, x), 0.05 if norm == "linf" else 0.3, net(x)
    slack = TOLERANCE * added_up(net, graph, x)
    clean = rivals(z.gather(1, y[:, None]) - z, y)
    worst = worst_found(net, x, y, norm, eps, starts=1)
    worst = torch.minimum(clean, rivals(torch.minimum(worst, corners(net, x, y, norm, eps, 0)), y))
    for method in METHODS:
        at, around = (
            torch.from_numpy(logit_differences_lower(graph, x, y, norm, radius, method=method))
            for radius in (0.0, eps)
        )
        assert (at <= clean + slack).all() and (at >= clean - 1e3 * slack).all(), method
        assert (around <= worst + slack).all(), method


def in_float32(layer):
    """A layer whose constants went through float32, as they did where a slope was relaxed."""
    if isinstance(layer, Rectifier):
        return replace(layer, slope=float(torch.tensor(layer.slope)))
    if isinstance(layer, LinearMap):
        bias = None if layer.bias is None else layer.bias.float().double()
        return replace(layer, weight=layer.weight.float().double(), bias=bias)
    return layer


CONSTANTS = [
    "Conv2d-0", "Linear-0", "BatchNorm1d-0", "BatchNorm2d-0", "Normalized-0", "LeakyReLU-0", "LeakyReLU-1",
    "AvgPool2d-0", "AdaptiveAvgPool2d-0", "mean-0 called str", "leaky_relu-0 called function",
    *(f"{kind}-0 called builtin_function_or_method" for kind in ("add", "sub", "mul", "truediv")),
]  # fmt: skip
"""One net for each kind of constant that float32 does not hold."""


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_in_float32_is_found(name, monkeypatch):
    """The test above can fail: here the constants of the layers between entry and head are rounded."""
    add = Builder.add

    def rounded(self, label, layer, *inputs, **settings):
        chosen = layer if label in ("entry", "head") else in_float32(layer)
        return add(self, label, chosen, *inputs, **settings)

    net, x = cancelling(name)
    x = x[:1]
    slack = TOLERANCE * added_up(net, build_graph(net, x), x)
    monkeypatch.setattr(Builder, "add", rounded)
    gaps = []
    for k in range(3):
        clean = rivals(net(x)[:, [k]] - net(x), torch.tensor([k]))
        for method in METHODS:
            bounds = torch.from_numpy(logit_differences_lower(net, x, [k], "linf", 0.0, method=method))
            gaps.append(float((clean + slack - bounds).min()))
    assert min(gaps) < 0


relax = linear_bounds.relax


def float32_line(layer, box):
    """The relaxation as it was: `torch.where` of two numbers gives float32."""
    lines = relax(layer, box)
    return replace(lines, low=lines.low.float())


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("fault", [False, True])
def test_the_slope_below_a_rectifier_is_the_rectifiers_own(fault, method, monkeypatch):
    """z_0 - z_1 = 2^20 (LeakyReLU(x) + 0.01) - 1e-4 is -1e-4 at x = -1: no bound may be above -1e-4."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.LeakyReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[2].weight.copy_(torch.tensor([[2.0**20], [0.0]]))
        net[2].bias.copy_(torch.tensor([2.0**20 * 0.01 - 1e-4, 0.0], dtype=torch.float64))
    if fault:
        monkeypatch.setattr(linear_bounds, "relax", float32_line)
    x = torch.tensor([[-1.0]], dtype=torch.float64)
    assert (logit_differences_lower(net, x, [0], "linf", 0.0, method=method)[0, 0] > -1e-4 + 1e-11) == fault
    assert (certified_radius(net, x, [0], "linf", 0.0, max_eps=1e-9).status[0] == Status.ABSTAIN) != fault
