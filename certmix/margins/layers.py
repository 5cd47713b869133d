"""The layers that bounds are propagated through, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.errors import ModelError

__all__ = [
    "TINY", "UNIT", "Input", "Layer", "LinearMap", "Maximum", "Rectifier", "Sum",
    "convolution", "dense", "exact", "gamma", "pooling", "reshape", "scale",
]  # fmt: skip

UNIT = 2.0**-53
"""Unit roundoff of float64."""

TINY = 2.0**-1022
"""At least what a float64 operation loses to underflow, subnormals flushed to zero or not."""

Shape = tuple[int, ...]


def exact(value: Tensor) -> Tensor:
    """Return a float64 copy, on the CPU, of a weight or constant.

    Raises
    ------
    ModelError
        If it is no plain tensor of real numbers.
    """
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_complex():
        found = f"{type(value).__name__} of {value.dtype}, {value.layout}"
        raise ModelError(f"a weight is a {found}: bounds need plain tensors of real numbers")
    return value.detach().to("cpu", torch.float64, copy=True)


def gamma(terms: int) -> float:
    """Return n u / (1 - n u), which bounds the relative error of n float64 operations in a row.

    References
    ----------
    N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1.
    """
    return terms * UNIT / (1 - terms * UNIT)


@dataclass(frozen=True)
class LinearMap:
    """x -> W x + b.

    Parameters
    ----------
    weight
        The numbers that W is made of.
    apply
        (weights, x) -> W x, for a batch.
    transpose
        (weights, a, input shape) -> a W, for a batch.
    terms
        Products in one entry of W x or a W, at most.
    row_sum
        At least the largest row sum of |W|.
    bias
        b, to broadcast against a batch of outputs, or None.
    bias_size
        At least the largest entry of |b|, and of what was added up to b.
    weight_error
        Relative error of `weight` and `bias`: the exact ones may not be floats.
    diagonal
        Whether each output depends on one input alone.
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
    """The image."""

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
    """The largest entry of each window, channel by channel.

    Parameters
    ----------
    windows
        int64 (windows, entries): flat spatial positions, -1 for padding.
    shape
        Shape of the output, without the batch.
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


def _bias(bias: Tensor | None, dimensions: int) -> tuple[Tensor | None, float]:
    if bias is None:
        return None, 0.0
    return bias.view(1, -1, *[1] * dimensions), float(bias.abs().max())


def convolution(
    weight: Tensor, bias: Tensor | None, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> LinearMap:
    """Return a 2D convolution with zero padding."""
    settings = (stride, padding, dilation, groups)

    def transpose(w: Tensor, a: Tensor, shape: Shape) -> Tensor:
        extra = tuple(
            shape[1 + i]
            - ((a.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (w.shape[2 + i] - 1) + 1)
            for i in (0, 1)
        )
        return F.conv_transpose2d(a, w, None, stride, padding, extra, groups, dilation)

    magnitudes = weight.abs().flatten(1).sum(1)
    terms = max(weight[0].numel(), weight.shape[0] // groups * weight[0, 0].numel())
    return LinearMap(
        weight, lambda w, x: F.conv2d(x, w, None, *settings), transpose, terms, _upper(magnitudes),
        *_bias(bias, 2),
    )  # fmt: skip


def dense(weight: Tensor, bias: Tensor | None) -> LinearMap:
    """Return a matrix product, for inputs (N, features)."""
    return LinearMap(
        weight, lambda w, x: x @ w.T, lambda w, a, shape: a @ w, max(weight.shape),
        _upper(weight.abs().sum(1)), *_bias(bias, 0),
    )  # fmt: skip


def scale(
    weight: Tensor, shift: Tensor | None = None, *, size: float = 0.0, operations: int = 0
) -> LinearMap:
    """Return x -> weight x + shift, entry by entry.

    `size` is at least the magnitude of what was added up to `shift`, and
    `operations` the number of roundings behind `weight` and `shift`.
    """
    return LinearMap(
        weight, lambda w, x: w * x, lambda w, a, shape: w * a, 1, _upper(weight.abs()), shift, size,
        gamma(operations), diagonal=True,
    )  # fmt: skip


def pooling(kernel: Shape, stride: Shape, padding: Shape) -> LinearMap:
    """Return the average over windows, channel by channel; padding counts as zeros."""
    weight = torch.full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=torch.float64)
    single = convolution(weight, None, stride, padding, (1, 1), 1)

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
