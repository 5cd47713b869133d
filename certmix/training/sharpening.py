"""Sharper logits, so that the margin of a network trained on its bounds is of use to a mix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from certmix.errors import ModelError
from certmix.margins import logit_differences_lower, softmax_margin_lower
from certmix.radii.constant import margin_threshold
from certmix.types import FloatArray

__all__ = ["scale_for", "sharpen"]

SHARE = 0.9
"""Of the images whose class is verified at all, the share whose margin is to reach mu."""

IMAGES = 2_000
LARGEST = 100.0


def scale_for(differences: FloatArray, alpha: float, share: float = SHARE) -> float:
    """Return the smallest factor of the logits, of two digits, at which enough margins reach mu.

    Parameters
    ----------
    differences
        (m, c - 1): lower bounds of z_y - z_j.
    alpha
        Mixing weight; mu = (1 - alpha) / alpha.
    share
        Of the rows that are positive throughout, how many must reach mu.

    Returns
    -------
    float
        At least 1, at most 100; 1 where no row is positive throughout.
    """
    positive = differences[(differences > 0).all(1)]
    mu = margin_threshold(alpha)
    for tenths in range(10, round(10 * LARGEST)):
        scale = float(f"{tenths / 10:.2g}")
        if not len(positive) or (softmax_margin_lower(scale * positive) >= mu).mean() >= share:
            return scale
    return LARGEST


def sharpen(model: nn.Module, images: Tensor, labels: Tensor, eps: float, alpha: float) -> float:
    """Multiply the last layer so that verified classes have the margin that a mix needs; return the factor.

    Training on the worst logits in a ball leaves logits so flat that the
    margins of right images lie below mu = (1 - alpha) / alpha though their
    classes are verified.  A factor changes no class of the network alone.

    Parameters
    ----------
    model
        With a linear layer `head` at its end, in evaluation mode; changed in place.
    images, labels
        uint8 (N, C, H, W) and int64 (N,) that the model was trained on: the
        first 2,000 are used.
    eps
        Radius, l-inf, at which margins are looked at, by interval bounds.
    alpha
        Mixing weight.

    Raises
    ------
    ModelError
        If the model has no such layer.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear):
        raise ModelError(f"{type(model).__name__} has no linear layer 'head': its logits cannot be sharpened")
    inputs, classes = images[:IMAGES].float() / 255, labels[:IMAGES]
    differences = logit_differences_lower(
        model, inputs, classes, "linf", eps, method="interval", input_range=(0.0, 1.0)
    )
    scale = scale_for(differences, alpha)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(scale)
    return scale
