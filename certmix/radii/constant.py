"""Theorem 3.5 for a network whose Lipschitz constant is known: radii from its clean logits alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError, check_choice
from certmix.radii._checks import CONSTANTS_OF, check_alpha, statuses
from certmix.radii._normal import EPS
from certmix.radii.theorems import lipschitz_radius
from certmix.types import FloatArray, IntArray

__all__ = [
    "CONSTANTS_OF", "SOFTMAX_FACTORS", "STEEPNESS", "constant_radius", "margin_threshold",
    "softmax_probabilities",
]  # fmt: skip

STEEPNESS = {"logits": math.nextafter(math.sqrt(2.0), 2.0), "each-logit": 2.0, "probabilities": 2.0}
"""Times L: a Lipschitz constant of every z_y - z_i, or of every h_y - h_i for ``probabilities``."""

SOFTMAX_FACTORS = {"logits": math.nextafter(math.sqrt(0.5), 1.0), "each-logit": 1.0, "probabilities": 2.0}
"""Times L: a Lipschitz constant of every h_y - h_i, h = softmax(z); all are reached."""


def margin_threshold(alpha: float, margin_slack: float = 0.0) -> float:
    """Return mu = (1 - alpha) / alpha, and a slack if there is one, rounded up, at most 1."""
    alpha = check_alpha(alpha, margin_slack)
    return 0.0 if alpha == 1.0 else min(1.0, math.nextafter((1.0 - alpha) / alpha, 2.0))


def softmax_probabilities(logits: FloatArray) -> FloatArray:
    """Return the softmax of float64 logits (m, c)."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(1, keepdims=True)
    return probabilities


def constant_radius(
    logits: ArrayLike, alpha: float, constant: float, constant_of: str = "logits", margin_slack: float = 0.0
) -> tuple[FloatArray, IntArray]:
    """Return the radii within which a mix keeps h's class, from clean logits z of h and a constant L.

    For a constant of the probabilities, Theorem 3.5 with Lip(h_y) = Lip(h_i) = L.
    For one of the logits every z_y - z_i falls by at most s L r at distance r,
    s = sqrt(2) or 2, and the margin of softmax(z) is then at least mu up to

    ``r = log[ (1 - mu) / (e^(z_i - z_y) + mu sum_j e^(z_j - z_y)) ] / (s L)``,

    i the largest rival: never less than Theorem 3.5 with the softmax's own
    factor.  docs/proofs-margins.md proves both.

    Parameters
    ----------
    logits
        (m, c), finite, taken as exact.
    alpha, margin_slack
        As for `certmix.radii.exact_radius`; alpha = 1 is h alone.
    constant, constant_of
        L > 0, an upper bound, and a name in `CONSTANTS_OF`; radii are in the norm of the inputs that it is
        for.  Values out of range are a ParameterError.

    Returns
    -------
    radius, status
        (m,) each: radii, rounded down, 0 where nothing is certified; `Status`
        values, ABSTAIN where two logits are the largest.

    Examples
    --------
    >>> radius, status = constant_radius([[3.0, 0.0, -1.0]], alpha=0.76, constant=1.0)
    >>> radius.round(4), status
    (array([1.5991]), array([2]))
    """
    z, alpha = np.asarray(logits, np.float64), check_alpha(alpha, margin_slack)
    if z.ndim != 2 or z.shape[1] < 2 or not np.isfinite(z).all():
        raise ParameterError(f"logits of shape {z.shape}: give finite numbers (inputs, 2 classes or more)")
    if not (constant > 0 and math.isfinite(constant)):
        raise ParameterError(f"Lipschitz constant {constant}: give an upper bound that is a positive number")
    check_choice("a constant of", constant_of, CONSTANTS_OF)
    rival = np.arange(z.shape[1]) != z.argmax(1)[:, None]
    gaps = (z.max(1, keepdims=True) - z)[rival].reshape(len(z), -1)
    rounding = (z.shape[1] + 32) * EPS  # of the softmax, and of the logarithms below, relative to what enters
    if constant_of == "probabilities":
        h = softmax_probabilities(z)
        own = np.maximum(h[~rival] - rounding, 0.0)
        others = np.minimum(h[rival].reshape(gaps.shape) + rounding, 1.0)
        radius = lipschitz_radius(own, others, alpha, constant, constant)
    else:
        radius = _of_logits(gaps, margin_threshold(alpha), STEEPNESS[constant_of] * constant, rounding)
    return radius, statuses(radius, gaps.min(1, initial=np.inf) > 0)


def _of_logits(gaps: FloatArray, mu: float, steepness: float, rounding: float) -> FloatArray:
    """The closed form from gaps (m, rivals); what every operation can be wrong by is given away."""
    if mu >= 1.0:
        return np.zeros(len(gaps))
    least, left = gaps.min(1), math.log1p(-mu)
    spread = np.log1p(mu * np.exp(least[:, None] - gaps).sum(1))
    slack = rounding * (1.0 + 3.0 * least + spread - left)
    with np.errstate(over="ignore"):
        radius = np.maximum(left + least - spread - slack, 0.0) / steepness * (1 - 4 * EPS)
    return np.minimum(radius, np.finfo(np.float64).max)
