"""Norms of a classifier's gradients with respect to its input, class by class.

Norms are handed on as logarithms: where a softmax saturates, the gradient of a
probability is too small for any float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certmix.calling import call_model
from certmix.errors import ModelError

__all__ = ["FORMS", "NORMS", "Slopes", "slopes"]

SMALLEST_NORM = 1e-30
"""Norms of grad f (see `FORMS`) up to this count as zero, and divide as this: float32 must hold 1 / norm."""

NORMS = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
"""The attack's norm p -> the order of its dual, in which gradients are measured."""


@dataclass(frozen=True)
class Slopes:
    """Dual norms of one classifier's gradients, (N, classes) or (N, 1).

    `log` holds their logarithms, all of them finite; `zero` says where the
    gradient is zero, so that `log` is only a stand-in.
    """

    log: Tensor
    zero: Tensor


def _log_odds(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(g / (1 - g)) and log(g (1 - g)) of the probabilities g, neither of them saturating.

    grad g = g (1 - g) grad log(g / (1 - g)), and that last gradient is of the
    size of the logits' own however near g is to 0 or 1.
    """
    log_g = logits.log_softmax(1)
    top = torch.zeros_like(log_g, dtype=torch.bool).scatter(1, log_g.argmax(1, keepdim=True), True)
    rest_of_top = log_g.masked_fill(top, -math.inf).logsumexp(1, keepdim=True)
    log_rest = torch.where(top, rest_of_top, torch.log1p(-log_g.exp().masked_fill(top, 0.0)))
    return log_g - log_rest, log_g + log_rest


def _as_they_are(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, torch.zeros_like(logits)


FORMS = {"probabilities": _log_odds, "logits": _as_they_are}
"""What is mixed: name -> float64 logits to (f, log s), where the outputs' gradients are s grad f."""


def slopes(
    name: str,
    model: nn.Module,
    logits: Tensor,
    inputs: Tensor,
    *,
    form: str,
    norm: str,
    largest: bool = False,
    graph: bool = False,
) -> Slopes:
    """Return the dual norms of the gradients of one model's outputs, one backward pass a class.

    A pass a class, rather than one batched over the classes, holds one gradient
    at a time and asks nothing of the module.

    Parameters
    ----------
    name, model
        The model, and what to call it in a message.
    logits, inputs
        Its logits (N, classes), computed from these inputs (N, ...).  Row n
        must depend on input n alone: gradients are those of a sum over rows.
    form
        Name in `FORMS`: of which outputs the gradients are.
    norm
        Name in `NORMS`.
    largest
        Only of the largest output; of the first one where several are.
    graph
        Whether the norms are to be differentiated.  If not, the graph of
        `logits` is freed.

    Raises
    ------
    ModelError
        If there are fewer than 2 classes, or the model's outputs change with
        the input and carry no gradient.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ModelError(
            f"the {name} model gives {tuple(logits.shape)}: trust terms need (inputs, classes) and 2 classes"
        )
    values, log_scale = FORMS[form](logits.double())
    if largest:
        top = logits.argmax(1, keepdim=True)
        values, log_scale = values.gather(1, top), log_scale.gather(1, top)
    columns, last = [], values.shape[1] - 1
    for i in range(values.shape[1]):
        gradient = _gradient(values[:, i], inputs, graph, keep=graph or i < last)
        if gradient is None:
            if i == 0:  # every class comes from the same logits
                _check_constant(name, model, inputs, logits)
            gradient = torch.zeros_like(inputs)
        columns.append(_lengths(gradient, NORMS[norm]))
    norms = torch.stack(columns, 1)
    return Slopes(log_scale + norms.clamp_min(SMALLEST_NORM).log(), norms <= SMALLEST_NORM)


def _gradient(values: Tensor, inputs: Tensor, graph: bool, keep: bool) -> Tensor | None:
    """Return each value's gradient, or None where the values do not come from the inputs."""
    if not values.requires_grad:
        return None
    total = values.sum()
    return torch.autograd.grad(total, inputs, retain_graph=keep, create_graph=graph, allow_unused=True)[0]


def _lengths(gradient: Tensor, order: float) -> Tensor:
    """Return each input's norm in float64, with derivative 0 where it is 0."""
    rows = gradient.unsqueeze(-1).flatten(1)
    still = (rows == 0).all(1)
    moving = rows.masked_fill(still[:, None], 1.0)
    return torch.linalg.vector_norm(moving, order, dim=1, dtype=torch.float64).masked_fill(still, 0.0)


def _check_constant(name: str, model: nn.Module, inputs: Tensor, logits: Tensor) -> None:
    """Refuse a model that has no gradient and gives other outputs for other inputs."""
    other = torch.linspace(-1.0, 1.0, inputs.numel(), dtype=inputs.dtype, device=inputs.device)
    with torch.no_grad():
        if not torch.equal(call_model(model, other.view(inputs.shape)), logits):
            raise ModelError(
                f"the {name} model's outputs change with the input but carry no gradient: "
                "let it not detach them, or use trust 'constant'"
            )
