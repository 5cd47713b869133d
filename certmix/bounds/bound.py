"""What a bound is, what it gives, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.types import ConfidenceBounds, FloatArray, IntArray

__all__ = [
    "Bound", "LayerBounds", "Pair", "allow_for_noise", "check_counts", "check_failure_probability",
    "selected_and_runner_up",
]  # fmt: skip

Pair = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Bound:
    """All that is known of a bound; commands, tables, stopping rules and verification read it here.

    Parameters
    ----------
    name, meaning, scores
        As ``--bound`` takes it; in a few words; ``hard`` of votes or ``soft`` of scores in [0, 1].
    compute
        ``(counts (m, c), selected (m,), failure probability) -> (p, q)``, float64 (m,) each, for votes;
        ``(statistics of m inputs, failure probability) -> (p, q)`` for scores, or `LayerBounds` where
        ``distribution`` says so.  p and q hold together, rounded outwards.
    parts
        What the failure probability is divided among, in equal parts.
    time_uniform
        It holds at all numbers of samples at once: repeated looks cost nothing.
    averaged
        It holds for the average mean of samples with unequal means (Hoeffding 1956, 1963).
    distribution
        It bounds distributions, not means: radii of ``exact`` only, after a fixed number of samples.
    behind_gate
        The bound of votes of which some abstain, None if there is none: ``(counts (m, c + 1), selected (m,),
        failure probability) -> (p, q)``, the last column the abstentions, which are nobody's votes.
    formula
        By which `certmix verify` proves what was issued: ``(seen, delta, m)`` to a ball (`flint.arb`) that is
        above 0 only if m lies below the mean of what was seen, ``votes`` out of ``samples``.  It is asked of
        p, and of 1 - q with the votes that were not for the runner-up, at half of the failure probability
        each; at all of it, of p alone, where q >= 1 - p.  This package's are in
        `certmix.verification.proofs.check_proof`.
    """

    name: str
    meaning: str
    scores: str
    compute: Callable[..., Any]
    parts: tuple[str, ...] = ("p", "q")
    time_uniform: bool = False
    averaged: bool = False
    distribution: bool = False
    behind_gate: Callable[..., Any] | None = None
    formula: Callable[..., Any] | None = None

    def split(self, failure_probability: float) -> dict[str, float]:
        """Return which share of the failure probability each part uses."""
        return {part: failure_probability / len(self.parts) for part in self.parts}


@dataclass(frozen=True)
class LayerBounds:
    """Bounds of score distributions that hold together with probability >= 1 - failure_probability.

    Of m inputs, K layers (lowest first) and k followed rivals, (m, K) means of the selected class's layers
    from below, (m, k, K) of the rivals' from above, and (m,) of every other class's score, 0 without one.
    ``row_slack``: how far one sample's scores may be from adding up to 1.
    """

    own_lower: FloatArray
    rival_upper: FloatArray
    rest_upper: FloatArray
    row_slack: float
    failure_probability: float
    method: str
    split: dict[str, float]
    lost: FloatArray | float = 0.0


B = TypeVar("B", bound=ConfidenceBounds | LayerBounds)


def allow_for_noise(bounds: B, noise_error: ArrayLike, lost: ArrayLike = 0.0) -> B:
    """Return bounds of the exact Gaussian smoothing: p - eps, q + eps, and each layer likewise.

    eps = `noise_error` (m,) is the total variation between the noise that is drawn and the Gaussian: by no
    more can the mean of a function with values in [0, 1] differ, and nothing can fail.  `lost` is the l2
    distance between each input and the grid point sampled, if the certificate is to speak of the input.
    """
    eps = np.asarray(noise_error, np.float64)
    changed: dict[str, FloatArray] = {"lost": np.asarray(lost, np.float64)}
    if isinstance(bounds, LayerBounds):
        changed["own_lower"] = _down(bounds.own_lower, eps[..., None])
        changed["rival_upper"] = _up(bounds.rival_upper, eps[..., None, None])
        changed["rest_upper"] = _up(bounds.rest_upper, eps)
    else:
        p = changed["p_lower"] = _down(bounds.p_lower, eps)
        opposite = (bounds.q_upper == 1.0 - bounds.p_lower) & (p >= 0.5)  # that 1 - p is exact
        changed["q_upper"] = np.where(opposite, 1.0 - p, _up(bounds.q_upper, eps))
    return replace(bounds, **changed)  # type: ignore[arg-type]


def _down(values: FloatArray, eps: FloatArray) -> FloatArray:
    return np.where(eps > 0, np.maximum(0.0, np.nextafter(values - eps, -1.0)), values)


def _up(values: FloatArray, eps: FloatArray) -> FloatArray:
    return np.where(eps > 0, np.minimum(1.0, np.nextafter(values + eps, 2.0)), values)


def check_failure_probability(value: float) -> float:
    """Return it as a float; it must lie strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ParameterError(
            f"failure probability = {value}: it must lie strictly between 0 and 1, for example 0.001"
        )
    return float(value)


def check_counts(counts: IntArray, selected: IntArray) -> tuple[IntArray, IntArray]:
    """Return int64 counts (m, c >= 2) and selected classes (m,), or raise ParameterError."""
    counts, selected = np.asarray(counts), np.asarray(selected)
    if counts.ndim != 2 or counts.shape[1] < 2 or selected.shape != counts.shape[:1]:
        found = f"counts of shape {counts.shape} and selected of shape {selected.shape}"
        raise ParameterError(f"{found}: expected (inputs, classes >= 2) and (inputs,)")
    if not np.issubdtype(counts.dtype, np.integer) or not np.issubdtype(selected.dtype, np.integer):
        raise ParameterError("counts and selected classes must be integers: convert them to int64")
    if counts.size and (counts.min() < 0 or counts.sum(1).min() < 1):
        found = f"counts from {counts.min()}, at least {counts.sum(1).min()} samples an input"
        raise ParameterError(f"{found}: counts must be at least 0, and each input needs a sample")
    if np.any((selected < 0) | (selected >= counts.shape[1])):
        found = f"selected classes {selected.min()}..{selected.max()}"
        raise ParameterError(f"{found}: pass indices in 0..{counts.shape[1] - 1}")
    return counts.astype(np.int64, copy=False), selected.astype(np.int64, copy=False)


def selected_and_runner_up(counts: IntArray, selected: IntArray) -> tuple[IntArray, IntArray]:
    """Return the votes of the selected class and the most votes of any other, (m,) each."""
    others, inputs = counts.T.copy(), np.arange(len(counts))  # the largest of a column is found fast
    others[selected, inputs] = -1
    return counts[inputs, selected], others.max(0)
