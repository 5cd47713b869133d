"""The attacks of a MixedNUTS evaluation: each on what the earlier ones left right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certmix.attacks.minimum_margin import label_margin
from certmix.calling import call_both
from certmix.models.mixture import MixedClassifier, mix_outputs
from certmix.nuts.adaptive import AuxiliaryMixture, direct_bypass
from certmix.nuts.description import MixSettings
from certmix.nuts.mixture import NutsMixture
from certmix.nuts.transform import NonlinearTransform
from certmix.runs.attacking import Batch, Bench, Cell, attacked_points, outputs, reduced
from certmix.runs.keywords import plain_numbers
from certmix.types import FloatArray

__all__ = ["CLEAN", "Contender", "Suite", "contenders", "suite_cells", "sweep_cell"]

CLEAN, STD, NUTS = "clean", "STD", "MixedNUTS"
CONTENDERS = ("standard (g)", "robust (h)")


@dataclass(frozen=True)
class Contender:
    """A classifier under comparison: its logits from both base models' (n, c) logits."""

    name: str
    mix: Callable[[Tensor, Tensor], Tensor]

    def right(self, base: FloatArray, labels: np.ndarray) -> np.ndarray:
        """Return bool (n,) from base logits (n, 2 c); rows that were not attacked (NaN) count as right."""
        attacked = ~np.isnan(base).any(1)
        standard, robust = (torch.from_numpy(part) for part in np.split(np.nan_to_num(base), 2, axis=1))
        answers = self.mix(standard, robust).argmax(1).numpy()
        return np.asarray((answers == labels) | ~attacked)


@dataclass(frozen=True)
class Suite:
    """What the cells of an evaluation share.

    Parameters
    ----------
    bench, pair, settings
        The study, both classifiers, and the fitted numbers.
    plain_alphas
        Weights of the plain mix, for comparison.
    targets, queries
        Target classes of targeted APGD; queries of Square.
    autoattack
        Whether pyautoattack's standard suite runs as well, through the bypass.
    """

    bench: Bench
    pair: tuple[nn.Module, nn.Module]
    settings: MixSettings
    plain_alphas: tuple[float, ...]
    targets: int
    queries: int
    autoattack: bool = False
    quick: tuple[nn.Module, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        plain_numbers(self)
        object.__setattr__(self, "quick", tuple(reduced(self.bench, model) for model in self.pair))

    def mixture(self, pair: tuple[nn.Module, nn.Module]) -> NutsMixture:
        """Return the nonlinear mix of a pair of base models."""
        own = self.settings
        return NutsMixture(*pair, NonlinearTransform.of(own.transform), own.alpha, own.temperature).eval()

    def bypass(self, pair: tuple[nn.Module, nn.Module]) -> nn.Module:
        """Return the mix with the auxiliary's gradient."""
        assert self.settings.alpha_d is not None
        return direct_bypass(self.mixture(pair), self.settings.alpha_d, self.settings.r_d)


def contenders(suite: Suite) -> list[Contender]:
    """Return g, h, the plain mixes and the nonlinear mix."""
    plain = [Contender(plain_name(a), partial(_plain, a)) for a in suite.plain_alphas]
    ends = [
        Contender(name, mix) for name, mix in zip(CONTENDERS, (lambda g, h: g, lambda g, h: h), strict=True)
    ]
    return [*ends, *plain, Contender(NUTS, suite.mixture(suite.pair).mix)]


def _plain(alpha: float, standard: Tensor, robust: Tensor) -> Tensor:
    return mix_outputs(standard, robust, alpha)


def plain_name(alpha: float) -> str:
    """Return how tables call the plain mix."""
    return f"plain mix, alpha {alpha:g}"


def suite_cells(suite: Suite) -> list[Cell]:
    """Return the cells: clean, transfer from g, attacks on h, on the plain mixes, on the nonlinear mix.

    Every cell keeps both base models' logits at its points, so that every
    contender is judged on every point; an attack skips (NaN) the images that
    an earlier cell's point already broke for the contender it is made for.
    """
    bench, (standard, robust) = suite.bench, suite.pair
    by_name = {contender.name: contender for contender in contenders(suite)}
    cells = [Cell(CLEAN, lambda batch: outputs(suite.pair, batch.images))]

    def add(name: str, target: str, attack: Callable[[Batch], Tensor]) -> None:
        earlier = tuple(cell.name for cell in cells)
        cells.append(Cell(name, partial(_left_right, suite, by_name[target], earlier, attack)))

    def white_box(model: nn.Module, quick: nn.Module, which: str) -> Callable[[Batch], Tensor]:
        more: dict[str, Any] = {"targets": suite.targets} if which == "apgd-targeted" else {}
        return lambda batch: attacked_points(bench, model, batch, attack=which, quick=quick, **more)

    cells.append(Cell(STD, partial(_transfer_from, suite, standard, suite.quick[0])))
    for which in ("apgd-ce", "apgd-targeted"):
        add(f"robust (h), {which}", CONTENDERS[1], white_box(robust, suite.quick[1], which))
    for alpha in suite.plain_alphas:
        full, quick = (MixedClassifier(*pair, alpha).eval() for pair in (suite.pair, suite.quick))
        for which in ("apgd-ce", "apgd-targeted"):
            add(f"{plain_name(alpha)}, {which}", plain_name(alpha), white_box(full, quick, which))
    add(f"{NUTS}, transfer from the auxiliary", NUTS, partial(_transfer, suite, suite.settings.r_d))
    bypass, quick_bypass = (suite.bypass(pair) for pair in (suite.pair, suite.quick))
    for which in ("apgd-ce", "apgd-targeted"):
        add(f"{NUTS}, bypass, {which}", NUTS, white_box(bypass, quick_bypass, which))
    if suite.autoattack:
        add(f"{NUTS}, bypass, autoattack", NUTS, partial(_autoattack, suite, bypass))
    add(f"{NUTS}, square", NUTS, partial(_square, suite))
    return cells


def _transfer_from(suite: Suite, model: nn.Module, quick: nn.Module, batch: Batch) -> FloatArray:
    points = attacked_points(suite.bench, model, batch, attack="apgd-ce", quick=quick, early_stop=False)
    return outputs(suite.pair, points)


def _left_right(
    suite: Suite,
    contender: Contender,
    earlier: Sequence[str],
    attack: Callable[[Batch], Tensor],
    batch: Batch,
) -> FloatArray:
    """Attack the images that every earlier cell leaves right; the others' rows are NaN."""
    store, indices = suite.bench.store, batch.indices.tolist()
    labels = batch.labels.cpu().numpy()
    right = [contender.right(store.read(cell, indices), labels) for cell in earlier]
    left = np.logical_and.reduce(right).nonzero()[0]
    found = np.full((len(labels), 2 * suite.bench.dataset.classes), np.nan)
    if len(left):
        rows = torch.from_numpy(left).to(batch.images.device)
        some = replace(
            batch, images=batch.images[rows], labels=batch.labels[rows], indices=batch.indices[left]
        )
        found[left] = outputs(suite.pair, attack(some))
    return found


class _Watched(nn.Module):
    """The auxiliary mix, which remembers the base models' logits of its last pass."""

    def __init__(self, auxiliary: AuxiliaryMixture) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        self.last: tuple[Tensor, Tensor] | None = None
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        standard, robust = call_both(self.auxiliary.standard, self.auxiliary.robust, inputs)
        self.last = standard.detach(), robust.detach()
        return self.auxiliary.mix(standard, robust)


def _transfer(suite: Suite, r_d: float, batch: Batch) -> Tensor:
    """Attack the auxiliary mix, and keep of all its points the one of smallest margin of the true mix."""
    assert suite.settings.alpha_d is not None
    true = suite.mixture(suite.quick)
    auxiliary = AuxiliaryMixture(
        *suite.quick, NonlinearTransform.of(suite.settings.transform), alpha_d=suite.settings.alpha_d, r_d=r_d
    )
    watched = _Watched(auxiliary.eval())
    points = batch.images.clone()
    smallest = points.new_full((len(points),), torch.inf, dtype=torch.float64)

    def track(at: Tensor, tried: Tensor, logits: Tensor, step: int) -> None:
        assert watched.last is not None
        margin = label_margin(true.mix(*watched.last), batch.labels[at])
        rows = (margin < smallest[at]).nonzero().squeeze(1)
        points[at[rows]], smallest[at[rows]] = tried[rows], margin[rows]

    bench = replace(suite.bench, request=replace(suite.bench.request, precision="fp32"))
    attacked_points(bench, watched, batch, attack="apgd-ce", early_stop=False, track=track)
    return points


def _square(suite: Suite, batch: Batch) -> Tensor:
    models = [suite.mixture(pair) for pair in (suite.pair, suite.quick)]
    return attacked_points(
        replace(suite.bench, request=replace(suite.bench.request, steps=suite.queries, attack="square")),
        models[0], batch, quick=models[1],
    )  # fmt: skip


def _autoattack(suite: Suite, bypass: nn.Module, batch: Batch) -> Tensor:
    return attacked_points(
        replace(suite.bench, request=replace(suite.bench.request, steps=None, precision="fp32")),
        bypass, batch, attack="autoattack",
    )  # fmt: skip


def sweep_cell(suite: Suite, r_d: float) -> Cell:
    """Return the cell of one transfer attack alone, on every image: part of the obfuscation check."""
    return Cell(
        f"sweep r_d {r_d!r}",
        lambda batch: outputs(suite.pair, _transfer(suite, r_d, batch)),
        key="sweep",
    )
