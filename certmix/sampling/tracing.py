"""A model as a graph of torch operations, which several threads can run at once.

A Python module may keep what it computes in itself, in a hook's closure, in a
class or a global; threads that run it side by side would read each other's.  Its
trace (torch.fx) has none of that: it calls torch's functions and torch's own
layers on values of its own.  A model that cannot be traced is left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from types import BuiltinFunctionType, BuiltinMethodType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as globally

__all__ = ["agrees", "fingerprint", "traced"]

_LAYERS = ("torch.nn.modules.", "torch.nn.utils.parametri")
_FUNCTIONS = ("torch", "_operator", "math", "builtins")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def traced(module: nn.Module) -> fx.GraphModule | None:
    """Return a graph that computes what the module does in evaluation mode; None if there is none to trust.

    It holds the module's own layers and parameters, so that it sees their values change.
    """
    if any(part.training for part in module.modules()) or _hooked(module) or _hooked_globally():
        return None
    try:
        shared: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
        graph = fx.Tracer().trace(
            copy.deepcopy(module, shared)
        )  # it runs code with things that are no tensors
        found = fx.GraphModule(module, graph)
    except Exception:
        return None
    return found if all(map(_trusted, _targets(module, graph))) else None


def agrees(module: nn.Module, graph: nn.Module, probes: Sequence[Tensor]) -> bool:
    """Whether module and graph answer every probe alike, bit for bit."""
    return all(_equal(module(probe), graph(probe)) for probe in probes)


def fingerprint(module: nn.Module) -> Hashable:
    """Return what changes when a module has to be traced anew: parts, modes, hooks, tensors, settings."""
    parts = [(id(part), part.training, _hooked(part), _settings(part)) for part in module.modules()]
    tensors = [id(tensor) for tensor in (*module.parameters(), *module.buffers())]
    return tuple(parts), tuple(tensors), _hooked_globally()


def _settings(part: nn.Module) -> Hashable:
    """Return the numbers and texts of a part that is not torch's own: a trace holds them as they were."""
    if type(part).__module__.startswith("torch."):
        return None
    return tuple((k, v) for k, v in vars(part).items() if isinstance(v, bool | int | float | str))


def _equal(first: Any, second: Any) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second)


def _hooked(part: nn.Module) -> bool:
    return any(getattr(part, hooks, None) for hooks in _HOOKS)


def _hooked_globally() -> bool:
    return bool(globally._global_forward_hooks or globally._global_forward_pre_hooks)


def _targets(module: nn.Module, graph: fx.Graph) -> list[Any]:
    """Return the layers and functions that a graph calls."""
    called = [node for node in graph.nodes if node.op in ("call_module", "call_function")]
    return [module.get_submodule(node.target) if node.op == "call_module" else node.target for node in called]


def _trusted(target: Any) -> bool:
    """Whether something that a graph calls is torch's own and keeps nothing."""
    if isinstance(target, nn.Module):
        return all(
            type(part).__module__.startswith(_LAYERS) and not _hooked(part) for part in target.modules()
        )
    if isinstance(target, BuiltinFunctionType | BuiltinMethodType):
        return True
    return (getattr(target, "__module__", None) or "").partition(".")[0] in _FUNCTIONS
