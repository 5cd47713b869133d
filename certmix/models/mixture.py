"""The mixed classifier: log((1 - alpha) g + alpha h)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError

__all__ = ["MixedClassifier", "mix_logits"]


def mix_logits(standard: Tensor, robust: Tensor, alpha: float) -> Tensor:
    """Return ``log((1 - alpha) softmax(standard) + alpha softmax(robust))``.

    Computed in float64 by log-sum-exp, so that probabilities too small for
    float32 still order the classes and carry gradients; no output is -inf.

    Parameters
    ----------
    standard, robust
        Logits (..., classes) of the two classifiers.
    alpha
        Mixing weight in [0, 1].

    Returns
    -------
    Tensor
        float64 log-probabilities (..., classes).

    References
    ----------
    Equation 4 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off".
    """
    if not 0.0 <= alpha <= 1.0:
        raise ParameterError(f"alpha = {alpha}: the mixing weight must lie in [0, 1]")
    log_standard = standard.double().log_softmax(-1)
    log_robust = robust.double().log_softmax(-1)
    if alpha == 0.0:
        return log_standard
    if alpha == 1.0:
        return log_robust
    return torch.logaddexp(log_standard + math.log1p(-alpha), log_robust + math.log(alpha))


class MixedClassifier(nn.Module):
    """Mix an accurate and a robust classifier; gives logits, as attack libraries expect.

    Parameters
    ----------
    standard, robust
        Modules that give logits (N, classes) for the same inputs.
    alpha
        Mixing weight in [0, 1]: 0 is the standard classifier, 1 the robust one.
        Certificates need alpha >= 1/2.

    Examples
    --------
    >>> import torch
    >>> mix = MixedClassifier(torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), alpha=0.76)
    >>> mix(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, standard: nn.Module, robust: nn.Module, alpha: float) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise ParameterError(f"alpha = {alpha}: the mixing weight must lie in [0, 1]")
        self.standard, self.robust, self.alpha = standard, robust, float(alpha)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the mix's log-probabilities (N, classes), in the dtype of the robust logits."""
        standard, robust = self.standard(inputs), self.robust(inputs)
        if standard.shape != robust.shape:
            raise ModelError(
                f"the standard model gives {tuple(standard.shape)} and the robust one "
                f"{tuple(robust.shape)}: both must give (inputs, classes) with equal classes"
            )
        return mix_logits(standard, robust, self.alpha).to(robust.dtype)

    def extra_repr(self) -> str:
        """Show alpha."""
        return f"alpha={self.alpha}"
