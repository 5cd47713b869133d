"""The mixed classifier: log((1 - alpha) g + alpha h), and its general form with trust terms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from certmix.errors import ParameterError
from certmix.models.trust import check_pair, check_settings, trusted_outputs


def mix_logits(standard: Tensor, robust: Tensor, alpha: float) -> Tensor:
    """Return ``log((1 - alpha) softmax(standard) + alpha softmax(robust))``, float64 (..., classes).

    Equation 4 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off",
    of logits (..., classes) and a mixing weight in [0, 1], by log-sum-exp: no output is -inf.
    """
    return mix_outputs(standard, robust, alpha)


def mix_outputs(
    standard: Tensor,
    robust: Tensor,
    alpha: float | Sequence[float] | Tensor,
    *,
    log_trust: Tensor | None = None,
    form: str = "probabilities",
    normalised: bool = True,
) -> Tensor:
    """Mix outputs that are already computed, at one alpha or at several.

    With gamma = alpha / (1 - alpha), the classifiers' outputs g and h (probabilities or logits) become ``(g_i
    + gamma R_i h_i) / (1 + gamma R_i)``, of which the logarithm is returned for probabilities: equation 3 of
    Bai, Anderson, Sojoudi; without the denominator it is equation 1.  All of it in float64 and in logarithms
    of the weights: finite logits give finite outputs.

    Parameters
    ----------
    standard, robust
        Logits (..., classes) of the two classifiers.
    alpha
        Mixing weight in [0, 1], or A of them: a sequence or a 1-D tensor.
    log_trust
        log R_i, (..., classes) or (..., 1), from `log_trust_values` with the same `form`; None for R_i = 1.
    form, normalised
        ``"probabilities"`` or ``"logits"``: what is mixed.  False leaves the denominator out.

    Returns
    -------
    Tensor
        float64 logits (..., classes), or (A, ..., classes) for A alphas; at alpha = 0 and 1 a classifier's
        own, whatever R_i is.  ParameterError or ModelError for values that are not as above.

    Examples
    --------
    >>> g, h = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    >>> mix_outputs(g, h, [0.4, 0.6]).argmax(-1).flatten().tolist()
    [0, 1]
    """
    check_settings(form=form)
    alphas = _check_alpha(alpha)
    check_pair(standard, robust)
    rows, classes = standard.shape[:-1], standard.shape[-1]
    if log_trust is not None and tuple(log_trust.shape) not in ((*rows, classes), (*rows, 1)):
        raise ParameterError(
            f"the trust terms are {tuple(log_trust.shape)} for outputs {tuple(standard.shape)}: "
            "give one number an output, or one an input"
        )
    g, h = standard.double(), robust.double()
    if form == "probabilities":
        g, h = g.log_softmax(-1), h.log_softmax(-1)
    log_trust = g.new_zeros(()) if log_trust is None else log_trust.double()
    if not isinstance(alphas, list):
        return _mix(g, h, alphas, log_trust, form, normalised)
    mixes = [_mix(g, h, one, log_trust, form, normalised) for one in alphas]
    return torch.stack(mixes) if mixes else g.new_empty((0, *g.shape))


def _mix(g: Tensor, h: Tensor, alpha: float, log_trust: Tensor, form: str, normalised: bool) -> Tensor:
    """Mix log-probabilities or logits; R_i = 0 gives g_i itself, with no infinity in the graph."""
    if alpha in (0.0, 1.0):
        return h if alpha else g
    untrusted = log_trust == -math.inf
    odds = math.log(alpha) - math.log1p(-alpha) + log_trust.masked_fill(untrusted, 0.0)
    rest, weight = (logsigmoid(-odds), logsigmoid(odds)) if normalised else (torch.zeros_like(odds), odds)
    if form == "probabilities":
        mixed = torch.logaddexp(g + rest, h + weight)
    else:
        mixed = rest.exp() * g + weight.exp() * h
    return torch.where(untrusted, g, mixed)


def _check_alpha(alpha: float | Sequence[float] | Tensor) -> float | list[float]:
    values = alpha if isinstance(alpha, float | int) else torch.as_tensor(alpha, dtype=torch.float64).tolist()
    several = values if isinstance(values, list) else [values]
    if any(isinstance(one, list) for one in several):
        raise ParameterError(f"alpha = {values}: give one number, or a 1-D tensor of them")
    for one in several:
        if not 0.0 <= one <= 1.0:
            raise ParameterError(f"alpha = {one}: the mixing weight must lie in [0, 1]")
    return values


class MixedClassifier(nn.Module):
    """Mix an accurate and a robust classifier; gives logits, as attack libraries expect.

    Certificates (Lemma 3.2 and the radii) speak of `trust` "constant" and `form` "probabilities", the
    defaults, with alpha >= 1/2.  The other settings are the paper's alternatives.

    Parameters
    ----------
    standard, robust
        Modules that give finite logits (N, classes), each row a function of its own input alone.
    alpha
        Mixing weight in [0, 1]: 0 is the standard classifier, 1 the robust one.
    trust, form, norm
        R_i and what is mixed, as for `certmix.models.trust.trusted_outputs`.
    normalised
        False leaves out the denominator of equations 2 and 3.

    Examples
    --------
    >>> import torch
    >>> mix = MixedClassifier(torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), alpha=0.76)
    >>> mix(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        standard: nn.Module,
        robust: nn.Module,
        alpha: float,
        *,
        trust: str = "constant",
        form: str = "probabilities",
        norm: str = "linf",
        normalised: bool = True,
    ) -> None:
        super().__init__()
        _check_alpha(float(alpha))
        check_settings(trust=trust, form=form, norm=norm)
        self.standard, self.robust, self.alpha = standard, robust, float(alpha)
        self.trust, self.form, self.norm, self.normalised = trust, form, norm, normalised

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mix's logits (N, classes), in the dtype of the robust logits, float32 at least.

        Where gradients are enabled and the inputs or a parameter want them, they flow through R_i too.
        """
        trust = "constant" if self.alpha in (0.0, 1.0) else self.trust
        standard, robust, log_trust = trusted_outputs(
            self.standard, self.robust, inputs, trust=trust, form=self.form, norm=self.norm
        )
        mixed = mix_outputs(
            standard, robust, self.alpha, log_trust=log_trust, form=self.form, normalised=self.normalised
        )
        dtype = torch.promote_types(robust.dtype, torch.float32)
        limits = torch.finfo(dtype)
        return mixed.clamp(limits.min, limits.max).to(dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"alpha={self.alpha}, trust={self.trust!r}, form={self.form!r}, norm={self.norm!r}, "
            f"normalised={self.normalised}"
        )
