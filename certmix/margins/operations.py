"""What one operation of a traced model adds to the graph."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from certmix.errors import ModelError
from certmix.margins.layers import LinearMap, Sum, exact, reshape, scale
from certmix.margins.nodes import Builder
from certmix.margins.rules import maximum, mean
from certmix.margins.tracing import unsupported

__all__ = ["Value", "attribute", "step"]

FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.leaky_relu: nn.LeakyReLU,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.dropout: nn.Dropout,
    F.dropout2d: nn.Dropout2d,
}
"""Functions that are a layer without weights."""

ARITHMETIC: dict[Any, str] = {
    operator.add: "+", operator.iadd: "+", torch.add: "+", operator.sub: "-", operator.isub: "-",
    torch.sub: "-", operator.mul: "*", operator.imul: "*", torch.mul: "*", operator.truediv: "/",
    operator.itruediv: "/", torch.div: "/",
}  # fmt: skip
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)

BATCH = "the size of the batch"
"""Stands for it in shapes."""


@dataclass(frozen=True)
class Value:
    """What a traced operation gives that depends on the image: a node of the graph."""

    node: int


def attribute(traced: fx.GraphModule, name: str) -> Tensor:
    """Return a parameter or buffer in float64."""
    value: Any = traced
    for part in name.split("."):
        value = getattr(value, part)
    return exact(value)


def step(builder: Builder, traced: fx.GraphModule, node: fx.Node, made: dict[fx.Node, Any]) -> Any:
    """Add what one traced operation does; return its `Value`, or a number or shape that is none."""
    given, named = fx.map_arg((node.args, dict(node.kwargs)), lambda n: made[n])
    operands, named, name = list(given), dict(named), node.name
    if not operands and "input" in named:
        operands = [named.pop("input")]
    if node.target in ARITHMETIC and not named and len(operands) == 2:
        return _arithmetic(builder, node.target, name, operands)
    source, *settings = operands or [None]
    if node.target is operator.getitem and isinstance(source, tuple):
        return _call(source.__getitem__, name, *settings, **named)
    if not isinstance(source, Value):
        raise unsupported(f"{name}, which takes no value that depends on the image alone")
    if any(isinstance(value, Value) for value in [*settings, *named.values()]):
        raise unsupported(f"{name} of several tensors")
    if node.op == "call_module":
        path = str(node.target)
        if settings or named:
            raise unsupported(f"layer {path} with further arguments")
        return Value(builder.add_module(path, traced.get_submodule(path), source.node))
    if node.target in FUNCTIONS:
        if named.pop("training", False):
            raise ModelError(f"{name} is called with training=True, its default: pass training=self.training")
        layer = _call(FUNCTIONS[node.target], name, *settings, **named).eval()
        return Value(builder.add_module(name, layer, source.node))
    if node.target is getattr and settings == ["shape"]:
        return _size(builder, name, source.node)
    if node.target not in METHODS:
        raise unsupported(f"{name} ({node.op} {node.target})")
    return _call(METHODS[node.target], name, builder, name, source.node, *settings, **named)


def _call(function: Callable[..., Any], name: str, *given: Any, **named: Any) -> Any:
    """Call what stands for an operation, if it takes these arguments."""
    try:
        inspect.signature(function).bind(*given, **named)
        return function(*given, **named)
    except (TypeError, IndexError) as error:
        raise unsupported(f"{name} with these arguments ({error})") from None


def _arithmetic(builder: Builder, target: Any, name: str, operands: list[Any]) -> Any:
    """Add a sum of two nodes, or a node scaled or shifted by a constant."""
    first, second = operands
    sign, inside, in_place = ARITHMETIC[target], isinstance(first, Value), target in IN_PLACE
    if isinstance(first, Value) and isinstance(second, Value):
        if sign not in "+-" or builder.nodes[first.node].shape != builder.nodes[second.node].shape:
            raise unsupported(f"{name} of two tensors")
        sum_of_both = Sum(1.0 if sign == "+" else -1.0)
        return Value(builder.add(name, sum_of_both, first.node, second.node, in_place=in_place))
    if isinstance(first, int) and isinstance(second, int):
        return target(first, second)
    source, constant = (first, second) if inside else (second, first)
    if not isinstance(source, Value) or (in_place and not inside):
        raise unsupported(f"{name} of constants")
    if sign == "/" and not inside:
        raise unsupported("division of a constant by a tensor")
    try:
        value = exact(torch.as_tensor(constant, dtype=torch.float64))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise unsupported(f"{name} with {constant!r}") from None
    one_image = (1, *builder.nodes[source.node].shape)
    try:
        fits = torch.broadcast_shapes(value.shape, one_image) == one_image
    except RuntimeError:
        fits = False
    if not fits:
        raise unsupported(f"{name} with a constant of shape {tuple(value.shape)}")
    one, size = torch.ones_like(value), float(value.abs().max())
    layers: dict[str, Callable[[], LinearMap]] = {
        "+": lambda: scale(one, value, size=size),
        "-": lambda: scale(one, -value, size=size) if inside else scale(-one, value, size=size),
        "*": lambda: scale(value),
        "/": lambda: scale(1 / value, operations=1),
    }
    return Value(builder.add(name, layers[sign](), source.node, in_place=in_place))


def _mean(builder: Builder, name: str, source: int, dim: Any = None, keepdim: bool = False) -> Value:
    shape = _spatial(builder, name, source, dim)
    pooled = builder.add(name, mean(shape), source)
    return Value(pooled if keepdim else builder.add(name, reshape(shape[:1]), pooled))


def _amax(builder: Builder, name: str, source: int, dim: Any = None, keepdim: bool = False) -> Value:
    shape = _spatial(builder, name, source, dim)
    largest = builder.add(name, maximum(shape), source)
    return Value(largest if keepdim else builder.add(name, reshape(shape[:1]), largest))


def _flatten(builder: Builder, name: str, source: int, start_dim: int = 0, end_dim: int = -1) -> Value:
    return Value(builder.add_module(name, nn.Flatten(start_dim, end_dim), source))


def _view(builder: Builder, name: str, source: int, *sizes: Any) -> Value:
    """Give each image another shape: the first size is the batch's, or -1 where no other is possible."""
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    entries, (first, *rest) = math.prod(builder.nodes[source].shape), sizes or (None,)
    fixed = all(isinstance(size, int) for size in rest) and rest
    if fixed and rest.count(-1) == 1 and first == BATCH:
        known = math.prod(size for size in rest if size != -1)
        rest[rest.index(-1)] = entries // known if known > 0 else -1
    if not fixed or first not in (BATCH, -1) or min(rest) < 1 or math.prod(rest) != entries:
        raise unsupported(f"{name} to the shape ({', '.join(map(str, sizes))})")
    return Value(builder.add(name, reshape(tuple(rest)), source))


def _size(builder: Builder, name: str, source: int, dim: int | None = None) -> Any:
    shape = (BATCH, *builder.nodes[source].shape)
    return shape if dim is None else shape[dim]


METHODS: dict[Any, Callable[..., Any]] = {
    "mean": _mean, torch.mean: _mean, "amax": _amax, torch.amax: _amax, "flatten": _flatten,
    torch.flatten: _flatten, "view": _view, "reshape": _view, torch.reshape: _view, "size": _size,
    "contiguous": lambda builder, name, source: Value(source),
}  # fmt: skip


def _spatial(builder: Builder, name: str, source: int, dim: Any) -> tuple[int, ...]:
    """Return the shape of a node whose two spatial axes, and no other, are reduced."""
    shape = builder.nodes[source].shape
    axes = sorted(d % (len(shape) + 1) for d in dim) if isinstance(dim, tuple | list) else dim
    if len(shape) != 3 or axes != [2, 3]:
        raise unsupported(f"{name} over {dim} of {shape}")
    return shape
