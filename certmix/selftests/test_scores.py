"""Bounds of mean scores, and of layers of scores: their promises by enumerating all outcomes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from certmix.bounds import betting, bound_scores, bounds_of
from certmix.bounds.layers import bound_layers, layered_radii
from certmix.bounds.means import own_values
from certmix.bounds.statistics import start, update
from certmix.selftests.cases import all_counts, cases, multinomial

MEANS = list(bounds_of("soft", distribution=False))
TRIALS = 9
HALVES = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])  # what one sample's scores can be
VOTES = np.eye(3)
HALF = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])


def statistics(values, counts, rivals=(1,)):
    return [update(start(values.shape[1], 0, rivals), np.repeat(values, row, axis=0)) for row in counts]


def laws_for(values, p):
    """A grid of laws over the rows of `values`, and those whose mean lies just below each p."""
    own, kinds = values[:, 0], len(values)
    laws = [all_counts({2: 60, 3: 24, 4: 9}[kinds], kinds)]
    laws[0] = laws[0] / laws[0].sum(1, keepdims=True)
    for target in np.unique(np.clip(np.nextafter(p, 0), own.min(), own.max())):
        for i, j in itertools.permutations(range(kinds), 2):
            if own[i] < own[j] and own[i] <= target <= own[j]:
                weight = (target - own[i]) / (own[j] - own[i])
                laws.append((1 - weight) * np.eye(kinds)[[i]] + weight * np.eye(kinds)[[j]])
    return np.vstack(laws)


def failures(name, values, delta, rivals=(1,), trials=TRIALS):
    """Laws, and the probability under each that p or q is wrong."""
    counts = all_counts(trials, len(values))
    found = bound_scores(statistics(values, counts, rivals), delta, name)
    laws = laws_for(values, found.p_lower)
    h = laws @ values
    wrong = (found.p_lower > h[:, :1] + 1e-15) | (found.q_upper < h[:, 1:].max(1, keepdims=True) - 1e-15)
    return laws, np.where(wrong, multinomial(counts, laws), 0.0).sum(1)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("delta", [0.6, 0.1])
@pytest.mark.parametrize("values, rivals", [(HALVES[[0, 2]], [1]), (HALVES, [1]), (VOTES, [1]), (HALF, [])])
def test_joint_coverage(name, delta, values, rivals):
    assert failures(name, values, delta, rivals)[1].max() <= delta * (1 + 1e-9)


@pytest.mark.parametrize(
    "name, used", [("relative-entropy", 0.3), ("hoeffding", 0.1), ("betting", 0.05), ("betting-fixed", 0.05)]
)
def test_the_budget_is_used(name, used):
    """The test above can fail: some laws come near to what was promised."""
    assert failures(name, HALVES, 0.6)[1].max() >= used * 0.6


def test_votes_are_not_the_worst_case_of_every_bound():
    """Coverage has to be seen on other laws than 0/1: betting on sums and bins fails oftener on them."""
    laws, failure = failures("betting", HALVES, 0.6, trials=14)
    assert failure.max() > failure[laws[:, 1] == 0].max() * 1.05


@cases
@given(st.integers(0, 99), st.integers(2, 200), st.sampled_from([0.4, 0.05, 0.001, 1e-9]))
def test_nested_and_around_the_mean(seed, n, delta):
    own = np.round(np.random.default_rng(seed).beta(2, 1 + seed % 3, n) * 1024) / 1024
    input = update(start(2, 0, [1]), np.stack([own, 1 - own], 1))
    for name in MEANS:
        wide, narrow = (bound_scores([input], d, name) for d in (delta / 2, delta))
        assert 0 <= wide.p_lower[0] <= narrow.p_lower[0] + 1e-12 <= input.means()[0] + 2e-12
        assert 1 >= wide.q_upper[0] >= narrow.q_upper[0] - 1e-12 >= input.means()[1] - 2e-12


# -------------------------------------------------------------------- betting


def test_plug_in_bets_over_all_sequences():
    """All sequences of 8 values 0 or 1 and of 5 values 0, 1/2 or 1, tuned for n or not."""
    for values, n in (((0.0, 1.0), 8), ((0.0, 0.5, 1.0), 5)):
        sequences = np.array(list(itertools.product(range(len(values)), repeat=n)))
        counts = np.stack([(sequences == k).sum(1) for k in range(len(values))], 1)
        grid = all_counts(40 if len(values) == 2 else 16, len(values))
        laws = grid / grid.sum(1, keepdims=True)
        with np.errstate(divide="ignore"):
            chance = np.exp(np.maximum(np.log(laws), -1e5) @ counts.T)
        for planned, delta in itertools.product((None, n), (0.5, 0.2)):
            low = np.array([betting.lower_bound(np.array(values)[row], delta, planned) for row in sequences])
            wrong = low > (laws @ values)[:, None] + 1e-15
            failure = np.where(wrong, chance, 0.0).sum(1)
            assert 0.1 * delta < failure.max() <= delta * (1 + 1e-9)


def test_betting_on_sums_holds_at_all_times_at_once():
    """Probability that the bound is ever wrong within 40 samples, by recursion over (samples, ones)."""
    most, delta = 40, 0.5
    low = np.full((most + 1, most + 1), -1.0)
    for n in range(1, most + 1):
        for ones in range(n + 1):
            kept = update(start(2, 0), np.repeat([[1.0, 0.0], [0.0, 1.0]], [ones, n - ones], axis=0))
            low[n, ones] = betting._lower(own_values(kept), delta, 1.0)
    worst = 0.0
    for h in [*np.linspace(0.02, 0.98, 25), *np.nextafter(low[most, 20:], 0)]:
        alive, ever = np.zeros(most + 1), 0.0
        alive[0] = 1.0
        for n in range(1, most + 1):
            alive = alive * (1 - h) + np.concatenate([[0.0], alive[:-1]]) * h
            wrong = low[n] > h
            ever += alive[wrong].sum()
            alive[wrong] = 0.0
        worst = max(worst, ever)
    assert 0.1 * delta < worst <= delta


# --------------------------------------------------------------------- layers


def true_radius(law, alpha):
    """Largest t that the law of a score in {0, 1/2, 1} and its complement allow, sigma = 1."""
    tails = np.array([1 - law[0], law[2]])

    def excess(t):
        return 2 * ndtr(ndtri(tails) - t).mean() - 1 - (1 - alpha) / alpha

    if excess(0.0) <= 0:
        return 0.0
    return brentq(excess, 0.0, 50.0, xtol=1e-13) if excess(50.0) < 0 else math.inf


@pytest.mark.parametrize("delta, alpha", [(0.8, 1.0), (0.8, 0.7), (0.2, 0.9)])
def test_radii_from_layers(delta, alpha):
    """Nested half-spaces attain the true radius: a larger one is false, with probability <= delta."""
    counts = all_counts(30, 3)
    radii = layered_radii(bound_layers(statistics(HALVES, counts), delta), sigma=1.0, alpha=alpha).radius
    laws = counts / counts.sum(1, keepdims=True)
    true = np.array([true_radius(law, alpha) for law in laws])
    failure = np.where(radii > true[:, None] + 1e-9, multinomial(counts, laws), 0.0).sum(1)
    assert 0.001 * delta < failure.max() <= delta * (1 + 1e-9)
    assert radii.max() > 0


@pytest.mark.parametrize("delta", [0.8, 0.2])
def test_layers_hold_together(delta):
    """All layers of the selected class, of the followed rival and the rest at once."""
    counts = all_counts(TRIALS, 4)
    found = bound_layers(statistics(HALF, counts), delta)
    laws = laws_for(HALF, np.array([0.5]))
    cut = found.own_lower.shape[1] // 2
    own = np.stack([laws[:, 1:].sum(1), laws[:, 3]], 1)  # P[score >= s] up to 1/2, and above
    rival = np.stack([laws[:, :2].sum(1), laws[:, 0]], 1)
    own, rival = (np.repeat(x, cut, axis=1)[:, None] for x in (own, rival))
    wrong = (found.own_lower > own + 1e-12).any(2)
    wrong |= (found.rival_upper[:, 0] < rival - 1e-12).any(2)
    wrong |= found.rest_upper < 0.5 * laws[:, 2:3] - 1e-12
    failure = np.where(wrong, multinomial(counts, laws), 0.0).sum(1)
    assert 0.01 * delta < failure.max() <= delta * (1 + 1e-9)
