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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from certmix.bounds._checks import check_failure_probability
from certmix.bounds.hoeffding import OUTWARDS, entropy_lower_bound, entropy_upper_bound
from certmix.bounds.statistics import BIN_STEPS, BINS, ROW_SLACK, ScoreStatistics
from certmix.errors import ParameterError
from certmix.types import FloatArray

__all__ = ["DISTRIBUTION_BOUNDS", "LayerBounds", "bound_distribution", "layer_means"]

LAYERS = 16
"""Layers of the union bound; a divisor of `BINS`."""


@dataclass(frozen=True)
class LayerBounds:
    """Bounds of score distributions that hold together with probability >= 1 - failure_probability.

    Parameters
    ----------
    own_lower
        float64 (m, K): lower bounds of the means of the selected class's layers, lowest layer first.
    rival_upper
        float64 (m, k, K): upper bounds of the same for each followed rival.
    rest_upper
        float64 (m,): upper bound of the mean score of every other class; 0 where there is none.
    row_slack
        How far the scores of one sample may be from adding up to 1.
    failure_probability
        Probability, for one image, that one of its bounds is wrong.
    method
        Name in `DISTRIBUTION_BOUNDS`.
    split
        Which share of the failure probability each part used.
    lost
        As for `certmix.types.ConfidenceBounds`.
    """

    own_lower: FloatArray
    rival_upper: FloatArray
    rest_upper: FloatArray
    row_slack: float
    failure_probability: float
    method: str
    split: dict[str, float]
    lost: FloatArray | float = 0.0


def layer_means(statistics: ScoreStatistics, row: int, layers: int) -> FloatArray:
    """Return the means of a class's layers, (layers,), decreasing: the average of P[score >= s] over each.

    Parameters
    ----------
    statistics
        Of at least one sample.
    row
        0 for the selected class, 1, 2, ... for the followed rivals.
    layers
        A divisor of `BINS`.

    Examples
    --------
    >>> from certmix.bounds.statistics import start, update
    >>> layer_means(update(start(2, 0), [[0.75, 0.25], [0.125, 0.875]]), row=0, layers=4)
    array([0.75, 0.5 , 0.5 , 0.  ])
    """
    counts, excess = statistics.bin_counts[row], statistics.bin_excess[row]
    above = counts.sum() - np.cumsum(counts)
    steps = (above * BIN_STEPS + excess).reshape(layers, -1).sum(1)
    return steps / (statistics.samples * (BIN_STEPS * BINS // layers))


def _by_entropy(means: FloatArray, samples: int, share: float, *, upper: bool) -> FloatArray:
    """Relative-entropy bounds of all layers at once: each takes its part of the share."""
    bound = entropy_upper_bound if upper else entropy_lower_bound
    return bound(means, samples, share / means.size)


def _by_band(means: FloatArray, samples: int, share: float, *, upper: bool) -> FloatArray:
    """One band around the empirical distribution holds all layers (Dvoretzky, Kiefer, Wolfowitz; Massart)."""
    width = math.sqrt(-math.log(share) / (2 * samples)) + OUTWARDS
    return np.minimum(1.0, means + width) if upper else np.maximum(0.0, means - width)


def _joint(
    statistics: Sequence[ScoreStatistics],
    failure_probability: float,
    *,
    name: str,
    layers: int,
    rule: Callable[..., FloatArray],
) -> LayerBounds:
    """Half of the failure probability for the selected class, half for the groups of rivals in equal parts.

    Each followed rival is a group and all others together are one: there, only
    the bound of the class with the largest mean can do harm.
    """
    half = check_failure_probability(failure_probability) / 2
    followed = {len(image.rivals) for image in statistics}
    if len(followed) > 1:
        raise ParameterError(f"images follow {sorted(followed)} rivals: follow equally many in all")
    share = half / max(1, max(followed, default=0) + any(len(i.others(followed=False)) for i in statistics))
    own, rivals, rest = [], [], []
    for image in statistics:
        means, n = image.means(), image.samples
        rows = [layer_means(image, row, layers) for row in range(1 + len(image.rivals))]
        own.append(rule(rows[0], n, half, upper=False))
        uppers = [rule(row, n, share, upper=True) for row in rows[1:]]
        rivals.append(np.reshape(uppers, (len(image.rivals), layers)))
        others = image.others(followed=False)
        rest.append(entropy_upper_bound(means[others].max(), n, share) if len(others) else 0.0)
    split = {"own": half, "each rival": share, "rest": share}
    shape = (len(own), max(followed, default=0), layers)
    return LayerBounds(
        np.reshape(own, (len(own), layers)), np.reshape(rivals, shape), np.array(rest, np.float64),
        ROW_SLACK, failure_probability, name, split,
    )  # fmt: skip


DISTRIBUTION_BOUNDS: dict[str, Callable[[Sequence[ScoreStatistics], float], LayerBounds]] = {
    "layers": partial(_joint, name="layers", layers=LAYERS, rule=_by_entropy),
    "dkw": partial(_joint, name="dkw", layers=BINS, rule=_by_band),
}
"""Bounds of distributions by name; the first is the default."""


def bound_distribution(
    statistics: Sequence[ScoreStatistics], failure_probability: float, bound: str = "layers"
) -> LayerBounds:
    """Return the bounds of a named method for each image's statistics; see `DISTRIBUTION_BOUNDS`.

    Parameters
    ----------
    statistics
        One for each of m images, all with equally many followed rivals; their
        number of samples was fixed beforehand.
    failure_probability
        Probability, image by image, that one of its bounds is wrong.

    Raises
    ------
    ParameterError
        For an unknown bound, statistics without samples, or arguments out of range.
    """
    if bound not in DISTRIBUTION_BOUNDS:
        raise ParameterError(f"bound {bound!r} is unknown: use one of {', '.join(DISTRIBUTION_BOUNDS)}")
    return DISTRIBUTION_BOUNDS[bound](statistics, failure_probability)
