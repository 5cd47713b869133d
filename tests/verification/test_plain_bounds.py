"""The second implementation of bounds: closed forms, and agreement with the first one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from certmix.bounds import bound_counts, bound_scores, bounds_of
from certmix.bounds.clopper_pearson import interval as kernel_interval
from certmix.bounds.layers import bound_layers, layered_radii
from certmix.bounds.statistics import plan, start, update
from certmix.sampling import schedule
from certmix.verification import plain

DELTAS = st.floats(-9, -0.05).map(lambda power: 10.0**power)


def test_every_bound_of_the_table_has_a_plain_twin():
    assert set(plain.VOTE_BOUNDS) == set(bounds_of("hard"))
    assert {*plain.SCORE_BOUNDS, "layers"} == set(bounds_of("soft"))


@pytest.mark.parametrize("n", [1, 10, 100, 100_000])
@pytest.mark.parametrize("delta", [0.5, 0.001, 1e-9])
def test_n_of_n_has_a_closed_form(n, delta):
    assert plain.proportion_lower(n, n, delta) == pytest.approx(delta ** (1 / n), rel=1e-14)
    assert plain.proportion_upper(0, n, delta) == pytest.approx(-math.expm1(math.log(delta) / n), rel=1e-9)
    assert plain.proportion_lower(0, n, delta) == 0
    assert plain.proportion_upper(n, n, delta) == 1


def test_one_of_n_has_a_closed_form():
    assert plain.proportion_lower(1, 500, 0.001) == pytest.approx(
        -math.expm1(math.log1p(-0.001) / 500), rel=1e-9
    )


@given(st.integers(1, 4000), st.floats(0, 1), DELTAS)
@settings(max_examples=30, deadline=None)
def test_the_tail_at_the_lower_bound_is_the_failure_probability(n, fraction, delta):
    k = max(1, round(fraction * n))
    p = plain.proportion_lower(k, n, delta)
    assert binom.sf(k - 1, n, p) == pytest.approx(delta, rel=1e-6)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6).filter(any), st.integers(0, 5), DELTAS)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("bound", bounds_of("hard"))
def test_votes_agree(bound, counts, selected, delta):
    """The published side is never beyond the plain one, and near it (relative to the end of [0, 1])."""
    votes, y = np.array(counts, np.int64), selected % len(counts)
    found = bound_counts(votes[None], np.array([y]), delta, bound)
    p, q = plain.VOTE_BOUNDS[bound](votes, y, delta)
    published_p, published_q = float(found.p_lower[0]), float(found.q_upper[0])
    near = 1e-9 if bound != "beta-binomial" else 1e-7  # the kernel gives 1e-9 of log(1/delta) away
    one = 4e-16
    assert published_p <= p + 1e-9 * min(p, 1 - p) + one
    assert published_p >= p - near * min(p, 1 - p) - one
    assert published_q >= q - 1e-9 * min(q, 1 - q) - one
    assert published_q <= q + near * max(min(q, 1 - q), min(p, 1 - p)) + 1e-13


@pytest.mark.parametrize("k, n", [(0, 7), (7, 7), (40, 100), (9_999, 10_000), (3, 500)])
def test_intervals_agree(k, n):
    low, high = plain.interval(k, n)
    assert (low, high) == pytest.approx(tuple(map(float, kernel_interval(k, n))), abs=1e-11)


def test_looks_and_shares_are_those_of_the_schedule():
    assert plain.looks(10**7) == list(schedule.looks(10**7))
    assert [plain.share(k) for k in range(90)] == pytest.approx(
        [schedule.share(k) for k in range(90)], rel=1e-12
    )
    assert math.fsum(plain.share(k) for k in range(300)) < 1


def statistics(rng: np.random.Generator, classes: int, n: int, spread: float):
    scores = rng.dirichlet(spread * rng.uniform(0.1, 3, classes), size=n + 30)
    scores /= scores.sum(1, keepdims=True)
    return update(plan(update(start(classes, 0), scores[:30])), scores[30:])


@given(
    st.integers(0, 2**32), st.integers(2, 5), st.integers(2, 3000), st.floats(-2, 1.5), st.floats(-6, -0.3)
)
@settings(max_examples=20, deadline=None)
def test_scores_agree(seed, classes, n, spread, power):
    kept, delta = statistics(np.random.default_rng(seed), classes, n, 10.0**spread), 10.0**power
    for bound in bounds_of("soft", distribution=False):
        found, (p, q) = bound_scores([kept], delta, bound), plain.SCORE_BOUNDS[bound](kept, delta)
        assert p - 2e-12 <= found.p_lower[0] <= p + 1e-15
        assert q - 1e-15 <= found.q_upper[0] <= q + 2e-12
    layers, own = bound_layers([kept], delta), plain.bound_layers(kept, delta)
    assert layers.own_lower[0] == pytest.approx(own.own, abs=1e-13)
    for alpha in (1.0, 0.76):
        published = float(layered_radii(layers, sigma=0.5, alpha=alpha).radius[0])
        radius = plain.layers_radius(own, 0.5, alpha)
        assert radius - 1e-11 * (1 + radius) <= published <= radius + 1e-15


@pytest.mark.parametrize(
    "scores", [[[1.0, 0.0]] * 50, [[0.0, 1.0]] * 50, [[0.5, 0.5]] * 50, [[1.0, 0.0], [0.0, 1.0]]]
)
def test_scores_agree_at_the_ends(scores):
    kept = update(start(2, 0, [1]), scores)
    for bound in bounds_of("soft", distribution=False):
        found, (p, q) = bound_scores([kept], 0.001, bound), plain.SCORE_BOUNDS[bound](kept, 0.001)
        assert found.p_lower[0] == pytest.approx(p, abs=1e-12)
        assert found.q_upper[0] == pytest.approx(q, abs=1e-12)


def test_relative_entropy_of_full_agreement_has_a_closed_form():
    kept = update(start(2, 0, [1]), [[1.0, 0.0]] * 200)
    p, _ = plain.SCORE_BOUNDS["relative-entropy"](kept, 0.002)
    assert p == pytest.approx(0.001 ** (1 / 200), rel=1e-14)
