"""certmix's own mix, taken from probabilities: what the suites hold the theorems against."""

from __future__ import annotations

import numpy as np
import torch

from certmix.models import mixture
from certmix.types import FloatArray

__all__ = ["lead", "logits_of", "pair_of_half_spaces"]

_NOTHING = -1e4
"""The logit of probability 0: exp of it is 0 in float64, and it is finite."""


def logits_of(probabilities: FloatArray) -> torch.Tensor:
    """Return float64 logits of rows of probabilities, all finite."""
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.maximum(np.log(probabilities), _NOTHING))


def lead(
    standard: FloatArray, robust: FloatArray, alpha: float, chosen: np.ndarray, rival: int | None = None
) -> FloatArray:
    """Return by how much class `chosen` leads every other, or one, in the mix's logits (m,).

    Parameters
    ----------
    standard, robust
        Probabilities of g and h, (m, c).
    alpha
        Mixing weight.
    chosen
        A class for each row, (m,).
    rival
        The class that it is compared with; None for the best of all others.
    """
    mixed = mixture.mix_logits(logits_of(standard), logits_of(robust), alpha).numpy()
    rows = np.arange(len(mixed))
    own = mixed[rows, chosen]
    if rival is not None:
        one: FloatArray = own - mixed[:, rival]
        return one
    mixed[rows, chosen] = -np.inf
    difference: FloatArray = own - mixed.max(1)
    return difference


def pair_of_half_spaces(a: FloatArray, b: FloatArray, t: FloatArray, classes: int) -> FloatArray:
    """Return the smoothed probabilities (m, classes) of two disjoint half-spaces, t noise levels on.

    Class 0 answers on {u.z <= a}, class 1 on {u.z >= -b}, the others share the
    rest; the point lies t along u.
    """
    from scipy.special import ndtr

    selected, rival = ndtr(a - t), ndtr(b + t)
    rest = np.maximum(0.0, 1 - selected - rival) / max(classes - 2, 1)
    return np.column_stack([selected, rival, *[rest] * (classes - 2)])
