"""MixedNUTS under its strongest attacks, beside g, h and the plain mix."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from certmix.errors import ParameterError
from certmix.nuts.description import check_shares
from certmix.nuts.folder import LoadedNuts, load_nuts
from certmix.runs.attacking import fill, fill_some
from certmix.runs.sources import Sources, join, load_data
from certmix.sampling import resolve_device
from certmix.studies.accuracy import attacked_accuracy, estimated_accuracy
from certmix.studies.attack_request import AttackRequest
from certmix.studies.empirical import Study, StudyResult, Surroundings, open_study
from certmix.studies.mix_sweep import check_alphas
from certmix.studies.nuts_evaluate_table import Evaluation, Standing, evaluation_table
from certmix.studies.nuts_margins import own_attack
from certmix.studies.nuts_suite import (
    CLEAN,
    NUTS,
    Contender,
    Suite,
    contenders,
    suite_cells,
    sweep_cell,
)
from certmix.studies.paired import paired_change
from certmix.types import AttackedAccuracy, Dataset, FloatArray, IntArray

__all__ = ["Evaluation", "Standing", "nuts_evaluate"]

SWEEP = (0.0, 0.3, 0.6, 0.9)


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
    _check(targets, queries, r_d_sweep, sweep_images)
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
        table = evaluation_table(study, nuts, found, complete)
        return study.publish(table, {}, found, files={"images.tsv": rows})


def _check(targets: int, queries: int, r_d_sweep: Sequence[float], sweep_images: int) -> None:
    """Refuse numbers below 1, and weights of the sweep that no auxiliary mix has."""
    for name, value in (("targets", targets), ("queries", queries), ("sweep images", sweep_images)):
        if value < 1:
            raise ParameterError(f"{name} = {value}: at least 1 is needed")
    for r_d in r_d_sweep:
        check_shares(r_d=r_d)


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
    held, complete = fill_some(study.bench, cells)
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
