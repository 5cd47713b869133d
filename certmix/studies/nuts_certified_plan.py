"""The best transform for certified accuracy, beside plain softmax scores and hard votes: all planned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from certmix.errors import ParameterError
from certmix.nuts.certified import (
    NoisyLogits,
    ScoreSums,
    choose,
    grid_sums,
    planned_margins,
    score_sums,
    softmax_numpy,
)
from certmix.nuts.description import MixSettings
from certmix.nuts.grid import TransformSettings
from certmix.studies.nuts_choices import CertifiedRequest
from certmix.studies.study import estimated_accuracy
from certmix.types import EstimatedAccuracy

HARD_BOUNDS = ("clopper-pearson", "clopper-pearson-two-sided")


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
    candidate: int
    ties: int

    @property
    def how(self) -> tuple[str, str, float]:
        """What `CertifiedRequest.certify` takes."""
        return self.scores, self.bound, self.alpha


@dataclass(frozen=True)
class Plan:
    """What the tuning images say: the transform chosen, and how it and two others are expected to do.

    `floor` is the clean accuracy asked of each mix; `standard` and `votes` are g's own and the smoothed
    h's own.  `softmax` (as it is) is None where no alpha takes it to the floor; `on_edge` names parameters
    whose best value ends the grid.
    """

    floor: float
    standard: EstimatedAccuracy
    votes: EstimatedAccuracy
    best: TransformSettings
    transform: Planned
    hard: Planned
    softmax: Planned | None
    on_edge: tuple[str, ...]

    @property
    def settings(self) -> MixSettings:
        """The numbers of the mix with the transform."""
        return MixSettings(self.best, self.transform.alpha, temperature=1.0)


def plan_mix(logits: NoisyLogits, asked: CertifiedRequest) -> Plan:
    """Choose (s, p, c, alpha), and for comparison alpha of the softmax as it is and of hard votes.

    Each maximises the tuning images planned to be certified at the radius,
    under the same floor of the mix's clean accuracy; hard votes also choose
    between two bounds.  It is a ParameterError if no transform, or no mix with hard votes, reaches the floor.
    """
    standard, grid = softmax_numpy(logits.standard), asked.candidates
    votes = score_sums(logits.noisy, lambda scores: np.eye(scores.shape[-1])[scores.argmax(-1)])
    own = estimated_accuracy(standard.argmax(1) == logits.labels)
    alone = estimated_accuracy(votes.means[0].argmax(1) == logits.labels)
    floor = (own.accuracy + alone.accuracy) / 2
    if asked.clean_accuracy_floor is not None:
        floor = asked.clean_accuracy_floor

    def planned(name: str, scores: str, bound: str, sums: ScoreSums) -> Planned | None:
        margins = planned_margins(
            sums, bound=bound, samples=asked.samples, failure_probability=asked.failure_probability,
            distance=asked.at_radius / asked.sigma,
        )  # fmt: skip
        found = choose(margins, sums.means, standard, logits.labels, floor)
        if found is None:
            return None
        images = np.arange(len(logits.labels))
        certified, clean = (estimated_accuracy(images < count) for count in (found.certified, found.clean))
        return Planned(name, scores, bound, found.alpha, certified, clean, found.candidate, found.ties)

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

    better = max(hard[0], hard[1], key=lambda one: (one.certified.correct, one.clean.correct, one.alpha))
    i, j, k = (int(at) for at in np.unravel_index(transform.candidate, grid.shape))
    best = TransformSettings(grid.s[i], grid.p[j], grid.c[k], asked.clamp, asked.top_k)
    return Plan(floor, own, alone, best, transform, better, softmax, grid.edges((i, j, k)))
