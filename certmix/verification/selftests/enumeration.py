"""All outcomes of a small sample, and how likely each is."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.special import gammaln

from certmix.types import FloatArray, IntArray

__all__ = ["all_counts", "multinomial"]


def all_counts(trials: int, kinds: int) -> IntArray:
    """Return every way to spread `trials` samples over `kinds`, (m, kinds)."""
    bars = itertools.combinations(range(trials + kinds - 1), kinds - 1)
    cuts = np.array([(-1, *b, trials + kinds - 1) for b in bars])
    spread: IntArray = np.diff(cuts, axis=1) - 1
    return spread


def multinomial(counts: IntArray, laws: FloatArray) -> FloatArray:
    """Return the probability of each row of counts under each row of laws, (laws, counts)."""
    ways = gammaln(counts.sum(1) + 1) - gammaln(counts + 1).sum(1)
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(laws), -1e5)
    probability: FloatArray = np.exp(ways + logs @ counts.T)
    return probability
