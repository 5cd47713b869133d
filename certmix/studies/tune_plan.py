"""What a gate, a temperature of g and alpha are expected to give, from stored noisy logits.  No torch.

Nothing here is certified: these are plans of what bounds will give, chosen on a few tuning inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from certmix.certification.tuned import TuneRequest
from certmix.errors import ParameterError
from certmix.models.temperature import sharpened
from certmix.nuts.grid import TOP_K, parse_grid
from certmix.nuts.margins import softmax_numpy
from certmix.sampling.ballots import LEVELS
from certmix.studies.nuts_certified_plan import (
    ALPHAS,
    NoisyLogits,
    ScoreSums,
    first_of,
    grid_sums,
    held_over_alphas,
    planned_margins,
    right_over_alphas,
)
from certmix.studies.shares import estimated_accuracy
from certmix.tables.trade_off import on_front
from certmix.types import EstimatedAccuracy, FloatArray, IntArray

TEMPERATURES = (0.0, 0.25, 0.5, 1.0)
GATES = tuple(level / LEVELS for level in range(LEVELS))
GRID = "s=0.5:500:6,p=1:4:4,c=-2:0:4"
"""Transforms of MixedNUTS that are compared."""
SPLITS = 20
"""Halvings of the inputs: chosen on one half, seen on the other."""
GATED = "gated votes"


@dataclass(frozen=True)
class Candidate:
    """A gate of h's votes, or a transform of h's base, and a temperature of g."""

    name: str
    temperature: float
    gate: float = 0.0


@dataclass(frozen=True, eq=False)
class Family:
    """Candidates of one kind: h's shares (k, m, c), and its planned margins at the radius (k, m).

    Every temperature in `temperatures` goes with each of them.
    """

    name: str
    shares: FloatArray
    margins: FloatArray
    gates: tuple[float, ...]
    names: tuple[str, ...]
    temperatures: tuple[float, ...]

    def of(self, rows: IntArray) -> Family:
        """Return the family on some inputs."""
        return replace(self, shares=self.shares[:, rows], margins=self.margins[:, rows])

    @property
    def candidates(self) -> list[Candidate]:
        """What is tried, temperature by temperature."""
        pairs = list(zip(self.names, self.gates, strict=True))
        return [Candidate(name, t, gate) for t in self.temperatures for name, gate in pairs]

    def counts(self, standard: FloatArray, labels: IntArray) -> tuple[IntArray, IntArray]:
        """Return how many inputs are certified, and clean and right: (candidates, alphas) each."""
        held = held_over_alphas(self.margins, self.shares, labels)
        clean = [right_over_alphas(sharpened(standard, t), self.shares, labels) for t in self.temperatures]
        return np.concatenate([held] * len(self.temperatures)), np.concatenate(clean)


@dataclass(frozen=True)
class Choice:
    """A family's best on the tuning inputs, where it was chosen, and on halves that it was not chosen on.

    `certified` and `clean` are optimistic; `seen` are means of (certified, clean) over the other halves, None
    where no half has a candidate.
    """

    family: str
    candidate: Candidate
    alpha: float
    certified: EstimatedAccuracy
    clean: EstimatedAccuracy
    seen: tuple[float, float] | None


@dataclass(frozen=True)
class Front:
    """Clean and certified shares of a family's choices that no other beats, by rising clean share."""

    family: str
    clean: tuple[float, ...]
    certified: tuple[float, ...]


@dataclass(frozen=True)
class TunePlan:
    """What the tuning inputs say: g and h alone, the floor of clean accuracy, each family's choice and front.

    `floor` is None where the knee was wanted: the choice farthest from the line between h and g.  `robust`
    are clean and certified inputs of h's plain votes.
    """

    floor: float | None
    standard: EstimatedAccuracy
    robust: tuple[EstimatedAccuracy, EstimatedAccuracy]
    choices: tuple[Choice, ...]
    fronts: tuple[Front, ...]

    @property
    def best(self) -> Choice:
        """The choice for gated votes."""
        return next(one for one in self.choices if one.family == GATED)


def families_of(logits: NoisyLogits, asked: TuneRequest) -> list[Family]:
    """Return votes with g as it is and one-hot, gated votes, and MixedNUTS' transforms."""
    samples = logits.noisy.shape[1]
    how: dict[str, Any] = {
        "samples": asked.samples, "failure_probability": asked.failure_probability,
        "distance": asked.at_radius / asked.sigma,
    }  # fmt: skip
    scores = softmax_numpy(logits.noisy)
    sure, votes = scores.max(-1, keepdims=True), np.eye(scores.shape[-1])[scores.argmax(-1)]
    gated = np.stack([(votes * (sure >= gate)).sum(1) for gate in GATES])
    sums = ScoreSums(gated, gated, samples)
    plain, behind = (ScoreSums(part, part, samples) for part in (gated[:1], gated[1:]))
    one_sided = planned_margins(plain, bound="clopper-pearson", **how)
    found = [
        Family("votes, g as it is", plain.means, one_sided, (0.0,), ("votes",), (1.0,)),
        Family("votes, g one-hot", plain.means, one_sided, (0.0,), ("votes",), (0.0,)),
        Family(
            GATED, sums.means,
            np.concatenate([
                one_sided,
                planned_margins(behind, bound="clopper-pearson-two-sided", gated=True, **how),
            ]),
            GATES, tuple(f"gate {gate:g}" for gate in GATES), TEMPERATURES,
        ),
    ]  # fmt: skip
    if asked.grid != "none":
        grid = parse_grid(asked.grid or GRID)
        bent = grid_sums(logits.noisy, grid, top_k=TOP_K["cifar10"])
        places = np.ndindex(*grid.shape)
        names = tuple(f"s={grid.s[i]:g} p={grid.p[j]:g} c={grid.c[k]:g}" for i, j, k in places)
        margins = planned_margins(bent, bound="betting-fixed", **how)
        found.append(Family("MixedNUTS", bent.means, margins, (0.0,) * len(names), names, (0.0, 1.0)))
    return found


def plan_tuned(logits: NoisyLogits, asked: TuneRequest, families: Sequence[Family] | None = None) -> TunePlan:
    """Choose each family's candidate and alpha: the most certified inputs under a floor of clean ones.

    The first of `families` are votes; None takes `families_of`.
    """
    standard, labels = softmax_numpy(logits.standard), logits.labels
    own = estimated_accuracy(standard.argmax(1) == labels)
    families = families_of(logits, asked) if families is None else families
    floor = asked.clean_accuracy
    if asked.lose is not None:
        floor = max(0.0, own.accuracy - asked.lose / 100)
    plain = families[0]
    alone = plain.shares[0].argmax(1) == labels
    held = estimated_accuracy(alone & (plain.margins[0] > 0))
    ends = Ends(float(alone.mean()), held.accuracy, own.accuracy)
    counted = [family.counts(standard, labels) for family in families]
    choices, fronts = [], []
    for family, counts in zip(families, counted, strict=True):
        at = _best(*counts, floor, len(labels), ends)
        if at is not None:
            held_here, clean = (estimated_accuracy(np.arange(len(labels)) < one[at]) for one in counts)
            seen = _on_others(family, standard, labels, floor, ends)
            candidate = family.candidates[at[0]]
            choices.append(Choice(family.name, candidate, ALPHAS[at[1]], held_here, clean, seen))
        fronts.append(_front(family.name, *counts, len(labels)))
    if not any(one.family == GATED for one in choices):
        wanted = "" if floor is None else f" = {floor:.4g}"
        raise ParameterError(
            f"clean accuracy{wanted}: no gate and alpha reach it on the tuning inputs, where g alone has "
            f"{own.accuracy:.4g}: ask for less"
        )
    return TunePlan(floor, own, (estimated_accuracy(alone), held), tuple(choices), tuple(fronts))


@dataclass(frozen=True)
class Ends:
    """The ends of every front: shares of inputs that h's votes have right and certified, and g has right."""

    robust: float
    certified: float
    standard: float


def _best(
    held: IntArray, clean: IntArray, floor: float | None, inputs: int, ends: Ends
) -> tuple[int, int] | None:
    """Return the best candidate and alpha: under a floor, or at the knee, farthest from the ends' line."""
    if floor is not None:
        return first_of(held, clean, clean >= np.ceil(round(floor * inputs, 9)))
    kept = (clean / inputs - ends.robust) / max(ends.standard - ends.robust, 1e-9)
    farthest = np.rint(1e9 * (np.clip(kept, 0.0, 1.0) + held / inputs / max(ends.certified, 1e-9)))
    return first_of(farthest.astype(np.int64), held, np.ones(held.shape, bool))


def _on_others(
    family: Family, standard: FloatArray, labels: IntArray, floor: float | None, ends: Ends
) -> tuple[float, float] | None:
    """Return the mean (certified, clean) shares of what is chosen on one half of the inputs on the other."""
    seen, rng = [], np.random.default_rng(0)
    for _ in range(SPLITS):
        order = rng.permutation(len(labels))
        half = len(order) // 2
        here, there = order[:half], order[half:]
        at = _best(*family.of(here).counts(standard[here], labels[here]), floor, half, ends)
        if at is not None and len(there):
            held, clean = _only(family, at[0]).of(there).counts(standard[there], labels[there])
            seen.append((held[0, at[1]] / len(there), clean[0, at[1]] / len(there)))
    if len(seen) < SPLITS:
        return None
    certified, clean_share = np.mean(seen, 0).tolist()
    return certified, clean_share


def _only(family: Family, candidate: int) -> Family:
    t, k = divmod(candidate, len(family.names))
    return Family(
        family.name, family.shares[[k]], family.margins[[k]], family.gates[k : k + 1],
        family.names[k : k + 1], family.temperatures[t : t + 1],
    )  # fmt: skip


def _front(name: str, held: IntArray, clean: IntArray, inputs: int) -> Front:
    right = np.unique(clean)
    most = np.array([held[clean == one].max() for one in right])
    kept = np.array(on_front(right.tolist(), most.tolist()))
    return Front(name, tuple((right[kept] / inputs).tolist()), tuple((most[kept] / inputs).tolist()))
