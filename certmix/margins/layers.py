"""The layers that bounds are propagated through, in float64, and which of them stand for a torch module."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv1d_input, conv2d_input
from torch.nn.utils import parametrize

from certmix.errors import ModelError
from certmix.models.architectures import Normalize, Normalized

UNIT = 2.0**-53
"""Unit roundoff of float64."""

TINY = 2.0**-1022
"""At least what a float64 operation loses to underflow, subnormals flushed to zero or not."""

Shape = tuple[int, ...]


def exact(value: Tensor) -> Tensor:
    """Return a float64 copy, on the CPU, of a weight or constant: a plain tensor of real numbers."""
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_complex():
        found = f"{type(value).__name__} of {value.dtype}, {value.layout}"
        raise ModelError(f"a weight is a {found}: bounds need plain tensors of real numbers")
    return value.detach().to("cpu", torch.float64, copy=True)


def gamma(terms: int, unit: float = UNIT) -> float:
    """Return n u / (1 - n u), above the relative error of n operations (Higham, 2002, Lemma 3.1), or inf."""
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else math.inf


@dataclass(frozen=True)
class Arithmetic:
    """The floats that a network runs in: unit roundoff, smallest normal, the largest value allowed for."""

    unit: float
    tiny: float
    largest: float

    def error(self, terms: int, size: Tensor, underflow: float) -> Tensor:
        """Return by how much a sum of `terms` products, `size` in magnitude, may be off when it is run.

        In any order, fused or not; 16 further operations are allowed for: weights that are rounded, a bias, a
        division, the steps of a normalisation.  `underflow` is how many smallest normals may be lost.
        """
        error = gamma(terms + 16, self.unit) * size * (1 + 1e-9) + underflow * self.tiny
        return torch.where(size < self.largest, error, torch.inf)


ARITHMETICS = {"float32": Arithmetic(2.0**-24, 2.0**-126, 1e38), "exact": None}
"""What a margin is proved for: the network as it runs, or as its weights define it."""


@dataclass(frozen=True)
class LinearMap:
    """x -> W x + b.

    `weight` holds the numbers that W is made of: ``apply(weights, x)`` is W x and ``transpose(weights, a,
    input shape)`` a W, for batches.  At most `terms` products enter one entry of either; `row_sum` is at
    least the largest row sum of |W|, `bias_size` at least the largest entry of |b| and of what was added up
    to b, which broadcasts against outputs.  `weight_error` is the relative error of weight and bias, whose
    exact values may not be floats; `diagonal` says that each output depends on one input alone.
    """

    weight: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    transpose: Callable[[Tensor, Tensor, Shape], Tensor]
    terms: int
    row_sum: float
    bias: Tensor | None = None
    bias_size: float = 0.0
    weight_error: float = 0.0
    diagonal: bool = False

    @property
    def error(self) -> float:
        """Bound of the error of W x + b and of a W, relative to |W| |x| + |b| and |a| |W|."""
        return gamma(self.terms + 8) + self.weight_error

    @property
    def underflow(self) -> float:
        """Bound of what underflow adds to that error, for |x| <= 1; larger ones multiply it."""
        return 4 * (self.terms + 1) * (1 + self.row_sum) * TINY

    @property
    def is_view(self) -> bool:
        """Whether entries are kept as they are: torch lets input and output share memory."""
        return self.terms == 0

    def __call__(self, x: Tensor) -> Tensor:
        y = self.apply(self.weight, x)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class Input:
    """The input."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Rectifier:
    """max(x, slope x), 0 <= slope <= 1."""

    slope: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.slope * x)


@dataclass(frozen=True)
class Maximum:
    """The largest entry of each window, channel by channel, as a batch of `shape`.

    `windows`, int64 (windows, entries), are flat spatial positions, -1 for padding.
    """

    windows: Tensor
    shape: Shape

    def entries(self, x: Tensor, padding: float = -torch.inf) -> Tensor:
        """Return (N, C, windows, entries)."""
        taken = x.flatten(2)[:, :, self.windows.clamp_min(0)]
        return taken.masked_fill(self.windows < 0, padding)

    def __call__(self, x: Tensor) -> Tensor:
        return self.entries(x).amax(3).view(-1, *self.shape)


@dataclass(frozen=True)
class Sum:
    """a + b, or a - b where sign is -1."""

    sign: float

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return a + self.sign * b


Layer = Input | LinearMap | Rectifier | Maximum | Sum


def _upper(total: Tensor) -> float:
    """Return a sum of magnitudes, rounded up generously."""
    return float(total.max()) * (1 + 1e-9) if total.numel() else 0.0


def convolution(weight: Tensor, stride: Shape, padding: Shape, dilation: Shape, groups: int) -> LinearMap:
    """Return a 2D convolution with zero padding, 1D where the weight has three dimensions."""
    settings: Any = (stride, padding, dilation, groups)
    forward, backward = (F.conv1d, conv1d_input) if weight.ndim == 3 else (F.conv2d, conv2d_input)
    terms = max(weight[0].numel(), weight.shape[0] // groups * weight[0, 0].numel())
    return LinearMap(
        weight, lambda w, x: forward(x, w, None, *settings),
        lambda w, a, shape: backward((len(a), *shape), w, a, *settings),
        terms, _upper(weight.abs().flatten(1).sum(1)),
    )  # fmt: skip


def scale(
    weight: Tensor, shift: Tensor | None = None, *, size: float = 0.0, operations: int = 0
) -> LinearMap:
    """Return x -> weight x + shift, entry by entry.

    `size` is at least the magnitude of what was added up to `shift`, `operations` the roundings behind both.
    """
    return LinearMap(
        weight, lambda w, x: w * x, lambda w, a, shape: w * a, 1, _upper(weight.abs()), shift, size,
        gamma(operations), diagonal=True,
    )  # fmt: skip


def pooling(kernel: Shape, stride: Shape, padding: Shape) -> LinearMap:
    """Return the average over windows, channel by channel; padding counts as zeros."""
    weight = torch.full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=torch.float64)
    single = convolution(weight, stride, padding, (1, 1), 1)

    def apply(w: Tensor, x: Tensor) -> Tensor:
        y = single.apply(w, x.flatten(0, 1).unsqueeze(1))
        return y.view(*x.shape[:2], *y.shape[2:])

    def transpose(w: Tensor, a: Tensor, shape: Shape) -> Tensor:
        y = single.transpose(w, a.flatten(0, 1).unsqueeze(1), (1, *shape[1:]))
        return y.view(len(a), *shape)

    return LinearMap(weight, apply, transpose, single.terms, 1 + 1e-9, weight_error=gamma(1))


def reshape(shape: Shape) -> LinearMap:
    """Return the map that keeps entries and gives a batch of this shape."""
    return LinearMap(
        torch.ones((), dtype=torch.float64), lambda w, x: x.reshape(-1, *shape),
        lambda w, a, before: a.reshape(-1, *before), 0, 1.0, diagonal=True,
    )  # fmt: skip


SUPPORTED = (
    "Conv1d, Conv2d, Linear, BatchNorm1d/2d, ReLU, LeakyReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d(1), "
    "Flatten, Identity, Dropout, Normalize, mean or amax over (2, 3), flatten, view, relu, and +, -, *, / "
    "(of two tensors: + and - alone)"
)


def unsupported(what: str) -> ModelError:
    """Return the error for a layer or operation that bounds cannot be propagated through."""
    return ModelError(f"bounds cannot be propagated through {what}: use a model made of {SUPPORTED}")


def _with_bias(layer: nn.Conv1d | nn.Conv2d | nn.Linear, linear: LinearMap, dimensions: int) -> list[Layer]:
    if layer.bias is None:
        return [linear]
    bias = exact(layer.bias)
    return [replace(linear, bias=bias.view(1, -1, *[1] * dimensions), bias_size=float(bias.abs().max()))]


def _pair(value: int | Shape) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _convolution(layer: nn.Conv1d | nn.Conv2d, shape: Shape) -> list[Layer]:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise unsupported(
            f"{type(layer).__name__} with padding {layer.padding!r} of kind {layer.padding_mode}"
        )
    settings = (tuple(layer.stride), tuple(layer.padding), tuple(layer.dilation))
    linear = convolution(exact(layer.weight), *settings, layer.groups)
    return _with_bias(layer, linear, layer.weight.ndim - 2)


def _dense(layer: nn.Linear, shape: Shape) -> list[Layer]:
    if len(shape) != 1:
        raise unsupported(f"Linear on inputs of shape {shape}")
    weight = exact(layer.weight)
    product = LinearMap(
        weight, lambda w, x: x @ w.T, lambda w, a, shape: a @ w, max(weight.shape),
        _upper(weight.abs().sum(1)),
    )  # fmt: skip
    return _with_bias(layer, product, 0)


def _batch_norm(layer: nn.BatchNorm2d, shape: Shape) -> list[Layer]:
    if layer.running_mean is None or layer.running_var is None:
        raise unsupported("batch normalisation without running statistics")
    weight = 1.0 if layer.weight is None else exact(layer.weight)
    bias = 0.0 if layer.bias is None else exact(layer.bias)
    factor = weight / (exact(layer.running_var) + layer.eps).sqrt()
    moved = exact(layer.running_mean) * factor
    return [_by_channel(factor, bias - moved, torch.as_tensor(bias).abs() + moved.abs(), shape, 6)]


def _normalize(layer: Normalize | Normalized, shape: Shape) -> list[Layer]:
    std = exact(layer.std)
    moved = exact(layer.mean) / std
    return [_by_channel(1 / std, -moved, moved.abs(), shape, 2)]


def _by_channel(factor: Tensor, shift: Tensor, sizes: Tensor, shape: Shape, operations: int) -> LinearMap:
    """Return `scale` with one number a channel; `sizes` are of what was added up to `shift`."""
    view = (1, -1, *[1] * (len(shape) - 1))
    size = float(sizes.max()) * (1 + 1e-9)
    return scale(factor.view(view), shift.view(view), size=size, operations=operations)


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
    begin = layer.start_dim - 1
    if not 0 <= begin < len(shape) or layer.end_dim % (len(shape) + 1) != len(shape):
        raise unsupported(f"flatten from {layer.start_dim} to {layer.end_dim} of {shape}")
    return [reshape((*shape[:begin], math.prod(shape[begin:])))]


def mean(shape: Shape) -> LinearMap:
    """Return the average over both spatial axes of (C, H, W), as (C, 1, 1)."""
    return pooling(shape[1:], (1, 1), (0, 0))


def maximum(shape: Shape) -> Maximum:
    """Return the largest entry over both spatial axes of (C, H, W), as (C, 1, 1)."""
    return Maximum(torch.arange(shape[1] * shape[2]).view(1, -1), (shape[0], 1, 1))


RULES: dict[type[nn.Module], Callable[[Any, Shape], list[Layer]]] = {
    nn.Conv1d: _convolution,
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
"""Layers of inputs (C, H, W): some take (N, H, W) as well, for one input of N channels."""

CONTAINERS = {nn.Sequential, nn.ModuleList, nn.ModuleDict}
MODELESS = (RULES.keys() | CONTAINERS) - {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d}
"""Classes that compute the same in training mode as in evaluation mode."""


def layer_of(name: str, module: nn.Module, shape: Shape) -> list[Layer]:
    """Return the layers that compute, one after the other, what a module in evaluation mode computes.

    `shape` is its input's, without the batch.  A parametrised layer has the weights that it gives now.
    """
    kind = type(module)
    if parametrize.is_parametrized(module) and kind.__module__ == parametrize.__name__:
        kind = kind.__bases__[0]
    rule = RULES.get(kind)
    if rule is None:
        raise unsupported(f"layer {name} of type {kind.__name__}")
    if (kind in SPATIAL and len(shape) != 3) or (kind is nn.Conv1d and len(shape) != 2):
        raise unsupported(f"layer {name} ({kind.__name__}) on inputs of shape {shape}")
    return rule(module, shape)
