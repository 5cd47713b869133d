"""From a torch module to the graph of layers that bounds are propagated through."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from certmix.errors import ModelError
from certmix.lipschitz.layers import Input, Layer, LinearMap, Sum, reshape, scale
from certmix.lipschitz.rules import RULES, layer_of, maximum, mean
from certmix.lipschitz.tracing import trace, unsupported
from certmix.models.adapters import FixedMode
from certmix.models.normalize import Normalized

__all__ = ["Graph", "Node", "build_graph"]

FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.leaky_relu: nn.LeakyReLU,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}
"""Functions that are a layer without weights."""

ARITHMETIC: dict[Any, str] = {
    operator.add: "+", operator.iadd: "+", torch.add: "+", operator.sub: "-", operator.isub: "-",
    torch.sub: "-", operator.mul: "*", operator.imul: "*", torch.mul: "*", operator.truediv: "/",
    torch.div: "/",
}  # fmt: skip

AGREEMENT = 1e-3
"""Largest difference between the graph's logits and the model's, relative to the largest logit."""


@dataclass(frozen=True)
class Node:
    """One layer, the nodes it takes, and the shape of its output without the batch."""

    name: str
    layer: Layer
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Layers in order: the first is the image, the last gives the logits."""

    nodes: tuple[Node, ...]

    def values(self, images: Tensor) -> list[Tensor]:
        """Return every node's value for images (N, ...), in float64."""
        found: list[Tensor] = []
        for node in self.nodes:
            arguments = [found[i] for i in node.inputs] or [images.double()]
            found.append(node.layer(*arguments))
        return found

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[0]


class _Builder:
    """Adds nodes one by one, each with the shape that a zero image gives."""

    def __init__(self, shape: Sequence[int], device: torch.device) -> None:
        zeros = torch.zeros((1, *shape), dtype=torch.float64, device=device)
        self.nodes = [Node("input", Input(), (), tuple(shape))]
        self.zeros = [zeros]

    def add(self, name: str, layer: Layer, *inputs: int) -> int:
        try:
            value = layer(*(self.zeros[i] for i in inputs))
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(str(self.nodes[i].shape) for i in inputs)
            detail = str(error).splitlines()[0]
            raise ModelError(
                f"layer {name} does not fit an input of shape {shapes} ({detail}): check the images"
            ) from None
        self.nodes.append(Node(name, layer, inputs, tuple(value.shape[1:])))
        self.zeros.append(value)
        return len(self.nodes) - 1

    def add_module(self, name: str, module: nn.Module, source: int) -> int:
        for layer in layer_of(name, module, self.nodes[source].shape):
            source = self.add(name, layer, source)
        return source


def build_graph(model: nn.Module, shape: Sequence[int]) -> Graph:
    """Return a model's layers in float64; the weights' values are kept exactly.

    Parameters
    ----------
    model
        Gives logits (N, classes); in evaluation mode.
    shape
        Of one image, such as (3, 32, 32).

    Raises
    ------
    ModelError
        If bounds cannot be propagated through a layer (the message names it),
        or the graph does not compute what the model computes.
    """
    parameter = next(iter((*model.parameters(), *model.buffers())), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    builder = _Builder(shape, device)
    inner, source = _unwrap(model, builder)
    traced = trace(nn.Sequential(inner) if type(inner) in RULES else inner)
    made: dict[fx.Node, Any] = {}
    last = source
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            made[node] = source
        elif node.op == "get_attr":
            made[node] = _attribute(traced, str(node.target))
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node) or not isinstance(made[node.args[0]], int):
                raise unsupported(f"an output of type {type(node.args[0]).__name__}")
            last = made[node.args[0]]
        else:
            made[node] = _step(builder, traced, node, made)
    graph = Graph(tuple(builder.nodes[: last + 1]))
    if len(graph.nodes[-1].shape) != 1 or graph.nodes[-1].shape[0] < 2:
        raise ModelError(f"the model gives {graph.nodes[-1].shape} an image: bounds need 2 logits or more")
    _compare(graph, model, shape, device)
    return graph


def _unwrap(model: nn.Module, builder: _Builder) -> tuple[nn.Module, int]:
    """Take off the wrappers that certmix puts around models."""
    source = 0
    while isinstance(model, Normalized | FixedMode):
        if isinstance(model, Normalized):
            source = builder.add_module("normalize", model, source)
        model = model.model if isinstance(model, Normalized) else model.module
    return model, source


def _attribute(traced: fx.GraphModule, name: str) -> Tensor:
    value: Any = traced
    for part in name.split("."):
        value = getattr(value, part)
    return value.detach().double()


def _step(builder: _Builder, traced: fx.GraphModule, node: fx.Node, made: dict[fx.Node, Any]) -> Any:
    """Add what one traced operation does; return its node."""
    arguments = [made[a] if isinstance(a, fx.Node) else a for a in node.args]
    sources = [made[a] for a in node.args if isinstance(a, fx.Node) and isinstance(made[a], int)]
    name = str(getattr(node.target, "__name__", node.target))
    if node.op == "call_module":
        return builder.add_module(name, traced.get_submodule(str(node.target)), sources[0])
    if node.op == "call_method" and node.target in ("size", "contiguous"):
        return None if node.target == "size" else sources[0]
    if node.target in FUNCTIONS:
        settings = {key: value for key, value in node.kwargs.items() if key != "training"}
        return builder.add_module(name, FUNCTIONS[node.target](*arguments[1:], **settings), sources[0])
    if node.target in ARITHMETIC and not node.kwargs:
        return _arithmetic(builder, ARITHMETIC[node.target], name, node, arguments)
    reduce = REDUCTIONS.get(name)
    if reduce is None or not sources:
        raise unsupported(f"{name} ({node.op})")
    return reduce(builder, name, sources[0], *arguments[1:], **node.kwargs)


def _arithmetic(builder: _Builder, sign: str, name: str, node: fx.Node, arguments: list[Any]) -> int:
    """Add a sum of two nodes, or a node scaled or shifted by a constant."""
    first, second = arguments
    inside = [
        isinstance(a, fx.Node) and isinstance(v, int) for a, v in zip(node.args, arguments, strict=True)
    ]
    if all(inside):
        if sign not in "+-" or builder.nodes[first].shape != builder.nodes[second].shape:
            raise unsupported(f"{name} of two tensors")
        return builder.add(name, Sum(1.0 if sign == "+" else -1.0), first, second)
    source, constant = (first, second) if inside[0] else (second, first)
    if sign == "/" and not inside[0]:
        raise unsupported("division of a constant by a tensor")
    value = torch.as_tensor(constant, dtype=torch.float64, device=builder.zeros[0].device)
    if value.ndim > len(builder.nodes[source].shape) + 1:
        raise unsupported(f"{name} with a constant of shape {tuple(value.shape)}")
    one = torch.ones_like(value)
    layers: dict[str, Callable[[], LinearMap]] = {
        "+": lambda: scale(one, value, size=_size(value)),
        "-": lambda: (
            scale(one, -value, size=_size(value)) if inside[0] else scale(-one, value, size=_size(value))
        ),
        "*": lambda: scale(value),
        "/": lambda: scale(1 / value, operations=1),
    }
    return builder.add(name, layers[sign](), source)


def _size(value: Tensor) -> float:
    return float(value.abs().max())


def _mean(builder: _Builder, name: str, source: int, dim: Any = None, keepdim: bool = False) -> int:
    shape = _spatial(builder, name, source, dim)
    pooled = builder.add(name, mean(shape), source)
    return pooled if keepdim else builder.add(name, reshape(shape[:1]), pooled)


def _amax(builder: _Builder, name: str, source: int, dim: Any = None, keepdim: bool = False) -> int:
    shape = _spatial(builder, name, source, dim)
    largest = builder.add(name, maximum(shape, builder.zeros[0].device), source)
    return largest if keepdim else builder.add(name, reshape(shape[:1]), largest)


def _flatten(builder: _Builder, name: str, source: int, *dims: Any, **named: Any) -> int:
    return builder.add_module(name, nn.Flatten(*(dims or (0,)), **named), source)


def _view(builder: _Builder, name: str, source: int, *sizes: Any) -> int:
    sizes = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    if len(sizes) != 2 or sizes[1] != -1:
        raise unsupported(f"{name}{sizes}")
    return builder.add_module(name, nn.Flatten(), source)


REDUCTIONS: dict[str, Callable[..., int]] = {
    "mean": _mean, "amax": _amax, "flatten": _flatten, "view": _view, "reshape": _view,
}  # fmt: skip


def _spatial(builder: _Builder, name: str, source: int, dim: Any) -> tuple[int, ...]:
    """Return the shape of a node whose two spatial axes, and no other, are reduced."""
    shape = builder.nodes[source].shape
    axes = sorted(d % (len(shape) + 1) for d in dim) if isinstance(dim, tuple | list) else dim
    if len(shape) != 3 or axes != [2, 3]:
        raise unsupported(f"{name} over {dim} of {shape}")
    return shape


def _compare(graph: Graph, model: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Refuse a graph whose logits are not the model's."""
    count = 2 * int(torch.tensor(shape).prod())
    images = torch.linspace(0, 1, count, device=device).sin().square().view(2, *shape)
    parameter = next(model.parameters(), None)
    with torch.no_grad():
        expected = model(images if parameter is None else images.to(parameter.dtype)).double()
        found = graph.values(images)[-1]
    if found.shape != expected.shape or not (
        (found - expected).abs().max() <= AGREEMENT * expected.abs().max().clamp_min(1e-6)
    ):
        raise ModelError(
            "the traced layers do not give the model's logits: "
            "put it in evaluation mode, without autocast, and let no layer depend on the batch"
        )
