"""Where and how forward passes run: what changes their speed, and nothing but rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Passes"]


@dataclass(frozen=True)
class Passes:
    """A device, inputs in one pass (None: an automatic number), and whether the model is compiled."""

    device: torch.device
    batch_size: int | None = None
    compiled: bool = False
