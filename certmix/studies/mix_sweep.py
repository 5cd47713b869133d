"""Accuracy of the mix over alpha, clean and attacked: Figure 2 of the first paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier, mix_outputs
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import (
    Cell,
    attacked_outputs,
    blind_notes,
    fill_some,
    outputs,
)
from certmix.runs.sources import Sources
from certmix.studies.study import (
    Study,
    StudyResult,
    Surroundings,
    attacked_accuracy,
    estimated_accuracy,
    open_study,
)
from certmix.tables.study_plots import WORST, sweep_image
from certmix.tables.table import Table
from certmix.text import plain_decimal
from certmix.types import AttackedAccuracy, EstimatedAccuracy, FloatArray, IntArray

__all__ = ["DEFAULT_ALPHAS", "MixSweep", "mix_sweep"]

DEFAULT_ALPHAS = tuple(round(k / 20, 2) for k in range(21))
CLEAN, STD, ROB = "clean", "STD", "ROB"


@dataclass(frozen=True)
class MixSweep:
    """Accuracies of the mix, one for each alpha.

    ``worst`` counts an image as right when no point found for it, by any
    attack of the sweep, is misclassified: an upper bound of robust accuracy.
    ``transfer_only`` counts the images that the MIX attack left right and
    another point broke.
    """

    alphas: tuple[float, ...]
    clean: tuple[EstimatedAccuracy, ...]
    std: tuple[AttackedAccuracy, ...]
    rob: tuple[AttackedAccuracy, ...]
    mix: tuple[AttackedAccuracy, ...]
    worst: tuple[AttackedAccuracy, ...]
    transfer_only: tuple[int, ...]


def mix_sweep(
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
) -> StudyResult:
    """Attack the mix at every alpha, and both classifiers, and tabulate accuracy over alpha.

    STD and ROB points are made once, on the standard and on the robust
    classifier, and serve every alpha; MIX points are made on the mix end to
    end, one set an alpha, and serve the worst case of the others besides.

    Parameters
    ----------
    alphas
        Mixing weights in [0, 1].
    request
        Attack and images; PGD of 20 steps by default, as in the paper.
    sources, where
        Data and models; where and how to run.

    Returns
    -------
    StudyResult
        ``.table`` is the table, ``.data`` the `MixSweep`.

    Raises
    ------
    CertmixError
        For anything the user can mend.

    References
    ----------
    Section 4.1 and Figure 2 of Bai, Anderson, Sojoudi, "Mixing classifiers to
    alleviate the accuracy-robustness trade-off".
    """
    request = request or AttackRequest(steps=20)
    weights = check_alphas(alphas)
    with open_study(
        "mix-sweep", request, sources or Sources(), where or Surroundings(), asked={"alphas": list(weights)}
    ) as study:
        held, complete = fill_some(study.bench, _cells(study, weights))
        found = _evaluate(study, weights, held)
        notes = blind_notes(study.bench, [STD, ROB, *map(mix_cell, weights)])
        table = _table(study, found, complete, notes)
        return study.publish(table, {"mix-sweep": _plot(study, found)}, found)


def check_alphas(alphas: Sequence[float], low: float = 0.0) -> tuple[float, ...]:
    """Return the alphas in increasing order.

    Raises
    ------
    ParameterError
        If there are none, or one is outside [low, 1] or given twice.
    """
    weights = tuple(sorted(float(a) for a in alphas))
    if not weights or not all(low <= a <= 1.0 for a in weights):
        percent = bool(weights) and 10 <= weights[-1] <= 100
        shown = ",".join(f"{a / 100 if a > 1 else a:g}" for a in weights)
        hint = f"did you mean {shown}?" if percent else "for example 0.5,0.75,1"
        raise ParameterError(f"alphas = {list(alphas)}: give at least one, each in [{low:g}, 1]: {hint}")
    if len(set(weights)) < len(weights):
        raise ParameterError(f"alphas = {list(alphas)}: one is given twice")
    return weights


def mix_cell(alpha: float) -> str:
    """Return the name of the MIX cell of one alpha."""
    return f"MIX {alpha!r}"


def _cells(study: Study, alphas: tuple[float, ...]) -> list[Cell]:
    pair = study.pair
    attacked = partial(attacked_outputs, study.bench, pair)
    mixes = [
        Cell(mix_cell(a), partial(attacked, mix_cell(a), MixedClassifier(*pair, a).eval(), True))
        for a in alphas
    ]
    return [
        Cell(CLEAN, lambda batch: outputs(pair, batch.images)),
        Cell(STD, partial(attacked, STD, pair[0], False)),
        Cell(ROB, partial(attacked, ROB, pair[1], False)),
        *mixes,
    ]


def _right(base: FloatArray, alphas: tuple[float, ...], labels: IntArray) -> np.ndarray:
    """Return bool (alphas, m): whether each mix is right, from both classifiers' logits (m, 2 c)."""
    standard, robust = np.split(base, 2, axis=1)
    mixed = mix_outputs(torch.from_numpy(standard), torch.from_numpy(robust), alphas)
    return np.asarray(mixed.argmax(-1).numpy() == labels)


def _evaluate(study: Study, alphas: tuple[float, ...], held: IntArray) -> MixSweep:
    dataset, store = study.bench.dataset, study.bench.store
    labels, indices = dataset.labels[held], dataset.indices[held].tolist()
    right = {
        name: _right(store.read(name, indices), alphas, labels)
        for name in (CLEAN, STD, ROB, *map(mix_cell, alphas))
    }
    mix = np.stack([right[mix_cell(a)][k] for k, a in enumerate(alphas)])
    worst = np.logical_and.reduce(list(right.values()))
    return MixSweep(
        alphas,
        tuple(map(estimated_accuracy, right[CLEAN])),
        tuple(map(attacked_accuracy, right[CLEAN] & right[STD])),
        tuple(map(attacked_accuracy, right[CLEAN] & right[ROB])),
        tuple(map(attacked_accuracy, right[CLEAN] & mix)),
        tuple(map(attacked_accuracy, worst)),
        tuple(int(n) for n in (right[CLEAN] & mix & ~worst).sum(1)),
    )


def _table(study: Study, found: MixSweep, complete: bool, blind: tuple[str, ...]) -> Table:
    request = study.bench.request
    rows: list[tuple[Any, ...]] = [
        (plain_decimal(a), clean, std, rob, mix, worst)
        for a, clean, std, rob, mix, worst in zip(
            found.alphas, found.clean, found.std, found.rob, found.mix, found.worst, strict=True
        )
    ]
    transfer = {plain_decimal(a): n for a, n in zip(found.alphas, found.transfer_only, strict=True) if n}
    images = found.clean[0].images
    return Table(
        name="mix-sweep",
        title="Accuracy (%) of the mix over alpha, clean and attacked, with 95 % intervals over images",
        settings=f"{request.words()}, {images:,} images",
        headings=("alpha", "clean", "STD attack", "ROB attack", "MIX attack", "worst case"),
        rows=tuple(rows),
        notes=(
            "STD: attack on the standard classifier; ROB: on the robust one; MIX: on the mix, end to end. "
            "Worst case: no point that any attack of this sweep found, at any alpha, is misclassified.",
            "Attacked accuracies are upper bounds of robust accuracy, not certificates.",
            *_transfer_note(transfer),
            *blind,
            study.provenance,
        ),
        complete=complete,
        extra={"transfer_only": transfer},
    )


def _transfer_note(transfer: dict[str, int]) -> tuple[str, ...]:
    if not transfer:
        return ()
    most = max(transfer, key=lambda alpha: transfer[alpha])
    return (
        f"Points made for another model or alpha broke images that the MIX attack left right, up to "
        f"{transfer[most]} (alpha = {most}): read the worst case.",
    )


def _plot(study: Study, found: MixSweep) -> Any:
    lines = {
        "clean": found.clean,
        "STD attack": found.std,
        "ROB attack": found.rob,
        "MIX attack": found.mix,
        WORST: found.worst,
    }
    loaded, request = study.loaded, study.bench.request
    assert loaded.standard is not None
    title = f"{loaded.dataset.name}: {loaded.standard.name} mixed with {loaded.robust.name}"
    subtitle = f"{request.words()}, {found.clean[0].images:,} images"
    return partial(sweep_image, found.alphas, lines, title=title, subtitle=subtitle)
