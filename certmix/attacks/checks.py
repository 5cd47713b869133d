"""What every attack demands of its arguments and of the model, checked once."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor, nn

from certmix.attacks.losses import LOSSES
from certmix.errors import ModelError, ParameterError

__all__ = [
    "check_clean_logits",
    "check_count",
    "check_eps",
    "check_images",
    "check_labels",
    "check_loss",
    "check_model",
    "check_norm",
    "check_positive",
]

_ROUNDING = 1e-6
"""How far images may stick out of the box: conversions between scales round."""


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a setting that is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ParameterError(f"{name} = {value!r}: give a whole number of at least {least}")


def check_positive(name: str, value: float) -> None:
    """Refuse a setting that is no positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{name} = {value}: give a positive number")


def check_loss(name: str) -> None:
    """Refuse a loss that is not in `LOSSES`."""
    if name not in LOSSES:
        raise ParameterError(f"loss {name!r} is unknown: use one of {', '.join(LOSSES)}")


def check_norm(norm: str, attack: str, norms: tuple[str, ...]) -> None:
    """Refuse a norm that the attack does not serve, and name the attacks that do."""
    from certmix.attacks import ATTACKS

    if norm in norms:
        return
    serving = [name for name, other in ATTACKS.items() if norm in other.norms]
    instead = f", or attack by {', '.join(serving)}" if serving else ""
    raise ParameterError(f"norm {norm!r} is not served by {attack}: use {' or '.join(norms)}{instead}")


def check_eps(eps: float, box: tuple[float, float]) -> None:
    """Refuse a radius below 0 or not finite, and an empty box."""
    if not (math.isfinite(eps) and eps >= 0):
        raise ParameterError(f"eps = {eps}: the radius of the ball must be a finite number of at least 0")
    low, high = box
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(f"box = ({low}, {high}): give finite bounds, the lower one first")


def check_images(images: Tensor, box: tuple[float, float]) -> None:
    """Refuse images that are no floating-point batch, not finite, or outside the box."""
    if not images.is_floating_point() or images.ndim < 2:
        found = f"images are {images.dtype} of shape {tuple(images.shape)}"
        raise ParameterError(f"{found}: give a floating-point batch (N, ...)")
    if images.numel() == 0:
        return
    least, most = (value.item() for value in images.aminmax())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ParameterError("images hold NaN or infinite values: remove these images")
    low, high = torch.tensor(box, dtype=images.dtype).tolist()
    if least < low - _ROUNDING or most > high + _ROUNDING:
        found = f"images range over [{least:.6g}, {most:.6g}], outside the box [{box[0]:g}, {box[1]:g}]"
        raise ParameterError(f"{found}: scale them, or give their range as box")


def check_labels(labels: Tensor, images: Tensor) -> None:
    """Refuse labels that are not one whole number an image on the images' device."""
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (len(images),) or not whole:
        found = f"labels are {labels.dtype} of shape {tuple(labels.shape)}"
        raise ParameterError(f"{found}: give integers of shape ({len(images)},), one an image")
    if labels.device != images.device:
        raise ParameterError(f"labels are on {labels.device}, images on {images.device}: move them together")


def check_model(model: object) -> None:
    """Refuse a module in training mode: its statistics would move and its answers depend on the batch."""
    if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
        raise ModelError(f"{type(model).__name__} is in training mode: call model.eval() before the attack")


def check_clean_logits(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits (N, classes) of the clean images that are not finite, and labels beyond the classes."""
    classes = logits.shape[1]
    if classes < 2:
        raise ModelError("the model returns a single logit an image: return one a class, at least two")
    if not logits.isfinite().all():
        bad = int((~logits.isfinite()).any(1).sum())
        raise ModelError(
            f"the model returns NaN or infinite logits for {bad} of {len(logits)} clean images: "
            "check its weights and its normalisation"
        )
    least, most = (value.item() for value in labels.aminmax())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise ParameterError(f"label {wrong} is none of the model's classes 0 .. {classes - 1}: mend it")
