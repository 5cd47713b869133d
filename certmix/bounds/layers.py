"""Bounds of the distribution of a score in [0, 1], layer by layer: more than its mean tells.

Cut [0, 1] into K layers of width 1 / K.  A score is the mean of its parts
``Y_k = clip(K score - k, 0, 1)``, and each part is itself a function of the noisy
input with values in [0, 1].  The Neyman-Pearson lemma holds for each of them:

    h(x + d) = mean_k E Y_k(x + d) >= mean_k Phi(Phi^-1(E Y_k(x)) - ||d|| / sigma),

and upwards with plus.  With one layer this is the mean-only bound; the more
layers, the nearer it comes to ``int Phi(Phi^-1(P[score >= s]) - ||d|| / sigma) ds``,
because the mean of Y_k is the mean of P[score >= s] over its layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from certmix.bounds.bound import Bound, LayerBounds, check_failure_probability
from certmix.bounds.hoeffding import entropy_lower_bound, entropy_upper_bound
from certmix.bounds.statistics import BIN_STEPS, BINS, ROW_SLACK, ScoreStatistics
from certmix.errors import ParameterError
from certmix.kernels import kernel
from certmix.radii._checks import check_alpha, check_sigma, less_lost, probability_pairs, statuses
from certmix.radii._normal import EPS, ndtr
from certmix.types import CertifiedRadii, FloatArray

__all__ = ["BOUND", "bound_layers", "layer_means", "layered_radii"]

_ROUNDING = 1e-13
"""More than the rounding errors of a margin, a mean of values of ndtr, and of the quantiles in it."""
LAYERS = 16  # of the union bound; a divisor of `BINS`


def layer_means(statistics: ScoreStatistics, row: int, layers: int) -> FloatArray:
    """Return the means of a class's layers, (layers,), decreasing: the average of P[score >= s] over each.

    `row` 0 is the selected class, 1, 2, ... the followed rivals; `layers` divides `BINS`.
    """
    counts, excess = statistics.bin_counts[row], statistics.bin_excess[row]
    above = counts.sum() - np.cumsum(counts)
    steps = (above * BIN_STEPS + excess).reshape(layers, -1).sum(1)
    return steps / (statistics.samples * (BIN_STEPS * BINS // layers))


def bound_layers(statistics: Sequence[ScoreStatistics], failure_probability: float) -> LayerBounds:
    """Return joint bounds of the layers of each input's scores; all follow equally many rivals.

    Half of the failure probability is for the selected class, half for the groups of rivals in equal parts:
    each followed rival, and all others together, where only the bound of the class with the largest mean can
    do harm.  A group's part is divided evenly over its layers.  The number of samples was fixed beforehand.
    """
    half = check_failure_probability(failure_probability) / 2
    followed = {len(input.rivals) for input in statistics}
    if len(followed) > 1:
        raise ParameterError(f"inputs follow {sorted(followed)} rivals: follow equally many in all")
    share = half / max(1, max(followed, default=0) + any(len(i.others(followed=False)) for i in statistics))
    own, rivals, rest = [], [], []
    for input in statistics:
        means, n = input.means(), input.samples
        rows = [layer_means(input, row, LAYERS) for row in range(1 + len(input.rivals))]
        own.append(entropy_lower_bound(rows[0], n, half / LAYERS))
        uppers = [entropy_upper_bound(row, n, share / LAYERS) for row in rows[1:]]
        rivals.append(np.reshape(uppers, (len(input.rivals), LAYERS)))
        others = input.others(followed=False)
        rest.append(entropy_upper_bound(means[others].max(), n, share) if len(others) else 0.0)
    return LayerBounds(
        np.reshape(own, (len(own), LAYERS)), np.reshape(rivals, (len(own), max(followed, default=0), LAYERS)),
        np.array(rest, np.float64), ROW_SLACK, failure_probability, "layers",
        {"own": half, "each rival": share, "rest": share},
    )  # fmt: skip


@kernel()
def _shifted(quantiles: FloatArray, shift: float) -> float:
    """Mean over the layers of Phi(quantile + shift)."""
    total = 0.0
    for quantile in quantiles:
        total += ndtr(quantile + shift)
    return total / quantiles.size


@kernel()
def _margin(t: float, own: FloatArray, rivals: FloatArray, rest: float, slack: float) -> float:
    """Lower bound of h_y - max_i h_i at distance sigma t, given quantiles; decreasing in t."""
    selected = _shifted(own, -t)
    largest = ndtr(rest + t)
    for i in range(rivals.shape[0]):
        largest = max(largest, _shifted(rivals[i], t))
    return selected - min(largest, 1.0 - selected + slack)


@kernel()
def _distances(
    own: FloatArray, rivals: FloatArray, rest: FloatArray, slack: float, threshold: float
) -> FloatArray:
    """The largest t of each input at which the margin was seen above the threshold; 0 if at none."""
    found = np.zeros(len(own))
    for i in range(len(own)):
        if not _margin(0.0, own[i], rivals[i], rest[i], slack) > threshold:
            continue
        low, high = 0.0, 1.0
        while high < 64.0 and _margin(high, own[i], rivals[i], rest[i], slack) > threshold:
            low, high = high, 2.0 * high
        for _ in range(60):
            middle = 0.5 * (low + high)
            if _margin(middle, own[i], rivals[i], rest[i], slack) > threshold:
                low = middle
            else:
                high = middle
        found[i] = low
    return found


def layered_radii(
    bounds: LayerBounds, *, sigma: float, alpha: float, margin_slack: float = 0.0
) -> CertifiedRadii:
    """Return the l2 radii within which the mix keeps its class, from bounds of distributions, rounded down.

    ``sigma t`` for the largest t with ``L(t) - max_i U_i(t) > (1 - alpha) / alpha + margin_slack``, where
    L is the mean over layers of Phi(Phi^-1(own_lower) - t), U_i of a followed rival that of
    Phi(Phi^-1(rival_upper) + t), U_i of the rest is Phi(Phi^-1(rest_upper) + t), and no
    U_i exceeds 1 - L.  alpha may be chosen afterwards: the bounds hold together.
    """
    weight, sigma = check_alpha(alpha, margin_slack), check_sigma(sigma)
    for values in (bounds.own_lower, bounds.rival_upper, bounds.rest_upper):
        probability_pairs(values, 0.0)
    own, rivals, rest = map(ndtri, (bounds.own_lower, bounds.rival_upper, bounds.rest_upper))
    threshold = (1.0 - weight) / weight + _ROUNDING
    t = _distances(own, rivals, rest, bounds.row_slack, threshold)
    radius = less_lost(sigma * np.maximum(0.0, t * (1 - 4 * EPS) - _ROUNDING), bounds.lost)
    established = _distances(own, rivals, rest, bounds.row_slack, _ROUNDING) > 0
    return CertifiedRadii(bounds.method, "l2", sigma, alpha, radius, statuses(radius, established))


BOUND = Bound(
    "layers", "the distribution of scores, in 16 layers; with --goal fixed and --certificate exact", "soft",
    bound_layers, distribution=True,
)  # fmt: skip
