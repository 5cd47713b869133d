"""Who runs forward passes: the compiled model or its trace in several lanes, or the model itself in one."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from certmix.errors import ParameterError
from certmix.sampling.compiling import CompiledModel
from certmix.sampling.lanes import MOST_LANES, Crew, Setting, autocast
from certmix.sampling.tracing import agrees, fingerprint, traced

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
        Whether they run the compiled model.
    most
        How many there are, if the model is compiled or can be traced; else one.
    """

    def __init__(self, model: nn.Module, setting: Setting, compiled: bool, most: int) -> None:
        self._model, self._setting, self._most = model, setting, most
        self._known: Hashable = None
        self._fixed = compiled or most == 1
        if compiled:
            self.crew = Crew(CompiledModel(model, setting.device, setting.precision), setting, most)
        else:
            self._hire(None if most == 1 else traced(model))

    @torch.inference_mode()
    def settled(self, images: list[Tensor]) -> Crew:
        """Return the lanes, once the trace was seen to be the model; where that changed it is traced anew."""
        if self._fixed:
            return self.crew
        if fingerprint(self._model) != self._known:
            graph = traced(self._model)
            probes = [torch.stack([image, image + self._setting.sigma]) for image in (images[0], images[-1])]
            with autocast(self._setting.device, self._setting.precision):
                if graph is not None and not agrees(self._model, graph, probes):
                    graph = None
            self._hire(graph)
            self._known = fingerprint(self._model)
        return self.crew

    def _hire(self, graph: nn.Module | None) -> None:
        count = 1 if graph is None else self._most
        self.crew = Crew(self._model if graph is None else graph, self._setting, count)
