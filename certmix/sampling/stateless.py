"""Which models several threads may run at once: those made of parts that are known to keep nothing.

A Python module may keep what it computes in itself, in a hook's closure, in a
class or a global, and threads would then read each other's values.  Whether it
does cannot be told from outside.  So the classes are listed, and whatever is not
exactly one of them is run by one thread at a time.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType

import torch
from torch import nn
from torch.nn.modules import module as globally

__all__ = ["keeps_nothing"]

_TORCH = "torch.nn.modules."
_KINDS = (
    "activation", "batchnorm", "channelshuffle", "container", "conv", "dropout", "flatten", "instancenorm",
    "linear", "normalization", "padding", "pixelshuffle", "pooling", "upsampling",
)  # fmt: skip
_OWN = ("certmix.models.architectures", "certmix.models.normalize")
_HOMES = {*(_TORCH + kind for kind in _KINDS), *_OWN}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def keeps_nothing(model: nn.Module) -> bool:
    """Whether a model's forward pass in evaluation mode surely leaves nothing behind for another's.

    True only of torch's own layers of the listed kinds and certmix's own nets,
    nested in any way: as they were written, without hooks, with plain tensors.
    """
    if globally._global_forward_hooks or globally._global_forward_pre_hooks:
        return False
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return False  # a mode of this thread, which others would not have
    tensors = [*model.parameters(), *model.buffers()]
    return all(map(_known, model.modules())) and all(map(_plain, tensors))


def _known(part: nn.Module) -> bool:
    """Whether a part is in evaluation mode and of a listed class, untouched."""
    kind = type(part)
    if part.training or kind.__module__ not in _HOMES or not _is_original(kind):
        return False
    own = vars(part)
    changed = any(isinstance(value, FunctionType) or name in vars(nn.Module) for name, value in own.items())
    return not (changed or any(own.get(hooks) for hooks in _HOOKS))


def _is_original(kind: type) -> bool:
    """Whether a class is the one that its module defines, with the methods that were written for it."""
    home = sys.modules.get(kind.__module__)
    if getattr(home, kind.__name__, None) is not kind or kind.__call__ is not nn.Module.__call__:
        return False
    forward = kind.forward
    return isinstance(forward, FunctionType | BuiltinFunctionType) and forward.__module__ in _HOMES


def _plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, nn.Parameter)
