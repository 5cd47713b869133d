"""A model's computation as a torch.fx graph whose leaves are layers."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from certmix.errors import ModelError, describe
from certmix.models.architectures import Normalize

__all__ = ["SUPPORTED", "trace", "unsupported"]

SUPPORTED = (
    "Conv2d, Linear, BatchNorm1d/2d, ReLU, LeakyReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1), Flatten, "
    "Identity, Dropout, Normalize, mean or amax over (2, 3), flatten, view, relu, and +, -, *, / "
    "(of two tensors: + and - alone)"
)


class _Proxy(fx.Proxy):
    """A traced value on which `x += y` is seen as what it is, and not as `x = x + y`."""


def _in_place(function: Any) -> Any:
    return lambda proxy, other: proxy.tracer.create_proxy("call_function", function, (proxy, other), {})


def _as_number(proxy: Any) -> Any:
    proxy.tracer.refuse()


for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(_Proxy, f"__{_name}__", _in_place(getattr(operator, _name)))
for _name in ("len", "int", "float"):
    setattr(_Proxy, f"__{_name}__", _as_number)


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


def unsupported(what: str) -> ModelError:
    """Return the error for a layer or operation that bounds cannot be propagated through."""
    return ModelError(f"bounds cannot be propagated through {what}: use a model made of {SUPPORTED}")


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the model's graph; layers are shared with the model, not copied.

    Raises
    ------
    ModelError
        If the forward pass depends on values or shapes of its input, or takes
        other than one tensor.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
        if tracer.asked:
            tracer.refuse()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be traced ({describe(error)}): "
            "bounds need a forward pass of one tensor that does not branch on it"
        ) from error
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        names = ", ".join(str(node.target) for node in inputs)
        raise ModelError(f"{type(model).__name__} takes {names}: bounds need a model of one tensor")
    return fx.GraphModule(model, graph)
