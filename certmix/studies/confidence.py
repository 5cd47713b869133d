"""How sure the two classifiers are, right or wrong, clean or attacked: Table 1 of the first paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from certmix.bounds.betting import lower_bound, upper_bound
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import (
    Cell,
    attacked_outputs,
    blind_notes,
    fill_some,
    outputs,
)
from certmix.runs.sources import Sources
from certmix.studies.study import Study, StudyResult, Surroundings, open_study
from certmix.tables.study_plots import gaps_image
from certmix.tables.table import Quantity, Table
from certmix.text import ceil_digits, floor_digits
from certmix.types import FloatArray, IntArray

__all__ = ["Confidence", "GapGroup", "confidence", "top_two_gap"]

_CELLS = {("g", "clean"): 0, ("h", "clean"): 1, ("g", "STD"): 0, ("h", "ROB"): 1}
"""(classifier, cell) -> which half of the cell's logits is the classifier's."""


@dataclass(frozen=True)
class GapGroup:
    """Gaps between the two largest probabilities of some images.

    ``interval`` holds the mean with 95 % confidence (betting bounds), None
    without images.
    """

    classifier: str
    condition: str
    right: bool
    gaps: FloatArray
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Confidence:
    """All groups, and whether the robust classifier is suited to mixing."""

    groups: tuple[GapGroup, ...]
    verdict: str


def top_two_gap(logits: FloatArray) -> FloatArray:
    """Return the largest softmax probability less the second largest, (m,), of logits (m, c).

    Examples
    --------
    >>> top_two_gap(np.log([[0.7, 0.2, 0.1]])).round(6)
    array([0.5])
    """
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    first, second = -np.partition(-shifted, 1, axis=1)[:, :2].T
    return np.asarray((first - second) / shifted.sum(1), np.float64)


def confidence(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
) -> StudyResult:
    """Tabulate the top-two probability gaps of both classifiers, and judge the robust one.

    Mixing gains where the robust classifier is sure when it is right under
    attack and unsure when it is wrong on clean images ("benign confidence").
    Each classifier is attacked by itself, at full strength: images that are
    already misclassified are attacked further.

    Parameters
    ----------
    request
        Attack and images; PGD of 20 steps by default, as in the paper.
    sources, where
        Data and models; where and how to run.

    Returns
    -------
    StudyResult
        ``.table`` is the table, ``.data`` the `Confidence`.

    Raises
    ------
    CertmixError
        For anything the user can mend.

    References
    ----------
    Section 4.2 and Table 1 of Bai, Anderson, Sojoudi, "Mixing classifiers to
    alleviate the accuracy-robustness trade-off".
    """
    request = request or AttackRequest(steps=20)
    with open_study("confidence", request, sources or Sources(), where or Surroundings(), asked={}) as study:
        held, complete = fill_some(study.bench, _cells(study))
        found = _evaluate(study, held)
        table = _table(study, found, len(held), complete, blind_notes(study.bench, ["STD", "ROB"]))
        gaps = {(group.classifier, group.condition, group.right): group.gaps for group in found.groups}
        panels = {
            (name, "clean" if cell == "clean" else f"{request.attack} attack"): (
                gaps[name, cell, True],
                gaps[name, cell, False],
            )
            for name, cell in _CELLS
        }
        title = f"{study.loaded.dataset.name}: {request.words()}, {len(held):,} images"
        plots = {"confidence": partial(gaps_image, panels, title=title)}
        return study.publish(table, plots, found)


def _cells(study: Study) -> list[Cell]:
    pair = study.pair
    attacked = partial(attacked_outputs, study.bench, pair)
    return [
        Cell("clean", lambda batch: outputs(pair, batch.images)),
        Cell("STD", partial(attacked, "STD", pair[0], False)),
        Cell("ROB", partial(attacked, "ROB", pair[1], False)),
    ]


def _evaluate(study: Study, held: IntArray) -> Confidence:
    dataset, store = study.bench.dataset, study.bench.store
    labels, indices = dataset.labels[held], dataset.indices[held].tolist()
    groups = []
    for (classifier, cell), half in _CELLS.items():
        logits = np.split(store.read(cell, indices), 2, axis=1)[half]
        gaps, right = top_two_gap(logits), logits.argmax(1) == labels
        for wanted in (True, False):
            chosen = gaps[right == wanted]
            groups.append(GapGroup(classifier, cell, wanted, chosen, _mean_interval(chosen)))
    return Confidence(tuple(groups), _verdict(groups))


def _mean_interval(values: FloatArray) -> tuple[float, float] | None:
    if not len(values):
        return None
    return lower_bound(values, 0.025), upper_bound(values, 0.025)


def _verdict(groups: list[GapGroup]) -> str:
    """Say in one line whether the robust classifier has the benign confidence that mixing lives on."""
    held = next(g for g in groups if (g.classifier, g.condition, g.right) == ("h", "ROB", True))
    missed = next(g for g in groups if (g.classifier, g.condition, g.right) == ("h", "clean", False))
    if held.interval is None:
        return "Not suited to mixing: h is right on no attacked image."
    if missed.interval is None:
        return "Mixing cannot help: h is wrong on no clean image."
    sure, unsure = held.gaps.mean(), missed.gaps.mean()
    figures = (
        f"mean gap {floor_digits(float(sure), 2)} when right under attack, "
        f"{ceil_digits(float(unsure), 2)} when wrong on clean images"
    )
    if held.interval[0] > missed.interval[1]:
        return f"Suited to mixing: h is surer when right under attack ({figures})."
    if sure > unsure:
        return (
            f"Probably suited to mixing, more images would tell: {figures}, and their 95 % intervals overlap."
        )
    return f"Not suited to mixing: h is no surer when right under attack ({figures})."


def _table(study: Study, found: Confidence, images: int, complete: bool, blind: tuple[str, ...]) -> Table:
    request = study.bench.request
    names = {"g": "standard (g)", "h": "robust (h)"}
    conditions = {"clean": "clean", "STD": "attacked", "ROB": "attacked"}
    rows: list[tuple[Any, ...]] = []
    for group in found.groups:
        low, high = group.interval or (None, None)
        some = len(group.gaps) > 0
        rows.append(
            (
                names[group.classifier],
                conditions[group.condition],
                "right" if group.right else "wrong",
                len(group.gaps),
                Quantity(float(group.gaps.mean()) if some else None, 3),
                Quantity(low, 3, rounding="down"),
                Quantity(high, 3, rounding="up"),
                Quantity(float(np.median(group.gaps)) if some else None, 3),
            )
        )
    return Table(
        name="confidence",
        title="Gap between the two largest probabilities",
        settings=f"{request.words()}, {images:,} images",
        headings=("classifier", "images", "answer", "count", "mean", "95 % from", "to", "median"),
        rows=tuple(rows),
        notes=(
            found.verdict,
            "Each classifier is attacked by itself at full strength. Intervals of means: betting bounds.",
            *blind,
            study.provenance,
        ),
        complete=complete,
        extra={"verdict": found.verdict},
    )
