"""The mixed classifier: log((1 - alpha) g + alpha h), and its general form with trust terms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from certmix.errors import ParameterError
from certmix.models.temperature import check_mix
from certmix.models.trust import check_pair, check_settings, trusted_outputs


def mix_logits(standard: Tensor, robust: Tensor, alpha: float, standard_temperature: float = 1.0) -> Tensor:
    """Return ``log((1 - alpha) G + alpha softmax(robust))``, float64 (..., classes), G g at a temperature.

    Equation 4 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off",
    of logits (..., classes) and a mixing weight in [0, 1], by log-sum-exp: no output is -inf.  G and what is
    refused are as for `mix_outputs`.

    >>> g, h = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    >>> mix_logits(g, h, alpha=0.75, standard_temperature=0.0).exp()
    tensor([[0.5000, 0.2500, 0.2500]], dtype=torch.float64)
    """
    return mix_outputs(standard, robust, alpha, standard_temperature=standard_temperature)


def mix_outputs(
    standard: Tensor,
    robust: Tensor,
    alpha: float | Sequence[float] | Tensor,
    *,
    log_trust: Tensor | None = None,
    form: str = "probabilities",
    normalised: bool = True,
    standard_temperature: float = 1.0,
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
    standard_temperature
        g is ``softmax(standard / temperature)``, or at 0 one-hot: 1 at the largest logit, the lowest class
        where several are largest, and no gradient flows through it.  0 or from 1e-6 to 1e6, not 0 at alpha 0,
        for a one-hot output alone has no finite logarithm; other than 1 for R_i = 1 of probabilities.  NaN
        stays NaN, at temperature 0 as well.

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
    alphas = _check_alpha(alpha, standard_temperature)
    _check_plain(standard_temperature, form, log_trust is None)
    check_pair(standard, robust)
    rows, classes = standard.shape[:-1], standard.shape[-1]
    if log_trust is not None and tuple(log_trust.shape) not in ((*rows, classes), (*rows, 1)):
        raise ParameterError(
            f"the trust terms are {tuple(log_trust.shape)} for outputs {tuple(standard.shape)}: "
            "give one number an output, or one an input"
        )
    g, h = standard.double(), robust.double()
    if form == "probabilities":
        g, h = _log_probabilities(g, standard_temperature), h.log_softmax(-1)
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


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return log softmax(logits / temperature), of float64; -inf for all but one class at temperature 0."""
    if temperature == 1.0:
        return logits.log_softmax(-1)
    if temperature > 0.0:  # less a constant of each row, which keeps them finite
        shifted = (logits - logits.detach().amax(-1, keepdim=True)) / temperature
        return shifted.clamp_min(-1e300).log_softmax(-1)
    answer = logits.detach()
    chosen = answer.argmax(-1, keepdim=True) == torch.arange(answer.shape[-1], device=answer.device)
    top = answer.amax(-1, keepdim=True)
    one_hot = torch.zeros_like(answer).masked_fill(~chosen, -math.inf)
    return one_hot + (top - top)  # 0, or NaN where g is


def _check_plain(standard_temperature: float, form: str, plain: bool) -> None:
    """Refuse a temperature of g beside logits, or trust terms, which are about g as it is."""
    if standard_temperature != 1.0 and not (plain and form == "probabilities"):
        raise ParameterError(
            f"standard temperature = {standard_temperature:g}: it is for trust 'constant' of probabilities: "
            "use these, or leave it out"
        )


def _check_alpha(
    alpha: float | Sequence[float] | Tensor, standard_temperature: float = 1.0
) -> float | list[float]:
    values = alpha if isinstance(alpha, float | int) else torch.as_tensor(alpha, dtype=torch.float64).tolist()
    several = values if isinstance(values, list) else [values]
    if any(isinstance(one, list) for one in several):
        raise ParameterError(f"alpha = {values}: give one number, or a 1-D tensor of them")
    for one in several:
        check_mix(one, standard_temperature)
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
    standard_temperature
        Divides g's logits, as for `mix_outputs`: certificates hold for any g.  At 0 g is one-hot and no
        gradient flows through it: attack `certmix.nuts.adaptive.direct_bypass` of the mix.

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
        standard_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_mix(float(alpha), float(standard_temperature))
        check_settings(trust=trust, form=form, norm=norm)
        _check_plain(float(standard_temperature), form, trust == "constant")
        self.standard, self.robust, self.alpha = standard, robust, float(alpha)
        self.trust, self.form, self.norm, self.normalised = trust, form, norm, normalised
        self.standard_temperature = float(standard_temperature)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mix's logits (N, classes), in the dtype of the robust logits, float32 at least.

        Where gradients are enabled and the inputs or a parameter want them, they flow through R_i too.
        """
        trust = "constant" if self.alpha in (0.0, 1.0) else self.trust
        standard, robust, log_trust = trusted_outputs(
            self.standard, self.robust, inputs, trust=trust, form=self.form, norm=self.norm
        )
        return self.mix(standard, robust, log_trust)

    def mix(self, standard: Tensor, robust: Tensor, log_trust: Tensor | None = None) -> Tensor:
        """Return the mix's logits from those of both models, and log R_i where they are not constant."""
        mixed = mix_outputs(
            standard, robust, self.alpha, log_trust=log_trust, form=self.form, normalised=self.normalised,
            standard_temperature=self.standard_temperature,
        )  # fmt: skip
        dtype = torch.promote_types(robust.dtype, torch.float32)
        limits = torch.finfo(dtype)
        return mixed.clamp(limits.min, limits.max).to(dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"alpha={self.alpha}, trust={self.trust!r}, form={self.form!r}, norm={self.norm!r}, "
            f"normalised={self.normalised}, standard_temperature={self.standard_temperature}"
        )
