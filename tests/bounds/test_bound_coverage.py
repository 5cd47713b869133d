"""The joint promise of a bound, {p <= h_y and max_i h_i <= q}, by enumerating all counts."""

import itertools
from fractions import Fraction
from math import lgamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.bounds import bound_counts, bounds_of, clopper_pearson
from certmix.errors import ParameterError

quick = settings(deadline=None, max_examples=100)


def all_counts(trials, classes):
    """Every way to spread the votes, (m, classes)."""
    bars = itertools.combinations(range(trials + classes - 1), classes - 1)
    cuts = np.array([(-1, *b, trials + classes - 1) for b in bars])
    return np.diff(cuts, axis=1) - 1


def multinomial(counts, h):
    """Probability of each row of counts under each row of h, (rows of h, rows of counts)."""
    ways = np.array([lgamma(row.sum() + 1) - sum(lgamma(k + 1) for k in row) for row in counts])
    with np.errstate(divide="ignore"):
        logs = np.log(h)
    powers = np.where(counts[None] == 0, 0.0, counts[None] * np.maximum(logs, -1e6)[:, None])
    return np.exp(ways + powers.sum(2))


def truths(classes, bounds):
    """A grid over the simplex and the neighbourhood of each bound, where failures are likeliest."""
    grid = all_counts(24 if classes == 3 else 10, classes)
    h = [grid / grid.sum(1, keepdims=True)]
    for p in np.unique(np.clip(np.nextafter(bounds.p_lower, 0), 0, 1)):
        for share in (0.0, 0.5, 0.8, 1.0):
            rest = [share, *[(1 - share) / (classes - 2)] * (classes - 2)]
            h.append(np.array([[p, *(x * (1 - p) for x in rest)]]))
    for q in np.unique(np.clip(np.nextafter(bounds.q_upper, 1), 0, 1)):
        for share in (0.0, 0.3, 0.7, 1.0):
            rest = (1 - q) * (1 - share) / (classes - 2)
            h.append(np.array([[(1 - q) * share, q, *[rest] * (classes - 2)]]))
    return np.vstack(h)


def failures(name, trials, classes, delta):
    """Largest probability that p or q is wrong, for class 0 selected, over the truths."""
    counts = all_counts(trials, classes)
    bounds = bound_counts(counts, np.zeros(len(counts), np.int64), delta, name)
    h = truths(classes, bounds)
    wrong = (bounds.p_lower > h[:, :1]) | (bounds.q_upper < h[:, 1:].max(1, keepdims=True))
    return np.where(wrong, multinomial(counts, h), 0.0).sum(1)


@pytest.mark.parametrize("name", bounds_of("hard"))
@pytest.mark.parametrize("delta", [0.4, 0.1, 0.01])
@pytest.mark.parametrize("trials, classes", [(1, 3), (5, 3), (14, 3), (7, 4)])
def test_joint_coverage_by_enumeration(name, delta, trials, classes):
    failure = failures(name, trials, classes, delta)
    assert failure.max() <= delta * (1 + 1e-9)


@pytest.mark.parametrize("name, used", [("clopper-pearson", 0.99), ("clopper-pearson-two-sided", 0.49)])
def test_the_budget_is_used(name, used):
    """The test above can fail: some truths come close to what was promised."""
    assert failures(name, 14, 3, 0.1).max() >= used * 0.1


@st.composite
def votes(draw):
    classes = draw(st.integers(2, 6))
    row = draw(
        st.lists(st.integers(0, 2000), min_size=classes, max_size=classes).filter(lambda x: sum(x) > 0)
    )
    return np.array([row]), np.array([draw(st.integers(0, classes - 1))])


deltas = st.sampled_from([0.3, 0.05, 0.001, 1e-12])


@quick
@given(votes(), deltas)
def test_one_sided_is_the_lower_bound_and_its_complement(drawn, delta):
    counts, selected = drawn
    bounds = bound_counts(counts, selected, delta)
    p, q = bounds.p_lower[0], bounds.q_upper[0]
    assert p == clopper_pearson.lower_bound(counts[0, selected[0]], counts.sum(), delta)
    assert Fraction(q) >= 1 - Fraction(p)  # rounded up
    assert q == pytest.approx(1 - p, rel=0, abs=3e-16)
    assert bounds.split == {"p": delta}


@quick
@given(votes(), deltas)
def test_two_sided_follows_from_its_two_halves(drawn, delta):
    """p = max(L, 1 - (c-1) U), q = min(U, 1 - p): the simplex step, rounded outwards."""
    counts, selected = drawn
    bounds = bound_counts(counts, selected, delta, "clopper-pearson-two-sided")
    p, q = Fraction(bounds.p_lower[0]), Fraction(bounds.q_upper[0])
    rivals, trials = np.delete(counts[0], selected[0]), counts.sum()
    low = Fraction(float(clopper_pearson.lower_bound(counts[0, selected[0]], trials, delta / 2)))
    high = Fraction(float(clopper_pearson.upper_bound(rivals, trials, delta / 2).max()))
    allowed_p = max(low, 1 - len(rivals) * high)
    allowed_q = min(high, 1 - p)
    assert allowed_p - Fraction(3, 10**15) * len(rivals) <= p <= allowed_p
    assert allowed_q <= q <= allowed_q + Fraction(3, 10**16)
    assert 0 <= p <= 1
    assert 0 <= q <= 1
    assert sum(bounds.split.values()) == pytest.approx(delta, rel=1e-15)


def test_simplex_step_where_it_matters():
    """Two classes, loose lower bound: 1 - U of the only rival is the better p; q never exceeds 1 - p."""
    counts = np.array([[50, 50], [1000, 0], [990, 10]])
    bounds = bound_counts(counts, np.zeros(3, np.int64), 0.001, "clopper-pearson-two-sided")
    assert np.all(bounds.q_upper <= np.nextafter(1 - bounds.p_lower, 2))
    even = np.array([[40, 1, 1, 1], [10, 30, 30, 30]])
    shared = bound_counts(even, np.array([0, 0]), 0.001, "clopper-pearson-two-sided")
    assert shared.q_upper[0] < 1 - shared.p_lower[0]


def test_largest_rival_decides_and_order_does_not_matter():
    counts = np.array([[800, 50, 100, 50], [100, 50, 800, 50], [100, 800, 50, 50]])
    for name in bounds_of("hard"):
        bounds = bound_counts(counts, np.array([0, 2, 1]), 0.01, name)
        assert len(set(bounds.p_lower)) == len(set(bounds.q_upper)) == 1


def test_selected_class_need_not_be_the_most_voted():
    counts = np.array([[100, 900]])
    for name in bounds_of("hard"):
        bounds = bound_counts(counts, np.array([0]), 0.01, name)
        assert bounds.p_lower[0] < 0.1 < 0.85 < bounds.q_upper[0]


@pytest.mark.parametrize("name", bounds_of("hard"))
def test_what_is_recorded(name):
    bounds = bound_counts(np.array([[90, 10, 0]], np.uint8), np.array([0], np.uint8), 0.01, name)
    assert bounds.method == name
    assert bounds.failure_probability == 0.01
    assert sum(bounds.split.values()) <= 0.01
    assert bounds.p_lower.dtype == bounds.q_upper.dtype == np.float64
    assert bounds.p_lower.shape == bounds.q_upper.shape == (1,)


@pytest.mark.parametrize("name", bounds_of("hard"))
def test_huge_counts_and_tiny_failure(name):
    counts = np.array([[10**9 - 5, 5], [10**9, 0], [0, 10**9]])
    bounds = bound_counts(counts, np.zeros(3, np.int64), 1e-12, name)
    assert np.all((bounds.p_lower >= 0) & (bounds.p_lower < 1))
    assert 1 - 1e-7 < bounds.p_lower[0] < bounds.p_lower[1]
    assert bounds.p_lower[2] <= 1e-7
    assert bounds.q_upper[2] == 1
    assert np.all(bounds.q_upper > 0)


@pytest.mark.parametrize("name", bounds_of("hard"))
@pytest.mark.parametrize("counts, selected", [
    ([[9.0, 1.0]], [0]), ([[9, 1]], [0.0]), ([[9, 1]], [2]), ([[9, 1]], [-1]), ([9, 1], [0]), ([[9]], [0]),
    ([[9, 1]], [0, 1]), ([[0, 0]], [0]), ([[9, -1]], [0]), ([[9, 1]], 0),
])  # fmt: skip
def test_bad_counts_are_refused(name, counts, selected):
    with pytest.raises(ParameterError) as caught:
        bound_counts(np.array(counts), np.array(selected), 0.01, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", bounds_of("hard"))
@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-3, 2.0, float("nan")])
def test_bad_failure_probability(name, delta):
    with pytest.raises(ParameterError) as caught:
        bound_counts(np.array([[9, 1]]), np.array([0]), delta, name)
    assert str(delta) in str(caught.value)


def test_unknown_bound():
    with pytest.raises(ParameterError) as caught:
        bound_counts(np.array([[9, 1]]), np.array([0]), 0.01, "wilson")
    assert "wilson" in str(caught.value)
    assert all(name in str(caught.value) for name in bounds_of("hard"))
