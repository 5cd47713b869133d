"""Are the requirements met?  Figures of a run, their lower bounds over images, the verdict, and proposals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.bounds import betting, clopper_pearson
from certmix.certification.evaluate import ceilings
from certmix.certification.publish import refuse_unfinished
from certmix.certification.request import CertifyRequest
from certmix.data import spread
from certmix.errors import ParameterError, RunError
from certmix.files import digest_of
from certmix.runs.sources import Sources, load_data
from certmix.text import floor_digits
from certmix.types import FloatArray, IntArray
from certmix.verification.checks import Outcome
from certmix.verification.figures import NothingFollowsError, derive_figures
from certmix.verification.guarantee import Guarantee, ModelClaim, relative_claims
from certmix.verification.requirements import Requirement, written
from certmix.verification.stored import Run, load

CONFIDENCE = 0.95
"""Of each lower bound, over images, taken alone."""
_MISSED = 0.05


class Figures(NamedTuple):
    """What is judged: images (m,) with their radii, derived from counts or logits.

    ``right`` holds by classifier which images (m,) it gets right without perturbation, where that is known;
    ``radii`` of ``robust`` and ``mixed`` the certified radii (m,), 0 where nothing right is certified; and
    ``largest`` the largest radius that any image could reach, whatever was drawn: the bound of a mean counts
    radii beyond it as this radius.
    """

    indices: IntArray
    right: Mapping[str, NDArray[np.bool_]]
    radii: Mapping[str, FloatArray]
    largest: Mapping[str, float]


def figures_of(run: Run, wanted: Sequence[int], labels: IntArray) -> Figures:
    """Return the figures of a run's images, each radius the smaller of two derivations.

    One is the run's own, rounded down; the other is that of `certmix.verification.plain`, which shares no
    bound or radius code with it.  Radii of ``lipschitz-constant`` have no largest value: the bound of their
    mean counts those beyond the last column of the request as this column.
    """
    try:
        found = derive_figures(run, wanted, labels)
    except NothingFollowsError as error:
        why = error.args[-1]
        raise RunError(f"{run.folder}: {why}: restore the run, or run certmix certify again") from None
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


class Judgement(NamedTuple):
    """The verdict on one requirement; value and lower bound are None where they are unknown."""

    requirement: Requirement
    outcome: Outcome
    value: float | None
    lower: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        asked, value = self.requirement, self.value
        return {
            "requirement": str(asked), "classifier": asked.classifier, "quantity": asked.quantity,
            "radius": asked.radius, "threshold": asked.threshold, "judged_on": asked.side,
            "outcome": str(self.outcome),
            "value": value if value is not None and math.isfinite(value) else None,
            "lower_bound": self.lower, "message": self.message,
        }  # fmt: skip


def figure(requirement: Requirement, figures: Figures) -> tuple[float, float] | None:
    """Return the value that a requirement is about and its lower bound over images, or None if unknown.

    Shares have the one-sided Clopper-Pearson bound; a mean radius, rounded down, has a betting bound on
    [0, largest radius].  Both take the images for independent draws.
    """
    source: Mapping[str, Any] = figures.right if requirement.quantity == "clean_accuracy" else figures.radii
    found = source.get(requirement.classifier)
    if found is None or not len(found):
        return None
    if requirement.is_share:
        hits = found
        if requirement.radius is not None:
            hits = (found >= requirement.radius) & (found > 0)
        count = int(np.sum(hits))
        return count / len(hits), float(clopper_pearson.lower_bound(count, len(hits), _MISSED))
    largest = figures.largest[requirement.classifier]
    value = float(np.nextafter(math.fsum(found) / len(found), 0.0)) if np.isfinite(found).all() else math.inf
    if not 0 < largest < math.inf:
        return value, 0.0
    # The bound follows the order of the values, and sorted data would mislead it: this order is fixed by
    # the images' indices and looks random.
    order = np.argsort([digest_of(str(index).encode()) for index in figures.indices.tolist()])
    scaled = np.minimum(found[order], largest) / largest
    lower = betting.lower_bound(np.minimum(scaled, 1.0), _MISSED, planned=len(scaled))
    return value, max(0.0, float(np.nextafter(lower * largest, 0.0)) * (1 - 2.0**-50))


def judge(requirement: Requirement, figures: Figures) -> Judgement:
    """Return whether a requirement is met."""
    found = figure(requirement, figures)
    if found is None:
        why = "no image has been evaluated"
        if requirement.classifier != "robust" and len(figures.indices):
            why = "the run has no standard classifier"
        return Judgement(requirement, Outcome.UNCHECKED, None, None, f"unknown: {why}")
    value, lower = found
    threshold, images = requirement.threshold, len(figures.indices)
    holds = (value if requirement.side == "value" else lower) >= threshold
    shown = f"value {_at_most(value, threshold)}, lower bound {_at_most(lower, threshold)}"
    verb = "reaches" if holds else "is below"
    message = f"{shown}; the {requirement.side} {verb} {written(threshold)}"
    most = most_that_can_be_shown(images)
    if not holds and requirement.side != "value" and requirement.is_share and threshold > most:
        told = f"with {images} images no lower bound exceeds {floor_digits(most, 4)}"
        message += f" ({told}: take more, or judge on value)"
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

    >>> print(f"{most_that_can_be_shown(100):.3f}")
    0.970
    """
    return float(clopper_pearson.lower_bound(images, images, _MISSED))


# A guarantee from a run: what the run shows, less a step.


def propose(
    run: Path, path: Path, *, slack: float = 0.02, pin: bool = False
) -> tuple[Guarantee, dict[Requirement, str]]:
    """Return a guarantee for the file `path` that a finished run meets, and a remark on each requirement.

    Thresholds lie below the lower bounds that the run shows: shares by `slack`, mean radii by this share of
    themselves.  `pin` pins both models.
    """
    if not 0 <= slack < 1:
        raise ParameterError(f"slack = {slack}: it must be at least 0 and below 1, such as 0.02")
    stored = load(Path(run))
    refuse_unfinished(Path(run))
    described, request = stored.description, stored.request
    try:
        dataset = load_data(Sources.from_dict(described["sources"]))
        data, standard, robust = relative_claims(described["sources"], path.parent)
        if robust is None:  # the shipped one, which the run chose itself
            robust = ModelClaim(str(described["models"]["robust"]["spec"]))
        claims: list[Any] = [
            claim and claim.replace(checksum=str(described["models"][role]["checksum"]), pin=pin)
            for role, claim in (("standard", standard), ("robust", robust))
        ]
        data = data.replace(checksum=str(described["data"]["checksum"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run}/run.json is damaged ({error}): restore it, or run it again") from None
    if dataset.checksum != data.checksum:
        raise RunError(f"{run} was made on other data than lie there now: restore the data, or run it again")
    positions = spread(len(dataset), request.images)
    found = figures_of(stored, dataset.indices[positions].tolist(), dataset.labels[positions])
    if isinstance(request, CertifyRequest):
        request = request.replace(certificates=request.certificates[:1])
    wanted: list[tuple[str, str, float | None]] = [
        ("robust" if standard is None else "mixed", "clean_accuracy", None),
        *(("mixed", "certified_accuracy", radius) for radius in request.radii if radius > 0),
        ("mixed", "mean_certified_radius", None),
    ]
    proposed = {}
    for classifier, quantity, radius in wanted:
        seen = figure(Requirement(classifier, quantity, radius, 0.0), found)
        if seen is None:
            continue
        value, lower = seen
        share, digits = quantity != "mean_certified_radius", 2
        threshold = lower - slack if share else lower * (1 - slack)
        if threshold > 0 and not share:  # two digits of its own
            digits = max(2, 1 - math.floor(math.log10(threshold)))
        threshold = float(floor_digits(max(threshold, 0.0), digits))
        if threshold > 0:
            shown = floor_digits(value, 4) if math.isfinite(value) else "unbounded"
            remark = f"seen: {shown}, lower bound {floor_digits(lower, 4)}"
            proposed[Requirement(classifier, quantity, radius, threshold)] = remark
    if not proposed:
        raise RunError(f"{run} shows nothing above {slack:g} to demand: give a smaller --slack")
    return Guarantee(tuple(proposed), data, claims[0], claims[1], request, path), proposed
