"""Is another look worth its samples?  The give-up rule behind `--goal radii`.

Near one threshold p0 of the selected class's probability, let z be the
standardised surplus of votes after n samples.  With a flat prior on p - p0 the
posterior mean is a martingale as samples come in, so the value of going on,

    V_k(z) = 1                                  where look k certifies,
    V_k(z) = max(0, E V_{k+1}(z') - price (n_{k+1} - n_k))   elsewhere,

follows by backward induction on a grid.  An image goes on while some wanted
threshold has V > 0: the expected gain in table cells still pays for the
samples.  The normal approximation only decides when to stop; no bound rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import bdtrik, ndtr

from certmix.types import FloatArray

__all__ = ["give_up_below"]

_GRID = np.linspace(-8.0, 9.0, 341)


def _needed(looks: FloatArray, shares: FloatArray, thresholds: FloatArray) -> FloatArray:
    """Standardised votes (looks, thresholds) that Clopper-Pearson needs at each look's share."""
    with np.errstate(all="ignore"):
        votes = np.ceil(bdtrik(1.0 - shares[:, None], looks[:, None], thresholds)) + 1
        spread = np.sqrt(looks[:, None] * thresholds * (1 - thresholds))
        z = (votes - looks[:, None] * thresholds) / spread
    possible = np.isfinite(z) & (votes <= looks[:, None]) & (shares[:, None] > 0)
    return np.where(possible, z, np.inf)


def give_up_below(
    looks: Sequence[int], shares: Sequence[float], thresholds: Sequence[float], price: float
) -> FloatArray:
    """Return the z below which a threshold is no longer worth sampling for.

    Parameters
    ----------
    looks
        Sample numbers at which counts are looked at; the last one ends all.
    shares
        Failure probability that each look may spend.
    thresholds
        Probabilities in (0, 1) to be exceeded, one a column of the table.
    price
        Table cells that one sample must bring to be worth it.

    Returns
    -------
    FloatArray
        (looks, thresholds): an image with standardised surplus z goes on while
        z >= this, for some threshold not yet reached; infinite at the last look.
    """
    steps, levels = np.asarray(looks, np.float64), np.asarray(thresholds, np.float64)
    needed = _needed(steps, np.asarray(shares, np.float64), levels)
    border = np.full((len(steps), len(levels)), np.inf)
    value = (_GRID[:, None] >= needed[-1]).astype(np.float64)
    for k in range(len(steps) - 2, -1, -1):
        expected = _transition(steps[k], steps[k + 1]) @ value - price * (steps[k + 1] - steps[k])
        value = np.where(_GRID[:, None] >= needed[k], 1.0, np.maximum(expected, 0.0))
        worth = expected > 0
        border[k] = np.where(worth.any(0), _GRID[worth.argmax(0)], np.inf)
    return border


def _transition(now: float, then: float) -> FloatArray:
    """Predictive distribution of z at `then` samples given z at `now`, on the grid."""
    mean = _GRID / np.sqrt(now)
    spread = np.sqrt(1.0 / now - 1.0 / then)
    edges = 0.5 * (_GRID[1:] + _GRID[:-1]) / np.sqrt(then)
    below = ndtr((edges[None, :] - mean[:, None]) / spread)
    padded = np.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0.0, 1.0)))
    return np.diff(padded, axis=1)
