"""How far each classifier is trusted: the terms R_i of the mixed classifier's general form.

A term is handed on as its logarithm: where a softmax saturates, R_i itself is too small for any float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certmix.calling import backward, call_both, call_model, check_gradients
from certmix.errors import ModelError, ParameterError, check_choice

SMALLEST_NORM = 1e-30
"""Norms of grad f (see `FORMS`) up to this count as zero, and divide as this: float32 must hold 1 / norm."""

NORMS = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
"""The attack's norm p -> the order of its dual, in which gradients are measured."""


@dataclass(frozen=True)
class Slopes:
    """Finite logarithms of dual norms (N, classes) or (N, 1) of a model's gradients; where those are 0."""

    log: Tensor
    zero: Tensor


def _log_odds(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(g / (1 - g)) and log(g (1 - g)) of the probabilities g, neither of them saturating.

    grad g = g (1 - g) grad log(g / (1 - g)), and that last gradient is of the size of the logits' own.
    """
    log_g = logits.log_softmax(1)
    top = torch.zeros_like(log_g, dtype=torch.bool).scatter(1, log_g.argmax(1, keepdim=True), True)
    rest_of_top = log_g.masked_fill(top, -math.inf).logsumexp(1, keepdim=True)
    log_rest = torch.where(top, rest_of_top, torch.log1p(-log_g.exp().masked_fill(top, 0.0)))
    return log_g - log_rest, log_g + log_rest


FORMS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "probabilities": _log_odds,
    "logits": lambda logits: (logits, torch.zeros_like(logits)),
}
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
    """Return the dual norms of the gradients of one model's outputs, of the first largest one with `largest`.

    `logits` (N, classes) are the model's at `inputs` (N, ...), row n of input n alone.  One backward pass a
    class; without `graph` the norms are not differentiable, and the graph of `logits` is freed.
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
        gradient = None
        if values.requires_grad:
            keep, total = graph or i < last, values[:, i].sum()
            (gradient,) = backward(total, inputs, retain_graph=keep, create_graph=graph, allow_unused=True)
        if gradient is None and i == 0:  # every class comes from the same logits
            other = torch.linspace(-1.0, 1.0, inputs.numel(), dtype=inputs.dtype, device=inputs.device)
            with torch.no_grad():
                if not torch.equal(call_model(model, other.view(inputs.shape)), logits):
                    raise ModelError(
                        f"the {name} model's outputs change with the input but carry no gradient: "
                        "let it not detach them, or use trust 'constant'"
                    )
        rows = (torch.zeros_like(inputs) if gradient is None else gradient).unsqueeze(-1).flatten(1)
        still = (rows == 0).all(1)  # a norm has no derivative at 0: that of these rows is 0
        moving = rows.masked_fill(still[:, None], 1.0)
        lengths = torch.linalg.vector_norm(moving, NORMS[norm], dim=1, dtype=torch.float64)
        columns.append(lengths.masked_fill(still, 0.0))
    norms = torch.stack(columns, 1)
    return Slopes(log_scale + norms.clamp_min(SMALLEST_NORM).log(), norms <= SMALLEST_NORM)


@dataclass(frozen=True)
class Trust:
    """One choice of R_i: its formula, classifiers whose gradients it needs, and log R_i of their `Slopes`.

    `largest` takes the gradient of the largest output alone; `log_value` None stands for R_i = 1.
    """

    summary: str
    of: tuple[str, ...] = ()
    largest: bool = False
    log_value: Callable[..., Tensor] | None = None


def _norm(standard: Slopes) -> Tensor:
    return standard.log.masked_fill(standard.zero, -math.inf)


def _ratio(standard: Slopes, robust: Slopes) -> Tensor:
    return (_norm(standard) - robust.log).masked_fill(standard.zero & robust.zero, 0.0)


TRUSTS = {
    "constant": Trust("R_i = 1"),
    "gradient": Trust("R_i = ||grad g_i||_p*, class by class", ("standard",), False, _norm),
    "max-gradient": Trust(
        "R_i = ||grad max_j g_j||_p*, one number an input", ("standard",), True, _norm
    ),
    "gradient-ratio": Trust(
        "R_i = ||grad g_i||_p* / ||grad h_i||_p*, class by class", ("standard", "robust"), False, _ratio
    ),
}  # fmt: skip
"""The trust terms of equation 3 by name; the first is the default."""


def check_settings(**names: str) -> None:
    """Refuse unknown names of a trust term, a form or a norm with `ParameterError`."""
    for kind, table in (("trust", TRUSTS), ("form", FORMS), ("norm", NORMS)):
        if kind in names:
            check_choice(kind, names[kind], table)


def check_pair(standard: Tensor, robust: Tensor) -> None:
    """Refuse outputs of different shapes with `ModelError`."""
    if standard.shape != robust.shape:
        raise ModelError(
            f"the standard model gives {tuple(standard.shape)} and the robust one "
            f"{tuple(robust.shape)}: both must give (inputs, classes) with equal classes"
        )


def log_trust_values(
    standard: nn.Module,
    robust: nn.Module,
    inputs: Tensor,
    trust: str = "gradient",
    form: str = "probabilities",
    norm: str = "linf",
) -> Tensor:
    """Return log R_i, to be kept with the logits and mixed at any alpha by `mix_outputs`.

    float64 (N, classes), or (N, 1) where R_i is one number an input; -inf where R_i = 0.
    """
    value = trusted_outputs(standard, robust, inputs, trust=trust, form=form, norm=norm)[2]
    return inputs.new_zeros((len(inputs), 1), dtype=torch.float64) if value is None else value


def trusted_outputs(
    standard: nn.Module,
    robust: nn.Module,
    inputs: Tensor,
    *,
    trust: str = "constant",
    form: str = "probabilities",
    norm: str = "linf",
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run both classifiers once and return their logits and log R_i, of the same g_i and h_i as are mixed.

    Gradients are taken input by input from one sum over the batch, so no layer may mix the inputs of a batch.

    Parameters
    ----------
    standard, robust, inputs
        Give finite logits (N, classes) for the same inputs (N, ...), floats where gradients are needed.
    trust, form
        Name in `TRUSTS`; ``"probabilities"`` or ``"logits"``, what is mixed.
    norm
        The attack's norm, ``"linf"``, ``"l2"`` or ``"l1"``; gradients are measured in its dual.

    Returns
    -------
    tuple of Tensor
        Logits (N, classes) twice, and float64 log R_i (N, classes) or (N, 1), None for R_i = 1.  They can be
        differentiated, R_i included, where gradients are enabled and the inputs or a parameter want them.
        ParameterError for an unknown name or inputs without gradients, ModelError for models whose classes
        differ, or one whose outputs change with the input and carry no gradient.

    References
    ----------
    Equation 3 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off",
    and the four R_i named below it.
    """
    check_settings(trust=trust, form=form, norm=norm)
    rule = TRUSTS[trust]
    if rule.log_value is None:
        g, h = call_both(standard, robust, inputs)
        check_pair(g, h)
        return g, h, None
    if not inputs.is_floating_point():
        kind = str(inputs.dtype).removeprefix("torch.")
        raise ParameterError(f"inputs are {kind}: trust {trust!r} takes gradients: pass floating point")
    tensors = (inputs, *standard.parameters(), *robust.parameters())
    wanted = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
    tracked = inputs
    if not (wanted and inputs.requires_grad):  # the start of a graph of its own
        with _recording():
            tracked = (inputs.clone() if inputs.is_inference() else inputs.detach()).requires_grad_()
    outputs = []
    for name, model in (("standard", standard), ("robust", robust)):
        with _recording() if name in rule.of else nullcontext():
            points = tracked if wanted or name in rule.of else inputs
            outputs.append(call_model(model, points, f"the {name} model"))
    g, h = outputs
    check_pair(g, h)
    models = {"standard": (standard, g), "robust": (robust, h)}
    check_gradients(models, inputs)
    with _recording():
        measured = [
            slopes(name, *models[name], tracked, form=form, norm=norm, largest=rule.largest, graph=wanted)
            for name in rule.of
        ]
        value = rule.log_value(*measured)
    return (g, h, value) if wanted else (g.detach(), h.detach(), value.detach())


@contextmanager
def _recording() -> Iterator[None]:
    """Record gradients, even within `torch.no_grad` and `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
