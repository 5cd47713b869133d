"""Who runs forward passes: a model in several lanes where that is sure to be right, else in one."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from certmix.calling import call_model
from certmix.errors import ParameterError
from certmix.sampling.compiling import CompiledModel
from certmix.sampling.lanes import MOST_LANES, Crew, Setting
from certmix.sampling.stateless import keeps_nothing

__all__ = ["Runner", "lanes_of"]


def lanes_of(device: torch.device, lanes: int | None) -> int:
    """Return how many lanes a model may have: on a CPU one a thread, or as many as are asked for.

    Raises
    ------
    ParameterError
        For less than 1.
    """
    if lanes is not None and lanes < 1:
        raise ParameterError(f"lanes = {lanes}: at least 1 is needed")
    if device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), MOST_LANES) if lanes is None else lanes


class Runner:
    """A model's lanes.

    Parameters
    ----------
    model
        As for `certmix.sampling.Sampler`.
    setting
        What its lanes share.
    compiled
        Whether they run the compiled model, which is compiled as a whole: Python
        code of the model is not run, so that threads may share it.
    most
        How many there are, if the model is compiled or keeps nothing; else one.
    """

    def __init__(self, model: nn.Module, setting: Setting, compiled: bool, most: int) -> None:
        self._model, self._compiled = model, compiled
        passes = CompiledModel(model, setting.device, setting.precision) if compiled else model
        call = partial(call_model, passes)
        self._alone = Crew(call, setting, 1)
        self._many = Crew(call, setting, most) if most > 1 else self._alone

    @property
    def crew(self) -> Crew:
        """The lanes that are right for the model as it is now."""
        sure = self._many is self._alone or self._compiled or keeps_nothing(self._model)
        return self._many if sure else self._alone
