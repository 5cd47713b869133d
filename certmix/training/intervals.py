"""Training for bound propagation: worst-case logits by intervals, and the scale of the logits afterwards."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from certmix.errors import ModelError
from certmix.margins import logit_differences_lower, softmax_margin_lower
from certmix.margins.graph import trace
from certmix.models.architectures import Normalize
from certmix.radii.constant import margin_threshold
from certmix.types import FloatArray

WARM_UP_IMAGES = 32
"""Images of a batch that the warm-up terms look at: their averages need no more."""

TRAINABLE = (
    "Conv2d, Linear, BatchNorm1d/2d, ReLU, Flatten, Identity, Normalize, mean, flatten, relu "
    "and + of two tensors"
)

Box = tuple[Tensor, Tensor]
"""Centre and half-width."""


def _affine(function: Callable[..., Tensor], layer: Any, box: Box, *settings: Any) -> Box:
    centre = function(box[0], layer.weight, layer.bias, *settings)
    return centre, function(box[1], layer.weight.abs(), None, *settings)


def _batch_norm(layer: Any, box: Box) -> Box:
    """Normalise by the statistics of the centres, which are also what the running averages follow."""
    centre, width = box
    shape = (1, -1, *[1] * (centre.ndim - 2))
    if layer.training:
        axes = [0, *range(2, centre.ndim)]
        variance, mean = torch.var_mean(centre.float(), axes, unbiased=False)
        with torch.no_grad():
            layer.running_mean.lerp_(mean, layer.momentum)
            layer.running_var.lerp_(variance, layer.momentum)
    else:
        variance, mean = layer.running_var, layer.running_mean
    scale = layer.weight * torch.rsqrt(variance + layer.eps)
    shift = (layer.bias - mean * scale).view(shape).to(centre.dtype)
    scale = scale.view(shape).to(centre.dtype)
    return torch.addcmul(shift, centre, scale), width * scale.abs()


def _relu(layer: nn.Module, box: Box) -> Box:
    lower, upper = F.relu(box[0] - box[1]), F.relu(box[0] + box[1])
    return 0.5 * (upper + lower), 0.5 * (upper - lower)


LAYERS: dict[Any, Callable[..., Box]] = {
    nn.Conv2d: lambda layer, box: _affine(
        F.conv2d, layer, box, layer.stride, layer.padding, layer.dilation, layer.groups
    ),
    nn.Linear: partial(_affine, F.linear),
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.ReLU: _relu,
    Normalize: lambda layer, box: (layer(box[0]), box[1] / layer.std.to(box[1].dtype)),
    nn.Flatten: lambda layer, box: (layer(box[0]), layer(box[1])),
    nn.Identity: lambda layer, box: box,
}

FUNCTIONS: dict[Any, Callable[..., Box]] = {
    F.relu: lambda box: _relu(nn.Identity(), box),
    torch.relu: lambda box: _relu(nn.Identity(), box),
    operator.add: lambda first, second: (first[0] + second[0], first[1] + second[1]),
    operator.iadd: lambda first, second: (first[0] + second[0], first[1] + second[1]),
    "mean": lambda box, *axes: (box[0].mean(*axes), box[1].mean(*axes)),
    "flatten": lambda box, *axes: (box[0].flatten(*axes), box[1].flatten(*axes)),
}


@dataclass(frozen=True)
class IntervalPass:
    """Boxes around the features before the last layer and before every ReLU."""

    features: Box
    before_relu: tuple[Box, ...]
    head: nn.Linear


def interval_pass(model: nn.Module, images: Tensor, eps: float) -> IntervalPass:
    """Propagate the l-inf ball of radius `eps`, within [0, 1], up to the model's last linear layer."""
    graph = trace(model)
    lower, upper = (images - eps).clamp_min(0), (images + eps).clamp_max(1)
    values: dict[fx.Node, Box] = {}
    before_relu: list[Box] = []
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = (upper + lower) / 2, (upper - lower) / 2
            continue
        layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if node.op == "output":
            break
        boxes = [values[argument] if isinstance(argument, fx.Node) else argument for argument in node.args]
        if isinstance(layer, nn.ReLU) or node.target in (F.relu, torch.relu):
            before_relu.append(boxes[0])
        if isinstance(layer, nn.Linear) and next(iter(node.users)).op == "output":
            return IntervalPass(boxes[0], tuple(before_relu), layer)
        rules, key = (FUNCTIONS, node.target) if layer is None else (LAYERS, type(layer))
        if key not in rules:
            kind = str(node.target) if layer is None else f"{node.target} of type {type(layer).__name__}"
            raise ModelError(f"layer {kind} has no rule in interval training: use {TRAINABLE}")
        values[node] = rules[key](*boxes) if layer is None else rules[key](layer, *boxes)
    raise ModelError("the last layer is not linear: interval training needs a linear head")


def worst_case_logits(found: IntervalPass, labels: Tensor) -> Tensor:
    """Return -(lower bound of z_y - z_j), 0 at y, (N, classes): their cross-entropy bounds the ball's."""
    head, (centre, width) = found.head, found.features
    rows = head.weight[labels, None, :] - head.weight[None]
    shift = 0.0 if head.bias is None else head.bias[labels, None] - head.bias[None]
    lower = torch.einsum("njf,nf->nj", rows, centre) - torch.einsum("njf,nf->nj", rows.abs(), width)
    return -(lower + shift)


def warm_up_terms(found: IntervalPass, eps: float, tolerance: float = 0.5) -> Tensor:
    """Return the mean over ReLU layers of how far bounds are from tight and ReLUs from balanced.

    A layer's bounds count as tight if their mean width is at most 1 / `tolerance` times the input's; its
    ReLUs as balanced if active and inactive ones contribute alike, within that factor, to mean and variance
    (Shi et al., 2021, 3.3).
    """
    terms = []
    for centre, width in found.before_relu:
        centre, width = centre[:WARM_UP_IMAGES].float(), width[:WARM_UP_IMAGES].float()
        if eps > 0:
            terms.append(F.relu(tolerance - eps / width.mean().clamp_min(1e-12)) / tolerance)
        active, inactive = centre > width, centre < -width
        spread = (centre - centre.mean()).square()
        for share, other in (
            ((centre * active).mean(), -(centre * inactive).mean()),
            ((spread * active).mean(), (spread * inactive).mean()),
        ):
            ratio = share.clamp_min(1e-12) / other.clamp_min(1e-12)
            terms.append(F.relu(tolerance - torch.minimum(ratio, 1 / ratio)) / tolerance)
    return torch.stack(terms).sum() / len(found.before_relu)


SHARE = 0.9
"""Of the images whose class is verified at all, the share whose margin is to reach mu."""

IMAGES = 2_000
LARGEST = 100.0


def scale_for(differences: FloatArray, alpha: float, share: float = SHARE) -> float:
    """Return the smallest factor of the logits, of two digits in 1 .. 100, at which enough margins reach mu.

    Of the rows of `differences` (m, c - 1), bounds of z_y - z_j from below, all > 0, a `share` must.
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

    Training on the worst logits in a ball leaves logits so flat that margins of right images lie below mu =
    (1 - alpha) / alpha though their classes are verified; a factor changes no class.  Images, uint8 (N, C, H,
    W), are those of the training; their margins are bounded by intervals, in the linf ball of radius `eps`.
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
