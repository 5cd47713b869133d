"""The mixes that `compare_trust` compares: a trust term in a form, its scale, its cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from certmix.data import spread, stack
from certmix.models.mixture import MixedClassifier
from certmix.models.trust import log_trust_values
from certmix.runs.attacking import Batch, Bench, Cell, attacked_points, look_for_blindness, outputs
from certmix.studies.empirical import Study
from certmix.types import FloatArray

__all__ = ["CLEAN", "Variant", "attack_cell", "make_variant", "trust_cell", "trust_cells"]

CALIBRATION_IMAGES = 50
CLEAN = "clean"
_LARGEST = 700.0
"""Largest |log gamma|: its exponential is still a number."""


@dataclass(frozen=True)
class Variant:
    """A trust term in a form against a norm, with the scale that makes its weights comparable."""

    norm: str
    trust: str
    form: str
    log_median: float

    @property
    def name(self) -> str:
        return f"{self.norm} {self.trust} {self.form}"

    def alpha(self, weight: float) -> float:
        """Return the mixing weight at which the median image gives the robust classifier this weight.

        The weight of equation 3 is gamma R / (1 + gamma R), and alpha = gamma / (1 + gamma).
        """
        if weight in (0.0, 1.0):
            return weight
        log_gamma = math.log(weight / (1.0 - weight)) - self.log_median
        alpha = 1.0 / (1.0 + math.exp(-min(max(log_gamma, -_LARGEST), _LARGEST)))
        return min(alpha, math.nextafter(1.0, 0.0))


def make_variant(study: Study, norm: str, trust: str, form: str) -> Variant:
    """Find the median of R over a fixed set of images, once."""
    if trust == "constant":
        return Variant(norm, trust, form, 0.0)
    bench, key = study.bench, f"median/{norm}/{trust}/{form}"
    stored = bench.store.get(key)
    if stored is None:
        positions = spread(len(bench.dataset), CALIBRATION_IMAGES)
        images = torch.from_numpy(stack(bench.dataset, positions)).to(bench.device)
        values = log_trust_values(*study.pair, images, trust, form, norm)
        stored = repr(float(values.nan_to_num(neginf=-_LARGEST, posinf=_LARGEST).median()))
        bench.store.put(key, stored)
    return Variant(norm, trust, form, float(stored))


def trust_cells(
    study: Study, variants: Sequence[Variant], balls: dict[str, float], weights: tuple[float, ...]
) -> list[Cell]:
    """Return the cells: clean outputs, both classifiers alone under attack, then every variant."""
    pair, bench = study.pair, study.bench
    cells = [Cell(CLEAN, lambda batch: outputs(pair, batch.images))]
    benches = {
        norm: replace(bench, request=bench.request.replace(norm=norm, eps=eps)) for norm, eps in balls.items()
    }
    for (norm, one), (weight, model) in itertools.product(benches.items(), ((0.0, pair[0]), (1.0, pair[1]))):
        name = attack_cell(norm, balls[norm], None, weight)
        cells.append(Cell(name, partial(_attacked, one, name, model)))
    for variant in variants:
        if variant.trust != "constant":
            cells.append(Cell(trust_cell(variant), partial(_trust, pair, variant)))
        for weight in weights[1:-1]:
            name = attack_cell(variant.norm, balls[variant.norm], variant, weight)
            model = MixedClassifier(
                *pair, variant.alpha(weight), trust=variant.trust, form=variant.form, norm=variant.norm
            ).eval()
            cells.append(Cell(name, partial(_attacked, benches[variant.norm], name, model)))
    return cells


def attack_cell(norm: str, eps: float, variant: Variant | None, weight: float) -> str:
    """Return the name of one attack's cell; a variant of None is a classifier alone."""
    what = ("standard alone" if weight == 0.0 else "robust alone") if variant is None else variant.name
    return f"attacked eps {eps!r} {norm} {what} {weight!r}"


def _trust(pair: tuple[nn.Module, nn.Module], variant: Variant, batch: Batch) -> FloatArray:
    values = log_trust_values(*pair, batch.images, variant.trust, variant.form, variant.norm)
    return np.asarray(values.cpu().numpy(), np.float64)


def _attacked(bench: Bench, name: str, model: nn.Module, batch: Batch) -> FloatArray:
    """Return the attacked model's own outputs at the points found against it."""
    look_for_blindness(bench, name, model, batch)
    return outputs([model], attacked_points(bench, model, batch))


def trust_cell(variant: Variant) -> str:
    """Return the name of the cell that holds a variant's log R at the clean images."""
    return f"log R {variant.name}"
