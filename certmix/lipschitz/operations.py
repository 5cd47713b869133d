"""What one operation of a traced model adds to the graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from certmix.lipschitz.layers import LinearMap, Sum, reshape, scale
from certmix.lipschitz.nodes import Builder
from certmix.lipschitz.rules import maximum, mean
from certmix.lipschitz.tracing import unsupported

__all__ = ["attribute", "step"]

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


def attribute(traced: fx.GraphModule, name: str) -> Tensor:
    """Return a parameter or buffer in float64."""
    value: Any = traced
    for part in name.split("."):
        value = getattr(value, part)
    return value.detach().cpu().double()


def step(builder: Builder, traced: fx.GraphModule, node: fx.Node, made: dict[fx.Node, Any]) -> Any:
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


def _arithmetic(builder: Builder, sign: str, name: str, node: fx.Node, arguments: list[Any]) -> int:
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
    value = torch.as_tensor(constant, dtype=torch.float64)
    one_image = (1, *builder.nodes[source].shape)
    try:
        fits = torch.broadcast_shapes(value.shape, one_image) == one_image
    except RuntimeError:
        fits = False
    if not fits:
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


def _mean(builder: Builder, name: str, source: int, dim: Any = None, keepdim: bool = False) -> int:
    shape = _spatial(builder, name, source, dim)
    pooled = builder.add(name, mean(shape), source)
    return pooled if keepdim else builder.add(name, reshape(shape[:1]), pooled)


def _amax(builder: Builder, name: str, source: int, dim: Any = None, keepdim: bool = False) -> int:
    shape = _spatial(builder, name, source, dim)
    largest = builder.add(name, maximum(shape), source)
    return largest if keepdim else builder.add(name, reshape(shape[:1]), largest)


def _flatten(builder: Builder, name: str, source: int, *dims: Any, **named: Any) -> int:
    return builder.add_module(name, nn.Flatten(*(dims or (0,)), **named), source)


def _view(builder: Builder, name: str, source: int, *sizes: Any) -> int:
    sizes = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    if len(sizes) != 2 or sizes[1] != -1:
        raise unsupported(f"{name}{sizes}")
    return builder.add_module(name, nn.Flatten(), source)


REDUCTIONS: dict[str, Callable[..., int]] = {
    "mean": _mean, "amax": _amax, "flatten": _flatten, "view": _view, "reshape": _view,
}  # fmt: skip


def _spatial(builder: Builder, name: str, source: int, dim: Any) -> tuple[int, ...]:
    """Return the shape of a node whose two spatial axes, and no other, are reduced."""
    shape = builder.nodes[source].shape
    axes = sorted(d % (len(shape) + 1) for d in dim) if isinstance(dim, tuple | list) else dim
    if len(shape) != 3 or axes != [2, 3]:
        raise unsupported(f"{name} over {dim} of {shape}")
    return shape
