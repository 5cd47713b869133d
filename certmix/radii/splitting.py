"""Splitting (Levine and Feizi, 2021): what changes of an 8-bit image, in l1, do to the votes.

A coordinate that changes by k levels changes what the base model sees at k of the n offsets at most: those
whose threshold lies between.  An image at l1 distance k/255 so changes k votes at most, each of which takes
one from y and gives one to the rival.
"""

from __future__ import annotations

import numpy as np

from certmix.radii._checks import Cases
from certmix.radii.counted import counts_of, enumerated, rival_margins
from certmix.text import plain_decimal
from certmix.types import IntArray

LEVELS = 255
"""Steps of an 8-bit value."""


def offsets_of(scale: float) -> int:
    """Return how many offsets there are for lambda: the whole number nearest to 2 lambda 255, at least 1."""
    return max(1, round(2 * LEVELS * scale))


def splitting_margins(votes: IntArray, selected: IntArray, classes: int, scale: float = 0.5) -> IntArray:
    """Return the least n_y - n_i, (m, t), at l1 distance t/255, t = 0 .. n/2, from votes (m, n).

    Theorem 3.5 with Lip_1 = 1/(2 lambda) says the same: no smaller loss is possible.
    """
    lead = rival_margins(counts_of(votes, classes), selected)
    return lead[:, None] - 2 * np.arange(votes.shape[1] // 2 + 1)


def _told(scale: float) -> str:
    count = offsets_of(scale)
    return (
        f"All {count:,} offsets are gone through (lambda = {plain_decimal(count / 510)}): the ball holds the "
        "8-bit images at this distance, and nothing is said of others."
    )


KIND = enumerated(
    "splitting", "all intervals of 8-bit values", "lambda, in units of the input", "l1",
    "certmix.sampling.splitting:splits",
    Cases(0.5, LEVELS, lambda scale, shape: offsets_of(scale), splitting_margins, splitting_margins, _told),
    whole=False,
)  # fmt: skip
