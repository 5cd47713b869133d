"""Two-sample tests: exact levels by enumeration, agreement with scipy, family-wise error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact

from certmix.verification.resampling.two_sample import LOOKS, class_p_value, judge_images, votes_p_value


@pytest.mark.parametrize("proportion", [0.02, 0.3, 0.5, 0.97])
def test_the_level_is_kept_whatever_the_proportion(proportion):
    """P[p-value <= a] <= a, exactly, by enumerating all outcomes."""
    n, m = 30, 17
    one, other = binom.pmf(np.arange(n + 1), n, proportion), binom.pmf(np.arange(m + 1), m, proportion)
    values = np.array([[class_p_value(i, n, j, m) for j in range(m + 1)] for i in range(n + 1)])
    weight = one[:, None] * other[None, :]
    for a in (0.5, 0.1, 0.01, 1e-3, 1e-5):
        assert weight[values <= a * (1 + 1e-9)].sum() <= a


def test_one_tail_is_that_of_fishers_test():
    for one, n, other, m in ((9, 10, 2, 12), (50, 60, 30, 70), (0, 9, 5, 8)):
        table = [[one, n - one], [other, m - other]]
        tails = [fisher_exact(table, alternative=side)[1] for side in ("less", "greater")]
        assert class_p_value(one, n, other, m) == pytest.approx(min(1.0, 2 * min(tails)))


def test_a_chosen_class_has_half_of_the_error():
    one, other = np.array([90, 5, 3, 2]), np.array([60, 20, 15, 5])
    top = class_p_value(90, 100, 60, 100)
    assert votes_p_value(one, other, 0) == pytest.approx(2 * top)
    assert votes_p_value(one, other) == pytest.approx(4 * top)
    assert votes_p_value(one, one) == 1.0
    assert votes_p_value(np.zeros(3, int), np.array([5, 0, 0]), 0) == 1.0


def test_simulated_families_fail_as_seldom_as_they_say():
    rng = np.random.default_rng(0)
    laws = np.array([[0.9, 0.05, 0.05], [0.4, 0.35, 0.25], [0.6, 0.4, 0.0]])
    failed = 0
    for _ in range(80):
        pairs = [(rng.multinomial(200, law), rng.multinomial(300, law)) for law in laws]
        failed += judge_images([votes_p_value(a, b, 0) for a, b in pairs], 0.05).fails
    assert failed <= 11  # at most 4 expected; 11 or fewer with probability 0.999


def test_small_differences_that_all_share_are_found_together():
    verdict = judge_images([0.01] * 20, 0.001)
    assert verdict.fails and verdict.images == () and verdict.together < 1e-6
    assert not judge_images([0.01] * 2, 0.001).fails
    assert not judge_images([], 0.001).fails


def test_the_number_of_looks_covers_every_run():
    assert 80 < LOOKS < 120
