"""Where to compute, and how much at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from certmix.errors import ParameterError

__all__ = ["automatic_batch_size", "resolve_device"]


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device named, or the best one there is for ``auto``.

    Raises
    ------
    ParameterError
        If the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ParameterError(f"device {name!r} is unknown: use auto, cpu, cuda or mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ParameterError(f"device {name!r} is not available here: use --device auto or cpu")
    return device


def automatic_batch_size(shape: Sequence[int], device: torch.device) -> int:
    """Return a batch size for inputs of this shape: a multiple of 100 where memory allows."""
    values = max(1, int(torch.Size(shape).numel()))
    budget, most = (300_000, 1000) if device.type == "cpu" else (6_000_000, 2000)
    size = min(budget // values, most)
    return max(100, size // 100 * 100) if size >= 25 else max(1, size)
