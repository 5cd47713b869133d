"""Verdicts on figures: what a requirement comes to, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import betting, clopper_pearson
from certmix.certification.evaluate import ceilings, mean_below
from certmix.certification.proved_table import largest_radii
from certmix.certification.request.proved import Enumerated
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import RunError
from certmix.files import digest_of
from certmix.text import floor_digits
from certmix.types import FloatArray, IntArray
from certmix.verification.checks import Outcome
from certmix.verification.figures import NothingFollowsError, derive_figures
from certmix.verification.guarantees.requirements import Requirement, written
from certmix.verification.stored import Run

MISSED = 0.05  # failure probability of a lower bound that stands alone


@dataclass(frozen=True)
class Figures:
    """What is judged, by classifier: which inputs (m,) are right, where known, and certified radii (m,).

    Radii are 0 where nothing right is certified.  ``largest`` is the largest that any input could reach,
    whatever was drawn: the bound of a mean counts radii beyond it as this radius.  ``groups`` hold the name
    of each input in each, and an input's certificate is false with probability at most `failure_probability`.
    """

    indices: IntArray
    right: Mapping[str, NDArray[np.bool_]]
    radii: Mapping[str, FloatArray]
    largest: Mapping[str, float]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    failure_probability: float = 0.0

    def part(self, group: str | None, member: str | None) -> Figures:
        """Return the figures of a group's member, all of them of no group."""
        if group is None:
            return self
        held = self.groups[group] == member
        right, radii = ({name: one[held] for name, one in of.items()} for of in (self.right, self.radii))
        return replace(self, indices=self.indices[held], right=right, radii=radii)


def figures_of(
    run: Run,
    wanted: Sequence[int],
    labels: IntArray,
    groups: Mapping[str, NDArray[np.str_]] | None = None,
) -> Figures:
    """Return the figures of a run's inputs; `groups` name them (m,) in the order of those `wanted`."""
    try:
        found = derive_figures(run, wanted, labels)
    except NothingFollowsError as error:
        why = error.args[-1]
        raise RunError(f"{run.folder}: {why}: restore the run, or run certmix certify again") from None
    if len(found.found.indices) < len(wanted):
        raise RunError(f"{run.folder} lacks samples of some inputs: sample them, or take fewer inputs")
    request = run.request
    rows = list(zip(request.rows(), found.certified(request.rows()), strict=True))
    radii = {row.classifier: own for row, own in reversed(rows)}  # the first row of each classifier stands
    if isinstance(request, CertifyRequest):
        largest = {name: most for name, _, most in reversed(ceilings(request, run.classes))}
    else:  # of a given constant they have no largest value: the last column stands for it
        most = request.max_radius if request.certificate == "margin" else request.radii[-1]
        largest = dict.fromkeys(radii, most)
        if isinstance(request, Enumerated):
            reach = largest_radii(request, next(iter(run.cells[request.cell].values())).size)
            largest = {row.classifier: most for row, most in zip(request.rows(), reach, strict=True)}
    at = np.argsort(wanted)[np.searchsorted(np.sort(wanted), found.found.indices)]
    named = {name: names[at] for name, names in (groups or {}).items()}
    delta = request.of_one_input if isinstance(request, CertifyRequest) else 0.0
    return Figures(found.found.indices, found.right, radii, largest, named, delta)


class Judgement(NamedTuple):
    """The verdict on one requirement of so many inputs; value and lower bound are None where unknown.

    The lower bound is above the population's figure with probability at most `missed`.
    """

    requirement: Requirement
    outcome: Outcome
    value: float | None
    lower: float | None
    message: str
    inputs: int = 0
    missed: float = MISSED

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        asked, value = self.requirement, self.value
        return {
            "requirement": str(asked), "classifier": asked.classifier, "quantity": asked.quantity,
            "radius": asked.radius, "threshold": asked.threshold, "judged_on": asked.side,
            "group": asked.group, "member": asked.member, "inputs": self.inputs,
            "confidence": 1 - self.missed, "outcome": str(self.outcome),
            "value": value if value is not None and math.isfinite(value) else None,
            "lower_bound": self.lower, "message": self.message,
        }  # fmt: skip


def figure(requirement: Requirement, figures: Figures, missed: float = MISSED) -> tuple[float, float] | None:
    """Return a requirement's value and its lower bound for the population of inputs; None if unknown.

    Inputs are taken as independent.  The bound fails with probability `missed`; it is of what is true of the
    mix, not of what could be certified: a share l of certified inputs leaves (l - delta)/(1 - delta) of true
    ones, since an input that is not robust is certified with probability delta at most.
    """
    figures = figures.part(requirement.group, requirement.member)
    source: Mapping[str, Any] = figures.right if requirement.quantity == "clean_accuracy" else figures.radii
    found = source.get(requirement.classifier)
    if found is None or not len(found):
        return None
    delta = 0.0 if requirement.quantity == "clean_accuracy" else figures.failure_probability
    if requirement.is_share:
        hits = found
        if requirement.radius is not None:
            hits = (found >= requirement.radius) & (found > 0)
        count = int(np.sum(hits))
        return count / len(hits), _true(float(clopper_pearson.lower_bound(count, len(hits), missed)), delta)
    largest = figures.largest[requirement.classifier]
    value = mean_below(found) if np.isfinite(found).all() else math.inf
    if not 0 < largest < math.inf:
        return value, 0.0
    # The bound follows the order of the values, and sorted data would mislead it: this order is fixed by
    # the inputs' indices and looks random.
    order = np.argsort([digest_of(str(index).encode()) for index in figures.indices.tolist()])
    scaled = np.minimum(found[order], largest) / largest
    lower = _true(betting.lower_bound(np.minimum(scaled, 1.0), missed, planned=len(scaled)), delta)
    return value, max(0.0, float(np.nextafter(lower * largest, 0.0)) * (1 - 2.0**-50))


def _true(certified: float, delta: float) -> float:
    """Return a lower bound of what is true, of one of what is certified, in [0, 1]; rounded down."""
    return max(0.0, (certified - delta) / (1 - delta) * (1 - 2.0**-50) - 2.0**-52) if delta else certified


def judge(requirement: Requirement, figures: Figures, missed: float = MISSED) -> Judgement:
    """Return whether a requirement is met, a lower bound failing with probability `missed`."""
    inputs = len(figures.part(requirement.group, requirement.member).indices)
    found = figure(requirement, figures, missed)
    if found is None:
        why = "no input has been evaluated"
        if not inputs and len(figures.indices):
            why = f"none of the {len(figures.indices)} inputs that were taken is of it: take more"
        elif requirement.classifier != "robust" and inputs:
            why = "the run has no standard classifier"
        return Judgement(requirement, Outcome.UNCHECKED, None, None, f"unknown: {why}", inputs, missed)
    value, lower = found
    threshold = requirement.threshold
    holds = (value if requirement.side == "value" else lower) >= threshold
    shown = f"value {_at_most(value, threshold)}, lower bound {_at_most(lower, threshold)}"
    verb = "reaches" if holds else "is below"
    message = f"{shown}; the {requirement.side} {verb} {written(threshold)}"
    if requirement.group is not None:
        message = f"{inputs} input{'' if inputs == 1 else 's'}: {message}"
    certified = requirement.quantity != "clean_accuracy"
    most = most_that_can_be_shown(inputs, missed, figures.failure_probability if certified else 0.0)
    if not holds and requirement.side != "value" and requirement.is_share and threshold > most:
        told = f"with {inputs} inputs no lower bound exceeds {floor_digits(most, 4)}"
        message += f" ({told}: take more, or judge on value)"
    outcome = Outcome.HOLDS if holds else Outcome.FAILS
    return Judgement(requirement, outcome, value, lower, message, inputs, missed)


def _at_most(x: float, threshold: float) -> str:
    """Return x rounded down, with digits enough to lie on its own side of the threshold."""
    if not math.isfinite(x):
        return "unbounded"
    for digits in range(4, 18):
        text = floor_digits(x, digits)
        if (float(text) >= threshold) == (x >= threshold):
            return text
    return floor_digits(x, 20)


def most_that_can_be_shown(inputs: int, missed: float = MISSED, delta: float = 0.0) -> float:
    """Return the lower bound of a share when all inputs are right: no requirement above it can hold."""
    return _true(float(clopper_pearson.lower_bound(inputs, inputs, missed)), delta)
