"""The best transform for certified accuracy, beside plain softmax scores and hard votes: all planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from certmix.bounds import bounds_of
from certmix.certification.request import CertifyRequest
from certmix.errors import ParameterError
from certmix.nuts.certified import (
    Choice,
    NoisyLogits,
    ScoreSums,
    choose,
    grid_sums,
    planned_margins,
    score_sums,
    softmax_numpy,
)
from certmix.nuts.grid import CLAMP_NAMES, GRIDS, TOP_K, Grid, TransformSettings, parse_grid
from certmix.runs.settings import Count, Images, Option, Positive, Settings, Share
from certmix.sampling.devices import PRECISIONS
from certmix.studies.study import estimated_accuracy
from certmix.types import EstimatedAccuracy

__all__ = ["CERTIFIED_GRID", "CertifiedRequest", "Plan", "Planned", "plan_mix"]

CERTIFIED_GRID = "s=0.5:500:8,p=1:6:6,c=-2:0:8"
"""The default grid: up to transforms that all but count votes."""
HARD_BOUNDS = ("clopper-pearson", "clopper-pearson-two-sided")

Least2 = Annotated[int, Meta(ge=2)]


class CertifiedRequest(Settings, frozen=True):
    """What to choose a transform for, on what, and how to certify it.

    Every image gets the same number of samples, which is fixed beforehand.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    sigma: Annotated[Positive, Option("Certified: noise level; --robust is h's base.", example="0.5")]
    at_radius: Annotated[
        Annotated[float, Meta(ge=0)],
        Option("Certified: the l2 radius wanted; 0 stands for any above 0.", example="0.5", metavar="R"),
    ]
    images: Annotated[Images, Option("How many tuning images, spread over the data.")] = 200
    noisy_samples: Annotated[Least2, Option("Certified: noisy copies of each tuning image.")] = 200
    clean_accuracy_floor: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Option(
            "Certified: least clean accuracy of the mix on the tuning images.", example="0.8",
            shown="the middle between h's votes and g there",
        ),
    ] = None  # fmt: skip
    certify_images: Annotated[
        Images, Option("Certified: how many images are certified, spread over those not tuned on.")
    ] = 100
    samples: Annotated[Least2, Option("Certified: estimation samples of each of them.")] = 2000
    selection_samples: Annotated[Count, Option("Certified: samples that choose the class.")] = 100
    failure_probability: Annotated[
        Share, Option("Certified: probability that one image's certificate is wrong.")
    ] = 0.001
    bound: Annotated[
        str,
        Option(
            "Certified: from score samples to probabilities.",
            choices=bounds_of("soft", distribution=False),
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
        """Refuse to leave no image to certify, and what `certify` refuses."""
        if self.images == "all":
            raise ParameterError("images = all: some must be left to certify: give a number of tuning images")
        assert self.candidates.shape
        self.certify("soft", self.bound, 1.0)

    @property
    def candidates(self) -> Grid:
        """The grid of s, p and c."""
        return parse_grid(self.grid or CERTIFIED_GRID)

    @property
    def top_k(self) -> int | None:
        """Logits behind LN's mean and variance."""
        return TOP_K[self.preset]

    def certify(self, scores: str, bound: str, alpha: float) -> CertifyRequest:
        """Return the certification of one candidate, the same for all but these."""
        return CertifyRequest(
            self.sigma, alpha, images=self.certify_images, samples=self.samples,
            selection_samples=self.selection_samples, goal="fixed", scores=scores, bound=bound,
            failure_probability=self.failure_probability, certificates=("exact",),
            radii=(0.0, self.at_radius) if self.at_radius > 0 else (0.0,), seed=self.seed,
            precision=self.precision,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Return the part that decides which noisy logits are drawn."""
        names = ("sigma", "noisy_samples", "seed", "precision")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Planned:
    """One way of scoring, at its best on the tuning images.

    `certified` are expected to be certified at the radius, `clean` right in the mix: estimates, and
    optimistic ones, for the choice was made on these images.
    """

    name: str
    scores: str
    bound: str
    alpha: float
    certified: EstimatedAccuracy
    clean: EstimatedAccuracy


@dataclass(frozen=True)
class Plan:
    """What the tuning images say: the transform chosen, and how it and two others are expected to do.

    `floor` is the clean accuracy asked of each mix; `standard` and `votes` are g's own and the smoothed
    h's own.  `softmax` (as it is) is None where no alpha takes it to the floor.  `ties` counts transforms
    that do as well as the best; `on_edge` names parameters whose best value ends the grid.
    """

    floor: float
    standard: EstimatedAccuracy
    votes: EstimatedAccuracy
    best: TransformSettings
    transform: Planned
    hard: Planned
    softmax: Planned | None
    ties: int
    on_edge: tuple[str, ...]


def plan_mix(logits: NoisyLogits, asked: CertifiedRequest) -> Plan:
    """Choose (s, p, c, alpha), and for comparison alpha of the softmax as it is and of hard votes.

    Each maximises the tuning images planned to be certified at the radius,
    under the same floor of the mix's clean accuracy; hard votes also choose
    between two bounds.

    Raises
    ------
    ParameterError
        If no transform, or no mix with hard votes, reaches the floor.
    """
    standard, grid = softmax_numpy(logits.standard), asked.candidates
    votes = score_sums(logits.noisy, lambda scores: np.eye(scores.shape[-1])[scores.argmax(-1)])
    own = estimated_accuracy(standard.argmax(1) == logits.labels)
    alone = estimated_accuracy(votes.means[0].argmax(1) == logits.labels)
    floor = (own.accuracy + alone.accuracy) / 2
    if asked.clean_accuracy_floor is not None:
        floor = asked.clean_accuracy_floor

    def planned(name: str, scores: str, bound: str, sums: ScoreSums) -> tuple[Planned, Choice] | None:
        margins = planned_margins(
            sums, bound=bound, samples=asked.samples, failure_probability=asked.failure_probability,
            distance=asked.at_radius / asked.sigma,
        )  # fmt: skip
        found = choose(margins, sums.means, standard, logits.labels, floor)
        if found is None:
            return None
        certified, clean = (
            estimated_accuracy(np.arange(found.images) < count) for count in (found.certified, found.clean)
        )
        return Planned(name, scores, bound, found.alpha, certified, clean), found

    bent = grid_sums(logits.noisy, grid, clamp=asked.clamp, top_k=asked.top_k)
    transform = planned("transform", "soft", asked.bound, bent)
    softmax = planned("softmax as it is", "soft", asked.bound, score_sums(logits.noisy, softmax_numpy))
    hard = [planned("hard votes", "hard", bound, votes) for bound in HARD_BOUNDS]
    if transform is None or hard[0] is None or hard[1] is None:
        which = "transform of the grid" if transform is None else "mix with hard votes"
        raise ParameterError(
            f"clean accuracy floor = {floor:.4g}: no {which} reaches it on the tuning images, where g alone "
            f"has {own.accuracy:.4g}: lower --clean-accuracy-floor"
        )

    def merit(choice: Choice) -> tuple[int, int, float]:
        return choice.certified, choice.clean, choice.alpha

    better = hard[1][0] if merit(hard[1][1]) > merit(hard[0][1]) else hard[0][0]
    one, choice = transform
    i, j, k = (int(at) for at in np.unravel_index(choice.candidate, grid.shape))
    best = TransformSettings(grid.s[i], grid.p[j], grid.c[k], asked.clamp, asked.top_k)
    return Plan(
        floor, own, alone, best, one, better, None if softmax is None else softmax[0], choice.ties,
        grid.edges((i, j, k)),
    )  # fmt: skip
