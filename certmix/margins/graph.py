"""A network as a graph of layers, and what stands for each operation that torch.fx traces."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from certmix import guard
from certmix.errors import ModelError, describe
from certmix.margins.layers import (
    Input,
    Layer,
    LinearMap,
    Shape,
    Sum,
    exact,
    layer_of,
    maximum,
    mean,
    reshape,
    scale,
    unsupported,
)
from certmix.models.architectures import Normalize


@dataclass(frozen=True)
class Node:
    """One layer, the nodes it takes, and the shape of its output without the batch."""

    name: str
    layer: Layer
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Layers in order: the first is the input, the last gives the logits."""

    nodes: tuple[Node, ...]

    def values(self, inputs: Tensor) -> list[Tensor]:
        """Return every node's value for inputs (N, ...), in float64."""
        found: list[Tensor] = []
        for node in self.nodes:
            arguments = [found[i] for i in node.inputs] or [inputs.double()]
            found.append(node.layer(*arguments))
        return found

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[0]


class Builder:
    """Adds nodes one by one, each with the shape that a zero input gives.

    `storage` names the memory of a node's value by the first node there; in `stale` nodes' it was changed.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        zeros = torch.zeros((1, *shape), dtype=torch.float64)
        self.nodes = [Node("input", Input(), (), tuple(shape))]
        self.zeros = [zeros]
        self.storage, self.stale = [0], set[int]()

    def add(self, name: str, layer: Layer, *inputs: int, in_place: bool = False) -> int:
        """Add a layer that takes these nodes, and may change the first in place; return its number."""
        for i in inputs:
            self.check_current(name, i)
        try:
            value = layer(*(self.zeros[i] for i in inputs))
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(str(self.nodes[i].shape) for i in inputs)
            detail = str(error).splitlines()[0]
            raise ModelError(
                f"layer {name} does not fit an input of shape {shapes} ({detail}): check the inputs"
            ) from None
        self.nodes.append(Node(name, layer, inputs, tuple(value.shape[1:])))
        self.zeros.append(value)
        first = self.storage[inputs[0]]
        if in_place:
            self.stale.update(i for i, storage in enumerate(self.storage) if storage == first)
        shares = in_place or (isinstance(layer, LinearMap) and layer.is_view)
        self.storage.append(first if shares else len(self.storage))
        return len(self.nodes) - 1

    def check_current(self, name: str, node: int) -> None:
        """Refuse to take a value that was changed in place since."""
        if node in self.stale:
            raise ModelError(
                f"{name} takes the value of {self.nodes[node].name}, which was changed in place since: "
                "write that change out of place (inplace=False, x = x + y)"
            )

    def add_module(self, name: str, module: nn.Module, source: int) -> int:
        """Add the layers that stand for a module; return the last one's number."""
        in_place = bool(getattr(module, "inplace", False))
        for layer in layer_of(name, module, self.nodes[source].shape):
            source = self.add(name, layer, source, in_place=in_place)
        return source


class _Proxy(fx.Proxy):
    """A traced value on which `x += y` is seen as what it is, and not as `x = x + y`."""


def _in_place(function: Any) -> Any:
    return lambda proxy, other: proxy.tracer.create_proxy("call_function", function, (proxy, other), {})


for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(_Proxy, f"__{_name}__", _in_place(getattr(operator, _name)))
for _name in ("len", "int", "float"):
    setattr(_Proxy, f"__{_name}__", lambda proxy: proxy.tracer.refuse())


class _Tracer(fx.Tracer):
    """Remembers that a value was asked for, in case the model catches the exception."""

    asked = False

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Keep layers, and normalisation, whole."""
        return isinstance(module, Normalize) or super().is_leaf_module(module, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for a node's value."""
        return _Proxy(node, self)

    def refuse(self, obj: fx.Proxy | None = None) -> Any:
        """Give no value: there is none while a model is traced."""
        self.asked = True
        raise fx.proxy.TraceError("its forward pass asks for a value or the size of its input")

    to_bool = iter = refuse


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the model's graph; layers are shared with the model, not copied."""
    tracer = _Tracer()
    try:
        with guard.foreign(type(model).__name__):
            graph = tracer.trace(model)
        if tracer.asked:
            tracer.refuse()
    except BaseException as error:
        guard.keep_interrupt(error)
        raise ModelError(
            f"{type(model).__name__} cannot be traced ({describe(error)}): "
            "bounds need a forward pass of one tensor that does not branch on it"
        ) from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        names = ", ".join(str(node.target) for node in inputs)
        raise ModelError(f"{type(model).__name__} takes {names}: bounds need a model of one tensor")
    return fx.GraphModule(model, graph)


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
    """What a traced operation gives that depends on the input: a node of the graph."""

    node: int


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
        raise unsupported(f"{name}, which takes no value that depends on the input alone")
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
    one_input = (1, *builder.nodes[source.node].shape)
    try:
        fits = torch.broadcast_shapes(value.shape, one_input) == one_input
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


def _reduced(
    layer: Callable[[Shape], Layer],
    builder: Builder,
    name: str,
    source: int,
    dim: Any = None,
    keepdim: bool = False,
) -> Value:
    """Reduce a node over its two spatial axes, and no other."""
    shape = builder.nodes[source].shape
    axes = sorted(d % (len(shape) + 1) for d in dim) if isinstance(dim, tuple | list) else dim
    if len(shape) != 3 or axes != [2, 3]:
        raise unsupported(f"{name} over {dim} of {shape}")
    found = builder.add(name, layer(shape), source)
    return Value(found if keepdim else builder.add(name, reshape(shape[:1]), found))


def _flatten(builder: Builder, name: str, source: int, start_dim: int = 0, end_dim: int = -1) -> Value:
    return Value(builder.add_module(name, nn.Flatten(start_dim, end_dim), source))


def _view(builder: Builder, name: str, source: int, *sizes: Any) -> Value:
    """Give each input another shape: the first size is the batch's, or -1 where no other is possible."""
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


_mean, _amax = partial(_reduced, mean), partial(_reduced, maximum)
METHODS: dict[Any, Callable[..., Any]] = {
    "mean": _mean, torch.mean: _mean, "amax": _amax, torch.amax: _amax, "flatten": _flatten,
    torch.flatten: _flatten, "view": _view, "reshape": _view, torch.reshape: _view, "size": _size,
    "contiguous": lambda builder, name, source: Value(source),
}  # fmt: skip
