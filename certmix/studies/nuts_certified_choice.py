"""The best transform for certified accuracy, beside plain softmax scores and hard votes: all planned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from certmix.errors import ParameterError
from certmix.nuts.certified import (
    Choice,
    NoisyLogits,
    ScoreSums,
    choose,
    grid_sums,
    score_sums,
    softmax_numpy,
)
from certmix.nuts.grid import TransformSettings
from certmix.studies.accuracy import estimated_accuracy
from certmix.studies.nuts_certified_request import CertifiedRequest
from certmix.studies.nuts_planning import planned_margins
from certmix.types import EstimatedAccuracy, FloatArray

__all__ = ["HARD_BOUNDS", "Plan", "Planned", "plan_mix"]

HARD_BOUNDS = ("clopper-pearson", "clopper-pearson-two-sided")


@dataclass(frozen=True)
class Planned:
    """One way of scoring, at its best on the tuning images.

    Parameters
    ----------
    name
        In tables.
    scores, bound
        As `certify` takes them.
    alpha
        Mixing weight.
    certified, clean
        Shares of tuning images: expected to be certified at the radius, and right in the mix.
        Estimates, and optimistic ones, for the choice was made on these images.
    transform
        M, None without.
    ties, on_edge
        Transforms that do as well; parameters whose best value ends the grid.
    """

    name: str
    scores: str
    bound: str
    alpha: float
    certified: EstimatedAccuracy
    clean: EstimatedAccuracy
    transform: TransformSettings | None = None
    ties: int = 1
    on_edge: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What the tuning images say.

    ``floor`` is the clean accuracy that was asked of each mix; ``standard`` and
    ``votes`` are g's and the smoothed h's own on these images.  ``softmax`` is
    None where no alpha takes it to the floor.
    """

    floor: float
    standard: EstimatedAccuracy
    votes: EstimatedAccuracy
    transform: Planned
    hard: Planned
    softmax: Planned | None


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
    standard = softmax_numpy(logits.standard)
    votes = score_sums(logits.noisy, _one_hot)
    own = estimated_accuracy(standard.argmax(1) == logits.labels)
    alone = estimated_accuracy(votes.means[0].argmax(1) == logits.labels)
    asked_floor = asked.clean_accuracy_floor
    floor = (own.accuracy + alone.accuracy) / 2 if asked_floor is None else asked_floor
    grid = asked.candidates
    bent = grid_sums(logits.noisy, grid, clamp=asked.clamp, top_k=asked.top_k)
    found = _planned("transform", "soft", asked.bound, bent, logits, standard, floor, asked)
    plain = score_sums(logits.noisy, softmax_numpy)
    softmax = _planned("softmax as it is", "soft", asked.bound, plain, logits, standard, floor, asked)
    hard = [
        _planned("hard votes", "hard", bound, votes, logits, standard, floor, asked) for bound in HARD_BOUNDS
    ]
    if found is None or hard[0] is None or hard[1] is None:
        which = "transform of the grid" if found is None else "mix with hard votes"
        raise ParameterError(
            f"clean accuracy floor = {floor:.4g}: no {which} reaches it on the tuning images, where g alone "
            f"has {own.accuracy:.4g}: lower --clean-accuracy-floor"
        )
    better = hard[1][0] if _merit(hard[1][1]) > _merit(hard[0][1]) else hard[0][0]
    one, choice = found
    at = np.unravel_index(choice.candidate, grid.shape)
    s, p, c = (values[int(i)] for values, i in zip((grid.s, grid.p, grid.c), at, strict=True))
    transform = TransformSettings(s, p, c, asked.clamp, asked.top_k)
    edges = grid.edges((int(at[0]), int(at[1]), int(at[2])))
    fitted = Planned(
        one.name, one.scores, one.bound, one.alpha, one.certified, one.clean, transform, choice.ties, edges
    )
    return Plan(floor, own, alone, fitted, better, None if softmax is None else softmax[0])


def _merit(choice: Choice) -> tuple[int, int, float]:
    return choice.certified, choice.clean, choice.alpha


def _planned(
    name: str,
    scores: str,
    bound: str,
    sums: ScoreSums,
    logits: NoisyLogits,
    standard: FloatArray,
    floor: float,
    asked: CertifiedRequest,
) -> tuple[Planned, Choice] | None:
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


def _one_hot(logits: FloatArray) -> FloatArray:
    return np.eye(logits.shape[-1])[logits.argmax(-1)]
