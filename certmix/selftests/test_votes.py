"""Bounds of votes: the joint promise {p <= h_y and max_i h_i <= q}, by enumerating all counts.

A lower Clopper-Pearson bound L(k) that grows with k fails at the truth p when X >= k, k the least count
with L(k) > p.  That is likeliest as p nears L(k): the bound is valid for all p if P(X >= k) <= delta at
p = L(k), for every k.
"""

from fractions import Fraction
from itertools import pairwise
from math import comb

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from certmix.bounds import BOUNDS, bound_counts, bounds_of, clopper_pearson
from certmix.sampling.schedule import looks
from certmix.selftests.cases import all_counts, cases, multinomial

VOTES = list(bounds_of("hard"))
SLOP = 1e-9  # relative rounding error of the enumeration itself
deltas = st.one_of(st.floats(1e-12, 0.5), st.sampled_from([0.5, 0.1, 0.025, 0.001, 1e-9]))


@st.composite
def count_pairs(draw):
    n = draw(st.one_of(st.integers(1, 200), st.integers(1, 10**6)))
    return draw(st.one_of(st.integers(0, n), st.just(0), st.just(n), st.integers(0, min(n, 20)))), n


# ------------------------------------------------------------ Clopper-Pearson


@cases
@given(st.one_of(st.integers(1, 24), st.sampled_from([1, 2, 3, 24])), st.floats(1e-9, 0.5))
def test_both_sides_in_fractions(n, delta):
    """Coverage at every true proportion, and no wider than that needs."""
    k = np.arange(n + 1)
    low, high = clopper_pearson.lower_bound(k, n, delta), clopper_pearson.upper_bound(k, n, delta)
    assert np.all(np.diff(low) > 0)
    assert np.all(np.diff(high) > 0)
    sides = [[Fraction(float(x)) for x in low], [1 - Fraction(float(x)) for x in high[::-1]]]
    for bound in sides:
        for j in range(1, n + 1):
            a, d = bound[j].numerator, bound[j].denominator
            tail = Fraction(sum(comb(n, i) * a**i * (d - a) ** (n - i) for i in range(j, n + 1)), d**n)
            assert 1 - Fraction(1, 10**5) <= tail / Fraction(delta) <= 1


@pytest.mark.parametrize("n", [1, 10, 10**5, 10**9])
@pytest.mark.parametrize("delta", [0.5, 0.1, 0.001, 1e-12])
def test_unanimous_votes(n, delta):
    """Where the binomial tail is p^n: never beyond its root in 40 digits, and close to it."""
    with mpmath.workdps(40):
        root = mpmath.power(mpmath.mpf(delta), mpmath.mpf(1) / n)
        low = float(clopper_pearson.lower_bound(n, n, delta))
        high = float(clopper_pearson.upper_bound(0, n, delta))
        assert root - mpmath.mpf("2e-12") * (1 - root) - mpmath.mpf("3e-16") <= low <= root
        assert 1 - root <= high <= (1 - root) * (1 + mpmath.mpf("2e-12")) + mpmath.mpf("1e-320")
    assert clopper_pearson.lower_bound(0, n, delta) == 0
    assert clopper_pearson.upper_bound(n, n, delta) == 1


@cases
@given(count_pairs(), deltas, deltas)
def test_nested_monotone_and_symmetric(pair, one, other):
    (k, n), less, more = pair, min(one, other), max(one, other)
    low, high = clopper_pearson.lower_bound(k, n, less), clopper_pearson.upper_bound(k, n, less)
    assert 0 <= low <= clopper_pearson.lower_bound(k, n, more) <= k / n
    assert k / n <= clopper_pearson.upper_bound(k, n, more) <= high <= 1
    mirrored = 1 - clopper_pearson.upper_bound(n - k, n, less)
    assert low == pytest.approx(mirrored, rel=0, abs=4e-12 * min(low, 1 - low) + 1e-15)
    for bound in (clopper_pearson.lower_bound, clopper_pearson.upper_bound):
        assert bound(k, n + 1, less) <= bound(k, n, less) <= bound(k + 1, n + 1, less)
        assert k == n or bound(k, n, less) <= bound(k + 1, n, less)


# ---------------------------------------------------------------- joint bounds


def truths(classes, found):
    """A grid over the simplex and the neighbourhood of each bound, where failures are likeliest."""
    grid = all_counts(24 if classes == 3 else 10, classes)
    h = [grid / grid.sum(1, keepdims=True)]
    for p in np.unique(np.clip(np.nextafter(found.p_lower, 0), 0, 1)):
        for share in (0.0, 0.5, 0.8, 1.0):
            rest = [share, *[(1 - share) / (classes - 2)] * (classes - 2)]
            h.append(np.array([[p, *(x * (1 - p) for x in rest)]]))
    for q in np.unique(np.clip(np.nextafter(found.q_upper, 1), 0, 1)):
        for share in (0.0, 0.3, 0.7, 1.0):
            rest = (1 - q) * (1 - share) / (classes - 2)
            h.append(np.array([[(1 - q) * share, q, *[rest] * (classes - 2)]]))
    return np.vstack(h)


def failures(name, trials, classes, delta):
    """The probability that p or q is wrong, for class 0 selected, at each truth."""
    counts = all_counts(trials, classes)
    found = bound_counts(counts, np.zeros(len(counts), np.int64), delta, name)
    h = truths(classes, found)
    wrong = (found.p_lower > h[:, :1]) | (found.q_upper < h[:, 1:].max(1, keepdims=True))
    return np.where(wrong, multinomial(counts, h), 0.0).sum(1)


@pytest.mark.parametrize("name", VOTES)
@pytest.mark.parametrize("delta", [0.4, 0.1, 0.01])
@pytest.mark.parametrize("trials, classes", [(1, 3), (5, 3), (14, 3), (7, 4)])
def test_joint_coverage(name, delta, trials, classes):
    assert failures(name, trials, classes, delta).max() <= delta * (1 + SLOP)


@pytest.mark.parametrize("name, used", [("clopper-pearson", 0.99), ("clopper-pearson-two-sided", 0.49)])
def test_the_budget_is_used(name, used):
    """The test above can fail: some truths come close to what was promised."""
    assert failures(name, 14, 3, 0.1).max() >= used * 0.1


@pytest.mark.parametrize("name", VOTES)
@pytest.mark.parametrize("delta", [0.3, 0.05])
@cases
@given(truth=st.floats(1e-9, 1))
def test_all_looks_hold_at_once(name, delta, truth):
    """P(some look's p > truth or q < 1 - truth), by the law of the votes on paths that have not failed.

    No stopping rule can fail more often than some look does.
    """
    alive, failed = np.ones(1), 0.0
    for number, (before, n) in enumerate(pairwise((0, *looks(500)))):
        votes = np.stack([np.arange(n + 1), n - np.arange(n + 1)], 1)
        found = bound_counts(votes, np.zeros(n + 1, np.int64), delta, name, number)
        p, q = found.p_lower, found.q_upper
        alive = np.convolve(alive, binom.pmf(np.arange(n - before + 1), n - before, truth))
        wrong = (p > truth) | (q * (1 + 4e-16) < 1 - truth)
        failed += float(alive[wrong].sum())
        alive = np.where(wrong, 0.0, alive)
    assert failed <= delta * (1 + SLOP)


@cases
@given(st.lists(st.integers(0, 2000), min_size=2, max_size=6).filter(any), st.integers(0, 5), deltas)
def test_joint_bounds_follow_from_their_halves(row, selected, delta):
    """q = 1 - p rounded up; or p = max(L, 1 - (c-1) U), q = min(U, 1 - p): the simplex step, outwards."""
    counts, y = np.array([row]), selected % len(row)
    one, two = (bound_counts(counts, np.array([y]), delta, name) for name in VOTES[:2])
    p, q = Fraction(one.p_lower[0]), Fraction(one.q_upper[0])
    assert one.p_lower[0] == clopper_pearson.lower_bound(row[y], sum(row), delta)
    assert 1 - p <= q <= 1 - p + Fraction(3, 10**16)
    p, q = Fraction(two.p_lower[0]), Fraction(two.q_upper[0])
    rivals = np.delete(counts[0], y)
    low = Fraction(float(clopper_pearson.lower_bound(row[y], sum(row), delta / 2)))
    high = Fraction(float(clopper_pearson.upper_bound(max(rivals), sum(row), delta / 2)))
    allowed_p, allowed_q = max(low, 1 - len(rivals) * high), min(high, 1 - p)
    assert allowed_p - Fraction(3, 10**15) * len(rivals) <= p <= allowed_p
    assert allowed_q <= q <= allowed_q + Fraction(3, 10**16)


@pytest.mark.parametrize("name", VOTES)
def test_any_order_of_classes_gives_the_same_and_the_split_is_recorded(name):
    counts = np.array([[800, 50, 100, 50], [100, 50, 800, 50], [100, 800, 50, 50]], np.uint16)
    found = bound_counts(counts, np.array([0, 2, 1], np.uint8), 0.01, name)
    assert len(set(found.p_lower)) == len(set(found.q_upper)) == 1
    assert list(found.split) == list(BOUNDS[name].parts)
    assert sum(found.split.values()) == pytest.approx(0.01, rel=1e-15)
