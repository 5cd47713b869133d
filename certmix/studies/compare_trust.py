"""Clean against attacked accuracy for every trust term and form: Figures 1 and 4 of the first paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from certmix.data import spread, stack
from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier, mix_outputs
from certmix.models.trust import FORMS, TRUSTS, log_trust_values
from certmix.runs import Store
from certmix.runs.attack_request import DEFAULT_EPS, AttackRequest
from certmix.runs.attacking import attacked_outputs, outputs
from certmix.runs.cells import Batch, Cell
from certmix.runs.sources import Sources
from certmix.studies.mix_sweep import check_alphas
from certmix.studies.shares import attacked_accuracy, estimated_accuracy
from certmix.studies.study import CLEAN, Numbers, Study, StudyResult, Surroundings, open_study
from certmix.tables.study_plots import Curve, Panel, trust_image
from certmix.tables.table import Table
from certmix.text import as_given, floor_percent, plain_decimal
from certmix.types import EstimatedAccuracy, FloatArray

__all__ = ["DEFAULT_WEIGHTS", "compare_trust"]

DEFAULT_WEIGHTS = (0.25, 0.5, 0.6, 0.75, 0.9)
CALIBRATION_INPUTS = 50
_LARGEST = 700.0
"""Largest |log gamma|: its exponential is still a number."""


def compare_trust(
    weights: Sequence[float] = DEFAULT_WEIGHTS,
    trusts: Sequence[str] = ("constant", "max-gradient"),
    forms: Sequence[str] = ("probabilities", "logits"),
    norms: Sequence[str] = ("linf",),
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
) -> StudyResult:
    """Attack the mix of every trust term and form at several weights, with equal budgets.

    R_i of equation 3 has a scale of its own for every term (a gradient's norm), so weights are compared where
    they mean the same: ``weight`` w, in [0, 1], stands for the gamma at which the median calibration input
    gives the robust classifier the weight w = gamma R / (1 + gamma R).  0 and 1 are added.  Trust terms and
    forms are names in `certmix.models.trust.TRUSTS` and `FORMS`; norms have the radius of `DEFAULT_EPS` each,
    a single one that of the request.  The attack is PGD of 10 steps by default, as in Section 3, Figures 1
    and 4 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off".

    A row of the table is a weight of a term and form; ``.data`` of the result holds by (norm, trust, form)
    the attacked accuracy where clean accuracy is halfway between the two classifiers', by linear
    interpolation, None where it does not get there.
    """
    request = request or AttackRequest(steps=10)
    inner = check_alphas(sorted({*weights, 0.0, 1.0}))
    for kind, names, known in (
        ("trust term", trusts, tuple(TRUSTS)),
        ("form", forms, tuple(FORMS)),
        ("norm", norms, tuple(DEFAULT_EPS)),
    ):
        unknown = [name for name in names if name not in known]
        if unknown or not names or len(set(names)) < len(names):
            told = repr(unknown[0]) if unknown else f"{list(names)}"
            raise ParameterError(f"{kind} {told}: give each once, out of {', '.join(known)}")
    balls = {request.norm: request.eps}
    if tuple(norms) != (request.norm,):
        if request.eps != DEFAULT_EPS[request.norm]:
            raise ParameterError(f"eps = {request.eps}: one radius for {len(norms)} norms; give one --norm")
        balls = {norm: request.replace(norm=norm, eps=None).eps for norm in norms}
    asked = {"weights": list(inner), "trusts": list(trusts), "forms": list(forms), "balls": balls}
    with open_study(
        "compare-trust", request, sources, where, asked=asked,
        identity={"norm": "as the cell says", "eps": "as the cell says"},
    ) as study:  # fmt: skip
        pair, bench, dataset = study.pair, study.bench, study.bench.dataset
        for variant in _variants(bench.store, asked):
            if variant.trust != "constant" and math.isnan(variant.log_median):
                inputs = stack(dataset, spread(len(dataset), CALIBRATION_INPUTS))  # a fixed set of inputs
                values = torch.from_numpy(variant.log_trust(pair, torch.from_numpy(inputs).to(bench.device)))
                median = float(values.nan_to_num(neginf=-_LARGEST, posinf=_LARGEST).median())
                bench.store.put(variant.key, repr(median))
        cells = _cells(study, _variants(bench.store, asked), balls, inner)
        numbers = study.fill(cells, [cell.name for cell in cells if cell.name.startswith("attacked")])
        return numbers.publish(study.run, view(numbers))


def view(numbers: Numbers) -> StudyResult:
    """Return the table, a row a weight, its figure, and attacked accuracies halfway."""
    request, asked, labels = numbers.request, numbers.asked, numbers.labels
    weights, variants, pair = tuple(asked["weights"]), _variants(numbers.store, asked), numbers.pair(CLEAN)
    panels: dict[str, Panel] = {}
    halfway: dict[tuple[str, str, str], float | None] = {}
    halves, rows = [], []
    for norm, eps in asked["balls"].items():
        curves: dict[tuple[str, str], Curve] = {}
        reached: list[tuple[float, str]] = []
        for variant in (v for v in variants if v.norm == norm):
            values = None
            if variant.trust != "constant":
                values = torch.from_numpy(numbers.read(variant.cell))
            clean, attacked = [], []
            for weight in weights:
                mixed = mix_outputs(*pair, variant.alpha(weight), log_trust=values, form=variant.form)
                right = mixed.argmax(1).numpy() == labels
                alone = None if weight in (0.0, 1.0) else variant
                at = numbers.read(attack_cell(norm, eps, alone, weight))
                clean.append(estimated_accuracy(right))
                attacked.append(attacked_accuracy(right & (at.argmax(1) == labels)))
                names = (norm, variant.trust, variant.form, plain_decimal(weight))
                rows.append((*names, clean[-1], attacked[-1]))
            curves[variant.trust, variant.form] = clean, attacked
            half = halfway[variant.names] = _halfway(clean, attacked)
            if half is not None:
                reached.append((half, f"{variant.trust}, {variant.form} {floor_percent(half)}"))
        panels[f"{request.attack}, {norm} eps {as_given(eps)}, {len(labels):,} inputs"] = norm, eps, curves
        words = "; ".join(told for _, told in sorted(reached, key=lambda one: -one[0]))
        halves.append(f"Attacked accuracy (%) where clean accuracy is halfway ({norm}): {words}.")
    balls = ", ".join(f"{norm} eps {as_given(eps)}" for norm, eps in asked["balls"].items())
    budget = "" if request.steps is None else f" ({request.steps} steps)"
    table = Table(
        name="compare-trust",
        title="Clean against attacked accuracy (%) of every trust term, with 95 % intervals over inputs",
        settings=f"{request.attack}{budget}, {balls}, {len(labels):,} inputs",
        headings=("norm", "trust", "form", "weight", "clean", "attacked"),
        rows=tuple(rows),
        notes=(
            "Weight: of the robust classifier at the median input, gamma R / (1 + gamma R); 0 is the "
            "standard classifier alone, 1 the robust one. All are attacked end to end with equal budgets.",
            "Attacked accuracies are upper bounds of robust accuracy, not certificates.",
            *halves,
            *numbers.blind,
            numbers.provenance,
        ),
        complete=numbers.complete,
        extra={"log_median_trust": {variant.name: variant.log_median for variant in variants}},
    )
    return StudyResult(table, {"compare-trust": partial(trust_image, weights, panels)}, halfway)


def _halfway(*curve: Sequence[EstimatedAccuracy]) -> float | None:
    """Attacked accuracy where clean accuracy is halfway between the classifiers'; the best such point."""
    clean, attacked = ([share.accuracy for share in shares] for shares in curve)
    target, best = (clean[0] + clean[-1]) / 2, []
    for k in range(len(clean) - 1):
        low, high = sorted((clean[k], clean[k + 1]))
        if low <= target <= high:
            share = 0.5 if low == high else (target - clean[k]) / (clean[k + 1] - clean[k])
            best.append(attacked[k] + share * (attacked[k + 1] - attacked[k]))
    return max(best, default=None)


@dataclass(frozen=True)
class Variant:
    """A trust term in a form against a norm, with the median of log R that makes its weights comparable."""

    norm: str
    trust: str
    form: str
    log_median: float

    @property
    def names(self) -> tuple[str, str, str]:
        return self.norm, self.trust, self.form

    @property
    def name(self) -> str:
        return " ".join(self.names)

    @property
    def key(self) -> str:
        return "/".join(("median", *self.names))

    @property
    def cell(self) -> str:
        """Name of the cell that holds log R at the clean inputs."""
        return f"log R {self.name}"

    def log_trust(self, pair: tuple[nn.Module, nn.Module], inputs: Tensor) -> FloatArray:
        """Return log R of inputs, float64 (m,)."""
        return log_trust_values(*pair, inputs, self.trust, self.form, self.norm).double().cpu().numpy()

    def alpha(self, weight: float) -> float:
        """Return the mixing weight at which the median input gives the robust classifier this weight.

        The weight of equation 3 is gamma R / (1 + gamma R), and alpha = gamma / (1 + gamma).
        """
        if weight in (0.0, 1.0):
            return weight
        log_gamma = math.log(weight / (1.0 - weight)) - self.log_median
        alpha = 1.0 / (1.0 + math.exp(-min(max(log_gamma, -_LARGEST), _LARGEST)))
        return min(alpha, math.nextafter(1.0, 0.0))


def _variants(store: Store, asked: Mapping[str, Any]) -> list[Variant]:
    """Return the variants that are compared, with the medians that the run holds, NaN where it holds none."""
    found = []
    for names in itertools.product(asked["balls"], asked["trusts"], asked["forms"]):
        median = 0.0 if names[1] == "constant" else float(store.get(Variant(*names, 0.0).key) or "nan")
        found.append(Variant(*names, median))
    return found


def _cells(
    study: Study, variants: Sequence[Variant], balls: dict[str, float], weights: tuple[float, ...]
) -> list[Cell]:
    """Return the cells: clean outputs, both classifiers alone under attack, then every variant."""
    pair, cells = study.pair, [Cell(CLEAN, lambda batch: outputs(study.pair, batch.inputs))]

    def attacked(norm: str, variant: Variant | None, weight: float, model: nn.Module) -> None:
        """Add the attacked model's own outputs at the points found against it."""
        name = attack_cell(norm, balls[norm], variant, weight)
        bench = replace(study.bench, request=study.bench.request.replace(norm=norm, eps=balls[norm]))
        cells.append(Cell(name, lambda batch: attacked_outputs(bench, (model,), name, model, True, batch)))

    def log_trust(variant: Variant, batch: Batch) -> FloatArray:
        return variant.log_trust(pair, batch.inputs)

    for norm in balls:
        attacked(norm, None, 0.0, pair[0])
        attacked(norm, None, 1.0, pair[1])
    for variant in variants:
        if variant.trust != "constant":
            cells.append(Cell(variant.cell, partial(log_trust, variant)))
        for weight in weights[1:-1]:
            alpha, (norm, trust, form) = variant.alpha(weight), variant.names
            mix = MixedClassifier(*pair, alpha, trust=trust, form=form, norm=norm)
            attacked(norm, variant, weight, mix.eval())
    return cells


def attack_cell(norm: str, eps: float, variant: Variant | None, weight: float) -> str:
    """Return the name of one attack's cell; a variant of None is a classifier alone."""
    what = ("standard alone" if weight == 0.0 else "robust alone") if variant is None else variant.name
    return f"attacked eps {eps!r} {norm} {what} {weight!r}"
