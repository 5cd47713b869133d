"""MixedNUTS under its strongest attacks, beside g, h and the plain mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certmix.attacks.minimum_margin import label_margin
from certmix.calling import call_both
from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier, mix_outputs
from certmix.nuts.adaptive import AuxiliaryMixture, direct_bypass
from certmix.nuts.description import MixSettings, check_shares
from certmix.nuts.folder import LoadedNuts, load_nuts
from certmix.nuts.grid import TransformSettings
from certmix.nuts.mixture import NutsMixture, mix_sharpened, transformed_logits
from certmix.nuts.transform import NonlinearTransform
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import Bench, attacked_points, fill, outputs, reduced
from certmix.runs.cells import Batch, Cell
from certmix.runs.keywords import plain_numbers
from certmix.runs.sources import Sources, join, load_data
from certmix.sampling import resolve_device
from certmix.studies.mix_sweep import check_alphas
from certmix.studies.nuts_fit import own_attack
from certmix.studies.study import (
    Numbers,
    StudyResult,
    Surroundings,
    attacked_accuracy,
    estimated_accuracy,
    open_study,
)
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal
from certmix.types import AttackedAccuracy, Dataset, EstimatedAccuracy, FloatArray, IntArray

__all__ = ["Contender", "Evaluation", "PairedChange", "Standing", "nuts_evaluate", "paired_change"]

SWEEP = (0.0, 0.3, 0.6, 0.9)
CLEAN, STD, NUTS = "clean", "STD", "MixedNUTS"
CONTENDERS = ("standard (g)", "robust (h)")
RESAMPLES = 10_000
SWEEP_CELL = "sweep r_d "


@dataclass(frozen=True)
class Standing:
    """How one classifier does: clean, and on every point that the evaluation found."""

    name: str
    clean: EstimatedAccuracy
    attacked: AttackedAccuracy
    clean_change: PairedChange
    attacked_change: PairedChange


@dataclass(frozen=True)
class Evaluation:
    """What a MixedNUTS evaluation found.

    Parameters
    ----------
    standings
        One a classifier; changes are relative to the robust classifier alone.
    broken_by
        For the nonlinear mix: attack -> images that it was the first to break.
    sweep
        r_d -> accuracy under the transfer attack with it alone.
    square_found
        Images that only Square broke.
    first_broken_by
        For each image the attack that was the first to break the nonlinear mix, empty if none did.
    """

    standings: tuple[Standing, ...]
    broken_by: dict[str, int]
    sweep: dict[float, AttackedAccuracy]
    square_found: int
    first_broken_by: tuple[str, ...]

    def standing(self, name: str) -> Standing:
        """Return one classifier's."""
        return next(one for one in self.standings if one.name == name)


def nuts_evaluate(
    folder: str | Path,
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    plain_alphas: Sequence[float] = (0.6, 0.75, 0.9),
    targets: int = 9,
    queries: int = 500,
    r_d_sweep: Sequence[float] = SWEEP,
    sweep_images: int = 50,
    autoattack: bool = False,
) -> StudyResult:
    """Attack a fitted mix every way there is, on images that it was not tuned on.

    Attacks run one after the other, each on the images that the earlier ones
    left right; every classifier is judged on all points found for any.

    Parameters
    ----------
    folder
        Of the fitted mix.
    request
        Norm, eps, steps of APGD (20 by default), images.
    sources
        Data; the models are the mix's own.
    where
        Where and how to run.
    plain_alphas
        Weights of the plain mix to compare with.
    targets, queries
        Of targeted APGD and of Square.
    r_d_sweep, sweep_images
        The obfuscation check: transfer with each r_d, on the first of the images.
    autoattack
        Run pyautoattack's standard suite through the bypass as well.

    Returns
    -------
    StudyResult
        ``.data`` is the `Evaluation`.

    Raises
    ------
    CertmixError
        For anything the user can mend.

    References
    ----------
    Section 5 and Appendices B.2 and D of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    request = own_attack(request, 20)
    alphas, where = check_alphas(plain_alphas), where or Surroundings()
    for name, value in (("targets", targets), ("queries", queries), ("sweep images", sweep_images)):
        if value < 1:
            raise ParameterError(f"{name} = {value}: at least 1 is needed")
    for r_d in r_d_sweep:
        check_shares(r_d=r_d)
    named = sources or Sources()
    device = resolve_device(where.device)
    dataset = load_data(named)
    nuts = load_nuts(Path(folder), device=device, classes=dataset.classes)
    if nuts.settings.alpha_d is None:
        raise ParameterError(
            f"{folder}: its auxiliary weight alpha_d is unknown: fit it with certmix nuts fit"
        )
    asked = {
        "nuts": str(folder), "plain_alphas": list(alphas), "targets": targets, "queries": queries,
        "r_d_sweep": list(r_d_sweep), "sweep_images": sweep_images, "autoattack": autoattack,
    }  # fmt: skip
    with open_study(
        "nuts-evaluate", request, named, where, asked=asked,
        identity={"settings": nuts.settings.as_dict(), "targets": targets, "queries": queries,
                  "plain_alphas": list(alphas), "autoattack": autoattack},
        load=lambda chosen: join(dataset, nuts.standard, nuts.robust, chosen, where.say),
        leave_out=lambda data: _tuned_on(nuts, data, where),
    ) as study:  # fmt: skip
        bench = study.bench
        pair = nuts.standard.module, nuts.robust.module
        suite = Suite(bench, pair, nuts.settings, alphas, targets, queries, autoattack)
        numbers = study.fill(suite_cells(suite))
        if numbers.complete:
            some = replace(bench, positions=bench.positions[:sweep_images])
            _, complete = fill(some, [sweep_cell(suite, r_d) for r_d in r_d_sweep])
            numbers = replace(numbers, complete=complete)
        numbers = replace(numbers, asked={**numbers.asked, "settings": nuts.settings.as_dict()})
        found = evaluate(numbers)
        lines = ["idx\tlabel\tbroken_by"]
        for index, label, first in zip(numbers.indices, numbers.labels, found.first_broken_by, strict=True):
            lines.append(f"{index}\t{label}\t{first}")
        files = {"images.tsv": ("\n".join(lines) + "\n").encode()}
        return study.publish(numbers, table(numbers, found), {}, found, files=files)


def _tuned_on(nuts: LoadedNuts, dataset: Dataset, where: Surroundings) -> IntArray:
    if nuts.tuning is None:
        where.say(f"{nuts.folder} does not say which images it was tuned on: make sure that none is here")
        return np.empty(0, np.int64)
    if nuts.tuning.checksum != dataset.checksum:
        where.say(
            f"{nuts.folder} was tuned on {nuts.tuning.data}, these are other data: make sure that no image "
            "is in both"
        )
    return nuts.tuning.shared(dataset.checksum, dataset.indices)


def _mix(numbers: Numbers) -> MixSettings:
    own = dict(numbers.asked["settings"])
    transform = TransformSettings(**{name: own.pop(name) for name in TransformSettings.__struct_fields__})
    return MixSettings(transform, **own)


def evaluate(numbers: Numbers) -> Evaluation:
    """Return what stored logits at every cell's points say; the clean images are the first cell."""
    own, labels, asked = _mix(numbers), numbers.labels, numbers.asked
    several = contenders(own, asked["plain_alphas"])
    base = [numbers.read(name) for name in numbers.cells]
    right = {one.name: np.stack([one.right(points, labels) for points in base]) for one in several}
    robust, standings = right[CONTENDERS[1]], []
    for name, one in right.items():
        clean, worst = one[0], one.all(0)
        changes = paired_change(~clean, ~robust[0]), paired_change(~worst, ~robust.all(0))
        standings.append(Standing(name, estimated_accuracy(clean), attacked_accuracy(worst), *changes))
    first = np.where(right[NUTS].all(0), "", np.array(numbers.cells)[(~right[NUTS]).argmax(0)]).tolist()
    by = {name: first.count(name) for name in numbers.cells if name in first}
    # The obfuscation check covers the first of the images, and only once all others have every figure.
    sweep, cells = {}, {float(r): f"{SWEEP_CELL}{r!r}" for r in asked["r_d_sweep"]}
    known = [numbers.store.known(cell) for cell in cells.values()]
    rows = [
        row
        for row, index in enumerate(numbers.indices[: asked["sweep_images"]].tolist())
        if all(index in one for one in known)
    ]
    if rows:
        some = replace(numbers, indices=numbers.indices[rows], labels=labels[rows])
        clean = right[NUTS][0][rows]
        for r_d, cell in cells.items():
            sweep[r_d] = attacked_accuracy(clean & several[-1].right(some.read(cell), some.labels))
    return Evaluation(tuple(standings), by, sweep, by.get(f"{NUTS}, square", 0), tuple(first))


def table(numbers: Numbers, found: Evaluation) -> Table:
    """Return the table, a row a classifier."""
    request, own = numbers.request, _mix(numbers)
    rows: list[tuple[Any, ...]] = []
    for one in found.standings:
        changes = [(Quantity(c.percent, 1), c.words()) for c in (one.clean_change, one.attacked_change)]
        rows.append((one.name, one.clean, one.attacked, *changes[0], *changes[1]))
    nuts = found.standing(NUTS)
    plain = [one for one in found.standings if one.name.startswith("plain mix")]
    comparison = []
    if plain:
        best = max(plain, key=lambda one: one.clean.correct + one.attacked.correct)
        comparison = [f"Largest sum of clean and attacked accuracy among plain mixes: {best.name}."]
        equal = [one for one in plain if one.attacked.correct >= nuts.attacked.correct]
        if equal:
            match = max(equal, key=lambda one: one.clean.correct)
            difference = (nuts.clean.correct - match.clean.correct) / nuts.clean.images
            comparison.append(
                f"At no less attacked accuracy than {NUTS} the most accurate plain mix is {match.name}: "
                f"{NUTS} has {100 * difference:+.1f} points of clean accuracy."
            )
        else:
            comparison.append(f"No plain mix of the list has the attacked accuracy of {NUTS}.")
    obfuscation = []
    if found.sweep:
        verdict = "Square found nothing that the white-box attacks missed: no sign of hidden gradients"
        if found.square_found:
            missed = f"Square broke {found.square_found} images that no white-box attack did"
            verdict = f"{missed}: gradients may be hidden"
        words = ", ".join(f"{plain_decimal(r)}: {100 * a.accuracy:.1f}" for r, a in found.sweep.items())
        obfuscation = [f"{verdict}. Accuracy (%) under transfer alone, by r_d: {words}."]
    fitted = ", ".join(f"{name} {getattr(own.transform, name):.6g}" for name in "spc")
    return Table(
        name="nuts-evaluate",
        title="MixedNUTS against its base models and the plain mix: accuracy (%) with 95 % intervals",
        settings=f"{request.words()}, {nuts.clean.images:,} images; {fitted}, alpha {own.alpha:.6g}, "
        f"T {own.temperature:g}",
        headings=(
            "classifier", "clean", "attacked", "change of clean error (%)", "clean change, 95 %",
            "change of attacked error (%)", "attacked change, 95 %",
        ),
        rows=tuple(rows),
        notes=(
            "Change: relative to the error of the robust classifier alone, on the same images, with paired "
            "bootstrap intervals; 100 % is twice as many errors.",
            "Attacked: right on every point that any attack of this evaluation found for any classifier; an "
            "upper bound of robust accuracy, not a certificate.",
            *comparison,
            "Images of the nonlinear mix by what broke it first, whose attack and which (STD: points that "
            "fool g): " + "; ".join(f"{name}: {count}" for name, count in found.broken_by.items()) + ".",
            *obfuscation,
            f"Run: data {numbers.data}; mix {Path(numbers.asked['nuts']).name}; seed {request.seed}.",
        ),
        complete=numbers.complete,
        extra={"broken_by": found.broken_by, "square_found": found.square_found,
               "r_d_sweep": {plain_decimal(r): a.accuracy for r, a in found.sweep.items()}},
    )  # fmt: skip


# ---------------------------------------------------------------------------- the attacks


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
    """What the cells of an evaluation share; `targets` are of targeted APGD, `queries` of Square."""

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


def contenders(own: MixSettings, plain_alphas: Sequence[float]) -> list[Contender]:
    """Return g, h, the plain mixes and the nonlinear mix."""
    bend = NonlinearTransform.of(own.transform)

    def nuts(g: Tensor, h: Tensor) -> Tensor:
        return mix_sharpened(g, transformed_logits(h, bend), own.alpha, own.temperature)

    ends = Contender(CONTENDERS[0], lambda g, h: g), Contender(CONTENDERS[1], lambda g, h: h)
    plain = [Contender(plain_name(alpha), partial(mix_outputs, alpha=alpha)) for alpha in plain_alphas]
    return [*ends, *plain, Contender(NUTS, nuts)]


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
    by_name = {contender.name: contender for contender in contenders(suite.settings, suite.plain_alphas)}
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

    bench = replace(suite.bench, request=suite.bench.request.replace(precision="fp32"))
    attacked_points(bench, watched, batch, attack="apgd-ce", early_stop=False, track=track)
    return points


def _square(suite: Suite, batch: Batch) -> Tensor:
    models = [suite.mixture(pair) for pair in (suite.pair, suite.quick)]
    return attacked_points(
        replace(suite.bench, request=suite.bench.request.replace(steps=suite.queries, attack="square")),
        models[0], batch, quick=models[1],
    )  # fmt: skip


def _autoattack(suite: Suite, bypass: nn.Module, batch: Batch) -> Tensor:
    return attacked_points(
        replace(suite.bench, request=suite.bench.request.replace(steps=None, precision="fp32")),
        bypass, batch, attack="autoattack",
    )  # fmt: skip


def sweep_cell(suite: Suite, r_d: float) -> Cell:
    """Return the cell of one transfer attack alone, on every image: part of the obfuscation check."""
    return Cell(
        f"{SWEEP_CELL}{r_d!r}",
        lambda batch: outputs(suite.pair, _transfer(suite, r_d, batch)),
        key="sweep",
    )


# ---------------------------------------------------------------------------- paired changes


@dataclass(frozen=True)
class PairedChange:
    """Relative change of an error count, in percent, with its 95 % interval.

    ``percent`` and the interval are None where the reference never errs.
    """

    percent: float | None
    low: float | None
    high: float | None

    def words(self) -> str:
        """Return the interval, rounded outwards.

        Examples
        --------
        >>> PairedChange(-28.0, -34.12, -21.78).words()
        '-34.2 to -21.7'
        """
        if self.low is None or self.high is None:
            return "-"
        low, high = np.floor(10 * self.low) / 10, np.ceil(10 * self.high) / 10
        return f"{low:.1f} to {high:.1f}"


def paired_change(wrong: Any, reference_wrong: Any) -> PairedChange:
    """Return the change of errors relative to a reference classifier on the same m images.

    The interval is the percentile bootstrap over images: of all that matters
    only how many images either errs on, so counts are resampled, 10,000 times
    with a fixed seed.

    Parameters
    ----------
    wrong, reference_wrong
        bool (m,): where each errs.

    Examples
    --------
    >>> paired_change([True, False, False, True], [True, True, False, True]).percent
    -33.33333333333333
    """
    one, two = np.asarray(wrong, bool), np.asarray(reference_wrong, bool)
    both, only_one, only_two = (one & two).sum(), (one & ~two).sum(), (~one & two).sum()
    if both + only_two == 0:
        return PairedChange(None, None, None)
    percent = 100 * (both + only_one) / (both + only_two) - 100
    shares = np.array([both, only_one, only_two, len(one) - both - only_one - only_two]) / len(one)
    drawn = np.random.default_rng(0).multinomial(len(one), shares, RESAMPLES)
    errors, reference = drawn[:, 0] + drawn[:, 1], drawn[:, 0] + drawn[:, 2]
    changes = 100 * errors[reference > 0] / reference[reference > 0] - 100
    low, high = np.quantile(changes, [0.025, 0.975])
    return PairedChange(float(percent), float(low), float(high))
