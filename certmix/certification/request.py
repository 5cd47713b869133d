"""What a user asks of `certify`, validated once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

from certmix.bounds import BOUNDS, bounds_of
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES, check_alpha
from certmix.runs.keywords import plain_numbers
from certmix.sampling.schedule import look

__all__ = [
    "DEFAULT_RADII", "GOALS", "OPTION_OF", "SCORES", "CertifyRequest", "check_batch_size", "checked_radii",
]  # fmt: skip

DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
GOALS = {
    "radii": "until the radii of the table are settled, or more samples are not worth it",
    "radius": "until the radius is known to a relative precision",
    "fixed": "all of --samples for every image",
}
"""When an image has been sampled enough, by name."""

SCORES = {"hard": "the base model's answers are counted", "soft": "the softmax of its logits is averaged"}
"""What is averaged over noisy copies, by name."""

OPTION_OF = {"temperature": ("scores", "soft"), "relative_precision": ("goal", "radius")}
"""Settings that have an effect with one value of another setting alone."""


@dataclass(frozen=True)
class CertifyRequest:
    """All that a certification run is asked for, apart from data and models.

    Parameters
    ----------
    sigma, alpha
        Noise level (units of the input) and mixing weight in [1/2, 1].
    images
        How many images, spread over the data set, or ``"all"``.
    samples, selection_samples
        Most estimation samples of an image; samples that choose its class.
    goal, relative_precision
        A name in `GOALS`; how near the goal ``radius`` comes, in (0, 1).
    failure_probability
        Of one image's certificate.
    scores, temperature
        ``hard``: the base model's answers are counted; ``soft``: the softmax
        of its logits, divided by the temperature, is averaged.
    bound
        A name in `BOUNDS` of these scores; None for the first.
    certificates, radii
        Names in `CERTIFICATES`, and the radii of the table.
    seed, precision
        Key of all noise; arithmetic of the forward passes.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    sigma: float
    alpha: float
    images: int | str = 100
    samples: int = 10_000
    selection_samples: int = 100
    goal: str = "radii"
    relative_precision: float = 0.1
    failure_probability: float = 0.001
    scores: str = "hard"
    temperature: float = 1.0
    bound: str | None = None
    certificates: tuple[str, ...] = tuple(CERTIFICATES)
    radii: tuple[float, ...] = DEFAULT_RADII
    seed: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        plain_numbers(self)
        _check_names("scores", [self.scores], SCORES)
        if self.bound is None:
            object.__setattr__(self, "bound", next(iter(bounds_of(self.scores))))
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ParameterError(f"sigma = {self.sigma}: the noise level must be a positive number")
        check_alpha(self.alpha)
        if not 0.0 < self.failure_probability < 1.0:
            raise ParameterError(
                f"failure probability = {self.failure_probability}: it must lie strictly "
                "between 0 and 1, for example 0.001"
            )
        for name, value in (("samples", self.samples), ("selection samples", self.selection_samples)):
            if value < 1:
                raise ParameterError(f"{name} = {value}: at least 1 is needed")
        if self.images != "all" and (not isinstance(self.images, int) or self.images < 1):
            raise ParameterError(f"images = {self.images!r}: give a number of at least 1, or 'all'")
        if not 0.0 < self.relative_precision < 1.0:
            raise ParameterError(
                f"relative precision = {self.relative_precision}: it must lie strictly between 0 and 1"
            )
        if self.goal != "fixed" and self.samples < look(0):
            raise ParameterError(
                f"samples = {self.samples}: sequential sampling looks first at {look(0)} samples; "
                f"raise --samples or use --goal fixed"
            )
        if not 0 <= self.seed < 2**64:
            raise ParameterError(f"seed = {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        _check_names("goal", [self.goal], GOALS)
        _check_names(f"bound for {self.scores} scores", [self.bound], bounds_of(self.scores))
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ParameterError(f"temperature = {self.temperature}: it must be a positive number")
        _check_names("certificate", self.certificates, CERTIFICATES)
        object.__setattr__(self, "radii", checked_radii(self.radii))
        if BOUNDS[self.bound_name].distribution and (self.goal != "fixed" or self.certificates != ("exact",)):
            raise ParameterError(
                f"bound {self.bound!r} bounds distributions, not means: use it with --goal fixed and "
                "--certificate exact alone"
            )

    @property
    def bound_name(self) -> str:
        """The bound, which is never None once the request is made."""
        assert self.bound is not None
        return self.bound

    @property
    def kept(self) -> str:
        """What is kept of a sample, for a run's identity: votes, or scores with their exact temperature."""
        return "hard" if self.scores == "hard" else f"soft, temperature {float(self.temperature)!r}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return asdict(self)

    def name(self, standard_checksum: str) -> str:
        """Return a readable and unique name for this request's products."""
        digest = hashlib.sha256(
            json.dumps([self.as_dict(), standard_checksum], sort_keys=True).encode()
        ).hexdigest()[:8]
        return (
            f"alpha{self.alpha:g}-{self.goal}-n{self.samples}-images{self.images}"
            f"-failure{self.failure_probability:g}-{digest}"
        )


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a batch without inputs; None leaves the size to the device."""
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch size = {batch_size}: at least 1 is needed, or leave it out")


def _check_names(kind: str, names: Any, table: dict[str, Any]) -> None:
    for name in names:
        if name not in table:
            raise ParameterError(f"{kind} {name!r} is unknown: use one of {', '.join(table)}")
    if not names:
        raise ParameterError(f"no {kind} was given: use one of {', '.join(table)}")


def checked_radii(radii: Iterable[float]) -> tuple[float, ...]:
    """Return the radii of a table as floats: 0 and 0.0 ask for the same.

    Raises
    ------
    ParameterError
        If there are none, or they are not finite numbers of at least 0 that increase.
    """
    given = tuple(radii)
    if not given or any(not (isinstance(r, Real) and r >= 0 and math.isfinite(r)) for r in given):
        raise ParameterError(f"radii = {list(given)}: give at least one finite radius >= 0")
    if any(b <= a for a, b in pairwise(given)):
        raise ParameterError(f"radii = {list(given)}: they must increase")
    return tuple(map(float, given))
