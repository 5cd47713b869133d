"""A model's weights, cast and laid out once for all passes instead of in each of them."""

from __future__ import annotations

import copy
import sys

import torch
from torch import Tensor, nn

from certmix.calling import has_no_room, know_alike
from certmix.sampling.devices import SAMPLED

CAST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Layers whose weights autocast casts anew in every pass; of no others, nor of their subclasses."""
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class LaidOut(nn.Module):
    """A model for passes of one precision, by a copy that holds the weights as these layers want them.

    Copied are models whose code is torch's and certmix's own, without hooks: what others' code does with
    weights of another type or layout one batch cannot show.  The copy is used where it gives the model's own
    logits bit for bit, which is looked at in the first batch of each shape; else the model itself is.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = model  # the first: inputs get the type of its parameters
        self.twin = _copied(model, SAMPLED[precision])
        self._equal: set[torch.Size] = set()
        know_alike(self, model)
        self.eval()

    def forward(self, batch: Tensor) -> Tensor:
        if self.twin is None:
            return self.model(batch)  # type: ignore[no-any-return]
        if batch.shape in self._equal:
            return self.twin(batch)  # type: ignore[no-any-return]
        given = batch.clone()  # models may write into it
        logits: Tensor = self.model(batch)
        try:
            same = torch.equal(self.twin(given), logits)
        except Exception as error:  # the model's code met weights of another type or layout
            if has_no_room(error):
                raise
            same = False
        if same:
            self._equal.add(batch.shape)
        else:
            self.twin = None
        return logits


def _is_known(module: nn.Module) -> bool:
    """Return whether a module runs its class's code, and that is torch's or certmix's."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    home = sys.modules.get(type(module).__module__)
    known = type(module).__module__.startswith(("torch.nn.modules.", "certmix.models."))
    own = getattr(home, type(module).__name__, None) is type(module)  # no class made at run time
    return known and own and not any(hooks) and "forward" not in vars(module)


def _copied(model: nn.Module, dtype: str | None) -> nn.Module | None:
    """Return a copy that shares all but the weights of `CAST`; None if it has none, or cannot be copied."""

    def mine(module: nn.Module) -> list[nn.Parameter]:
        found = module.parameters(recurse=False) if type(module) in CAST else ()
        return [one for one in found if one.dtype == torch.float32]

    if not all(map(_is_known, model.modules())):
        return None
    own = {id(one) for module in model.modules() for one in mine(module)}
    shared = {id(one): one for one in (*model.parameters(), *model.buffers()) if id(one) not in own}
    kind = torch.float32 if dtype is None else getattr(torch, dtype)
    if not own:
        return None
    try:
        twin = copy.deepcopy(model, dict[int, object](shared))
        for module in twin.modules():
            for one in mine(module):
                layout = _FORMATS.get(one.ndim, torch.contiguous_format)
                one.data = one.data.to(kind).contiguous(memory_format=layout)
    except Exception:  # copying runs code of the objects, and takes memory
        return None
    return twin
