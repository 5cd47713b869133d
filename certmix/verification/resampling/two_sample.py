"""Are two sets of votes of one distribution?  Exact tests, and a family-wise error rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, hypergeom

from certmix.types import IntArray
from certmix.verification.plain.bounds import looks

__all__ = ["LOOKS", "Verdict", "class_p_value", "judge_images", "votes_p_value"]

LOOKS = len(looks(10**9))
"""Looks at which a sequential run can have stopped; no run is larger."""


def class_p_value(one: int, of: int, other: int, of_other: int) -> float:
    """Return twice the smaller tail of Fisher's exact test that two proportions are equal.

    Given how many there are in both together, `one` is hypergeometric; the
    p-value is at most a with probability at most a, whatever the proportion.

    Examples
    --------
    >>> class_p_value(50, 100, 50, 100)
    1.0
    >>> class_p_value(99, 100, 50, 100) < 1e-15
    True
    """
    law = of + of_other, one + other, of
    return float(min(1.0, 2 * min(hypergeom.cdf(one, *law), hypergeom.sf(one - 1, *law))))


def votes_p_value(one: IntArray, other: IntArray, selected: int | None = None) -> float:
    """Return the p-value that two vectors of votes (c,) are of one distribution.

    Bonferroni over classes; a class that was chosen on other samples has half of
    the error, where the others share the rest.
    """
    n, m, classes = int(one.sum()), int(other.sum()), len(one)
    found = []
    for i in np.flatnonzero(one + other).tolist():
        times = classes if selected is None else 2 if i == selected else 2 * (classes - 1)
        found.append(times * class_p_value(int(one[i]), n, int(other[i]), m))
    return min(1.0, *found) if found else 1.0


@dataclass(frozen=True)
class Verdict:
    """Images (positions) whose own p-value is too small, the least one, and whether all together fail."""

    images: tuple[int, ...]
    least: float
    together: float
    fails: bool


def judge_images(p_values: Sequence[float], error_rate: float) -> Verdict:
    """Return whether independent p-values of images refute that all counts are honest.

    Half of the error rate is spread over the images (Bonferroni), half goes to
    all together (Fisher's -2 sum log p against chi-square), which finds small
    differences that many images share.

    Examples
    --------
    >>> judge_images([0.5, 0.2, 1.0], 0.001).fails, judge_images([0.5, 1e-5], 0.001).images
    (False, (1,))
    """
    values = [max(p, 1e-300) for p in p_values]
    if not values:
        return Verdict((), 1.0, 1.0, False)
    bad = tuple(k for k, p in enumerate(values) if p <= error_rate / 2 / len(values))
    together = float(chi2.sf(-2 * math.fsum(map(math.log, values)), 2 * len(values)))
    return Verdict(bad, min(values), together, bool(bad) or together <= error_rate / 2)
