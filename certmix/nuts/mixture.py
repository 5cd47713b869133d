"""The nonlinear mix: an accurate classifier, and a robust one behind the transform."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from certmix.calling import call_both, call_model
from certmix.models.mixture import mix_logits
from certmix.models.temperature import check_mix
from certmix.nuts.description import MixSettings
from certmix.nuts.transform import NonlinearTransform

__all__ = ["NutsMixture", "TransformedRobust", "transformed_logits"]


class _Widened(torch.autograd.Function):
    """Convert to float64; on the way back, hold each row of the gradient within the narrower type.

    A row beyond the square root of that type's largest number is scaled down to it, so that neither it nor
    its product with weights becomes infinite; its direction stays.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor) -> Tensor:
        return logits.to(torch.float64, copy=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        largest = grad.abs().amax(-1, keepdim=True)
        limit = math.sqrt(torch.finfo(ctx.dtype).max)
        return (grad * (limit / largest).clamp_max(1.0)).to(ctx.dtype)


def transformed_logits(robust: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Return M(robust) in float64, with a gradient that fits into the type of the robust logits."""
    widened: Tensor = _Widened.apply(robust)
    return transform(widened)


class TransformedRobust(nn.Module):
    """The robust classifier behind the transform: logits M(h(x)), float64 (N, classes).

    Smoothed by noise with soft scores, it is the expectation of softmax(M(h)): the transform lies inside, and
    every certificate stands.
    """

    def __init__(self, robust: nn.Module, transform: nn.Module) -> None:
        super().__init__()
        self.robust, self.transform = robust, transform

    def forward(self, inputs: Tensor) -> Tensor:
        return transformed_logits(call_model(self.robust, inputs, "the robust model"), self.transform)


class NutsMixture(nn.Module):
    """MixedNUTS: ``log((1 - alpha) G(x) + alpha softmax(M(h(x))))``, G the standard model at a temperature.

    Equation 5 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024, with the softmax of h that is left out
    there, and Section 3.1 on temperatures; see `certmix.models.mixture.mix_logits`.

    Base models give finite logits (N, classes) for the same inputs; the transform M is as a rule a
    `certmix.nuts.NonlinearTransform`, alpha at least 1/2.  At temperature 0, the default, the standard
    model answers with a class alone, no gradient flows through it, and attacks need `certmix.nuts.adaptive`.

    >>> from certmix.nuts import NonlinearTransform
    >>> transform = NonlinearTransform(s=5.0, p=4.0, c=-1.1)
    >>> mix = NutsMixture(nn.Linear(4, 3), nn.Linear(4, 3), transform, alpha=0.99).eval()
    >>> probabilities = mix(torch.zeros(2, 4)).detach().exp()
    >>> torch.allclose(probabilities.sum(-1), torch.ones(2, dtype=torch.float64))
    True
    """

    def __init__(
        self,
        standard: nn.Module,
        robust: nn.Module,
        transform: nn.Module,
        alpha: float,
        standard_temperature: float = 0.0,
    ) -> None:
        super().__init__()
        check_mix(alpha, standard_temperature)
        self.standard, self.robust, self.transform = standard, robust, transform
        self.alpha, self.standard_temperature = float(alpha), float(standard_temperature)

    @classmethod
    def of(cls, settings: MixSettings, standard: nn.Module, robust: nn.Module) -> NutsMixture:
        """Return the mix with these settings, in evaluation mode."""
        transform = NonlinearTransform.of(settings.transform)
        return cls(standard, robust, transform, settings.alpha, settings.standard_temperature).eval()

    def mix(self, standard: Tensor, robust: Tensor) -> Tensor:
        """Return the mix's logits from the logits of both base models."""
        bent = transformed_logits(robust, self.transform)
        return mix_logits(standard, bent, self.alpha, self.standard_temperature)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mix's logits, float64 (N, classes); each base model runs once."""
        return self.mix(*call_both(self.standard, self.robust, inputs))
