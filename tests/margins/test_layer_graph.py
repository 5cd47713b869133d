"""Tracing: the graph computes what the model computes, or says which layer it cannot take."""

from __future__ import annotations

import pytest
import torch
from small_nets import NETS, inputs, random_net
from torch import nn

from certmix.errors import ModelError
from certmix.margins.layers import LinearMap
from certmix.margins.translation import build_graph
from certmix.models.architectures import ARCHITECTURES, Normalized, build
from certmix.models.foreign import FixedMode


@pytest.mark.parametrize("name", NETS)
def test_values_are_the_models_in_float64(name):
    net, x = random_net(name, 3), inputs(4)
    graph = build_graph(net, inputs(2))
    found = graph.values(x)
    torch.testing.assert_close(found[-1], net.double()(x.double()), rtol=1e-12, atol=1e-12)
    assert [v.shape[1:] for v in found] == [torch.Size(node.shape) for node in graph.nodes]


@pytest.mark.parametrize(
    "name", sorted(ARCHITECTURES.keys() - {"denoiser", "band", "masked"})
)  # no logits; no inputs
def test_every_shipped_architecture_is_supported(name):
    graph = build_graph(build(name).eval(), torch.rand(2, 3, 32, 32))
    assert graph.classes == 10


@pytest.mark.parametrize("name", NETS)
def test_adjoints_and_row_sums(name):
    """<a, W x> = <a W, x>, and no row of |W| sums to more than is stated."""
    graph, generator = build_graph(random_net(name, 0), inputs(2)), torch.Generator().manual_seed(0)
    maps = [node for node in graph.nodes if isinstance(node.layer, LinearMap)]
    assert maps
    for node in maps:
        shape = graph.nodes[node.inputs[0]].shape
        x = torch.randn((2, *shape), dtype=torch.float64, generator=generator)
        a = torch.randn((2, *node.shape), dtype=torch.float64, generator=generator)
        layer = node.layer
        forward = (a * layer.apply(layer.weight, x)).flatten(1).sum(1)
        backward = (layer.transpose(layer.weight, a, shape) * x).flatten(1).sum(1)
        torch.testing.assert_close(forward, backward)
        ones = torch.ones((1, *shape), dtype=torch.float64)
        assert float(layer.apply(layer.weight.abs(), ones).max()) <= layer.row_sum
        if layer.bias is not None:
            assert float(layer.bias.abs().max()) <= layer.bias_size


def test_wrappers_are_seen_through():
    net, x = random_net("plain", 1), inputs(2)
    wrapped = FixedMode(Normalized(net, (0.4, 0.5), (0.25,)))
    torch.testing.assert_close(
        build_graph(wrapped, inputs(2)).values(x)[-1].float(), wrapped(x), rtol=1e-4, atol=1e-4
    )


class Scores(nn.Module):
    def forward(self, x):
        return x.flatten(1) @ torch.ones(98, 3)


class Product(nn.Module):
    def forward(self, x):
        return (x * x).flatten(1)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("grid", torch.ones(2, 1, 1, 7))

    def forward(self, x):
        return (x.mean((2, 3), keepdim=True) + self.grid).flatten(1)


class Branded(nn.Module):
    """A constant that differs between the two inputs of a batch."""

    def forward(self, x):
        return x.flatten(1) + torch.arange(2.0).view(2, 1)


@pytest.mark.parametrize(
    "net, named",
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Sigmoid(), nn.Flatten()), "1 of type Sigmoid"),
        (nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.Flatten()), "padding 'same'"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()), "ceil_mode"),
        (nn.Sequential(nn.AvgPool2d(3, padding=1, count_include_pad=False), nn.Flatten()), "does not count"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), "AdaptiveAvgPool2d"),
        (nn.Sequential(nn.LeakyReLU(1.5), nn.Flatten()), "slope 1.5"),
        (nn.Linear(7, 3), "shape (2, 7, 7)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(50, 3)), "does not fit"),
        (nn.ReLU(), "2 logits"),
        (Scores(), "matmul"),
        (Outer(), "constant of shape (2, 1, 1, 7)"),
        (Branded(), "constant of shape (2, 1)"),
        (Product(), "of two tensors"),
    ],
)
def test_what_is_not_supported_is_named(net, named):
    with pytest.raises(ModelError, match=named.replace("(", r"\(").replace(")", r"\)")):
        build_graph(net.eval(), inputs(2))
