"""Lemma 3.2: a margin of (1 - alpha) / alpha keeps the mix whatever g says, and a smaller one does not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import nn

from certmix.models import mixture
from certmix.nuts import mixture as nuts_mixture
from certmix.radii import constant
from certmix.types import FloatArray, IntArray
from certmix.verification.selftests.draws import alphas, shown, simplex
from certmix.verification.selftests.mixing import lead, logits_of
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

ROUNDING = 1e-12
"""What the mix of exact ties may come out as."""
CLEAR = 1e-3
"""Margin beyond the threshold at which float32 logits must show the class too."""
SPARE = (0.0, 1e-9, 1e-6, CLEAR)


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Mix h of a margin around the threshold with every vertex and with random g."""
    for alpha in alphas(random, cases // 8 + 1).tolist():
        mu = constant.margin_threshold(alpha)
        above = Fraction(mu) - (1 - Fraction(alpha)) / Fraction(alpha)
        tally.record(
            "the threshold is not below (1 - alpha) / alpha", [float(above)],
            lambda _, alpha=alpha: shown(alpha=alpha), unit="margin",
        )  # fmt: skip
        classes = int(random.integers(2, 13))
        for spare in SPARE:
            if mu + spare <= 1:
                _held(random, tally, alpha, mu, spare, classes)
        if mu > 1e-5:
            _flipped(random, tally, alpha, mu, classes)


def with_margin(start: FloatArray, chosen: IntArray, margin: float) -> FloatArray:
    """Move points of the simplex (m, c) towards a class each until it leads by `margin`."""
    rows = np.arange(len(start))
    rivals = start.copy()
    rivals[rows, chosen] = -1
    own = start[rows, chosen] - rivals.max(1)
    step = np.clip((margin - own) / np.maximum(1 - own, 1e-300), 0.0, 1.0)[:, None]
    moved: FloatArray = start + step * (np.eye(start.shape[1])[chosen] - start)
    return moved


def _held(
    random: np.random.Generator, tally: Tally, alpha: float, mu: float, spare: float, classes: int
) -> None:
    chosen = random.integers(0, classes, 2 * classes + 4)
    start = simplex(random, len(chosen), classes)
    h = with_margin(start, chosen, mu + spare)
    vertices, others = np.eye(classes), simplex(random, 4, classes)
    h, chosen = h.repeat(classes + 4, 0), chosen.repeat(classes + 4)
    g = np.tile(np.vstack([vertices, others]), (len(h) // (classes + 4), 1))
    slack = lead(g, h, alpha, chosen)

    def case(k: int) -> str:
        return f"{shown(alpha=alpha)}, margin mu + {spare:g}, g {g[k].round(3).tolist()}"

    if spare == 0:
        tally.record("at margin mu the mix ties at worst", slack + ROUNDING, case, unit="logits")
    else:
        tally.record("above mu the mix keeps its class", slack, case, unit="logits", strict=True)
    if spare >= CLEAR:
        wrong = [(found != chosen).sum() for found in _answers(g, h, alpha)]
        tally.record(
            "MixedClassifier and the nonlinear mix keep it too", -np.array(wrong),
            lambda _: shown(alpha=alpha), unit="answers",
        )  # fmt: skip


class _Half(nn.Module):
    """Gives the first or second half of its input: stored logits as a model."""

    def __init__(self, second: bool) -> None:
        super().__init__()
        self.second = second

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        half = inputs.shape[1] // 2
        return inputs[:, half:] if self.second else inputs[:, :half]


@torch.no_grad()
def _answers(g: FloatArray, h: FloatArray, alpha: float) -> list[np.ndarray]:
    """The classes that certmix's modules predict: float32 logits, and g sharpened to its answer."""
    standard, robust = logits_of(g).float(), logits_of(h).float()
    mix = mixture.MixedClassifier(_Half(False), _Half(True), alpha)
    sharpened = nuts_mixture.mix_sharpened(standard, robust, alpha)
    return [mix(torch.cat([standard, robust], 1)).argmax(1).numpy(), sharpened.argmax(1).numpy()]


def _flipped(random: np.random.Generator, tally: Tally, alpha: float, mu: float, classes: int) -> None:
    """A millionth below the threshold, the vertex of the nearest rival wins."""
    chosen = random.integers(0, classes, 16)
    rivals = random.dirichlet(np.ones(classes - 1), len(chosen))
    largest = rivals.max(1)
    own = (mu * (1 - 1e-6) + largest) / (1 + largest)
    outside = np.arange(classes) != chosen[:, None]
    h = np.repeat(own[:, None], classes, 1)
    h[outside] = ((1 - own)[:, None] * rivals).ravel()
    g = np.eye(classes)[np.where(outside, h, -1.0).argmax(1)]
    tally.record(
        "below mu some g flips the mix", -lead(g, h, alpha, chosen),
        lambda k: f"{shown(alpha=alpha)}, h {h[k].round(4).tolist()}", unit="logits", strict=True,
    )  # fmt: skip
