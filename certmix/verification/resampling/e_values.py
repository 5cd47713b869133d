"""Are some samples like all those that they were taken from?  An e-value that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certmix.types import FloatArray

__all__ = ["Sums", "e_value"]

TILTS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Rates at which sums are wagered on, for differences from a percent up."""


@dataclass(frozen=True)
class Sums:
    """Sums of some of many samples, whose means are known.

    Parameters
    ----------
    name
        What is summed: others of this name are held together.
    samples
        How many the sums are of.
    mean
        (q,): means over all samples of quantities in [0, 1].
    low, high
        (q,): between these lie the sums.
    """

    name: str
    samples: int
    mean: FloatArray
    low: FloatArray
    high: FloatArray


def e_value(parts: Sequence[Sums]) -> float:
    """Return at least 1/a with probability at most a, if each part is taken at random from all its samples.

    A sum S of n values in [0, 1] without replacement, of mean m, has
    E[exp(-t S)] <= (1 - m + m exp(-t))^n (Hoeffding 1963, Theorem 4, and the
    chord of exp).  The quotients multiply over parts, and are averaged over
    quantities and over `TILTS`, which have both signs.  Half of the result is
    the mean of the parts' own values, which finds a few that are unlike.

    Examples
    --------
    >>> def of(votes):
    ...     return e_value([Sums("votes", 100, np.array([0.9]), np.array([votes]), np.array([votes]))])
    >>> of(90) < 1, of(70) > 1e4
    (True, True)
    """
    logs: dict[str, list[FloatArray]] = {}
    tilts = np.array([*TILTS, *(-tilt for tilt in TILTS)])[:, None]
    for part in parts:
        sums = np.where(tilts > 0, part.high, part.low)
        chord = np.log1p(part.mean.clip(0.0, 1.0) * np.expm1(-tilts))
        logs.setdefault(part.name, []).append(-tilts * sums - part.samples * chord)
    if not logs:
        return 1.0
    together = np.concatenate([np.sum(rows, 0).ravel() for rows in logs.values()])
    alone = [np.exp(np.minimum(row, 700.0)).mean() for rows in logs.values() for row in rows]
    return float(np.exp(np.minimum(together, 700.0)).mean() + np.mean(alone)) / 2
