"""How sure the two classifiers are, right or wrong, clean or attacked: Table 1 of the first paper."""

from __future__ import annotations

from functools import partial

import numpy as np

from certmix.bounds.betting import lower_bound, upper_bound
from certmix.nuts.margins import clean_margin
from certmix.runs.attack_request import AttackRequest
from certmix.runs.sources import Sources
from certmix.studies.study import CLEAN, ROB, STD, Numbers, StudyResult, Surroundings, open_study
from certmix.tables.study_plots import CLASSIFIERS, gaps_image
from certmix.tables.table import Quantity, Table
from certmix.text import ceil_digits, floor_digits
from certmix.types import FloatArray

__all__ = ["confidence"]


def confidence(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
) -> StudyResult:
    """Tabulate the top-two probability gaps of both classifiers, and judge the robust one.

    Mixing gains where the robust classifier is sure when it is right under attack and unsure when it is wrong
    on clean inputs ("benign confidence"). Each classifier is attacked by itself, at full strength: inputs
    that are already misclassified are attacked further.  The attack is PGD of 20 steps by default, as in
    Section 4.2 and Table 1 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off".  ``.data`` of the result holds the gaps by classifier (``g``, ``h``), cell
    (``clean``, ``STD``, ``ROB``) and whether the answer is right.
    """
    request = request or AttackRequest(steps=20)
    with open_study("confidence", request, sources, where, asked={}) as study:
        numbers = study.fill(study.both(), [STD, ROB])
        return numbers.publish(study.run, view(numbers))


def view(numbers: Numbers) -> StudyResult:
    """Return the table, a row a group of inputs, its figure, and all gaps."""
    request = numbers.request
    gaps: dict[tuple[str, str, bool], FloatArray] = {}
    means: dict[tuple[str, str, bool], tuple[float | None, ...]] = {}  # the mean's interval: betting bounds
    panels, rows = {}, []
    for classifier, cell in (("g", CLEAN), ("h", CLEAN), ("g", STD), ("h", ROB)):
        logits = numbers.pair(cell)["gh".index(classifier)].numpy()
        own, right = clean_margin(logits), logits.argmax(1) == numbers.labels
        condition = CLEAN if cell == CLEAN else f"{request.attack} attack"
        panels[classifier, condition] = own[right], own[~right]
        for answer, wanted in (("right", True), ("wrong", False)):
            group = gaps[classifier, cell, wanted] = own[right == wanted]
            some = len(group) > 0
            ends = (lower_bound(group, 0.025), upper_bound(group, 0.025)) if some else (None, None)
            means[classifier, cell, wanted] = ends
            mean, median = (float(f(group)) if some else None for f in (np.mean, np.median))
            rows.append((
                CLASSIFIERS[classifier], CLEAN if cell == CLEAN else "attacked", answer, len(group),
                Quantity(mean, 3), Quantity(ends[0], 3, rounding="down"), Quantity(ends[1], 3, rounding="up"),
                Quantity(median, 3),
            ))  # fmt: skip
    # Mixing lives on a robust classifier that is sure when right under attack, unsure when wrong.
    held, missed = ("h", ROB, True), ("h", CLEAN, False)
    (low, _), (_, high) = means[held], means[missed]
    if low is None:
        verdict = "Not suited to mixing: h is right on no attacked input."
    elif high is None:
        verdict = "Mixing cannot help: h is wrong on no clean input."
    else:
        sure, unsure = float(gaps[held].mean()), float(gaps[missed].mean())
        figures = (
            f"mean gap {floor_digits(sure, 2)} when right under attack, "
            f"{ceil_digits(unsure, 2)} when wrong on clean inputs"
        )
        verdict = f"Not suited to mixing: h is no surer when right under attack ({figures})."
        if low > high:
            verdict = f"Suited to mixing: h is surer when right under attack ({figures})."
        elif sure > unsure:
            verdict = (
                f"Probably suited to mixing, more inputs would tell: {figures}, and their 95 % intervals "
                "overlap."
            )
    words = f"{request.words()}, {len(numbers.labels):,} inputs"
    table = Table(
        name="confidence",
        title="Gap between the two largest probabilities",
        settings=words,
        headings=("classifier", "inputs", "answer", "count", "mean", "95 % from", "to", "median"),
        rows=tuple(rows),
        notes=(
            verdict,
            "Each classifier is attacked by itself at full strength. Intervals of means: betting bounds.",
            *numbers.blind,
            numbers.provenance,
        ),
        complete=numbers.complete,
        extra={"verdict": verdict},
    )
    draw = partial(gaps_image, panels, title=f"{numbers.data}: {words}")
    return StudyResult(table, {"confidence": draw}, gaps)
