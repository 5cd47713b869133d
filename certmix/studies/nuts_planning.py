"""What a confidence bound is expected to give, from a few tuning samples: plans, never certificates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri

from certmix.bounds import BOUNDS, bernstein, hoeffding
from certmix.nuts.certified import ScoreSums
from certmix.types import FloatArray

__all__ = ["PLANNED_BOUNDS", "planned_margins"]

Side = Callable[[FloatArray, FloatArray, int, float], FloatArray]


def _betting(cost: float) -> Side:
    def lower(mean: FloatArray, variance: FloatArray, samples: int, delta: float) -> FloatArray:
        log = math.log(1 / delta) + cost
        return mean - np.sqrt(2 * variance * log / samples) - log / (3 * samples)

    return lower


def _bernstein(mean: FloatArray, variance: FloatArray, samples: int, delta: float) -> FloatArray:
    unbiased = np.minimum(variance * samples / (samples - 1), 0.5)
    return bernstein.lower_bound(mean, unbiased, samples, delta)


def _counts(mean: FloatArray, variance: FloatArray, samples: int, delta: float) -> FloatArray:
    return betaincinv(np.maximum(mean * samples, 1e-9), (1.0 - mean) * samples + 1.0, delta)


PLANNED_BOUNDS: dict[str, Side] = {
    "betting": _betting(math.log(28)),
    "betting-fixed": _betting(math.log(math.pi)),
    "bernstein": _bernstein,
    "relative-entropy": lambda mean, variance, samples, delta: hoeffding.entropy_lower_bound(
        mean, samples, delta
    ),
    "hoeffding": lambda mean, variance, samples, delta: hoeffding.lower_bound(mean, samples, delta),
    "clopper-pearson": _counts,
    "clopper-pearson-two-sided": _counts,
}
"""Lower bounds (mean, variance, samples, failure probability) that a sample of these moments would give.

Those of `certmix.bounds` at the expected mean and variance; Clopper-Pearson at a number of votes that need
not be whole.  Betting has no formula: Bernstein's with the known variance stands in, at the failure
probability divided by what the mixture over its 28 bets costs, 28 for equal weights and about pi for tuned
ones.  True widths are within 10 % of it for most scores, and up to a quarter larger for scores near 0 and 1.
"""


def planned_margins(
    sums: ScoreSums, *, bound: str, samples: int, failure_probability: float, distance: float
) -> FloatArray:
    """Return the lower bound of h's margin at a distance that a certification is expected to reach.

    ``Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t)`` with the p and q that the bound
    would give if its samples had the moments of these.  One sample more than
    were seen enters the moments of every class, half 0 and half 1, so that
    scores which never varied are not taken for constant.

    Parameters
    ----------
    sums
        Of tuning samples.
    bound
        A name in `PLANNED_BOUNDS`.
    samples
        That the certification will draw.
    failure_probability
        Of its certificate; all of it goes to p for ``clopper-pearson``, half to p and half to q for others.
    distance
        t = radius / sigma.

    Returns
    -------
    FloatArray
        (candidates, m).
    """
    lower, one_sided = PLANNED_BOUNDS[bound], len(BOUNDS[bound].parts) == 1
    mean = (sums.totals + 0.5) / (sums.samples + 1)
    variance = (sums.squares + 0.5) / (sums.samples + 1) - mean**2
    delta = failure_probability if one_sided else failure_probability / 2
    top = sums.totals.argmax(-1)[..., None]
    own = [np.take_along_axis(values, top, -1)[..., 0] for values in (mean, variance)]
    p = np.clip(lower(own[0], own[1], samples, delta), 0.0, 1.0)
    if one_sided:
        q = 1.0 - p
    else:
        uppers = 1.0 - lower(1.0 - mean, variance, samples, delta)
        np.put_along_axis(uppers, top, 0.0, -1)
        q = np.clip(uppers.max(-1), 0.0, 1.0)
        p = np.maximum(p, 1.0 - (mean.shape[-1] - 1) * q)
        q = np.minimum(q, 1.0 - p)
    margins: FloatArray = ndtr(ndtri(p) - distance) - ndtr(ndtri(q) + distance)
    return margins
