"""What a request cannot show, said before any sample is drawn.  No torch."""

from __future__ import annotations

from collections.abc import Mapping

from certmix.certification.evaluate import ceilings
from certmix.certification.request import CertifyRequest
from certmix.runs.store import Store
from certmix.text import floor_digits

__all__ = ["SETTLED", "began_with", "choice_notes", "expectations", "reading_notes"]

SETTLED = ("bound", "failure_probability")
"""What must be chosen before samples are seen; a run remembers its first."""

DOUBTFUL = 0.1
"""Failure probability of a certificate beyond which it is pointed out."""


def expectations(request: CertifyRequest, classes: int) -> list[str]:
    """Return warnings about what so few samples cannot show, before any is drawn."""
    found = []
    if request.failure_probability > DOUBTFUL:
        found.append(
            f"failure probability {request.failure_probability:g}: each certificate may be wrong with this "
            "probability, and the table says little: 0.001 is usual"
        )
    for classifier, certificate, ceiling in ceilings(request, classes):
        row = f"{classifier}, {certificate}"
        if ceiling <= 0:
            enough = _enough_samples(request, classes, classifier, certificate)
            more = f"about {enough} are needed" if enough else "raise --alpha"
            found.append(
                f"{row}: {request.samples} samples cannot certify anything at failure probability "
                f"{request.failure_probability:g}, even if all agree: {more}"
            )
    return found


def _enough_samples(request: CertifyRequest, classes: int, classifier: str, certificate: str) -> int | None:
    """The least number of samples, within a factor of 1.2, at which a row can hold a radius > 0."""
    samples = request.samples
    while samples < 10**9:
        samples = int(samples * 1.2) + 1
        for row in ceilings(request.replace(samples=samples), classes):
            if row[:2] == (classifier, certificate) and row[2] > 0:
                return samples
    return None


def reading_notes(request: CertifyRequest, classes: int) -> list[str]:
    """Return what a reader of the table should know: columns out of reach, radii understated."""
    found = []
    for classifier, certificate, ceiling in ceilings(request, classes):
        if certificate == "exact" and 0 < ceiling < request.radii[-1]:
            found.append(
                f"{classifier}, exact: {request.samples:,} samples an image can certify at most radius "
                f"{floor_digits(ceiling, 3)}; larger columns are out of reach"
            )
    if request.goal == "radii":
        found.append(
            "Sampling stops once the columns of the deciding row are settled: mean radii and accuracies "
            "between columns are understated (--goal radius)"
        )
    return found


def began_with(store: Store) -> dict[str, str]:
    """Return what a run's first request chose, as text by name."""
    kept = {name: store.get(name) for name in (*SETTLED, "fixed_samples")}
    return {name: value for name, value in kept.items() if value is not None}


def choice_notes(first: Mapping[str, str], request: CertifyRequest) -> list[str]:
    """Return what to say of choices that are not those a run began with; see `began_with`."""
    found = [
        f"The run was made with {name.replace('_', ' ')} {first[name]}: another one is valid only if the "
        "choice does not rest on the run's results."
        for name in SETTLED
        if first.get(name, own := str(getattr(request, name))) != own
    ]
    if "fixed_samples" in first and request.goal != "fixed":
        found.append(
            f"The run was made for exactly {first['fixed_samples']} samples an image: sequential sampling is "
            "valid only if the choice does not rest on the run's results."
        )
    return found
