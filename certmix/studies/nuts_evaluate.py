"""MixedNUTS under its strongest attacks, beside g, h and the plain mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from certmix.attacks.minimum_margin import label_margin
from certmix.calling import call_both
from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier, mix_logits
from certmix.nuts.adaptive import AuxiliaryMixture, DirectBypass, direct_bypass
from certmix.nuts.description import MixSettings
from certmix.nuts.folder import LoadedNuts, load_nuts
from certmix.nuts.grid import TransformSettings, check_shares
from certmix.nuts.mixture import NutsMixture, transformed_logits
from certmix.nuts.transform import NonlinearTransform
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import Bench, attacked_points, fill, outputs, reduced
from certmix.runs.cells import Batch, Cell
from certmix.runs.sources import Sources, join, load_data
from certmix.sampling import resolve_device
from certmix.studies.mix_sweep import check_alphas
from certmix.studies.nuts_fit import own_attack
from certmix.studies.shares import attacked_accuracy, estimated_accuracy, inputs_file
from certmix.studies.study import CLEAN, STD, Numbers, StudyResult, Surroundings, open_study
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal
from certmix.types import FloatArray

__all__ = ["nuts_evaluate", "paired_change"]

SWEEP = (0.0, 0.3, 0.6, 0.9)
NUTS = "MixedNUTS"
CONTENDERS = ("standard (g)", "robust (h)")
RESAMPLES = 10_000
SWEEP_CELL = "sweep r_d "


def nuts_evaluate(
    folder: str | Path | LoadedNuts,
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    plain_alphas: Sequence[float] = (0.6, 0.75, 0.9),
    targets: int = 9,
    queries: int = 500,
    r_d_sweep: Sequence[float] = SWEEP,
    sweep_inputs: int = 50,
    autoattack: bool = False,
) -> StudyResult:
    """Attack a fitted mix, of a folder or in memory, every way there is, on inputs that it was not tuned on.

    Attacks run one after the other, each on the inputs that the earlier ones left right; every classifier is
    judged on all points found for any: Section 5 and Appendices B.2 and D of Bai, Zhou, Patel, Sojoudi,
    "MixedNUTS", TMLR 2024.  The table has a row a classifier; changes are relative to the robust classifier
    alone.  Its ``extra`` tells which attack was the first to break how many inputs of the nonlinear mix,
    ``inputs.tsv`` tells it input by input.

    The request is norm, eps, steps of APGD (20 by default) and inputs.  `plain_alphas` are weights of the
    plain mix to compare with; `targets` and `queries` are of targeted APGD and of Square.  The obfuscation
    check is transfer with each of `r_d_sweep`, on the first of the inputs.  `autoattack` runs pyautoattack's
    standard suite through the bypass as well.
    """
    request, named = own_attack(request, 20), sources or Sources()
    alphas, where = check_alphas(plain_alphas), where or Surroundings()
    targets, queries, sweep_inputs = int(targets), int(queries), int(sweep_inputs)
    for name, value in (("targets", targets), ("queries", queries), ("sweep inputs", sweep_inputs)):
        if value < 1:
            raise ParameterError(f"{name} = {value}: at least 1 is needed")
    for r_d in r_d_sweep:
        check_shares(r_d=r_d)
    device, dataset = resolve_device(where.device), load_data(named)
    if isinstance(folder, LoadedNuts):
        nuts, folder = folder, folder.folder
    else:
        nuts = load_nuts(Path(folder), device=device, classes=dataset.classes, run_code=named.run_code)
    own, tuned = nuts.settings, np.empty(0, np.int64)
    if own.alpha_d is None:
        raise ParameterError(
            f"{folder}: its auxiliary weight alpha_d is unknown: fit it with certmix nuts fit"
        )
    if nuts.tuning is None:
        where.say(f"{folder} does not say which inputs it was tuned on: make sure that none is here")
    else:
        tuned = nuts.tuning.shared(dataset.checksum, dataset.indices)
        if nuts.tuning.checksum != dataset.checksum:
            where.say(
                f"{folder} was tuned on {nuts.tuning.data}, these are other data: make sure that no input "
                "is in both"
            )
    more = {"targets": targets, "queries": queries, "plain_alphas": list(alphas), "autoattack": autoattack}
    with open_study(
        "nuts-evaluate", request, named, where,
        asked={"nuts": str(folder), "r_d_sweep": list(r_d_sweep), "sweep_inputs": sweep_inputs, **more},
        identity={"settings": msgspec.to_builtins(own), **more},
        loaded=join(dataset, nuts.standard, nuts.robust, device, where.say), left_out=tuned,
    ) as study:  # fmt: skip
        suite = Suite(study.bench, study.pair, own)
        numbers = study.fill(suite.cells(alphas, targets, queries, autoattack))
        if numbers.complete:
            some = replace(study.bench, positions=study.bench.positions[:sweep_inputs])
            _, complete = fill(some, [suite.sweep(r_d) for r_d in r_d_sweep])
            numbers = replace(numbers, complete=complete)
        return numbers.publish(study.run, view(numbers))


def view(numbers: Numbers) -> StudyResult:
    """Return the table, a row a classifier, and what broke each input first; the first cell is clean."""
    request, asked, labels = numbers.request, numbers.asked, numbers.labels
    own = msgspec.convert(asked["settings"], MixSettings)
    several = contenders(own, asked["plain_alphas"])
    base = [numbers.read(name) for name in numbers.cells]
    right = {
        name: np.stack([rule.right(points, labels) for points in base]) for name, rule in several.items()
    }
    robust = right[CONTENDERS[1]]
    rows: list[tuple[Any, ...]] = []
    counts: dict[str, tuple[int, int]] = {}  # inputs right clean, and on all points
    for name, one in right.items():
        clean, worst = one[0], one.all(0)
        counts[name] = int(clean.sum()), int(worst.sum())
        changes: list[Any] = []
        for wrong, reference in ((~clean, ~robust[0]), (~worst, ~robust.all(0))):
            change = paired_change(wrong, reference)
            words = "-"
            if change is not None:  # rounded outwards
                words = f"{np.floor(10 * change[1]) / 10:.1f} to {np.ceil(10 * change[2]) / 10:.1f}"
            changes += [Quantity(None if change is None else change[0], 1), words]
        rows.append((name, estimated_accuracy(clean), attacked_accuracy(worst), *changes))
    first = np.where(right[NUTS].all(0), "", np.array(numbers.cells)[(~right[NUTS]).argmax(0)]).tolist()
    broken_by = {name: first.count(name) for name in numbers.cells if name in first}
    square = broken_by.get(f"{NUTS}, square", 0)
    sweep = _sweep(numbers, right[NUTS][0], several[NUTS])
    inputs, (clean_nuts, attacked_nuts) = len(labels), counts[NUTS]
    plain = [name for name in counts if name.startswith("plain mix")]
    best = max(plain, key=lambda name: sum(counts[name]))  # there is at least one
    equal = [name for name in plain if counts[name][1] >= attacked_nuts]
    comparison = f"No plain mix of the list has the attacked accuracy of {NUTS}."
    if equal:
        match = max(equal, key=lambda name: counts[name][0])
        comparison = (
            f"At no less attacked accuracy than {NUTS} the most accurate plain mix is {match}: "
            f"{NUTS} has {100 * (clean_nuts - counts[match][0]) / inputs:+.1f} points of clean accuracy."
        )
    obfuscation = []
    if sweep:
        verdict = "Square found nothing that the white-box attacks missed: no sign of hidden gradients"
        if square:
            verdict = f"Square broke {square} inputs that no white-box attack did: gradients may be hidden"
        words = ", ".join(f"{r}: {100 * accuracy:.1f}" for r, accuracy in sweep.items())
        obfuscation = [f"{verdict}. Accuracy (%) under transfer alone, by r_d: {words}."]
    fitted = ", ".join(f"{name} {getattr(own.transform, name):.6g}" for name in "spc")
    table = Table(
        name="nuts-evaluate",
        title="MixedNUTS against its base models and the plain mix: accuracy (%) with 95 % intervals",
        settings=f"{request.words()}, {inputs:,} inputs; {fitted}, alpha {own.alpha:.6g}, "
        f"T {own.standard_temperature:g}",
        headings=(
            "classifier", "clean", "attacked", "change of clean error (%)", "clean change, 95 %",
            "change of attacked error (%)", "attacked change, 95 %",
        ),
        rows=tuple(rows),
        notes=(
            "Change: relative to the error of the robust classifier alone, on the same inputs, with paired "
            "bootstrap intervals; 100 % is twice as many errors.",
            "Attacked: right on every point that any attack of this evaluation found for any classifier; an "
            "upper bound of robust accuracy, not a certificate.",
            f"Largest sum of clean and attacked accuracy among plain mixes: {best}.",
            comparison,
            "Inputs of the nonlinear mix by what broke it first, whose attack and which (STD: points that "
            "fool g): " + "; ".join(f"{name}: {count}" for name, count in broken_by.items()) + ".",
            *obfuscation,
            f"Run: data {numbers.data}; mix {Path(asked['nuts']).name}; seed {request.seed}.",
        ),
        complete=numbers.complete,
        extra={"broken_by": broken_by, "square_found": square, "r_d_sweep": sweep},
    )  # fmt: skip
    columns = (numbers.indices, labels, first)
    return StudyResult(table, files=inputs_file(("idx", "label", "broken_by"), columns))


def _sweep(numbers: Numbers, clean: np.ndarray, rule: Rule) -> dict[str, float]:
    """Return accuracy under the transfer attack with each r_d alone, on inputs that have every figure."""
    cells = {plain_decimal(float(r)): f"{SWEEP_CELL}{r!r}" for r in numbers.asked["r_d_sweep"]}
    known = [numbers.store.known(cell) for cell in cells.values()]
    wanted = numbers.indices[: numbers.asked["sweep_inputs"]].tolist()
    rows = [row for row, index in enumerate(wanted) if all(index in one for one in known)]
    if not rows:
        return {}
    some = replace(numbers, indices=numbers.indices[rows], labels=numbers.labels[rows])
    return {
        r_d: attacked_accuracy(clean[rows] & rule.right(some.read(cell), some.labels)).accuracy
        for r_d, cell in cells.items()
    }


@dataclass(frozen=True)
class Rule:
    """How a mix answers; without a transform it is the plain mix, g at alpha 0 and h at alpha 1."""

    alpha: float
    transform: TransformSettings | None = None
    standard_temperature: float = 1.0

    @classmethod
    def of(cls, settings: MixSettings) -> Rule:
        return cls(settings.alpha, settings.transform, settings.standard_temperature)

    def mix(self, standard: Tensor, robust: Tensor) -> Tensor:
        """Return the mix's logits from both base models'."""
        if self.transform is not None:
            robust = transformed_logits(robust, NonlinearTransform.of(self.transform))
        return mix_logits(standard, robust, self.alpha, self.standard_temperature)

    def right(self, base: FloatArray, labels: np.ndarray) -> np.ndarray:
        """Return bool (n,) from base logits (n, 2 c); rows that were not attacked (NaN) count as right."""
        attacked = ~np.isnan(base).any(1)
        standard, robust = (torch.from_numpy(part) for part in np.split(np.nan_to_num(base), 2, axis=1))
        return np.asarray((self.mix(standard, robust).argmax(1).numpy() == labels) | ~attacked)


def contenders(own: MixSettings, plain_alphas: Sequence[float]) -> dict[str, Rule]:
    """Return g, h, the plain mixes and the nonlinear mix, by name."""
    plain = {f"plain mix, alpha {alpha:g}": Rule(alpha) for alpha in plain_alphas}
    return {CONTENDERS[0]: Rule(0.0), CONTENDERS[1]: Rule(1.0), **plain, NUTS: Rule.of(own)}


class Suite:
    """The cells of an evaluation, from the base models, also in reduced precision, and the mix's numbers."""

    def __init__(self, bench: Bench, pair: tuple[nn.Module, nn.Module], own: MixSettings) -> None:
        self.bench, self.pair, self.own = bench, pair, own
        self.quick = reduced(bench, pair[0]), reduced(bench, pair[1])

    def cells(
        self, plain_alphas: Sequence[float], targets: int, queries: int, autoattack: bool
    ) -> list[Cell]:
        """Return the cells: clean, transfer from g, attacks on h, on the plain mixes, on the nonlinear mix.

        Every cell keeps both base models' logits at its points, so that every contender is judged on every
        point; an attack skips (NaN) the inputs that an earlier cell's point already broke for the contender
        it is made for.
        """
        bench, both, own = self.bench, (self.pair, self.quick), self.own
        rules = contenders(own, plain_alphas)
        cells = [Cell(CLEAN, lambda batch: outputs(self.pair, batch.inputs))]

        def add(target: str, how: str, attack: Callable[[Batch], Tensor]) -> None:
            kept = partial(self._left_right, rules[target], [c.name for c in cells], attack)
            cells.append(Cell(f"{target}, {how}", kept))

        def white_box(target: str, models: Sequence[nn.Module], how: str = "") -> None:
            tried = partial(attacked_points, bench, models[0], quick=models[1])
            add(target, f"{how}apgd-ce", partial(tried, attack="apgd-ce"))
            add(target, f"{how}apgd-targeted", partial(tried, attack="apgd-targeted", targets=targets))

        def from_standard(batch: Batch) -> FloatArray:
            g, quick = self.pair[0], self.quick[0]
            points = attacked_points(bench, g, batch, attack="apgd-ce", quick=quick, early_stop=False)
            return outputs(self.pair, points)

        cells.append(Cell(STD, from_standard))
        white_box(CONTENDERS[1], [robust for _, robust in both])
        for name, rule in list(rules.items())[2:-1]:
            white_box(name, [MixedClassifier(*pair, rule.alpha).eval() for pair in both])
        add(NUTS, "transfer from the auxiliary", partial(self._transfer, own.r_d))
        bypass = [self._bypass(pair, own.r_d) for pair in both]
        white_box(NUTS, bypass, "bypass, ")
        if autoattack:
            exact = replace(bench, request=bench.request.replace(steps=None, precision="fp32"))
            tried = partial(attacked_points, exact, bypass[0], attack="autoattack")
            add(NUTS, "bypass, autoattack", tried)
        asking = replace(bench, request=bench.request.replace(steps=queries, attack="square"))
        full, quick = (NutsMixture.of(own, *pair) for pair in both)
        add(NUTS, "square", partial(attacked_points, asking, full, quick=quick))
        return cells

    def sweep(self, r_d: float) -> Cell:
        """Return the cell of one transfer attack alone, on every input: part of the obfuscation check."""
        name = f"{SWEEP_CELL}{r_d!r}"
        return Cell(name, lambda batch: outputs(self.pair, self._transfer(r_d, batch)), key="sweep")

    def _bypass(self, pair: tuple[nn.Module, nn.Module], r_d: float) -> DirectBypass:
        assert self.own.alpha_d is not None
        return direct_bypass(NutsMixture.of(self.own, *pair), self.own.alpha_d, r_d)

    def _left_right(
        self, rule: Rule, earlier: Sequence[str], attack: Callable[[Batch], Tensor], batch: Batch
    ) -> FloatArray:
        """Attack the inputs that every earlier cell leaves right; the others' rows are NaN."""
        store, indices = self.bench.store, batch.indices.tolist()
        labels = batch.labels.cpu().numpy()
        right = [rule.right(store.read(cell, indices), labels) for cell in earlier]
        left = np.logical_and.reduce(right).nonzero()[0]
        found = np.full((len(labels), 2 * self.bench.dataset.classes), np.nan)
        if len(left):
            rows = torch.from_numpy(left).to(batch.inputs.device)
            some = replace(
                batch, inputs=batch.inputs[rows], labels=batch.labels[rows], indices=batch.indices[left]
            )
            found[left] = outputs(self.pair, attack(some))
        return found

    def _transfer(self, r_d: float, batch: Batch) -> Tensor:
        """Attack the auxiliary mix, and keep of its points those of smallest margin of the true mix."""
        mix = Rule.of(self.own).mix
        watched = _Watched(self._bypass(self.quick, r_d).auxiliary).eval()
        points = batch.inputs.clone()
        smallest = points.new_full((len(points),), torch.inf, dtype=torch.float64)

        def track(at: Tensor, tried: Tensor, logits: Tensor, step: int) -> None:
            margin = label_margin(mix(*watched.last), batch.labels[at])
            rows = (margin < smallest[at]).nonzero().squeeze(1)
            points[at[rows]], smallest[at[rows]] = tried[rows], margin[rows]

        bench = replace(self.bench, request=self.bench.request.replace(precision="fp32"))
        attacked_points(bench, watched, batch, attack="apgd-ce", early_stop=False, track=track)
        return points


class _Watched(nn.Module):
    """The auxiliary mix, which remembers the base models' logits of its last pass."""

    last: tuple[Tensor, Tensor]

    def __init__(self, auxiliary: AuxiliaryMixture) -> None:
        super().__init__()
        self.auxiliary = auxiliary

    def forward(self, inputs: Tensor) -> Tensor:
        standard, robust = call_both(self.auxiliary.standard, self.auxiliary.robust, inputs)
        self.last = standard.detach(), robust.detach()
        return self.auxiliary.mix(standard, robust)


def paired_change(wrong: Any, reference_wrong: Any) -> tuple[float, float, float] | None:
    """Return the change of the number of errors relative to a reference on the same inputs (m,), in percent.

    With its 95 % interval, by the percentile bootstrap over inputs: of all that matters only how many inputs
    either errs on, so counts are resampled.  None where the reference never errs.
    """
    one, two = np.asarray(wrong, bool), np.asarray(reference_wrong, bool)
    both, only_one, only_two = (one & two).sum(), (one & ~two).sum(), (~one & two).sum()
    if both + only_two == 0:
        return None
    percent = 100 * (both + only_one) / (both + only_two) - 100
    shares = np.array([both, only_one, only_two, len(one) - both - only_one - only_two]) / len(one)
    drawn = np.random.default_rng(0).multinomial(len(one), shares, RESAMPLES)
    errors, reference = drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]
    changes = 100 * errors[reference > 0] / reference[reference > 0] - 100
    low, high = np.quantile(changes, [0.025, 0.975])
    return float(percent), float(low), float(high)
