"""Accuracy of the mix over alpha, clean and attacked: Figure 2 of the first paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from certmix.errors import ParameterError
from certmix.models.mixture import mix_logits
from certmix.models.temperature import check_temperature
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import attacked_outputs
from certmix.runs.cells import Cell
from certmix.runs.sources import Sources
from certmix.studies.shares import attacked_accuracy, estimated_accuracy
from certmix.studies.study import (
    CLEAN,
    ROB,
    STD,
    Numbers,
    StudyResult,
    Surroundings,
    open_study,
    surrogate_notes,
)
from certmix.tables.study_plots import WORST, sweep_image
from certmix.tables.table import Table
from certmix.tables.words import temperature_words
from certmix.text import plain_decimal

__all__ = ["DEFAULT_ALPHAS", "mix_sweep"]

DEFAULT_ALPHAS = tuple(round(k / 20, 2) for k in range(21))


def mix_sweep(
    alphas: Sequence[float] = DEFAULT_ALPHAS,
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    standard_temperature: float = 1.0,
) -> StudyResult:
    """Attack the mix at every alpha, and both classifiers, and tabulate accuracy over alpha.

    STD and ROB points are made once, on the standard and on the robust classifier, and serve every alpha; MIX
    points are made on the mix end to end, one set an alpha, and serve the worst case of the others besides:
    an input counts as right when no point found for it, by any attack of the sweep, is misclassified.  The
    attack is PGD of 20 steps by default, as in Section 4.1 and Figure 2 of Bai, Anderson, Sojoudi, "Mixing
    classifiers to alleviate the accuracy-robustness trade-off".  g's logits are divided by
    `standard_temperature` in every mix, as for `certmix.studies.attack.attack`.
    """
    request = request or AttackRequest(steps=20)
    weights, temperature = check_alphas(alphas), check_temperature(standard_temperature)
    asked = {"alphas": list(weights), "standard_temperature": temperature}
    with open_study("mix-sweep", request, sources, where, asked=asked) as study:
        cells, kept = study.both(), partial(attacked_outputs, study.bench, study.pair)
        for a in weights:
            own = at(a, temperature)
            cells.append(Cell(mix_cell(*own), partial(kept, mix_cell(*own), study.mix(*own), True)))
        numbers = study.fill(cells, [cell.name for cell in cells[1:]])
        return numbers.publish(study.run, view(numbers))


def check_alphas(alphas: Sequence[float]) -> tuple[float, ...]:
    """Return the alphas in increasing order; ParameterError if none, outside [0, 1], or given twice."""
    weights = tuple(sorted(float(a) for a in alphas))
    if not weights or not all(0.0 <= a <= 1.0 for a in weights):
        percent = bool(weights) and 10 <= weights[-1] <= 100
        shown = ",".join(f"{a / 100 if a > 1 else a:g}" for a in weights)
        hint = f"did you mean {shown}?" if percent else "for example 0.5,0.75,1"
        raise ParameterError(f"alphas = {list(alphas)}: give at least one, each in [0, 1]: {hint}")
    if len(set(weights)) < len(weights):
        raise ParameterError(f"alphas = {list(alphas)}: one is given twice")
    return weights


def at(alpha: float, standard_temperature: float) -> tuple[float, float]:
    """Return alpha and g's temperature, 1 where it changes no answer: of g or h alone."""
    return alpha, 1.0 if alpha in (0.0, 1.0) else standard_temperature


def mix_cell(alpha: float, standard_temperature: float) -> str:
    return f"MIX {alpha!r}" + ("" if standard_temperature == 1.0 else f" T {standard_temperature!r}")


def view(numbers: Numbers) -> StudyResult:
    """Return the table, a row an alpha, and its figure."""
    alphas, temperature = tuple(numbers.asked["alphas"]), numbers.asked["standard_temperature"]
    mixes_of = [at(a, temperature) for a in alphas]

    def right(cell: str) -> np.ndarray:
        """bool (alphas, m): whether each mix is right at the cell's points."""
        pair = numbers.pair(cell)
        return np.stack([mix_logits(*pair, *own).argmax(-1).numpy() == numbers.labels for own in mixes_of])

    clean, std, rob = map(right, (CLEAN, STD, ROB))
    mixes = [right(mix_cell(*own)) for own in mixes_of]
    mix = clean & np.stack([one[k] for k, one in enumerate(mixes)])
    worst = np.logical_and.reduce([clean, std, rob, *mixes])
    lines: dict[str, list[Any]] = {"clean": [estimated_accuracy(one) for one in clean]}
    attacked = {"STD attack": clean & std, "ROB attack": clean & rob, "MIX attack": mix, WORST: worst}
    lines |= {name: [attacked_accuracy(one) for one in held] for name, held in attacked.items()}
    # Inputs that the MIX attack left right and another point broke.
    transfer = {plain_decimal(a): int(n) for a, n in zip(alphas, (mix & ~worst).sum(1), strict=True) if n}
    most = max(transfer, key=lambda alpha: transfer[alpha], default="")
    more = (
        f"Points made for another model or alpha broke inputs that the MIX attack left right, up to "
        f"{transfer.get(most)} (alpha = {most}): read the worst case."
    )
    words = ", ".join([numbers.request.words(), *temperature_words(temperature)])
    words += f", {len(numbers.labels):,} inputs"
    table = Table(
        name="mix-sweep",
        title="Accuracy (%) of the mix over alpha, clean and attacked, with 95 % intervals over inputs",
        settings=words,
        headings=("alpha", *lines),
        rows=tuple(zip(map(plain_decimal, alphas), *lines.values(), strict=True)),
        notes=(
            "STD: attack on the standard classifier; ROB: on the robust one; MIX: on the mix, end to end. "
            "Worst case: no point that any attack of this sweep found, at any alpha, is misclassified.",
            "Attacked accuracies are upper bounds of robust accuracy, not certificates.",
            *([more] if transfer else []),
            *surrogate_notes(temperature),
            *numbers.blind,
            numbers.provenance,
        ),
        complete=numbers.complete,
        extra={"transfer_only": transfer},
    )
    title = f"{numbers.data}: {numbers.models['standard']} mixed with {numbers.models['robust']}"
    draw = partial(sweep_image, alphas, lines, title=title, subtitle=words)
    return StudyResult(table, {"mix-sweep": draw})
