"""What a request cannot show, said before any sample is drawn.  No torch."""

from __future__ import annotations

from dataclasses import replace

from certmix.report.rounding import floor_digits
from certmix.studies.evaluate import ceilings
from certmix.studies.request import CertifyRequest

__all__ = ["expectations", "reading_notes"]

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
        for row in ceilings(replace(request, samples=samples), classes):
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
