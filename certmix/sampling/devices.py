"""Where forward passes run, how, and how many inputs at a time: rounding apart, all gives the same.

Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certmix.errors import ParameterError

if TYPE_CHECKING:
    import torch

PRECISIONS = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}
"""Name -> torch dtype of autocast, None for none."""

PARTLY = "partly"
"""What ``run.json`` says of a run that was compiled at one time and not at another."""


@dataclass(frozen=True)
class Passes:
    """A device, inputs in one pass (None: an automatic number), and whether the model is compiled."""

    device: torch.device
    batch_size: int | None = None
    compiled: bool = False


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device named, or the best one there is for ``auto``.

    Raises
    ------
    ParameterError
        If the device is unknown or not there.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in present if present[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ParameterError(f"device {name!r} is unknown: use auto, cpu, cuda or mps") from None
    if not present.get(device.type, False):
        raise ParameterError(f"device {name!r} is not available here: use --device auto or cpu")
    return device


def automatic_batch_size(shape: Sequence[int], device: torch.device) -> int:
    """Return a batch size for inputs of this shape: a multiple of 100 where memory allows."""
    values = max(1, math.prod(shape))
    budget, most = (300_000, 1000) if device.type == "cpu" else (6_000_000, 2000)
    size = min(budget // values, most)
    return max(100, size // 100 * 100) if size >= 25 else max(1, size)
