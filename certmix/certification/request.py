"""What a user asks of `certify`, validated once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from numbers import Real
from typing import Annotated, Any

from certmix.bounds import BOUNDS, bounds_of
from certmix.errors import ParameterError
from certmix.files import digest_of
from certmix.radii import CERTIFICATES, check_alpha
from certmix.runs.settings import DERIVED, Count, Images, Option, Positive, Settings, Share
from certmix.sampling.devices import PRECISIONS
from certmix.sampling.schedule import look
from certmix.types import IntArray

__all__ = [
    "DEFAULT_RADII", "GOALS", "OPTION_OF", "SCORES", "CertifyRequest", "Shard", "check_batch_size",
    "checked_radii",
]  # fmt: skip

DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
GOALS = {
    "radii": "until the radii of the table are settled, or more samples are not worth it",
    "radius": "until the radius is known to a relative precision",
    "fixed": "all of --samples for every image",
}
"""When an image has been sampled enough, by name."""
_GOALS = "; ".join(f"{name}: {meaning}" for name, meaning in GOALS.items())

SCORES = {"hard": "the base model's answers are counted", "soft": "the softmax of its logits is averaged"}
"""What is averaged over noisy copies, by name."""

OPTION_OF = {"temperature": ("scores", "soft"), "relative_precision": ("goal", "radius")}
"""Settings that have an effect with one value of another setting alone."""


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


Alpha = Annotated[float, Option("Mixing weight of the robust classifier, 0.5 to 1.", check=check_alpha)]
Sampled = Annotated[Images, Option("How many images, spread over the data.", metavar="N|all")]

Radii = Annotated[
    tuple[float, ...],
    Option(
        "Columns of the table.", shown="0 to 1.5 in steps of 0.25; 0 to 8/255 in linf", check=checked_radii
    ),
]


class CertifyRequest(Settings, frozen=True):
    """All that a certification run is asked for, apart from data and models.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    sigma: Annotated[
        Positive,
        Option(
            "Noise level, in units of the input (0.25, 0.5, 32/255); not for margin and lipschitz-constant.",
            example="0.5",
        ),
    ]
    alpha: Alpha
    images: Sampled = 100
    samples: Annotated[Count, Option("Most estimation samples of an image.")] = 10_000
    selection_samples: Annotated[Count, Option("Samples that choose the class.")] = 100
    goal: Annotated[
        str,
        Option(
            f"When an image has enough samples: {_GOALS}.",
            choices=GOALS,
        ),
    ] = "radii"
    relative_precision: Annotated[Share, Option("How near --goal radius comes.", example="0.1")] = 0.1
    failure_probability: Annotated[
        Share, Option("Probability that one image's certificate is wrong.", example="0.001")
    ] = 0.001
    scores: Annotated[str, Option("Count the model's answers, or average its softmax.", choices=SCORES)] = (
        "hard"
    )
    temperature: Annotated[Positive, Option("Divides the logits of soft scores.")] = 1.0
    bound: Annotated[
        str,
        Option(
            "From samples to probabilities.",
            choices=BOUNDS,
            shown="clopper-pearson; betting for soft scores",
        ),
    ] = DERIVED
    certificates: Annotated[
        tuple[str, ...],
        Option(
            "From probabilities to radii; repeatable, the first ends sampling. margin and "
            "lipschitz-constant draw no samples.",
            choices=CERTIFICATES, flag="certificate", shown="all that sample",
        ),
    ] = tuple(CERTIFICATES)  # fmt: skip
    radii: Radii = DEFAULT_RADII
    seed: Annotated[int, Option("Key of all noise.")] = 0
    precision: Annotated[str, Option("Arithmetic of forward passes (autocast).", choices=PRECISIONS)] = "fp32"

    def usual(self, name: str) -> Any:
        """Return the first bound of what is averaged."""
        return next(iter(bounds_of(self.scores)))

    def check(self) -> None:
        """Refuse bounds of other scores, samples before the first look, bounds of distributions for means."""
        known = bounds_of(self.scores)
        if self.bound not in known:
            raise ParameterError(
                f"bound for {self.scores} scores {self.bound!r} is unknown: use one of {', '.join(known)}"
            )
        if self.goal != "fixed" and self.samples < look(0):
            raise ParameterError(
                f"samples = {self.samples}: sequential sampling looks first at {look(0)} samples; "
                f"raise --samples or use --goal fixed"
            )
        if not 0 <= self.seed < 2**64:
            raise ParameterError(f"seed = {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        if BOUNDS[self.bound].distribution and (self.goal != "fixed" or self.certificates != ("exact",)):
            raise ParameterError(
                f"bound {self.bound!r} bounds distributions, not means: use it with --goal fixed and "
                "--certificate exact alone"
            )

    @property
    def bound_name(self) -> str:
        """The bound."""
        return self.bound

    @property
    def kept(self) -> str:
        """What is kept of a sample, for a run's identity: votes, or scores with their exact temperature."""
        return "hard" if self.scores == "hard" else f"soft, temperature {float(self.temperature)!r}"

    def name(self, standard_checksum: str) -> str:
        """Return a readable and unique name for this request's products."""
        digest = digest_of([self.as_dict(), standard_checksum])[:8]
        return (
            f"alpha{self.alpha:g}-{self.goal}-n{self.samples}-images{self.images}"
            f"-failure{self.failure_probability:g}-{digest}"
        )


def check_batch_size(batch_size: int | None) -> int | None:
    """Return the number of inputs in a batch, which must hold some; None leaves it to the device."""
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch size = {batch_size}: at least 1 is needed, or leave it out")
    return None if batch_size is None else int(batch_size)


class Shard(Settings, frozen=True):
    """Share `number` (1, 2, ...) of `of`: every of-th image, beginning with the number-th.

    Raises
    ------
    ParameterError
        If the number is not one of 1..of.

    Examples
    --------
    >>> import numpy as np
    >>> Shard.parse("2/3").of_positions(np.arange(8))
    array([1, 4, 7])
    """

    number: int
    of: int

    def check(self) -> None:
        """Refuse a share that there is not."""
        if not 1 <= self.number <= self.of:
            raise ParameterError(
                f"shard {self}: shards are numbered from 1 to {max(self.of, 1)}; "
                "of a scheduler that counts from 0, add 1"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text such as ``2/8``.

        Raises
        ------
        ParameterError
            If it is not of that form.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ParameterError(f"shard {text!r}: write for example 2/8, the second of eight shares")
        return cls(int(found[1]), int(found[2]))

    def of_positions(self, positions: IntArray) -> IntArray:
        """Return this share of the positions of all images.

        Raises
        ------
        ParameterError
            If there are fewer images than shards.
        """
        if len(positions) < self.of:
            raise ParameterError(
                f"shard {self}: there are {len(positions)} images only; use {len(positions)} shards at most"
            )
        return positions[self.number - 1 :: self.of]
