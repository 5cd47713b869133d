"""How sure the two classifiers are, right or wrong, clean or attacked: Table 1 of the first paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from certmix.bounds.betting import lower_bound, upper_bound
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import attacked_outputs, outputs
from certmix.runs.cells import Cell
from certmix.runs.sources import Sources
from certmix.studies.study import Numbers, StudyResult, Surroundings, open_study
from certmix.tables.study_plots import gaps_image
from certmix.tables.table import Quantity, Table
from certmix.text import ceil_digits, floor_digits
from certmix.types import FloatArray

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
        pair = study.pair
        attacked = partial(attacked_outputs, study.bench, pair)
        cells = [
            Cell("clean", lambda batch: outputs(pair, batch.images)),
            Cell("STD", partial(attacked, "STD", pair[0], False)),
            Cell("ROB", partial(attacked, "ROB", pair[1], False)),
        ]
        numbers = study.fill(cells, ["STD", "ROB"])
        found = evaluate(numbers)
        gaps = {(group.classifier, group.condition, group.right): group.gaps for group in found.groups}
        panels = {
            (name, "clean" if cell == "clean" else f"{request.attack} attack"): (
                gaps[name, cell, True],
                gaps[name, cell, False],
            )
            for name, cell in _CELLS
        }
        title = f"{numbers.data}: {request.words()}, {len(numbers.labels):,} images"
        plots = {"confidence": partial(gaps_image, panels, title=title)}
        return study.publish(numbers, table(numbers, found), plots, found)


def evaluate(numbers: Numbers) -> Confidence:
    """Return what stored logits say."""
    groups = []
    for (classifier, cell), half in _CELLS.items():
        logits = np.split(numbers.read(cell), 2, axis=1)[half]
        gaps, right = top_two_gap(logits), logits.argmax(1) == numbers.labels
        for wanted in (True, False):
            chosen = gaps[right == wanted]
            between = (lower_bound(chosen, 0.025), upper_bound(chosen, 0.025)) if len(chosen) else None
            groups.append(GapGroup(classifier, cell, wanted, chosen, between))
    return Confidence(tuple(groups), _verdict(groups))


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


def table(numbers: Numbers, found: Confidence) -> Table:
    """Return the table, a row a group of images."""
    names = {"g": "standard (g)", "h": "robust (h)"}
    rows = []
    for group in found.groups:
        low, high = group.interval or (None, None)
        mean, median = (float(f(group.gaps)) if len(group.gaps) else None for f in (np.mean, np.median))
        rows.append((
            names[group.classifier], "clean" if group.condition == "clean" else "attacked",
            "right" if group.right else "wrong", len(group.gaps), Quantity(mean, 3),
            Quantity(low, 3, rounding="down"), Quantity(high, 3, rounding="up"), Quantity(median, 3),
        ))  # fmt: skip
    return Table(
        name="confidence",
        title="Gap between the two largest probabilities",
        settings=f"{numbers.request.words()}, {len(numbers.labels):,} images",
        headings=("classifier", "images", "answer", "count", "mean", "95 % from", "to", "median"),
        rows=tuple(rows),
        notes=(
            found.verdict,
            "Each classifier is attacked by itself at full strength. Intervals of means: betting bounds.",
            *numbers.blind,
            numbers.provenance,
        ),
        complete=numbers.complete,
        extra={"verdict": found.verdict},
    )
