"""What a certificate is, and validation shared by all of them: kernels assume what is checked here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.errors import ParameterError, check_number, describe
from certmix.types import FloatArray, IntArray, Status


@dataclass(frozen=True)
class Certificate:
    """All that is known of a certificate; commands, tables and verification read it here.

    Parameters
    ----------
    name, label, meaning
        As ``--certificate`` takes it, as tables show it, and in a few words.
    radius
        ``(p_lower, q_upper, scale, alpha, margin_slack=0.0)`` to radii in `norm`, float64, rounded down; 0
        where nothing is certified.  The scale is that of the noise, sigma of a Gaussian.
    formula
        By which `certmix verify` proves a radius: ``(_, mu, t, p, q)`` to a ball (`flint.arb`) that is above
        0 only if the margin exceeds mu at distance sigma t and nearer; this package's are in
        `certmix.verification.proofs.check_proof`.
    of_dimension
        Whether `radius` takes the ``dimension`` of an input as well.
    curve
        Of an exact one: ``(p, t, up, scale, dimension)`` to G_t(p), or with `up` to 1 - G_t(1 - p), float64
        to EPS (t + 8), at distance t in scales of the noise, or in whole pixels, rounded up.
    """

    name: str
    label: str
    meaning: str
    radius: Callable[..., FloatArray]
    norm: str = "l2"
    formula: Callable[..., Any] | None = None
    of_dimension: bool = False
    curve: Callable[..., FloatArray] | None = None


@dataclass(frozen=True)
class Cases:
    """What a kind has of which no case is left out: its usual scale, and what follows from votes (m, n).

    ``count`` returns n of a scale and an input's shape, or raises DataError; ``margins`` and ``theorem``, of
    votes, classes (m,), their number and the scale, the least n_y - n_i, (m, t), at size t of a perturbation,
    and what Theorem 3.5 has instead.  Sizes count in 1 / `per_unit` of the norm; `told` says of what.
    """

    scale: float
    per_unit: int
    count: Callable[[float, tuple[int, ...]], int]
    margins: Callable[[IntArray, IntArray, int, float], IntArray]
    theorem: Callable[[IntArray, IntArray, int, float], IntArray]
    told: Callable[[float], str]


@dataclass(frozen=True)
class Kind:
    """A kind of smoothing: a sampler, or an enumeration, with its curves; all that is known of it.

    Parameters
    ----------
    name, meaning, scale
        As ``--noise`` takes it, in a few words, and what the number is that says how much of it there is.
    certificates
        By norm, the first the usual one, the certificates by name that rest on its curve.
    law
        ``module:function`` that tabulates whole numbers of steps, see `certmix.sampling.law`; None where what
        the network sees is no sum of input and noise.
    sampler
        ``module:class`` that makes noisy copies, see `certmix.sampling.noise.Noise`; of `cases`
        ``module:function`` that shows inputs (m, ...) in cases (m,) at a scale.
    whole
        Whether scale and radii are whole numbers.
    cases
        Of a kind that goes through every case of an input, None of one that samples.
    """

    name: str
    meaning: str
    scale: str
    certificates: Mapping[str, Mapping[str, Certificate]]
    law: str | None = None
    sampler: str = "certmix.sampling.noise:Noise"
    whole: bool = False
    cases: Cases | None = None


CONSTANTS_OF = {
    "logits": "the l2 norm of its logits",
    "each-logit": "each of its logits",
    "probabilities": "each of its softmax probabilities",
}
"""What a constant L can be of: ``||f(x) - f(x')|| <= L ||x - x'||``, the right in the norm of the radii."""

SMALLEST_SIGMA = 1e-250


def alpha_remedy(alpha: float) -> str:
    """Return what to do about a weight outside [1/2, 1]: a percentage is read as one."""
    return f"did you mean {alpha / 100:g}?" if 50 <= alpha <= 100 else "choose such a weight"


def check_alpha(alpha: float, margin_slack: float = 0.0) -> float:
    """Return alpha as a float, 1/2 <= alpha <= 1 (Lemma 3.2).

    With a slack it is the smaller weight whose margin threshold is (1 - alpha) / alpha + margin_slack, or
    1/2, where nothing is certified.
    """
    check_number("alpha", alpha)
    if not margin_slack >= 0.0:
        raise ParameterError(f"margin slack = {margin_slack}: it must be at least 0")
    if not 0.5 <= alpha <= 1.0:
        raise ParameterError(
            f"alpha = {alpha}: certificates of the mix need 1/2 <= alpha <= 1: {alpha_remedy(alpha)} "
            "(docs/concepts.md#the-margin-decides)"
        )
    if margin_slack > 0.0:
        return max(0.5, alpha / (1.0 + alpha * margin_slack) * (1.0 - 4 * 2.0**-53))
    return float(alpha)


def less_lost(radius: FloatArray, lost: FloatArray | float) -> FloatArray:
    """Return radii less the distances that their centres were moved by, rounded down, at least 0."""
    if not np.any(lost):
        return radius
    return np.maximum(0.0, np.nextafter(radius - lost, -1.0))


def statuses(radius: FloatArray, established: NDArray[np.bool_]) -> IntArray:
    """Return the `Status` of each radius; ABSTAIN where the class is not established."""
    found = np.full(np.broadcast_shapes(radius.shape, established.shape), Status.NOT_CERTIFIED, np.int64)
    found[np.broadcast_to(radius > 0, found.shape)] = Status.CERTIFIED
    found[np.broadcast_to(~established, found.shape)] = Status.ABSTAIN
    return found


def check_sigma(sigma: float) -> float:
    """Return sigma as a float; it must be positive, and so far from overflow that radii are exact."""
    check_number("sigma", sigma)
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ParameterError(f"sigma = {sigma}: the noise level must be a positive number")
    if not SMALLEST_SIGMA <= sigma <= 1 / SMALLEST_SIGMA:
        usable = f"use {SMALLEST_SIGMA:g} to {1 / SMALLEST_SIGMA:g}, in other units of the input"
        raise ParameterError(f"sigma = {sigma}: radii would overflow or lose digits: {usable}")
    return float(sigma)


def as_numbers(name: str, values: ArrayLike) -> FloatArray:
    """Return an array of float64; ParameterError for what is none."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ParameterError(f"{name} are no numbers ({describe(error)}): give a list or an array") from None


def probability_pairs(p_lower: ArrayLike, q_upper: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Broadcast p and q to equal float64 arrays with entries in [0, 1]."""
    p, q = np.broadcast_arrays(as_numbers("p_lower", p_lower), as_numbers("q_upper", q_upper))
    for name, values in (("p_lower", p), ("q_upper", q)):
        if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
            wrong = values[~((values >= 0) & (values <= 1))]
            raise ParameterError(f"{name} holds {wrong.flat[0]}: probabilities must lie in [0, 1]")
    return np.asarray(p, order="C"), np.asarray(q, order="C")
