"""What a fit of MixedNUTS and studies of it are asked for.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from certmix.bounds import bounds_of
from certmix.certification.request.parts import StandardTemperature
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError
from certmix.nuts.grid import BETAS, CLAMP_NAMES, GRIDS, QUANTILES, RIVALS, TOP_K, Grid, parse_grid
from certmix.runs.attack_request import AttackRequest
from certmix.runs.settings import DERIVED, Count, Inputs, Option, Positive, Settings, Share, divide
from certmix.runs.sources import OF_ROBUST, OF_STANDARD, Sources
from certmix.sampling.devices import PRECISIONS

CERTIFIED_GRID = "s=0.5:500:8,p=1:6:6,c=-2:0:8"
"""The default grid: up to transforms that all but count votes."""


@dataclass(frozen=True)
class NutsStudy:
    """A study of cached results: its help, the number of fits (1: exactly), whether an evaluation is used."""

    summary: str
    fits: int = 1
    evaluation: bool = True


STUDIES = {
    "sensitivity": NutsStudy("objective and threshold over s, p and c (Figure 9)", evaluation=False),
    "margins": NutsStudy("margins before and after the transform (Figures 6, 7, Table 6)"),
    "transform": NutsStudy("the transform itself, on examples (Figures 3, 4)", evaluation=False),
    "beta": NutsStudy("trade-off over beta, beside the plain mix (Figure 8)"),
    "clamp": NutsStudy("clamps compared (Table 7)"),
    "tuning-size": NutsStudy("fewer tuning inputs; seen and unseen ones (Tables 8, 9)"),
    "standard-temperature": NutsStudy("temperature of the standard classifier (Table 10)"),
    "transfer": NutsStudy("s, p, c of one fit on the models of another (Table 11)", 2, False),
    "cost": NutsStudy("parameters and FLOPs of g, h and the mix (Table 5)", evaluation=False),
}
"""Studies by name: functions of `certmix.studies.nuts_ablations`, with ``_`` for ``-``."""

Least2 = Annotated[int, Meta(ge=2)]


class FitChoices(Settings, frozen=True):
    """How Algorithm 1 is run; none of it needs new margins, but ``gradient_free`` and the preset's LN."""

    preset: Annotated[str, Option("Grid and normalisation of the paper's Table 3.", choices=GRIDS)] = (
        "cifar10"
    )
    beta: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Option(
            "Share of rightly classified attacked inputs that must stay right whatever g says.",
            example="0.985", shown="the paper's: 0.985, or 0.99 of preset imagenet",
        ),
    ] = DERIVED  # fmt: skip
    clamp: Annotated[str, Option("Clamp of M.", choices=CLAMP_NAMES)] = "gelu"
    grid: Annotated[str | None, Option("Other grid: s=0.05:5:8,p=1:4:8,c=-1.1:0:8.", metavar="GRID")] = None
    quantile: Annotated[
        str,
        Option(
            "linear interpolates, as published code does, and can miss beta by part of an input.",
            choices=QUANTILES,
        ),
    ] = QUANTILES[0]
    rival: Annotated[
        str,
        Option(
            "A wrong input's margin: over its label (what g can mend), or over the second class (the paper).",
            choices=RIVALS,
        ),
    ] = RIVALS[0]
    conditional: Annotated[bool, Option("Objective over inputs that g gets right (D.8.3).")] = False
    standard_temperature: StandardTemperature = 0.0
    r_d: Annotated[Annotated[float, Meta(ge=0, le=1)], Option("Of the auxiliary mix.")] = 0.9
    gradient_free: Annotated[bool, Option("Search margins by Square: for a black-box h.")] = False
    early_stop: Annotated[bool, Option("Stop lowering the margin of an input once it is broken.")] = True
    copy_weights: Annotated[bool, Option("Bundle the base models' weights with the mix.")] = False

    def usual(self, name: str) -> Any:
        """Return the preset's beta, the paper's; the check refuses an unknown preset."""
        return BETAS.get(self.preset, 1.0)

    def check(self) -> None:
        assert self.candidates.shape

    @property
    def candidates(self) -> Grid:
        return GRIDS[self.preset] if self.grid is None else parse_grid(self.grid)

    @property
    def top_k(self) -> int | None:
        """Logits behind LN's mean and variance."""
        return TOP_K[self.preset]


class CertifiedRequest(Settings, frozen=True):
    """What to choose a transform for, on what, and how to certify it.

    Every input gets the same number of samples, which is fixed beforehand.
    """

    sigma: Annotated[Positive, Option("Certified: noise level; --robust is h's base.", example="0.5")]
    at_radius: Annotated[
        Annotated[float, Meta(ge=0)],
        Option("Certified: the l2 radius wanted; 0 stands for any above 0.", example="0.5", metavar="R"),
    ]
    inputs: Annotated[Inputs, Option("How many tuning inputs, spread over the data.")] = 200
    noisy_samples: Annotated[Least2, Option("Certified: noisy copies of each tuning input.")] = 200
    clean_accuracy_floor: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Option(
            "Certified: least clean accuracy of the mix on the tuning inputs.", example="0.8",
            shown="the middle between h's votes and g there",
        ),
    ] = None  # fmt: skip
    certify_inputs: Annotated[
        Inputs, Option("Certified: how many inputs are certified, spread over those not tuned on.")
    ] = 100
    samples: Annotated[Least2, Option("Certified: estimation samples of each of them.")] = 2000
    selection_samples: Annotated[Count, Option("Certified: samples that choose the class.")] = 100
    failure_probability: Annotated[
        Share, Option("Certified: probability that one input's certificate is wrong.")
    ] = 0.001
    bound: Annotated[
        str,
        Option(
            "Certified: from score samples to probabilities.", choices=bounds_of("soft", distribution=False)
        ),
    ] = "betting-fixed"
    clamp: Annotated[str, Option("Clamp of M.", choices=CLAMP_NAMES)] = "gelu"
    preset: Annotated[str, Option("Normalisation of the paper's Table 3.", choices=GRIDS)] = "cifar10"
    grid: Annotated[str | None, Option("Other grid: s=0.05:5:8,p=1:4:8,c=-1.1:0:8.", metavar="GRID")] = None
    seed: Annotated[int, Option("Key of all noise.")] = 0
    precision: Annotated[str, Option("Arithmetic of forward passes.", choices=PRECISIONS)] = "fp32"
    batch_size: Annotated[Count | None, Option("Inputs in one forward pass.")] = None
    copy_weights: Annotated[bool, Option("Bundle the base models' weights with the mix.")] = False

    def check(self) -> None:
        """Refuse to leave no input to certify, and what `certify` refuses."""
        if self.inputs == "all":
            raise ParameterError("inputs = all: some must be left to certify: give a number of tuning inputs")
        assert self.candidates.shape
        self.certify("soft", self.bound, 1.0)

    @property
    def candidates(self) -> Grid:
        return parse_grid(self.grid or CERTIFIED_GRID)

    def certify(self, scores: str, bound: str, alpha: float) -> CertifyRequest:
        """Return the certification of one candidate, the same for all but these."""
        return CertifyRequest(
            self.sigma, alpha, inputs=self.certify_inputs, samples=self.samples,
            selection_samples=self.selection_samples, goal="fixed", scores=scores, bound=bound,
            failure_probability=self.failure_probability, certificates=("exact",),
            radii=(0.0, self.at_radius) if self.at_radius > 0 else (0.0,), seed=self.seed,
            precision=self.precision,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Return the part that decides which noisy logits are drawn."""
        names = ("sigma", "noisy_samples", "seed", "precision")
        return {name: getattr(self, name) for name in names}


OF_PUBLISHED = {*OF_STANDARD, *OF_ROBUST, "crop", "copy_weights"}
"""What makes models, and the side of their inputs."""
OF_LOGITS = {"beta", "clamp", "preset", "grid", "quantile", "rival", "conditional", "standard_temperature"}
AROUND = {"output", "fresh", "device", "progress", "format_", "model_timeout"}


def asked_fit(
    given: dict[str, Any],
    refuse: Callable[[Iterable[str], str], None],
    *,
    published: bool,
    certified: bool,
    logits: bool,
) -> FitChoices | CertifiedRequest | None:
    """Take from `given` the choices of a fit, None of no fit; `refuse` gets names of no effect, and why."""
    asked = sorted(given.keys() - AROUND)
    if published:
        odd = [name for name in asked if name not in OF_PUBLISHED]
        odd += ["full_strength", "logits", "certified", "fresh"]
        refuse(odd, "is not for --published, which fits nothing and reads no data")
        if not isinstance(given.get("output"), str | Path):
            raise ParameterError("--published needs a folder for the mix: add it, for example --output mix")
        return None
    of_certified = {*CertifiedRequest.__struct_fields__, *Sources.__struct_fields__}
    if certified:
        odd = [name for name in asked if name not in of_certified]
        refuse([*odd, "full_strength", "logits"], "does not go with --certified")
        for name in ("at_radius", "sigma"):
            if name not in given:
                raise ParameterError(f"--certified needs --{name.replace('_', '-')}: add it, such as 0.5")
        (chosen,) = divide(given, CertifiedRequest)
        return CertifiedRequest(**chosen)
    known = {*FitChoices.__struct_fields__, *AttackRequest.__struct_fields__, *Sources.__struct_fields__}
    alone = [name for name in asked if name not in known]
    refuse([*alone, "denoiser", "feature_scale"], "needs --certified: add it, or")
    if logits:
        odd = [name for name in given if name not in {*OF_LOGITS, "format_"}]
        odd += ["full_strength", "model_timeout"]
        refuse(odd, "is not for --logits, which fits on what the file holds")
    (chosen,) = divide(given, FitChoices)
    return FitChoices(**chosen)
