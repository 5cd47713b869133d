"""The second implementation of bounds and radii: closed forms, and agreement with the first one."""

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
from certmix.radii import CERTIFICATES
from certmix.radii.constant import CONSTANTS_OF
from certmix.radii.constant import constant_radius as kernel_radius
from certmix.sampling import schedule
from certmix.verification import plain
from certmix.verification.plain import RADII, constant_radius, softmax_margin

DELTAS = st.floats(-9, -0.05).map(lambda power: 10.0**power)


def test_everything_of_the_tables_has_a_plain_twin():
    assert set(plain.VOTE_BOUNDS) == set(bounds_of("hard"))
    assert {*plain.SCORE_BOUNDS, "layers"} == set(bounds_of("soft"))
    assert set(RADII) == set(CERTIFICATES)


@pytest.mark.parametrize("n", [1, 10, 100, 100_000])
@pytest.mark.parametrize("delta", [0.5, 0.001, 1e-9])
def test_proportions_have_closed_forms(n, delta):
    assert plain.proportion_lower(n, n, delta) == pytest.approx(delta ** (1 / n), rel=1e-14)
    assert plain.proportion_lower(0, n, delta) == 0
    one = -math.expm1(math.log1p(-delta) / n)
    assert plain.proportion_lower(1, n, delta) == pytest.approx(one, rel=1e-9)


@given(st.integers(1, 4000), st.floats(0, 1), DELTAS)
@settings(max_examples=30, deadline=None)
def test_the_tail_at_the_lower_bound_is_the_failure_probability(n, fraction, delta):
    k = max(1, round(fraction * n))
    p = plain.proportion_lower(k, n, delta)
    assert binom.sf(k - 1, n, p) == pytest.approx(delta, rel=1e-6)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6).filter(any), st.integers(0, 5), DELTAS)
@settings(max_examples=30, deadline=None)
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


def test_intervals_agree():
    for k, n in ((0, 7), (7, 7), (40, 100), (9_999, 10_000), (3, 500)):
        assert plain.interval(k, n) == pytest.approx(tuple(map(float, kernel_interval(k, n))), abs=1e-11)


def test_looks_and_shares_are_those_of_the_schedule():
    assert plain.looks(10**7) == list(schedule.looks(10**7))
    shares = [schedule.share(k) for k in range(90)]
    assert [plain.share(k) for k in range(90)] == pytest.approx(shares, rel=1e-12)
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
    "scores", [[[1.0, 0.0]] * 200, [[0.0, 1.0]] * 50, [[0.5, 0.5]] * 50, [[1.0, 0.0], [0.0, 1.0]]]
)
def test_scores_agree_at_the_ends(scores):
    kept = update(start(2, 0, [1]), scores)
    for bound in bounds_of("soft", distribution=False):
        found, (p, q) = bound_scores([kept], 0.002, bound), plain.SCORE_BOUNDS[bound](kept, 0.002)
        assert found.p_lower[0] == pytest.approx(p, abs=1e-12)
        assert found.q_upper[0] == pytest.approx(q, abs=1e-12)
        if bound == "relative-entropy" and len(scores) == 200:
            assert p == pytest.approx(0.001 ** (1 / 200), rel=1e-14)


PAIRS = st.one_of(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda x: (x[0], x[1] * (1 - x[0]))),
    st.floats(-16, 0).map(lambda power: (1 - 10.0**power, 10.0**power)),
    st.tuples(st.floats(-16, 0), st.floats(-300, 0)).map(lambda x: (1 - 10.0 ** x[0], 10.0 ** (x[0] + x[1]))),
    st.sampled_from([(1.0, 0.0), (1.0, 1e-9), (0.5, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 1.0)]),
)  # fmt: skip
ALPHAS = st.one_of(st.floats(0.5, 1), st.sampled_from([0.5, 0.5 + 1e-9, 0.76, 1 - 1e-12, 1.0]))


@given(PAIRS, ALPHAS, st.floats(-3, 2).map(lambda power: 10.0**power))
@settings(max_examples=70, deadline=None)
def test_radii_agree(pair, alpha, sigma):
    """The published radius never exceeds the plain one, and lies within 1e-12 (sigma + radius) of it."""
    for name, rule in CERTIFICATES.items():
        published, own = float(rule.radius(*pair, sigma, alpha)), RADII[name](*pair, sigma, alpha)
        if math.isinf(own) or math.isinf(published):
            assert published == own
        else:
            assert own - 1e-12 * (sigma + own) <= published <= own * (1 + 1e-15)


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=6), ALPHAS, st.floats(-3, 3).map(lambda power: 10.0**power),
    st.sampled_from(list(CONSTANTS_OF)),
)  # fmt: skip
@settings(max_examples=70, deadline=None)
def test_radii_from_constants_agree(logits, alpha, constant, what):
    z = np.array(logits)
    published = float(kernel_radius(z[None], alpha, constant, what)[0][0])
    own = constant_radius(z, alpha, constant, what)
    near = 1e-12 + 1e-15 / max(2 * alpha - 1, 1e-300)  # log(1 - mu), mu rounded up, near alpha = 1/2
    assert own - near * (1 / constant + own) <= published <= own * (1 + 1e-15)


def test_a_lipschitz_network_alone_has_its_known_radius():
    z = np.array([3.0, 1.0, 0.0])
    assert constant_radius(z, 1.0, 2.0, "logits") == pytest.approx(2 / (math.sqrt(2) * 2))
    assert constant_radius(z, 1.0, 2.0, "each-logit") == pytest.approx(2 / (2 * 2))
    h = np.exp(z) / np.exp(z).sum()
    assert softmax_margin(z) == pytest.approx(h[0] - h[1])
    assert constant_radius(z, 0.76, 2.0, "probabilities") == pytest.approx((h[0] - h[1] - 0.24 / 0.76) / 4)
    assert constant_radius(z, 0.5, 2.0, "logits") == 0
