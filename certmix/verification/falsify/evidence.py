"""When a point found by search is evidence, and when findings are more than a run may have.  No torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrc

from certmix.bounds import betting, clopper_pearson
from certmix.types import FloatArray, IntArray

_FIRST = 200
_OPTIMISM, _NEEDED = 2.5, 3.0  # standard deviations: of the margin so far, and below mu at the end


def threshold(alpha: float) -> float:
    """Return mu = (1 - alpha) / alpha, rounded down: a smaller margin lets some g flip the mix."""
    return 0.0 if alpha == 1.0 else math.nextafter((1.0 - alpha) / alpha, 0.0)


def vote_margin_upper(counts: IntArray, selected: int, rival: int, failure_probability: float) -> float:
    """Return an upper confidence bound of h_y - h_i from votes.

    The upper Clopper-Pearson bound of h_y less the lower one of h_i, each at
    half of `failure_probability`.

    `counts` (c,) are votes of samples whose number was fixed beforehand, and that
    neither the point nor the classes y, i were chosen from.

    Examples
    --------
    >>> round(vote_margin_upper(np.array([500, 480, 20]), 0, 1, 0.001), 4)
    0.1245
    """
    half, total = failure_probability / 2, int(counts.sum())
    most = clopper_pearson.upper_bound(int(counts[selected]), total, half)
    least = clopper_pearson.lower_bound(int(counts[rival]), total, half)
    return math.nextafter(float(most - least), 2.0)


def score_margin_upper(differences: ArrayLike, failure_probability: float) -> float:
    """Return an upper confidence bound of the mean of score_y - score_i.

    The betting bound of (1 - difference) / 2, which lies in [0, 1].  `differences`
    (n,) are in the order they were drawn; n was fixed beforehand.
    """
    values = np.clip((1.0 - np.asarray(differences, np.float64)) / 2.0, 0.0, 1.0)
    return math.nextafter(1.0 - 2.0 * betting.lower_bound(values, failure_probability, values.size), 2.0)


def stops(samples: int) -> list[int]:
    """Return the numbers of samples after which a hopeless point is given up; the last one decides."""
    found = []
    at = _FIRST
    while at < samples:
        found.append(at)
        at *= 2
    return [*found, samples]


def hopeless(margin: float, square: float, drawn: int, samples: int, mu: float) -> bool:
    """Return whether `drawn` samples say that all `samples` will hardly be evidence.

    Giving up is always valid: a point that is given up is no finding.

    `margin` and `square` are the means of score_y - score_i and of its square.
    """
    deviation = math.sqrt(max(square - margin**2, 1.0 / drawn))
    lowest = margin - _OPTIMISM * deviation / math.sqrt(drawn)
    return lowest > mu - _NEEDED * deviation / math.sqrt(samples)


def chance_of(findings: int, images: int, rate: float) -> float:
    """Return the probability of so many findings or more among honest certificates.

    `images` are all that were looked at, certified or not: a certificate's failure
    probability is that of being issued and false.  `rate` adds that of one finding's evidence.
    """
    return 1.0 if findings < 1 else float(bdtrc(findings - 1, images, min(rate, 1.0)))


def findings_needed(images: int, rate: float, error_rate: float) -> int:
    """Return the least number of findings that honest certificates have with at most `error_rate`.

    Examples
    --------
    >>> findings_needed(25, 0.001 + 0.01 / 25, 0.01), findings_needed(25, 0.0, 0.01)
    (2, 1)
    """
    chances: FloatArray = bdtrc(np.arange(images + 1), images, min(rate, 1.0))
    return 1 + int(np.argmax(chances <= error_rate))
