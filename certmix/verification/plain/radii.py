"""Certified radii once more, straight from their equations: numpy and scipy, no kernel of the run.

Scalars in, a scalar out: 0 where nothing is certified, and nothing rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from certmix.types import FloatArray
from certmix.verification.plain.scores import ROW_SLACK, PlainLayers

__all__ = [
    "RADII", "constant_radius", "exact_radius", "layers_radius", "lipschitz_radius", "slack_of",
    "smoothing_radius", "softmax_margin",
]  # fmt: skip

_TIGHT = {"xtol": 1e-300, "rtol": 4 * 2.0**-52, "maxiter": 1000}


def slack_of(alpha: float) -> float:
    """What the margin of a published mix exceeds the threshold by: 2^-22, none for h alone."""
    return 0.0 if alpha == 1 else 2.0**-22


def exact_radius(p: float, q: float, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Sigma times the root t of Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t) = (1 - alpha)/alpha + slack."""
    mu, rest = (1 - alpha) / alpha + slack, (2 * alpha - 1) / alpha - slack
    if not p - q > mu or rest <= 0:
        return 0.0
    a, b = float(ndtri(p)), float(ndtri(q))
    if mu == 0:
        return sigma * (a - b) / 2

    def excess(t: float) -> float:
        """Left side less right side, with 1 - Phi(x) = Phi(-x) where that keeps digits."""
        if a - t > 0 and b + t > 0:
            return float(ndtr(-b - t) - ndtr(t - a)) - mu
        if a - t > 0:
            return rest - float(ndtr(t - a)) - float(ndtr(b + t))
        return float(ndtr(a - t) - ndtr(b + t)) - mu

    top = 1.0
    while excess(top) > 0:
        top *= 2
        if top > 1e4:
            return math.inf
    return 0.0 if excess(0.0) <= 0 else sigma * float(brentq(excess, 0.0, top, **_TIGHT))


def _upper_quantile(x: float, complement: float) -> float:
    """Phi^-1(x), from 1 - x where x is nearer to 1."""
    return float(ndtri(x)) if x <= 0.5 else -float(ndtri(complement))


def smoothing_radius(p: float, q: float, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Theorem 3.7: sigma/2 (Phi^-1(alpha p) - Phi^-1(alpha q + 1 - alpha)), at the weight of mu + slack."""
    if not p > q:
        return 0.0
    alpha = alpha / (1 + alpha * slack)
    high = _upper_quantile(alpha * p, (1 - alpha) + alpha * (1 - p))
    low = _upper_quantile(alpha * q + (1 - alpha), alpha * (1 - q))
    return max(0.0, sigma / 2 * (high - low)) if high > low else 0.0


def lipschitz_radius(
    p: float, q: float, sigma: float, alpha: float, slack: float = 0.0, *, unit: float
) -> float:
    """Theorem 3.5: (alpha (p - q - slack) + alpha - 1) / (2 alpha L), with L = unit / sigma."""
    return max(0.0, (alpha * (p - q - slack) + alpha - 1) / (2 * alpha * unit / sigma))


RADII: dict[str, Callable[..., float]] = {
    "exact": exact_radius,
    "smoothing": smoothing_radius,
    "lipschitz": partial(lipschitz_radius, unit=1 / math.sqrt(2 * math.pi)),
    "lipschitz-paper": partial(lipschitz_radius, unit=math.sqrt(2 / math.pi)),
}
"""(p, q, sigma, alpha, slack) -> l2 radius, by the name of the certificate."""


def layers_radius(layers: PlainLayers, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Sigma times the t up to which L(t) - min(max_i U_i(t), 1 - L(t)) exceeds (1 - alpha)/alpha + slack."""
    own, rest = ndtri(layers.own), float(ndtri(layers.rest))
    rivals = [ndtri(rival) for rival in layers.rivals]

    def excess(t: float) -> float:
        lower = float(ndtr(own - t).mean())
        upper = max([float(ndtr(rest + t)), *(float(ndtr(rival + t).mean()) for rival in rivals)])
        return lower - min(upper, 1.0 - lower + ROW_SLACK) - (1 - alpha) / alpha - slack

    if excess(0.0) <= 0:
        return 0.0
    return sigma * float(brentq(excess, 0.0, 64.0, **_TIGHT)) if excess(64.0) < 0 else 64.0 * sigma


def softmax_margin(logits: FloatArray) -> float:
    """Return h_y - max_i h_i of softmax(logits (c,)), y the largest."""
    ordered = np.sort(np.exp(logits - logits.max()))[::-1] / np.exp(logits - logits.max()).sum()
    return float(ordered[0] - ordered[1])


def constant_radius(
    logits: FloatArray, alpha: float, constant: float, constant_of: str, slack: float = 0.0
) -> float:
    """Radius from clean logits (c,) and a Lipschitz constant; see docs/margin-certificates.md.

    Of probabilities min_i (h_y - h_i - mu) / (2 L); of logits
    log((1 - mu) / (e^-l + mu sum_j e^-l_j)) / (s L), with l_j = z_y - z_j, l the least, s = sqrt 2 or 2.
    """
    mu = (1 - alpha) / alpha + slack
    if constant_of == "probabilities":
        return max(0.0, (softmax_margin(logits) - mu) / (2 * constant))
    gaps = np.delete(logits.max() - logits, logits.argmax())
    if mu >= 1:
        return 0.0
    least = float(gaps.min())
    spread = math.log1p(mu * float(np.exp(least - gaps).sum()))
    steepness = math.sqrt(2) if constant_of == "logits" else 2.0
    return max(0.0, (math.log1p(-mu) + least - spread) / (steepness * constant))
