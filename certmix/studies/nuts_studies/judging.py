"""How studies of cached results judge a mix: clean, against any standard classifier, on stored points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from certmix.nuts.description import MixSettings
from certmix.nuts.grid import TransformSettings
from certmix.nuts.margins import attacked_margin, transform_numpy
from certmix.nuts.mixture import mix_sharpened, transformed_logits
from certmix.nuts.transform import NonlinearTransform
from certmix.studies.accuracy import attacked_accuracy, estimated_accuracy
from certmix.studies.nuts_fit import NutsFitted
from certmix.studies.nuts_margins import CachedLogits
from certmix.studies.nuts_studies.inputs import Inputs
from certmix.studies.nuts_studies.points import AttackedPoints
from certmix.tables.table import Cell, Quantity
from certmix.text import plain_decimal
from certmix.types import AttackedAccuracy, EstimatedAccuracy, FloatArray, IntArray

__all__ = [
    "PARAMETERS",
    "Judged",
    "Rule",
    "headings",
    "judge",
    "notes",
    "parameters",
    "rule_of",
    "withstands",
]

PARAMETERS = ("s", "p", "c", "alpha")


@dataclass(frozen=True)
class Rule:
    """How a mix answers; without a transform it is the plain mix of probabilities."""

    alpha: float
    transform: TransformSettings | None = None
    temperature: float = 1.0

    def bend(self, robust: ArrayLike) -> FloatArray:
        """Return the robust logits (m, c) as they enter the mix."""
        if self.transform is None:
            return np.asarray(robust, np.float64)
        return transform_numpy(robust, self.transform)

    def mix(self, standard: Tensor, robust: Tensor) -> Tensor:
        """Return the mix's logits from both base models'."""
        if self.transform is not None:
            robust = transformed_logits(robust, NonlinearTransform.of(self.transform))
        return mix_sharpened(standard, robust, self.alpha, self.temperature)

    def answers(self, standard: FloatArray, robust: FloatArray) -> np.ndarray:
        """Return the mix's predictions (m,)."""
        return np.asarray(self.mix(torch.from_numpy(standard), torch.from_numpy(robust)).argmax(1))


def rule_of(settings: MixSettings) -> Rule:
    """Return the rule of a fitted mix."""
    return Rule(settings.alpha, settings.transform, settings.temperature)


def withstands(rule: Rule, robust: FloatArray, labels: IntArray) -> np.ndarray:
    """Return bool (m,): the mix is right at these logits of h, whatever the standard classifier says.

    The worst standard classifier puts all its probability on the runner-up:
    it changes nothing where the margin is at least (1 - alpha) / alpha.  At
    equality it ties, which counts as withstood, as in `certmix.nuts.fit`.

    Examples
    --------
    >>> logits = np.log([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
    >>> withstands(Rule(0.75), logits, np.array([0, 0, 0]))  # margins 0.5, 0.1 and -0.5 against 1/3
    array([ True, False, False])
    """
    if rule.alpha == 0.0:
        return np.zeros(len(labels), bool)
    bent = rule.bend(robust)
    margin = attacked_margin(bent, labels)
    return np.asarray((bent.argmax(1) == labels) & (margin >= (1.0 - rule.alpha) / rule.alpha))


@dataclass(frozen=True)
class Judged:
    """What a mix achieves: `attacked` on an evaluation's points, None without one."""

    clean: EstimatedAccuracy
    any_standard: EstimatedAccuracy
    attacked: AttackedAccuracy | None = None

    def cells(self) -> tuple[Cell, ...]:
        """Return the cells that `headings` names."""
        more = () if self.attacked is None else (self.attacked,)
        return (self.clean, self.any_standard, *more)


def judge(rule: Rule, held: CachedLogits, points: AttackedPoints | None = None) -> Judged:
    """Judge a mix on cached logits and, if given, on an evaluation's points."""
    right = rule.answers(held.standard, held.robust) == held.labels
    attacked = None if points is None else attacked_accuracy(points.right(partial(Rule.mix, rule)))
    kept = withstands(rule, held.attacked, held.labels)
    return Judged(estimated_accuracy(right), estimated_accuracy(kept), attacked)


def headings(points: AttackedPoints | None) -> tuple[str, ...]:
    """Return the headings of `Judged.cells`."""
    return ("clean", "any g") if points is None else ("clean", "any g", "attacked")


def parameters(found: NutsFitted) -> tuple[Cell, ...]:
    """Return the cells that `PARAMETERS` names."""
    own = found.fit
    return (Quantity(own.s, 3), Quantity(own.p, 2), Quantity(own.c, 3), Quantity(own.alpha, 6, rounding="up"))


def notes(inputs: Inputs) -> tuple[str, ...]:
    """Return what a reader of any table of judged mixes must know."""
    tune, held = (len(half.labels) for half in inputs.fit.halves())
    beta = plain_decimal(inputs.fit.choices.share)
    found: list[Any] = [
        f"Estimates. Fitted on the {tune:,} cached images at even positions (beta {beta} unless the table "
        f"says otherwise), judged on the {held:,} at odd positions, which these fits have not seen; the "
        "mix saved in the folder was tuned on both halves, and is not what is judged here.",
        "any g: the share whose class stands at the image's point of smallest margin (margin of the "
        "robust side >= (1 - alpha) / alpha), even if g puts all it has on the runner-up. No bound for "
        "the mix with its own g, which may do better; stronger attacks on h may lower it.",
    ]
    points = inputs.points
    if points is not None:
        found.append(
            f"attacked: right on all points of {len(points.base) - 1} attacks in {points.folder.name}, of "
            f"{len(points.labels):,} images that none of these fits has seen. The points were made for other "
            "mixes, so this is by transfer: an upper bound of robust accuracy, and a loose one for mixes far "
            "from the one evaluated there."
        )
    return (*found, inputs.fit.origin)
