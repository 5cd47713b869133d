"""MixedNUTS under its strongest attacks, beside g, h and the plain mix."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import ParameterError, RunError
from certmix.nuts.folder import LoadedNuts, load_nuts
from certmix.report.rounding import plain_decimal
from certmix.report.sheet import Quantity, Sheet
from certmix.sampling import resolve_device
from certmix.studies.accuracy import attacked_accuracy, estimated_accuracy
from certmix.studies.attack_request import AttackRequest
from certmix.studies.attacking import fill
from certmix.studies.empirical import Study, StudyResult, Surroundings, open_study
from certmix.studies.mix_sweep import check_alphas
from certmix.studies.nuts_suite import (
    CLEAN,
    NUTS,
    Contender,
    Suite,
    contenders,
    plain_name,
    suite_cells,
    sweep_cell,
)
from certmix.studies.paired import PairedChange, paired_change
from certmix.studies.sources import Sources, join, load_data
from certmix.types import AttackedAccuracy, Dataset, EstimatedAccuracy, FloatArray, IntArray

__all__ = ["Evaluation", "Standing", "nuts_evaluate"]

SWEEP = (0.0, 0.3, 0.6, 0.9)


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
    """

    standings: tuple[Standing, ...]
    broken_by: dict[str, int]
    sweep: dict[float, AttackedAccuracy]
    square_found: int

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
    sweep_images: int = 100,
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
        Norm, eps, steps of APGD, images.
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
    request = request or AttackRequest(attack="apgd-ce", steps=50)
    if request.attack != "apgd-ce":
        raise ParameterError(f"attack {request.attack!r}: this evaluation runs its own suite; leave it out")
    alphas, where = check_alphas(plain_alphas), where or Surroundings()
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
        suite = Suite(
            study.bench, (nuts.standard.module, nuts.robust.module), nuts.settings, alphas,
            targets, queries, autoattack,
        )  # fmt: skip
        found, complete, rows = _run(study, suite, r_d_sweep, sweep_images)
        sheet = _sheet(study, nuts, found, complete)
        return study.publish(sheet, {}, found, files={"images.tsv": rows})


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


def _run(
    study: Study, suite: Suite, r_d_sweep: Sequence[float], sweep_images: int
) -> tuple[Evaluation, bool, bytes]:
    cells = suite_cells(suite)
    held, complete = fill(study.bench, cells)
    if not len(held):
        raise RunError("interrupted before the first batch was done: run again to go on")
    names = [cell.name for cell in cells]
    everyone = contenders(suite)
    right = _judge(study, everyone, names, held)
    robust = everyone[1].name
    standings = tuple(_standing(one.name, right, robust) for one in everyone)
    broken = _first_broken(right[NUTS], names)
    by = {name: int((broken == k).sum()) for k, name in enumerate(names) if (broken == k).any()}
    sweep, swept = _sweep(study, suite, held[:sweep_images], r_d_sweep) if complete else ({}, False)
    square = by.get(f"{NUTS}, square", 0)
    rows = _rows(study, held, broken, names)
    return Evaluation(standings, by, sweep, square), complete and swept, rows


def _judge(
    study: Study, everyone: Sequence[Contender], names: Sequence[str], held: IntArray
) -> dict[str, np.ndarray]:
    """Return, for each contender, bool (cells, m): right on each cell's point."""
    dataset = study.bench.dataset
    labels, indices = dataset.labels[held], dataset.indices[held].tolist()
    base = [study.bench.store.read(name, indices) for name in names]
    return {one.name: np.stack([one.right(points, labels) for points in base]) for one in everyone}


def _standing(name: str, right: dict[str, np.ndarray], robust: str) -> Standing:
    clean, worst = right[name][0], right[name].all(0)
    return Standing(
        name,
        estimated_accuracy(clean),
        attacked_accuracy(worst),
        paired_change(~clean, ~right[robust][0]),
        paired_change(~worst, ~right[robust].all(0)),
    )


def _first_broken(right: np.ndarray, names: Sequence[str]) -> IntArray:
    """Return for each image the position of the first cell that breaks it, -1 where none does."""
    return np.where(right.all(0), -1, (~right).argmax(0)).astype(np.int64)


def _sweep(
    study: Study, suite: Suite, positions: IntArray, r_d_sweep: Sequence[float]
) -> tuple[dict[float, AttackedAccuracy], bool]:
    """Attack with each r_d alone; accuracy should fall as r_d grows if the transform hides gradients."""
    from dataclasses import replace

    bench = replace(study.bench, positions=positions)
    held, complete = fill(bench, [sweep_cell(suite, r_d) for r_d in r_d_sweep])
    labels = bench.dataset.labels[held]
    indices = bench.dataset.indices[held].tolist()
    judge = contenders(suite)[-1]
    clean = judge.right(bench.store.read(CLEAN, indices), labels)
    found = {}
    for r_d in r_d_sweep:
        base: FloatArray = bench.store.read(f"sweep r_d {r_d!r}", indices)
        found[float(r_d)] = attacked_accuracy(clean & judge.right(base, labels))
    return found, complete


def _rows(study: Study, held: IntArray, broken: IntArray, names: Sequence[str]) -> bytes:
    """Return one line an image: what was the first to break the nonlinear mix."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["idx", "label", "broken_by"])
    dataset = study.bench.dataset
    for position, first in zip(held, broken, strict=True):
        name = "" if first < 0 else names[first]
        writer.writerow([int(dataset.indices[position]), int(dataset.labels[position]), name])
    return text.getvalue().encode()


def _sheet(study: Study, nuts: LoadedNuts, found: Evaluation, complete: bool) -> Sheet:
    request, own = study.bench.request, nuts.settings
    rows: list[tuple[Any, ...]] = []
    for one in found.standings:
        clean, attacked = one.clean_change, one.attacked_change
        rows.append(
            (
                one.name, one.clean, one.attacked,
                Quantity(clean.percent, 1), clean.words(), Quantity(attacked.percent, 1), attacked.words(),
            )
        )  # fmt: skip
    images = found.standings[0].clean.images
    return Sheet(
        name="nuts-evaluate",
        title="MixedNUTS against its base models and the plain mix: accuracy (%) with 95 % intervals",
        settings=f"{request.words()}, {images:,} images; " + ", ".join(
            f"{name} {plain_decimal(getattr(own.transform, name))}" for name in ("s", "p", "c")
        ) + f", alpha {plain_decimal(own.alpha)}, T {plain_decimal(own.temperature)}",
        headings=(
            "classifier", "clean", "attacked", "clean error (%)", "95 %", "attacked error (%)", "95 % ",
        ),
        rows=tuple(rows),
        notes=(
            "Error columns: change relative to the robust classifier alone, on the same images, with paired "
            "bootstrap intervals.",
            "Attacked: right on every point that any attack of this evaluation found for any classifier; an "
            "upper bound of robust accuracy, not a certificate.",
            *_comparison(found),
            "The nonlinear mix was first broken by: "
            + "; ".join(f"{name} {count}" for name, count in found.broken_by.items()) + ".",
            *_obfuscation(found),
            f"Run: data {study.loaded.dataset.name}; mix {nuts.folder.name}; seed {request.seed}.",
        ),
        complete=complete,
        extra={"broken_by": found.broken_by, "square_found": found.square_found,
               "r_d_sweep": {plain_decimal(r): a.accuracy for r, a in found.sweep.items()}},
    )  # fmt: skip


def _comparison(found: Evaluation) -> tuple[str, ...]:
    """Compare with the plain mix at equal attacked accuracy, and at its own best alpha."""
    nuts = found.standing(NUTS)
    plain = [one for one in found.standings if one.name.startswith(plain_name(0.0).split(",")[0])]
    if not plain:
        return ()
    best = max(plain, key=lambda one: one.clean.correct + one.attacked.correct)
    equal = [one for one in plain if one.attacked.correct >= nuts.attacked.correct]
    notes = [f"Largest sum of clean and attacked accuracy among plain mixes: {best.name}."]
    if equal:
        match = max(equal, key=lambda one: one.clean.correct)
        difference = (nuts.clean.correct - match.clean.correct) / nuts.clean.images
        notes.append(
            f"At no less attacked accuracy than {NUTS} the most accurate plain mix is {match.name}: "
            f"{NUTS} has {100 * difference:+.1f} points of clean accuracy."
        )
    else:
        notes.append(f"No plain mix of the list has the attacked accuracy of {NUTS}.")
    return tuple(notes)


def _obfuscation(found: Evaluation) -> tuple[str, ...]:
    """Say whether gradients are hidden: by the r_d sweep, and by what Square found besides."""
    if not found.sweep:
        return ()
    words = ", ".join(f"{plain_decimal(r)}: {100 * a.accuracy:.1f}" for r, a in found.sweep.items())
    if found.square_found:
        verdict = (
            f"Square broke {found.square_found} images that no white-box attack did: gradients may be hidden"
        )
    else:
        verdict = "Square found nothing that the white-box attacks missed: no sign of hidden gradients"
    return (f"{verdict}. Accuracy (%) under transfer alone, by r_d: {words}.",)
