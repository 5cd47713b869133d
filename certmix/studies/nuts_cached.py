"""What studies of cached results read (fits, and an evaluation), and how they judge a mix."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from certmix.errors import DataError, ParameterError, RunError
from certmix.nuts.margins import attacked_margin, transform_numpy
from certmix.runs import read_run
from certmix.runs.folder import CERTIFY, DATABASE, command_of
from certmix.studies.nuts_evaluate import Rule
from certmix.studies.nuts_fit import CachedLogits, FitChoices, NutsFitted, cached, fit_cached
from certmix.studies.shares import attacked_accuracy, estimated_accuracy
from certmix.studies.study import CLEAN, Numbers, some, stored_numbers
from certmix.tables.table import Cell, Quantity
from certmix.text import plain_decimal
from certmix.types import FloatArray, IntArray


@dataclass(frozen=True)
class FitCache:
    """A run folder of a fit: its logits, how Algorithm 1 was run last, the attack, and ``run.json``."""

    folder: Path
    logits: CachedLogits
    choices: FitChoices
    numbers: Numbers
    split: str

    @cached_property
    def fitted(self) -> NutsFitted:
        """The fit on all cached inputs, run again: it is deterministic."""
        return fit_cached(self.logits, self.choices)

    @cached_property
    def halves(self) -> tuple[CachedLogits, CachedLogits]:
        """The inputs at even positions, to fit on, and at odd ones, to judge on."""
        positions = np.arange(len(self.logits.labels))
        return self.logits.take(positions[::2]), self.logits.take(positions[1::2])

    def solve(self, tune: CachedLogits | None = None, **changes: Any) -> NutsFitted:
        """Fit on inputs, by default the half to fit on, with some choices changed."""
        return fit_cached(self.halves[0] if tune is None else tune, self.choices.replace(**changes))

    @property
    def origin(self) -> str:
        """A line on where the logits come from."""
        own, models = self.numbers, self.numbers.models
        return (
            f"Logits: {self.folder.name}, {len(self.logits.labels):,} inputs of {own.data} "
            f"({self.split}); standard {models['standard']}; robust {models['robust']}; "
            f"{own.request.words()}."
        )


@dataclass(frozen=True)
class AttackedPoints:
    """Logits of g and h, float64 (m, 2 c) by cell, at every point of an evaluation; NaN: not attacked."""

    folder: Path
    labels: IntArray
    indices: IntArray
    base: dict[str, FloatArray]


@dataclass(frozen=True)
class Inputs:
    """The folders that a study was given."""

    fits: tuple[FitCache, ...]
    points: AttackedPoints | None = None

    @property
    def fit(self) -> FitCache:
        """The only fit, or the first."""
        return self.fits[0]

    def judge(self, rule: Rule) -> tuple[Any, ...]:
        """Judge a mix on the half that is held out, and on the evaluation's points."""
        return judge(rule, self.fit.halves[1], self.points)

    @property
    def headings(self) -> tuple[str, ...]:
        return ("clean", "any g") if self.points is None else ("clean", "any g", "attacked")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of any table of judged mixes must know."""
        tune, held = (len(half.labels) for half in self.fit.halves)
        found = [
            f"Estimates. Fitted on the {tune:,} cached inputs at even positions (beta "
            f"{plain_decimal(self.fit.choices.beta)} unless the table "
            f"says otherwise), judged on the {held:,} at odd positions, which these fits have not seen; the "
            "mix saved in the folder was tuned on both halves, and is not what is judged here.",
            "any g: the share whose class stands at the input's point of smallest margin (margin of the "
            "robust side >= (1 - alpha) / alpha), even if g puts all it has on the runner-up. No bound for "
            "the mix with its own g, which may do better; stronger attacks on h may lower it.",
        ]
        points = self.points
        if points is not None:
            found.append(
                f"attacked: right on all points of {len(points.base) - 1} attacks in {points.folder.name}, "
                f"of {len(points.labels):,} inputs that none of these fits has seen. The points were made "
                "for other mixes, so this is by transfer: an upper bound of robust accuracy, and a loose "
                "one for mixes far from the one evaluated there."
            )
        return (*found, self.fit.origin)


def read_inputs(folders: Sequence[str | Path]) -> Inputs:
    """Read run folders, and keep of the evaluation only inputs that no fit was tuned on."""
    fits: list[FitCache] = []
    evaluations: list[Path] = []
    for folder in map(Path, folders):
        run = read_run(folder)
        study = run.get("identity", {}).get("study")
        if study == "nuts-fit":
            with stored_numbers(folder) as numbers:
                logits, choices = cached(numbers), some(FitChoices, numbers.asked)
                fits.append(FitCache(folder, logits, choices, numbers, str(run["data"]["split"])))
            if len(logits.labels) < 2:
                raise DataError(f"{folder} holds 1 input: fit on more")
        elif study == "nuts-evaluate":
            evaluations.append(folder)
        else:
            raise RunError(
                f"{folder} is a run of {command_of(study or CERTIFY)}: "
                "name runs of certmix nuts fit and certmix nuts evaluate"
            )
    if len(evaluations) > 1:
        raise ParameterError(f"{len(evaluations)} of the folders are evaluations: name at most one")
    if not evaluations or not fits:
        return Inputs(tuple(fits))
    (folder,) = evaluations
    with stored_numbers(folder) as numbers:  # of the inputs in its table; no obfuscation check is among them
        base = {name: numbers.read(name) for name in numbers.cells}
    asked, indices, labels = numbers.asked, numbers.indices, numbers.labels
    for role in ("standard", "robust"):
        if asked.get(f"{role}_checksum") != fits[0].numbers.asked.get(f"{role}_checksum"):
            raise RunError(
                f"{folder} evaluates another {role} model than {fits[0].folder} was fitted for: "
                "name an evaluation of its mix"
            )
    widths = {vectors.shape[1] for vectors in base.values()}
    if CLEAN not in base or len(widths) != 1 or max(widths) % 2 or labels.max() >= max(widths) // 2:
        raise RunError(f"{folder / DATABASE} does not hold both models' logits: evaluate again with --fresh")
    unseen = np.ones(len(indices), bool)
    for fit in fits:
        if fit.numbers.asked.get("data_checksum") == asked.get("data_checksum"):
            unseen &= ~np.isin(indices, fit.logits.indices)
    if not unseen.any():
        raise DataError(f"all inputs of {folder} were tuned on: evaluate on others")
    base = {name: vectors[unseen] for name, vectors in base.items()}
    return Inputs(tuple(fits), AttackedPoints(folder, labels[unseen], indices[unseen], base))


def withstands(rule: Rule, robust: FloatArray, labels: IntArray) -> np.ndarray:
    """Return bool (m,): the mix is right at these logits of h, whatever the standard classifier says.

    The worst one puts all its probability on the runner-up: it changes nothing where the margin is at least
    (1 - alpha) / alpha.  At equality it ties, which counts as withstood, as in `certmix.nuts.fit`.
    """
    if rule.alpha == 0.0:
        return np.zeros(len(labels), bool)
    bent = robust if rule.transform is None else transform_numpy(robust, rule.transform)
    margin = attacked_margin(bent, labels)
    return np.asarray((bent.argmax(1) == labels) & (margin >= (1.0 - rule.alpha) / rule.alpha))


def judge(rule: Rule, held: CachedLogits, points: AttackedPoints | None = None) -> tuple[Any, ...]:
    """Return accuracies on cached logits: clean, against any g and, if points are given, on all of these."""
    logits = torch.from_numpy(held.standard), torch.from_numpy(held.robust)
    right = np.asarray(rule.mix(*logits).argmax(1)) == held.labels
    found = estimated_accuracy(right), estimated_accuracy(withstands(rule, held.attacked, held.labels))
    if points is None:
        return found
    held_all = np.logical_and.reduce([rule.right(base, points.labels) for base in points.base.values()])
    return (*found, attacked_accuracy(held_all))


def parameters(found: NutsFitted) -> tuple[Cell, ...]:
    own = found.fit.settings
    alpha = Quantity(found.fit.alpha, 6, rounding="up")
    return (Quantity(own.s, 3), Quantity(own.p, 2), Quantity(own.c, 3), alpha)


def count_flops(model: nn.Module, inputs: Tensor) -> int:
    """Return the operations of matrix products and convolutions in one pass, 2 a multiply-add."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), warnings.catch_warnings(), counter:
        warnings.simplefilter("ignore")
        model(inputs)
    return int(counter.get_total_flops())


class _Elements(TorchDispatchMode):
    """Adds up, operator by operator, the larger of the numbers read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            sizes = [one.numel() for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)]
            self.total += max(sizes, default=0)
        return out


def count_elements(compute: Callable[[], Any]) -> int:
    """Return how many numbers the operators of a computation handle, views aside."""
    with torch.no_grad(), _Elements() as counter:
        compute()
    return counter.total
