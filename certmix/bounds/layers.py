"""Bounds of the distribution of a score in [0, 1], layer by layer: more than its mean tells.

Cut [0, 1] into K layers of width 1 / K.  A score is the mean of its parts
``Y_k = clip(K score - k, 0, 1)``, and each part is itself a function of the noisy
input with values in [0, 1].  The curve G of the noise holds for each of them::

    h(x + d) = mean_k E Y_k(x + d) >= mean_k G_||d||(E Y_k(x)),

and upwards with 1 - G(1 - .).  With one layer this is the mean-only bound; the
more layers, the nearer it comes to the integral of ``G_||d||(P[score >= s])`` over s, because
the mean of Y_k is the mean of P[score >= s] over its layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from certmix.bounds.bound import Bound, LayerBounds, check_failure_probability
from certmix.bounds.hoeffding import entropy_lower_bound, entropy_upper_bound
from certmix.bounds.statistics import BIN_STEPS, BINS, ROW_SLACK, ScoreStatistics
from certmix.errors import ParameterError
from certmix.radii import Smoothing
from certmix.radii._checks import check_alpha, probability_pairs, statuses
from certmix.radii._normal import EPS
from certmix.radii.curve import furthest
from certmix.types import CertifiedRadii, FloatArray

__all__ = ["BOUND", "bound_layers", "layer_means", "layered_radii"]

_ROUNDING = 1e-13
"""More than the rounding errors of a margin, and of the means of values of the curve in it."""
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


def _margins(t: FloatArray, bounds: LayerBounds, smoothing: Smoothing) -> FloatArray:
    """Return lower bounds of h_y - max_i h_i (m,) at distances t (m,) in scales; they decrease in t."""
    own = smoothing.moved(bounds.own_lower, t[:, None]).mean(1)
    rivals = smoothing.moved(bounds.rival_upper, t[:, None, None], up=True).mean(2)
    rest = smoothing.moved(bounds.rest_upper, t, up=True)
    return np.asarray(
        own - np.minimum(np.maximum(rest, rivals.max(1, initial=0.0)), 1.0 - own + bounds.row_slack)
    )


def layered_radii(
    bounds: LayerBounds, *, sigma: float | Smoothing, alpha: float, margin_slack: float = 0.0
) -> CertifiedRadii:
    """Return the radii within which the mix keeps its class, from bounds of distributions, rounded down.

    ``sigma t`` for the largest t with ``L(t) - max_i U_i(t) > (1 - alpha) / alpha + margin_slack``, where
    L is the mean over layers of ``G_t(own_lower)``, G the curve of the noise, U_i of a followed rival that of
    ``1 - G_t(1 - rival_upper)``, U_i of the rest is ``1 - G_t(1 - rest_upper)``, and no U_i exceeds 1 - L.
    alpha may be chosen afterwards: the bounds hold together.
    """
    weight, smoothing = check_alpha(alpha, margin_slack), Smoothing.of(sigma)
    for values in (bounds.own_lower, bounds.rival_upper, bounds.rest_upper):
        probability_pairs(values, 0.0)
    margins, whole = partial(_margins, bounds=bounds, smoothing=smoothing), smoothing.entry.whole
    t = furthest(margins, (1.0 - weight) / weight + _ROUNDING, bounds.rest_upper.shape, whole=whole)
    scaled = smoothing.scale * np.maximum(0.0, t * (1 - 4 * EPS) - _ROUNDING)
    radius = smoothing.converted(t if whole else scaled, bounds.lost)
    status = statuses(radius, margins(np.zeros(len(t))) > _ROUNDING)
    return CertifiedRadii(bounds.method, smoothing.norm, smoothing.scale, alpha, radius, status)


BOUND = Bound(
    "layers", "the distribution of scores, in 16 layers; with --goal fixed and --certificate exact", "soft",
    bound_layers, distribution=True,
)  # fmt: skip
