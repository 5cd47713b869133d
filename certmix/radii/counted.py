"""Exact certificates from votes that are all there: whole numbers and fractions to the end.

A kind of smoothing that goes through every case (`certmix.radii.splitting`, `certmix.radii.bands`) has n
votes an input and no failure probability.  A perturbation of size t changes some of them; ``margins[t]`` is
the least n_y - n_i that it can leave, over all rivals i, so that it falls in t.  The mix keeps y whatever g
is while alpha (n_y - n_i) > (1 - alpha) n: ties count against y.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from certmix.radii import margin_slack_of
from certmix.types import IntArray


def votes_ahead(alpha: float, votes: int) -> int:
    """Return the least n_y - n_i that the mix needs: the first whole number above mu n.

    alpha is the decimal number that it prints as; mu = (1 - alpha) / alpha, and 2^-22 for the rounding of a
    mix in float64.

    >>> votes_ahead(0.8, 256), votes_ahead(0.76, 32), votes_ahead(1.0, 32)
    (65, 11, 1)
    """
    printed = Fraction(repr(float(alpha)))
    return math.floor(((1 - printed) / printed + Fraction(margin_slack_of(alpha))) * votes) + 1


def counts_of(votes: IntArray, classes: int) -> IntArray:
    """Return how many of the votes (m, n) each class has, int64 (m, classes); -1 abstains."""
    counts = np.zeros((len(votes), classes), np.int64)
    rows, places = np.nonzero(votes >= 0)
    np.add.at(counts, (rows, votes[rows, places]), 1)
    return counts


def classes_of(counts: IntArray) -> IntArray:
    """Return the class with the most votes (m,), -1 where two have as many, or none has any."""
    two = np.sort(counts, 1)[:, -2:]
    return np.where(two[:, 1] > two[:, 0], counts.argmax(1), -1)


def rival_margins(counts: IntArray, selected: IntArray) -> IntArray:
    """Return n_y - max n_i of inputs (m,), from counts (m, classes); y must be a class."""
    rows, others = np.arange(len(counts)), counts.copy()
    own = others[rows, selected]
    others[rows, selected] = -1
    return np.asarray(own - others.max(1), np.int64)


def sizes(margins: IntArray, alpha: float, votes: int) -> IntArray:
    """Return the largest t (m,) at which `margins` (m, t + 1) suffice at alpha; -1 where not even 0 does."""
    return np.asarray((margins >= votes_ahead(alpha, votes)).sum(1) - 1, np.int64)
