"""What counts as a slope: outputs and ratios of the local Lipschitz search, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["OUTPUTS", "RATIOS", "Ratio", "Rise", "towards_rivals"]

Rise = Callable[[Tensor, Tensor, Tensor], Tensor]

OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "probabilities": lambda logits: logits.softmax(1),
    "logits": lambda logits: logits,
}
"""Whose constants are searched: name -> function of float64 logits."""


def towards_rivals(before: Tensor, after: Tensor, selected: Tensor) -> Tensor:
    """Return how far the selected class falls and the others rise, (n, c)."""
    own = torch.zeros_like(after, dtype=torch.bool).scatter(1, selected[:, None], True)
    return torch.where(own, before - after, after - before)


@dataclass(frozen=True)
class Ratio:
    """What counts as a slope.

    Parameters
    ----------
    summary
        One line of help.
    rise
        ``(before, after, y) -> (n, k)``, the numerators; outputs are (n, c), y is (n,).
    by_distance
        Whether they are divided by ||d||, as in Lipschitz constants, or by eps.
    wide
        Whether there is one a class (k = c), or one in all (k = 1).
    sides
        2 where an output may rise or fall, so that an ascent is made each way.
    """

    summary: str
    rise: Rise
    by_distance: bool
    wide: bool
    sides: int = 1


RATIOS = {
    "relaxed": Ratio(
        "the paper's relaxed constants: fall of y, rise of any other class, over eps",
        towards_rivals, by_distance=False, wide=True,
    ),
    "each": Ratio(
        "|f_i(x+d) - f_i(x)| / ||d|| of each class",
        lambda x, z, y: (z - x).abs(), by_distance=True, wide=True, sides=2,
    ),
    "together": Ratio(
        "||f(x+d) - f(x)||_2 / ||d||",
        lambda x, z, y: (z - x).norm(dim=1, keepdim=True), by_distance=True, wide=False,
    ),
    "yang": Ratio(
        "||f(x+d) - f(x)||_1 / ||d|| (Yang et al., 2020)",
        lambda x, z, y: (z - x).abs().sum(1, keepdim=True), by_distance=True, wide=False,
    ),
}  # fmt: skip
"""Slopes by name."""
