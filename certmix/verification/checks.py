"""What a verification found: one result a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = ["CheckResult", "Outcome", "worst"]

IMAGES_NAMED = 5


class Outcome(StrEnum):
    """How a check ended; in order of gravity."""

    HOLDS = "holds"
    UNCHECKED = "unchecked"
    FAILS = "fails"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Parameters
    ----------
    check
        Its name, in words that do not change between runs: ``"radii"``, ``"data checksum"``.
    outcome
        Whether what was claimed holds, fails, or could not be looked at.
    message
        One line: what was compared, and what was found where it fails.
    images
        Indices of the images concerned; the first few.
    count
        How many images are concerned.
    """

    check: str
    outcome: Outcome
    message: str
    images: tuple[int, ...] = ()
    count: int = 0

    @classmethod
    def about(cls, check: str, outcome: Outcome, message: str, images: Iterable[int]) -> CheckResult:
        """Return a result that names the first of the images concerned and counts all."""
        concerned = [int(image) for image in images]
        return cls(check, outcome, message, tuple(concerned[:IMAGES_NAMED]), len(concerned))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "outcome": str(self.outcome), "images": list(self.images)}


def worst(results: Iterable[CheckResult]) -> Outcome:
    """Return the gravest outcome; HOLDS of nothing at all."""
    order = list(Outcome)
    return max((result.outcome for result in results), key=order.index, default=Outcome.HOLDS)
