"""Does a claimed Lipschitz constant survive the pairs of points that a search found?"""

from __future__ import annotations

import torch
from torch import Tensor

from certmix.attacks.geometry import distance
from certmix.calling import call_model
from certmix.errors import ParameterError
from certmix.margins._ascent import Model
from certmix.margins.ratios import OUTPUTS, RATIOS

__all__ = ["slopes_beyond_rounding"]

_LAYERS = 1e4
"""Rounding errors of an output, in units of its own: far more than sums of deep networks accumulate."""


@torch.no_grad()
def slopes_beyond_rounding(
    model: Model, judge: Model | None, images: Tensor, points: Tensor, *, of: str, ratio: str, norm: str
) -> Tensor:
    """Return slopes between images and points from which rounding errors are taken off.

    Outputs are computed in float64 by `judge`.  What its rounding can do is
    allowed for generously: 1e4 units of the largest logit, and a millionth of
    what the lower precision of `model` changes (float64 is 5e8 times finer).
    Distances are rounded up.  A claim below such a slope is contradicted.

    Parameters
    ----------
    model, judge
        The model, and its twin for float64 inputs; None if `model` itself is to judge.
    images, points
        Pairs (N, ...), in the model's precision; pairs of equal points have slope 0.
    of, ratio, norm
        What is claimed: names in `OUTPUTS` and `RATIOS`, and the input's norm.

    Returns
    -------
    Tensor
        float64 (N, k), at least 0.

    Raises
    ------
    ParameterError
        For the relaxed ratio, which is no slope.
    """
    if not RATIOS[ratio].by_distance:
        raise ParameterError(
            f"ratio {ratio!r} divides by eps, not by a distance: check each, together or yang"
        )
    logits, errors = [], []
    for batch in (images, points):
        coarse = call_model(model, batch)
        fine = coarse if judge is None else call_model(judge, batch.double())
        unit = torch.finfo(fine.dtype).eps
        fine, coarse = fine.double(), coarse.double()
        largest, change = fine.abs().amax(1), (fine - coarse).abs().amax(1)
        errors.append(_LAYERS * unit * (1 + largest) + 1e-6 * change)
        logits.append(fine)
    before, after = (OUTPUTS[of](each) for each in logits)
    rise = RATIOS[ratio].rise(before, after, before.argmax(1))
    blur = before.shape[1] * (errors[0] + errors[1])
    sure = (rise - blur[:, None]).clamp_min(0.0)
    size = distance(points, images, norm)[:, None] * (1 + 1e-12)
    return torch.where(size > 0, sure / size.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
