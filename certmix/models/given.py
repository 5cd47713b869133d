"""Models as a program hands them over: what they settle of a run, and giving them back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier
from certmix.models.smoothed import SmoothedClassifier, SmoothedMixture

PLAIN = {"gate": 0.0, "standard_temperature": 1.0}
"""Of plain votes, and of g as it is: nothing that a request must hear of."""


def settled_by(model: Any) -> dict[str, Any]:
    """Return what a classifier settles of its certification: its parts, and their numbers."""
    if isinstance(model, SmoothedClassifier):
        own, noise, scale = {"robust": model.base, "gate": model.gate}, model.smoothing, model.feature_scale
        own |= {"sigma": noise.sigma} if noise.sigma else {"noise": noise.kind, "scale": noise.scale}
        own |= {} if noise.norm == noise.own_norm else {"norm": noise.norm}
        return own if scale is None else own | {"feature_scale": tuple(scale.tolist())}
    if not isinstance(model, SmoothedMixture | MixedClassifier):
        return {"robust": model}
    own = {name: getattr(model, name) for name in ("standard", "alpha", "standard_temperature")}
    if isinstance(model, SmoothedMixture):
        return own | settled_by(model.robust)
    if (model.trust, model.form) != ("constant", "probabilities"):
        told = f"a mix with trust {model.trust!r} of {model.form} has no certificates"
        remedy = "only trust 'constant' of probabilities has; make the MixedClassifier with these"
        raise ParameterError(f"{told}: {remedy}")
    return own | {"robust": model.robust}


@contextmanager
def as_they_were(*given: Any) -> Iterator[None]:
    """Give modules back in the mode, with the gradients and on the device that they had."""
    parts = {part for one in given if isinstance(one, nn.Module) for part in one.modules()}
    modes = [(part, part.training) for part in parts]
    weights = [(one, one.requires_grad) for part in parts for one in part.parameters(recurse=False)]
    places: list[tuple[Tensor, torch.device]] = [(one, one.device) for one, _ in weights]
    places += [(one, one.device) for part in parts for one in part.buffers(recurse=False)]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for weight, requires_grad in weights:
            weight.requires_grad_(requires_grad)
        for tensor, device in places:
            if tensor.device != device:
                tensor.data = tensor.data.to(device)
