"""Normalisation inside the model: `MEAN/STD` in front of any module."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError

__all__ = ["Normalization", "Normalized", "parse_normalize"]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class Normalized(nn.Module):
    """A model behind (x - mean) / std, channel by channel, for inputs (N, C, ...).

    A single mean or std holds for every channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, inputs: Tensor) -> Any:
        channels = max(len(self.mean), len(self.std))
        if channels > 1 and (inputs.ndim < 2 or inputs.shape[1] != channels):
            found = tuple(inputs.shape)
            raise ModelError(
                f"inputs have shape {found} and the normalisation names {channels} channels: "
                "give one mean and one std, or one a channel"
            )
        mean, std = (
            value.to(inputs.dtype).view(-1, *[1] * max(0, inputs.ndim - 2)) for value in (self.mean, self.std)
        )
        return self.model((inputs - mean) / std)


def parse_normalize(text: str) -> Normalization:
    """Return mean and std from ``MEAN/STD``, each one number or a comma-separated list.

    Raises
    ------
    ParameterError
        If the text is of another form, the lists differ in length or a std is not > 0.

    Examples
    --------
    >>> parse_normalize("0.5,0.4/0.25")
    ((0.5, 0.4), (0.25,))
    """
    remedy = "write MEAN/STD, such as 0.5/0.25 or 0.49,0.48,0.45/0.25,0.24,0.26"
    try:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise ParameterError(f"normalize = {text!r} is not MEAN/STD: {remedy}") from None
    if not all(map(math.isfinite, mean + std)) or not all(value > 0 for value in std):
        raise ParameterError(f"normalize = {text!r}: finite numbers and std > 0 are needed: {remedy}")
    if 1 not in (len(mean), len(std)) and len(mean) != len(std):
        raise ParameterError(f"normalize = {text!r} has {len(mean)} means and {len(std)} stds: {remedy}")
    return mean, std
