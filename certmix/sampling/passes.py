"""Where and how forward passes run: what changes their speed, and nothing but rounding.  Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["PARTLY", "Passes"]

PARTLY = "partly"
"""What ``run.json`` says of a run that was compiled at one time and not at another."""


@dataclass(frozen=True)
class Passes:
    """A device, inputs in one pass (None: an automatic number), and whether the model is compiled."""

    device: torch.device
    batch_size: int | None = None
    compiled: bool = False
