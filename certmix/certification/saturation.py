"""Where the radii of a log pile up, and which failure probability that betrays.

When all n votes agree the one-sided Clopper-Pearson bound is delta^(1/n), so
no radius of a log lies above ``sigma Phi^-1(delta^(1/n))``: at delta = 0.001
and n = 100,000 this is 3.81 sigma.  Images on which the classifier never errs
pile up there, and the next lower radius (one vote fewer) is over 1 % smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri

from certmix.runs.formats import PublishedLog

__all__ = ["Saturation", "ceiling", "failure_probability_at", "find_saturation"]

_FEWEST = 3
_GAP = 0.01


@dataclass(frozen=True)
class Saturation:
    """The largest radius as printed, how many rows hold it, and which numbers print so."""

    radius: float
    rows: int
    low: float
    high: float


def ceiling(sigma: float, samples: int, failure_probability: float) -> float:
    """Return the largest radius that samples which all agree can show.

    Examples
    --------
    >>> round(ceiling(1.0, 100_000, 0.001), 3)
    3.811
    """
    return float(-sigma * ndtri(-math.expm1(math.log(failure_probability) / samples)))


def failure_probability_at(scaled_radius: float, samples: int) -> float:
    """Return the failure probability whose ceiling is a radius given in sigmas.

    Examples
    --------
    >>> round(failure_probability_at(3.811, 100_000), 5)
    0.00099
    """
    return math.exp(samples * float(log_ndtr(scaled_radius)))


def find_saturation(log: PublishedLog) -> Saturation | None:
    """Return where radii pile up; None if they do not: few rows at the top, or no gap below it."""
    if len(log) == 0 or log.radius.max() <= 0:
        return None
    top = float(log.radius.max())
    rows = log.radius == top
    near = (log.radius > (1 - _GAP) * top) & ~rows
    if rows.sum() < _FEWEST or near.any():
        return None
    low = float(log.lowest[np.argmax(rows)])
    # below a power of ten the digits are finer, above it they are not
    power_of_ten = log.decimals is None and math.log10(top).is_integer()
    return Saturation(top, int(rows.sum()), low, top + (top - low) * (10 if power_of_ten else 1))
