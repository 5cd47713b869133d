"""What adaptive attacks on a nonlinear mix differentiate, since the mix itself hides its gradient.

At temperature 0 the standard model's answer has no gradient, in a plain mix neither, and the transform is
flat in places.  Attack the auxiliary mix and judge the true mix (transfer), or attack `DirectBypass`, with
any attack library.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from certmix.calling import call_both
from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier
from certmix.models.trust import check_pair
from certmix.nuts.grid import check_shares
from certmix.nuts.mixture import NutsMixture, transformed_logits

__all__ = ["AuxiliaryMixture", "DirectBypass", "direct_bypass"]


class AuxiliaryMixture(nn.Module):
    """``log((1 - a_d) softmax(g) + a_d r_d softmax(h) + a_d (1 - r_d) softmax(M(h)))``.

    A surrogate for gradients, not a classifier to report on: equation 8, Appendix B.2.1, of Bai, Zhou, Patel,
    Sojoudi, "MixedNUTS", TMLR 2024.  g and h enter with their own logits, at temperature 1.  ``alpha_d`` in
    [0, 1] is as a rule from `certmix.nuts.auxiliary_alpha`; ``r_d`` in [0, 1] is how much of h bypasses the
    transform, and 0 a weaker attack, to show what hides gradients.
    """

    def __init__(
        self,
        standard: nn.Module,
        robust: nn.Module,
        transform: nn.Module,
        *,
        alpha_d: float,
        r_d: float = 0.9,
    ) -> None:
        super().__init__()
        check_shares(alpha_d=alpha_d, r_d=r_d)
        self.standard, self.robust, self.transform = standard, robust, transform
        self.alpha_d, self.r_d = float(alpha_d), float(r_d)

    def mix(self, standard: Tensor, robust: Tensor) -> Tensor:
        """Return the surrogate's logits, float64, from the logits of both base models."""
        check_pair(standard, robust)
        bypassing, bent, terms = self.alpha_d * self.r_d, self.alpha_d * (1.0 - self.r_d), []
        if self.alpha_d < 1.0:
            terms.append(standard.double().log_softmax(-1) + math.log1p(-self.alpha_d))
        if bypassing > 0.0:
            terms.append(robust.double().log_softmax(-1) + math.log(bypassing))
        if bent > 0.0:
            terms.append(transformed_logits(robust, self.transform).log_softmax(-1) + math.log(bent))
        return torch.stack(terms).logsumexp(0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the surrogate's logits, float64 (N, classes); each base model runs once."""
        return self.mix(*call_both(self.standard, self.robust, inputs))


class _Bypass(torch.autograd.Function):
    """The first argument's value, the second's gradient; a sum of both would round."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep nothing: the gradient passes as it is."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]


class DirectBypass(nn.Module):
    """The mix's values, bit for bit, with the gradient of its `AuxiliaryMixture`: for any attack library.

    ``aux + stopgrad(mix - aux)`` of Appendix B.2.2 of MixedNUTS, without its rounding.
    """

    def __init__(self, mixture: NutsMixture | MixedClassifier, alpha_d: float, r_d: float = 0.9) -> None:
        super().__init__()
        if getattr(mixture, "trust", "constant") != "constant" or getattr(mixture, "form", "") == "logits":
            raise ParameterError("no mix of probabilities with trust 'constant': attack the mix itself")
        parts = mixture.standard, mixture.robust, getattr(mixture, "transform", nn.Identity())
        self.mixture, self.auxiliary = mixture, AuxiliaryMixture(*parts, alpha_d=alpha_d, r_d=r_d)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mix's logits (N, classes), as the mix does; each base model runs once."""
        standard, robust = call_both(self.mixture.standard, self.mixture.robust, inputs)
        with torch.no_grad():
            value = self.mixture.mix(standard, robust)
        if not torch.is_grad_enabled():
            return value
        result: Tensor = _Bypass.apply(value, self.auxiliary.mix(standard, robust).to(value.dtype))
        return result


def direct_bypass(mixture: NutsMixture | MixedClassifier, alpha_d: float, r_d: float = 0.9) -> DirectBypass:
    """Return a mix with the gradient of its auxiliary, ready to be attacked; see `AuxiliaryMixture`.

    A plain mix has no transform: its auxiliary is ``log((1 - a_d) softmax(g) + a_d softmax(h))``, and its own
    alpha a good ``alpha_d``.

    >>> from certmix.nuts import NonlinearTransform
    >>> transform = NonlinearTransform(s=5.0, p=4.0, c=-1.1)
    >>> mix = NutsMixture(nn.Linear(4, 3), nn.Linear(4, 3), transform, alpha=0.99)
    >>> attacked = direct_bypass(mix, alpha_d=0.95).eval()
    >>> torch.equal(attacked(torch.ones(2, 4)), mix(torch.ones(2, 4)))
    True
    """
    made = DirectBypass(mixture, alpha_d, r_d)
    return made if mixture.training else made.eval()
