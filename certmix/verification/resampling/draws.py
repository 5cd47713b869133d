"""Drawing samples anew: what they give, but for rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from certmix.bounds.statistics import BIN_STEPS, BINS, SCALE
from certmix.types import IntArray
from certmix.verification.rederivation.reload import Reloaded

__all__ = ["CLOSE", "UNITS", "Again", "Bracket", "measured"]

CLOSE = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 0.1}
"""Part of the usual lead of the largest logit by which rounding may change a lead.

Of the shipped model's leads no one is off by more than 3e-6, 2e-3 (TF32, which GPUs
convolve fp32 with) and 0.05 of it (docs/verify.md).
"""

UNITS = {"votes": 1, "totals": SCALE, "squares": SCALE**2, "tails": 1}
"""What is counted, and the most that one sample adds to it."""

Bracket = dict[str, IntArray]
"""Name in `UNITS` -> int64 (3, quantities): what samples add up to at least, here, and at most."""


@dataclass(frozen=True)
class Again:
    """What to sample again, with what; see `certmix.verification.resampling.resample.resample`."""

    run: Path
    reloaded: Reloaded
    device: torch.device
    images: int
    samples: int
    new_seed: int
    error_rate: float
    progress: Callable[[int, int], None] | None

    def report(self, done: int, total: int) -> None:
        """Tell the progress."""
        if self.progress is not None:
            self.progress(done, total)


def measured(
    logits: Tensor, order: IntArray, lead: float, followed: list[int], temperature: float | None
) -> tuple[Bracket, int]:
    """Return what samples add up to whichever way rounding goes, and how many votes it may change.

    A class may get a vote if its logit is within `lead` of the largest.  Scores
    then change by at most lead / (4 temperature), by the mean value theorem.

    Parameters
    ----------
    logits
        float64 (n, c).
    order
        (c,) classes in the order in which quantities are wanted.
    lead
        By how much rounding may change the difference of two logits.
    followed
        Classes whose scores have bins.
    temperature
        Divides the logits of soft scores; None for votes alone.
    """
    near = (logits >= logits.amax(1, keepdim=True) - lead).numpy()
    ties, here = near.sum(1) > 1, np.bincount(logits.argmax(1).numpy(), minlength=near.shape[1])
    found = {"votes": np.stack([near[~ties].sum(0), here, near.sum(0)])[:, order]}
    if temperature is None:
        return found, int(ties.sum())
    scores, off = (logits / temperature).softmax(1).numpy() * SCALE, SCALE * lead / (4 * temperature)
    ends = np.stack([np.floor(scores - off), np.rint(scores), np.ceil(scores + off)])
    steps = ends.clip(0, SCALE).astype(np.int64)
    tails = steps[:, :, followed, None] >= BIN_STEPS * np.arange(1, BINS)
    found |= {"totals": steps.sum(1)[:, order], "squares": (steps**2).sum(1)[:, order]}
    return {**found, "tails": tails.sum(1).reshape(3, -1)}, int(ties.sum())
