"""Does the model refute the Lipschitz constant that was given for it?"""

from __future__ import annotations

import torch
from torch import Tensor

from certmix.calling import call_model
from certmix.certification.deterministic_fill import Work
from certmix.certification.deterministic_request import GivenConstant
from certmix.data import stack
from certmix.errors import ParameterError
from certmix.radii.constant import STEEPNESS
from certmix.text import floor_digits
from certmix.types import IntArray

__all__ = ["refute_constant"]

LOOKED_AT = 16
SLACK = 1e-3
"""Relative excess that rounding of the model's own arithmetic may explain."""


def refute_constant(work: Work, positions: IntArray) -> None:
    """Refuse a constant below a slope that the model shows at some image.

    The slope of z_y - z_i (or h_y - h_i), y and i the two largest, is the dual
    norm of its gradient; every valid constant is at least this slope over
    `STEEPNESS`.  A constant that passes is not thereby proved.

    Raises
    ------
    ParameterError
        If the constant is refuted.
    """
    request = work.request
    assert isinstance(request, GivenConstant)
    constant, what = request.given
    of_probabilities = what == "probabilities"
    key = f"slope of {'probabilities' if of_probabilities else 'logits'}, {request.norm}"
    known = work.store.get(key)
    if known is None:
        slope = _slope(work, positions[:: max(1, len(positions) // LOOKED_AT)], of_probabilities)
    else:
        slope = float(known)
    least = slope / STEEPNESS[what]
    if least > constant * (1 + SLACK):
        raise ParameterError(
            f"Lipschitz constant {constant:g}: {work.loaded.robust.name} is steeper than that at an image, "
            f"which needs {floor_digits(least, 4)} at least: give a proved upper bound "
            "(PyTorch's spectral_norm and orthogonal are none for convolutions)"
        )
    if known is None:
        work.store.put(key, repr(slope))


def _slope(work: Work, positions: IntArray, of_probabilities: bool) -> float:
    """Return the largest dual norm of the gradient of the leading difference; 0 where there is none."""
    inputs = torch.from_numpy(stack(work.loaded.dataset, positions)).to(work.device)
    largest = 0.0
    for part in inputs.split(work.step):
        x = part.clone().requires_grad_(True)
        with torch.enable_grad():
            values = call_model(work.loaded.robust.module, x, work.loaded.robust.name)
            if of_probabilities:
                values = values.double().softmax(1)
            first, second = values.topk(2, dim=1).values.unbind(1)
            difference = (first - second).sum()
            if not difference.requires_grad:
                return 0.0
            (gradient,) = torch.autograd.grad(difference, x)
        largest = max(largest, float(_dual(gradient.flatten(1).double(), work.request.norm).max()))
    return largest


def _dual(gradient: Tensor, norm: str) -> Tensor:
    """Return the norm (n,) dual to that of the inputs."""
    order = {"l2": 2.0, "linf": 1.0, "l1": float("inf")}[norm]
    return torch.linalg.vector_norm(gradient, order, dim=1)
