"""Are the requirements met?  Figures of a run, their lower bounds over images, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import betting, clopper_pearson
from certmix.certification.evaluate import ceilings
from certmix.certification.request import CertifyRequest
from certmix.errors import RunError
from certmix.files import digest_of
from certmix.text import floor_digits
from certmix.types import FloatArray, IntArray
from certmix.verification.checks import Outcome
from certmix.verification.figures import NothingFollowsError, derive_figures
from certmix.verification.requirements import Requirement, written
from certmix.verification.stored import Run

CONFIDENCE = 0.95
"""Of each lower bound, over images, taken alone."""
_MISSED = 0.05


@dataclass(frozen=True)
class Figures:
    """What is judged: images (m,) with their radii, derived from counts or logits.

    Parameters
    ----------
    indices
        Of the images, in their data set.
    right
        Classifier -> bool (m,), right without perturbation; classifiers that are unknown are absent.
    radii
        ``robust``, ``mixed`` -> float64 (m,): certified radius, 0 where nothing right is certified.
    largest
        The same -> the largest radius that any image could reach, whatever was drawn.  The
        bound of a mean counts radii beyond it as this radius.
    """

    indices: IntArray
    right: Mapping[str, NDArray[np.bool_]]
    radii: Mapping[str, FloatArray]
    largest: Mapping[str, float]


def figures_of(run: Run, wanted: Sequence[int], labels: IntArray) -> Figures:
    """Return the figures of a run's images, each radius the smaller of two derivations.

    One is the run's own, rounded down; the other is that of
    `certmix.verification.plain`, which shares no bound or radius code with it.
    Radii of ``lipschitz-constant`` have no largest value: the bound of their
    mean counts those beyond the last column of the request as this column.

    Raises
    ------
    RunError
        If an image has not been sampled, or computed, as far as the request wants.
    """
    try:
        found = derive_figures(run, wanted, labels)
    except NothingFollowsError as error:
        raise RunError(f"{run.folder}: {error}: restore the run, or run certmix certify again") from None
    if len(found.indices) < len(wanted):
        raise RunError(f"{run.folder} lacks samples of some images: sample them, or take fewer images")
    radii = {
        row.classifier: np.where(found.correct, np.minimum(row.own, row.plain), 0.0) for row in found.rows[:2]
    }
    request = run.request
    if isinstance(request, CertifyRequest):
        largest = {name: most for name, _, most in ceilings(request, run.classes)[:2]}
    else:
        most = request.max_radius if request.certificate == "margin" else request.radii[-1]
        largest = dict.fromkeys(radii, most)
    return Figures(found.indices, found.right, radii, largest)


@dataclass(frozen=True)
class Judgement:
    """The verdict on one requirement; value and lower bound are None where they are unknown."""

    requirement: Requirement
    outcome: Outcome
    value: float | None
    lower: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        asked = self.requirement
        return {
            "requirement": str(asked), "classifier": asked.classifier, "quantity": asked.quantity,
            "radius": asked.radius, "threshold": asked.threshold, "judged_on": asked.side,
            "outcome": str(self.outcome), "value": _finite(self.value), "lower_bound": self.lower,
            "message": self.message,
        }  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def figure(requirement: Requirement, figures: Figures) -> tuple[float, float] | None:
    """Return the value that a requirement is about and its lower bound over images, or None if unknown.

    Shares have the one-sided Clopper-Pearson bound; a mean radius has a betting
    bound on [0, largest radius].  Both take the images for independent draws.
    """
    source: Mapping[str, Any] = figures.right if requirement.quantity == "clean_accuracy" else figures.radii
    found = source.get(requirement.classifier)
    if found is None or not len(found):
        return None
    if requirement.quantity == "mean_certified_radius":
        return _mean(found, figures.indices, figures.largest[requirement.classifier])
    hits = found
    if requirement.radius is not None:
        hits = (found >= requirement.radius) & (found > 0)
    count = int(np.sum(hits))
    return count / len(hits), float(clopper_pearson.lower_bound(count, len(hits), _MISSED))


def _mean(radii: FloatArray, indices: IntArray, largest: float) -> tuple[float, float]:
    """Return the mean, rounded down, and its betting bound.

    The bound follows the order of the values: sorted data would mislead it, so
    images are taken in an order that is fixed by their indices and looks random.
    """
    value = float(np.nextafter(math.fsum(radii) / len(radii), 0.0)) if np.isfinite(radii).all() else math.inf
    if not 0 < largest < math.inf:
        return value, 0.0
    order = np.argsort([digest_of(str(index).encode()) for index in indices.tolist()])
    scaled = np.minimum(radii[order], largest) / largest
    lower = betting.lower_bound(np.minimum(scaled, 1.0), _MISSED, planned=len(scaled))
    return value, max(0.0, float(np.nextafter(lower * largest, 0.0)) * (1 - 2.0**-50))


def judge(requirement: Requirement, figures: Figures) -> Judgement:
    """Return whether a requirement is met.

    Parameters
    ----------
    requirement
        What is demanded.
    figures
        Derived from what the run stores, not from its published table.
    """
    found = figure(requirement, figures)
    if found is None:
        why = (
            "the run has no standard classifier"
            if requirement.classifier != "robust" and len(figures.indices)
            else "no image has been evaluated"
        )
        return Judgement(requirement, Outcome.UNCHECKED, None, None, f"unknown: {why}")
    value, lower = found
    decisive = value if requirement.side == "value" else lower
    holds = decisive >= requirement.threshold
    shown = ", ".join(
        f"{name} {_at_most(number, requirement.threshold)}"
        for name, number in (("value", value), ("lower bound", lower))
    )
    verb = "reaches" if holds else "is below"
    message = f"{shown}; the {requirement.side} {verb} {written(requirement.threshold)}"
    if not holds and requirement.side != "value":
        message += _hopeless(requirement, len(figures.indices))
    return Judgement(requirement, Outcome.HOLDS if holds else Outcome.FAILS, value, lower, message)


def _at_most(x: float, threshold: float) -> str:
    """Return x rounded down, with digits enough to lie on its own side of the threshold."""
    if not math.isfinite(x):
        return "unbounded"
    for digits in range(4, 18):
        text = floor_digits(x, digits)
        if (float(text) >= threshold) == (x >= threshold):
            return text
    return floor_digits(x, 20)


def most_that_can_be_shown(images: int) -> float:
    """Return the lower bound of a share when all images are right: no requirement above it can hold.

    Examples
    --------
    >>> print(f"{most_that_can_be_shown(100):.3f}")
    0.970
    """
    return float(clopper_pearson.lower_bound(images, images, _MISSED))


def _hopeless(requirement: Requirement, images: int) -> str:
    """Say so where no outcome on so few images would have done."""
    most = most_that_can_be_shown(images)
    if not requirement.is_share or requirement.threshold <= most:
        return ""
    ceiling = floor_digits(most, 4)
    return f" (with {images} images no lower bound exceeds {ceiling}: take more, or judge on value)"
