"""How far each classifier is trusted: the terms R_i of the mixed classifier's general form.

A term is measured from gradients with respect to the input and handed on as its
logarithm: where a softmax saturates, R_i itself is too small for any float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certmix.calling import call_both, call_model
from certmix.errors import ModelError, ParameterError
from certmix.models.slopes import FORMS, NORMS, Slopes, slopes

__all__ = ["TRUSTS", "Trust", "check_pair", "check_settings", "log_trust_values", "trusted_outputs"]


@dataclass(frozen=True)
class Trust:
    """One choice of R_i.

    Parameters
    ----------
    summary
        One line for tables and help texts.
    of
        The classifiers whose gradients it needs, ``"standard"`` and ``"robust"``.
    largest
        Whether the largest output's gradient is needed, rather than each one's.
    log_value
        Their `Slopes`, in that order -> log R_i; None for R_i = 1.
    """

    summary: str
    of: tuple[str, ...] = ()
    largest: bool = False
    log_value: Callable[..., Tensor] | None = None


def _norm(standard: Slopes) -> Tensor:
    return standard.log.masked_fill(standard.zero, -math.inf)


def _ratio(standard: Slopes, robust: Slopes) -> Tensor:
    ratio = (standard.log - robust.log).masked_fill(standard.zero, -math.inf)
    return ratio.masked_fill(standard.zero & robust.zero, 0.0)


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
    """Refuse unknown names of a trust term, a form or a norm.

    Raises
    ------
    ParameterError
        Naming what there is.
    """
    for kind, table in (("trust", TRUSTS), ("form", FORMS), ("norm", NORMS)):
        if kind in names and names[kind] not in table:
            raise ParameterError(f"{kind} {names[kind]!r} is unknown: use one of {', '.join(table)}")


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

    Parameters
    ----------
    standard, robust, inputs, trust, form, norm
        As for `trusted_outputs`.

    Returns
    -------
    Tensor
        float64 (N, classes), or (N, 1) where R_i is one number an input;
        -inf where R_i = 0.
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
    """Run both classifiers once and return their logits and log R_i.

    R_i is a function of the same g_i and h_i as are mixed: of probabilities or
    of logits, as `form` says.  Gradients are taken input by input from one sum
    over the batch, so no layer may mix the inputs of a batch.

    Parameters
    ----------
    standard, robust
        Give finite logits (N, classes) for the same inputs.
    inputs
        Shape (N, ...), floating point where gradients are needed.
    trust
        Name in `TRUSTS`.
    form
        ``"probabilities"`` or ``"logits"``: what is mixed.
    norm
        The attack's norm, ``"linf"``, ``"l2"`` or ``"l1"``; gradients are
        measured in its dual.

    Returns
    -------
    tuple of Tensor
        Logits (N, classes) twice, and float64 log R_i (N, classes) or (N, 1),
        None for R_i = 1.  They can be differentiated, R_i included, where
        gradients are enabled and the inputs or a parameter want them; else
        they carry no graph.

    Raises
    ------
    ParameterError
        For an unknown trust term, form or norm, or inputs without gradients.
    ModelError
        If the models' classes differ, or a model's outputs change with the
        input and carry no gradient.

    References
    ----------
    Equation 3 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off", and the four R_i named below it.
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
    wanted = torch.is_grad_enabled() and (inputs.requires_grad or _trainable(standard, robust))
    tracked = inputs if wanted and inputs.requires_grad else _leaf(inputs)
    outputs = []
    for name, model in (("standard", standard), ("robust", robust)):
        with _recording() if name in rule.of else nullcontext():
            points = tracked if wanted or name in rule.of else inputs
            outputs.append(call_model(model, points, f"the {name} model"))
    g, h = outputs
    check_pair(g, h)
    models = {"standard": (standard, g), "robust": (robust, h)}
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


def _leaf(inputs: Tensor) -> Tensor:
    """Return the inputs as the start of a graph of their own."""
    with _recording():
        values = inputs.clone() if inputs.is_inference() else inputs.detach()
        return values.requires_grad_()


def _trainable(*models: nn.Module) -> bool:
    return any(parameter.requires_grad for model in models for parameter in model.parameters())
