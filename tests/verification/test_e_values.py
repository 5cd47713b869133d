"""E-values of parts: at most one in mean by enumeration, and large where parts are unlike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from certmix.verification.resample import Sums, e_value


def part(votes, samples, mean, off=0) -> Sums:
    """Of one class and the rest, where `off` votes are open."""
    counts = np.array([votes, samples - votes], float)
    return Sums("votes", samples, np.array([mean, 1 - mean]), counts - off, counts + off)


@pytest.mark.parametrize("length, drawn, held", [(30, 10, 27), (17, 9, 8), (40, 3, 40), (12, 12, 5)])
def test_the_e_value_of_honest_parts_is_at_most_one_in_mean(length, drawn, held):
    """E[e] <= 1 exactly, by enumerating the votes of two parts without replacement."""
    weights = hypergeom.pmf(np.arange(drawn + 1), length, held, drawn)
    parts = [part(k, drawn, held / length) for k in range(drawn + 1)]
    pairs = [(w * v, e_value([a, b])) for w, a in zip(weights, parts, strict=True)
             for v, b in zip(weights, parts, strict=True) if w * v > 0]  # fmt: skip
    assert sum(weight * e for weight, e in pairs) <= 1 + 1e-12


def test_open_votes_only_lower_the_e_value():
    assert e_value([part(70, 100, 0.9, off=3)]) < e_value([part(70, 100, 0.9)])
    assert e_value([part(70, 100, 0.9, off=3)]) > 2000


def test_small_shares_of_many_parts_add_up():
    """Three percent of the votes of 100 stretches, at p = 0.9 and 0.5: as expected, no luck."""
    for mean, count in ((0.93, 100), (0.53, 250)):
        assert e_value([part(100 * (mean - 0.03), 100, mean)] * count) > 2000
        assert e_value([part(100 * mean, 100, mean)] * count) < 1
    assert e_value([]) == 1.0


def test_one_part_among_many_that_is_quite_unlike():
    honest = [part(90, 100, 0.9)] * 100
    assert e_value(honest) < 1 < 2000 < e_value([*honest, part(45, 100, 0.9)])
