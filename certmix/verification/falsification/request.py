"""What a user asks of `falsify`, validated once.  No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from certmix.certification.deterministic_request import NORMS_OF
from certmix.errors import ParameterError
from certmix.radii import check_alpha
from certmix.runs.keywords import plain_numbers

__all__ = ["FalsifyRequest"]


@dataclass(frozen=True)
class FalsifyRequest:
    """Which certificates are attacked, how hard, and what counts as evidence.

    Parameters
    ----------
    images
        How many of the run's images are looked at, evenly spread, or ``"all"``;
        the certified ones among them are attacked.  Fixed before anything is seen:
        the verdict counts findings against this number.
    alpha, certificate
        Whose radii; None for the run's own.  alpha = 1 is the robust classifier alone.
    steps
        Of the search.
    copies
        Noisy copies behind each gradient of a smoothed classifier.
    restarts
        Starting points of each attack on a classifier without noise.
    samples
        Fresh samples at the point found, which decide; fewer where they cannot.
    error_rate
        Probability that honest certificates are called falsified.
    seed
        Key of all noise of the search and of the decision; never that of the run.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    images: int | str = 25
    alpha: float | None = None
    certificate: str | None = None
    steps: int = 20
    copies: int = 32
    restarts: int = 4
    samples: int = 10_000
    error_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        if self.images != "all" and (not isinstance(self.images, int) or self.images < 1):
            raise ParameterError(f"images = {self.images}: give a number of at least 1, or 'all'")
        if self.alpha is not None:
            check_alpha(self.alpha)
        if self.certificate is not None and self.certificate not in NORMS_OF:
            raise ParameterError(
                f"certificate {self.certificate!r} is unknown: use one of {', '.join(NORMS_OF)}"
            )
        for name, value, least in (
            ("steps", self.steps, 1), ("copies", self.copies, 2), ("restarts", self.restarts, 1),
            ("samples", self.samples, 100),
        ):  # fmt: skip
            if value < least:
                raise ParameterError(f"{name} = {value}: at least {least} are needed")
        if not 0.0 < self.error_rate < 1.0:
            raise ParameterError(
                f"error rate = {self.error_rate}: it must lie strictly between 0 and 1, for example 0.01"
            )
        if self.seed < 0:
            raise ParameterError(f"seed = {self.seed}: it must be at least 0")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)
