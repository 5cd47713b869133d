"""An attack on the worst mix there is of a classifier: it may flip only what no certificate covers."""

from __future__ import annotations

import torch
from torch import nn

from certmix.attacks import apgd


class WorstMix(nn.Module):
    """The mix against the accurate classifier that is worst for class y: probabilities, rival by rival."""

    def __init__(self, h: nn.Module, y: int, alpha: float) -> None:
        super().__init__()
        self.h, self.y, self.alpha = h, y, alpha

    def forward(self, x):
        values = self.alpha * self.h(x).double().softmax(1)
        return values + (1 - self.alpha) * (torch.arange(values.shape[1]) != self.y)


def flips(
    h: nn.Module, x: torch.Tensor, y: int, norm: str, eps: float, *, alpha: float, steps: int, restarts: int = 1,
    box=(0.0, 1.0),
) -> bool:  # fmt: skip
    """Whether the strongest attack at hand flips the worst mix within eps."""
    mix, label = WorstMix(h, y, alpha).eval(), torch.tensor([y])
    for loss in ("dlr", "cross-entropy"):
        found = apgd(
            mix, x[None], label, norm, eps, loss=loss, steps=steps, restarts=restarts, box=box,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        if int(mix(found).argmax(1)) != y:
            return True
    return False
