"""Which layers stand for a torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from certmix.margins.layers import (
    Layer,
    LinearMap,
    Maximum,
    Rectifier,
    convolution,
    dense,
    exact,
    pooling,
    reshape,
    scale,
)
from certmix.margins.tracing import unsupported
from certmix.models.architectures import Normalize
from certmix.models.normalize import Normalized

__all__ = ["MODELESS", "RULES", "layer_of", "maximum", "mean"]

Shape = tuple[int, ...]


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor | None:
    return None if layer.bias is None else exact(layer.bias)


def _pair(value: int | Shape) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _convolution(layer: nn.Conv2d, shape: Shape) -> list[Layer]:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise unsupported(f"Conv2d with padding {layer.padding!r} of kind {layer.padding_mode}")
    settings = (_pair(layer.stride), _pair(layer.padding), _pair(layer.dilation))
    return [convolution(exact(layer.weight), _bias(layer), *settings, layer.groups)]


def _dense(layer: nn.Linear, shape: Shape) -> list[Layer]:
    if len(shape) != 1:
        raise unsupported(f"Linear on inputs of shape {shape}")
    return [dense(exact(layer.weight), _bias(layer))]


def _batch_norm(layer: nn.BatchNorm2d, shape: Shape) -> list[Layer]:
    if layer.running_mean is None or layer.running_var is None:
        raise unsupported("batch normalisation without running statistics")
    weight = 1.0 if layer.weight is None else exact(layer.weight)
    bias = 0.0 if layer.bias is None else exact(layer.bias)
    factor = weight / (exact(layer.running_var) + layer.eps).sqrt()
    moved = exact(layer.running_mean) * factor
    view = (1, -1, *[1] * (len(shape) - 1))
    size = float((torch.as_tensor(bias).abs() + moved.abs()).max()) * (1 + 1e-9)
    return [scale(factor.view(view), (bias - moved).view(view), size=size, operations=6)]


def _normalize(layer: Normalize | Normalized, shape: Shape) -> list[Layer]:
    mean, std = exact(layer.mean), exact(layer.std)
    view = (1, -1, *[1] * (len(shape) - 1))
    moved = mean.view(view) / std.view(view)
    return [scale(1 / std.view(view), -moved, size=float(moved.abs().max()) * (1 + 1e-9), operations=2)]


def _rectifier(layer: nn.Module, shape: Shape) -> list[Layer]:
    slope = float(getattr(layer, "negative_slope", 0.0))
    if not 0.0 <= slope <= 1.0:
        raise unsupported(f"LeakyReLU of slope {slope}")
    return [Rectifier(slope)]


def _max_pool(layer: nn.MaxPool2d, shape: Shape) -> list[Layer]:
    if layer.ceil_mode or layer.return_indices:
        raise unsupported("MaxPool2d with ceil_mode or return_indices")
    kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
    stride, dilation = _pair(layer.stride), _pair(layer.dilation)
    top, left = padding
    places = 1.0 + torch.arange(shape[1] * shape[2], dtype=torch.float64).view(1, 1, *shape[1:])
    padded = F.pad(places, (left, left, top, top))
    windows = F.unfold(padded, kernel, dilation=dilation, stride=stride)[0].T.long() - 1
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    rows, columns = ((padded.shape[2 + i] - spans[i]) // stride[i] + 1 for i in (0, 1))
    return [Maximum(windows, (shape[0], rows, columns))]


def _average_pool(layer: nn.AvgPool2d, shape: Shape) -> list[Layer]:
    kernel, padding = _pair(layer.kernel_size), _pair(layer.padding)
    counts_padding = layer.count_include_pad or padding == (0, 0)
    if layer.ceil_mode or layer.divisor_override is not None or not counts_padding:
        raise unsupported("AvgPool2d with ceil_mode, divisor_override or padding that does not count")
    return [pooling(kernel, _pair(layer.stride), padding)]


def _adaptive(layer: nn.AdaptiveAvgPool2d, shape: Shape) -> list[Layer]:
    if layer.output_size not in (1, (1, 1)):
        raise unsupported(f"AdaptiveAvgPool2d({layer.output_size})")
    return [mean(shape)]


def _flatten(layer: nn.Flatten, shape: Shape) -> list[Layer]:
    if layer.start_dim != 1 or layer.end_dim % (len(shape) + 1) != len(shape):
        raise unsupported(f"flatten from {layer.start_dim} to {layer.end_dim} of {shape}")
    size = 1
    for length in shape:
        size *= length
    return [reshape((size,))]


def mean(shape: Shape) -> LinearMap:
    """Return the average over both spatial axes of (C, H, W), as (C, 1, 1)."""
    return pooling(shape[1:], (1, 1), (0, 0))


def maximum(shape: Shape) -> Maximum:
    """Return the largest entry over both spatial axes of (C, H, W), as (C, 1, 1)."""
    return Maximum(torch.arange(shape[1] * shape[2]).view(1, -1), (shape[0], 1, 1))


RULES: dict[type[nn.Module], Callable[[Any, Shape], list[Layer]]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _dense,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    Normalize: _normalize,
    Normalized: _normalize,
    nn.ReLU: _rectifier,
    nn.LeakyReLU: _rectifier,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Flatten: _flatten,
    nn.Identity: lambda layer, shape: [],
    nn.Dropout: lambda layer, shape: [],
    nn.Dropout2d: lambda layer, shape: [],
}

SPATIAL = (
    nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout2d,
)  # fmt: skip
"""Layers of inputs (C, H, W): some take (N, H, W) as well, for one image of N channels."""

CONTAINERS = {nn.Sequential, nn.ModuleList, nn.ModuleDict}
MODELESS = (RULES.keys() | CONTAINERS) - {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d}
"""Classes that compute the same in training mode as in evaluation mode."""


def layer_of(name: str, module: nn.Module, shape: Shape) -> list[Layer]:
    """Return the layers, one after the other, that compute what a module in evaluation mode computes.

    A parametrised layer, such as one of `torch.nn.utils.parametrizations`, has
    the weights that its parametrisation gives now.

    Parameters
    ----------
    name, module
        The module, and what to call it in a message.
    shape
        Of its input, without the batch.

    Raises
    ------
    ModelError
        If there is no rule for the module or its settings.
    """
    kind = type(module)
    if parametrize.is_parametrized(module) and kind.__module__ == parametrize.__name__:
        kind = kind.__bases__[0]
    rule = RULES.get(kind)
    if rule is None:
        raise unsupported(f"layer {name} of type {kind.__name__}")
    if kind in SPATIAL and len(shape) != 3:
        raise unsupported(f"layer {name} ({kind.__name__}) on inputs of shape {shape}")
    return rule(module, shape)
