"""A claim about a population.  No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from certmix.certification.request.noisy import ENUMERATED, NORMS_OF_NOISE, Noisy
from certmix.certification.request.parts import Alpha, Sampled, check_seed, meanings
from certmix.errors import ParameterError
from certmix.radii import SMOOTHINGS, norms_of
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs.folder import NOISE_VERSION
from certmix.runs.settings import DERIVED, Count, Option, Positive, Share, norm_name
from certmix.sampling.devices import AUTO, SAMPLED

POPULATIONS = {
    "data": "the data set, any input of which may be drawn again",
    "distribution": "what the inputs of the data set are independent draws of, each taken once",
}
"""What a claim is about, by name."""

MOST_DRAWS = 10**7
"""Inputs that a claim may draw: the order of all of them is held at once."""


class Population(Noisy, frozen=True):
    """A claim about a population: the share of its inputs that are right and certified at one radius."""

    sigma: Annotated[Positive | None, Option("", example="0.5")]
    alpha: Alpha
    at_radius: Annotated[
        Positive, Option("--goal population: the radius of the claim.", metavar="R", example="0.5")
    ]
    at_least: Annotated[
        Share | None,
        Option(
            "--goal population: the share to be shown; sampling ends as soon as it is, or cannot be.",
            metavar="SHARE",
            example="0.3",
        ),
    ] = None
    goal: Annotated[Literal["population"], Option("")] = "population"
    population: Annotated[
        str,
        Option(
            f"--goal population: whose share. {meanings(POPULATIONS)}.",
            choices=POPULATIONS,
        ),
    ] = "data"
    inputs: Sampled = "all"
    samples: Annotated[Count, Option("")] = 1000
    failure_probability: Annotated[Share, Option("", example="0.001")] = 0.001
    seed: Annotated[int, Option("")] = 0
    precision: Annotated[str, Option("", choices=(AUTO, *SAMPLED))] = AUTO
    noise: Annotated[str, Option("", choices=SMOOTHINGS)] = GAUSSIAN
    scale: Annotated[Positive | None, Option("", example="0.5")] = None
    norm: Annotated[str, Option("", choices=NORMS_OF_NOISE, read=norm_name)] = DERIVED
    dimension: Count | None = None

    def usual(self, name: str) -> Any:
        """Return the norm of the noise."""
        return norms_of(self.noise)[0]

    def check(self) -> None:
        """Refuse a mix of which nothing can be certified, seeds that are none, and parts of whole radii."""
        if self.noise in ENUMERATED:
            told = f"noise = {self.noise}: every case of it is gone through, and none drawn"
            raise ParameterError(f"{told}: leave --goal population out")
        self.check_noise()
        check_seed(self.seed)
        if self.inputs != "all" and int(self.inputs) > MOST_DRAWS:
            raise ParameterError(f"inputs = {self.inputs}: a claim draws at most {MOST_DRAWS}: give fewer")
        if self.smoothing.entry.whole and not self.at_radius.is_integer():
            told = f"at radius = {self.at_radius:g}: of {self.noise} noise it is a whole number"
            raise ParameterError(f"{told}: give 1, 2, 5")
        if self.alpha == 0.5:
            raise ParameterError(
                "alpha = 0.5: nothing is certified of a mix that ties everywhere: raise --alpha"
            )

    @classmethod
    def only(cls) -> set[str]:
        """Return the options of no other request."""
        return {"at_radius", "at_least", "population"}

    def identity(self) -> dict[str, Any]:
        """Return what is fixed beforehand, besides data and h: votes and their bound depend on it."""
        left = ("at_least", "goal", "inputs", "sigma", "noise", "scale")
        level = ("sigma",) if self.scale is None else ("noise", "scale")
        names = [*level, *(name for name in self.__struct_fields__ if name not in left)]
        return {name: getattr(self, name) for name in names} | {
            "noise_version": NOISE_VERSION, "rule_version": 2,
        }  # fmt: skip

    def draws(self, inputs: int) -> int:
        """Return the most inputs that are drawn of a data set of so many."""
        asked = inputs if self.inputs == "all" else int(self.inputs)
        return asked if self.population == "data" else min(asked, inputs)
