"""The promises of the bounds of scores, by enumerating all outcomes where that is possible."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import gammaln, ndtr, ndtri
from scipy.stats import binom

from certmix.bounds import betting, bound_scores, bounds_of
from certmix.bounds.layers import bound_layers, layered_radii
from certmix.bounds.means import own_values
from certmix.bounds.statistics import start, update

TRIALS = 9
MEANS = list(bounds_of("soft", distribution=False))
HALVES = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])  # what one sample's scores can be
VOTES = np.eye(3)
HALF = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])


def outcomes(trials, kinds):
    bars = itertools.combinations(range(trials + kinds - 1), kinds - 1)
    cuts = np.array([(-1, *b, trials + kinds - 1) for b in bars])
    return np.diff(cuts, axis=1) - 1


def probabilities(counts, laws):
    """Multinomial probability of each outcome under each law, (laws, outcomes)."""
    ways = gammaln(counts.sum(1) + 1) - gammaln(counts + 1).sum(1)
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(laws), -1e5)
    return np.exp(ways + logs @ counts.T)


def statistics(values, counts, rivals=(1,)):
    return [update(start(values.shape[1], 0, rivals), np.repeat(values, row, axis=0)) for row in counts]


def near(values, p):
    """Laws whose mean score of class 0 lies just below each p: where failures are likeliest."""
    own, laws = values[:, 0], []
    for target in np.unique(np.clip(np.nextafter(p, 0), own.min(), own.max())):
        for i, j in itertools.combinations(range(len(own)), 2):
            low, high = sorted((own[i], own[j]))
            if low < high and low <= target <= high:
                law = np.zeros(len(own))
                law[i] = (target - own[j]) / (own[i] - own[j])
                law[j] = 1 - law[i]
                laws.append(law)
    return np.array(laws).reshape(-1, len(own))


def laws_for(values, p):
    grid = outcomes({2: 60, 3: 24, 4: 9}[len(values)], len(values)).astype(float)
    return np.vstack([grid / grid.sum(1, keepdims=True), near(values, p)])


def failures(name, values, delta, rivals=(1,), trials=TRIALS):
    """Probability under each law that p or q is wrong."""
    counts = outcomes(trials, len(values))
    bounds = bound_scores(statistics(values, counts, rivals), delta, name)
    laws = laws_for(values, bounds.p_lower)
    h = laws @ values
    wrong = (bounds.p_lower > h[:, :1] + 1e-15) | (bounds.q_upper < h[:, 1:].max(1, keepdims=True) - 1e-15)
    return laws, np.where(wrong, probabilities(counts, laws), 0.0).sum(1)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("delta", [0.6, 0.1])
@pytest.mark.parametrize("values, rivals", [(HALVES[[0, 2]], [1]), (HALVES, [1]), (VOTES, [1]), (HALF, [])])
def test_joint_coverage_by_enumeration(name, delta, values, rivals):
    _, failure = failures(name, values, delta, rivals)
    assert failure.max() <= delta * (1 + 1e-9)


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


# ---------------------------------------------------------------- betting


def test_plug_in_bets_by_enumeration_of_sequences():
    """All sequences of 8 values 0 or 1 and of 5 values 0, 1/2 or 1, tuned for n or not."""
    for values, n in (((0.0, 1.0), 8), ((0.0, 0.5, 1.0), 5)):
        sequences = np.array(list(itertools.product(range(len(values)), repeat=n)))
        counts = np.stack([(sequences == k).sum(1) for k in range(len(values))], 1)
        grid = outcomes(40 if len(values) == 2 else 16, len(values)).astype(float)
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


def test_running_bound_of_plug_in_bets_never_falls():
    x = np.random.default_rng(5).beta(4, 2, 300)
    low = [betting.lower_bound(x[:n], 0.05) for n in range(20, 301, 20)]
    assert np.all(np.diff(low) >= -1e-12)


# ------------------------------------------------- laws beyond enumeration

ADVERSARIES = [
    ([0.0, 0.9, 1.0], [0.01, 0.9, 0.09]),  # rarely a disaster
    ([0.0, 0.02, 1.0], [0.49, 0.5, 0.01]),  # rarely a hit
    ([0.3, 0.5, 0.71], [0.25, 0.5, 0.25]),
]


@pytest.mark.parametrize("values, law", ADVERSARIES)
def test_coverage_of_three_point_laws_by_simulation(values, law):
    """An exact binomial test at one in a million, at delta = 0.4."""
    rng, n, runs, delta = np.random.default_rng(20), 150, 150, 0.4
    own = np.array(values)
    rows, h = np.stack([own, 1 - own], 1), float(own @ law)
    drawn = statistics(rows, rng.multinomial(n, law, runs))
    for name in MEANS:
        bounds = bound_scores(drawn, delta, name)
        wrong = int(((bounds.p_lower > h) | (bounds.q_upper < 1 - h)).sum())
        assert binom.sf(wrong - 1, runs, delta) > 1e-6, name
    for planned in (None, n):
        low = [betting.lower_bound(rng.choice(own, n, p=law), delta, planned) for _ in range(runs)]
        assert binom.sf(int(np.sum(np.array(low) > h)) - 1, runs, delta) > 1e-6


# ------------------------------------------------------------- distribution


def true_radius(law, alpha):
    """Largest t that the law of a score in {0, 1/2, 1} and its complement allow, sigma = 1."""
    tails = np.array([1 - law[0], law[2]])

    def excess(t):
        return 2 * ndtr(ndtri(tails) - t).mean() - 1 - (1 - alpha) / alpha

    if excess(0.0) <= 0:
        return 0.0
    return brentq(excess, 0.0, 50.0, xtol=1e-13) if excess(50.0) < 0 else math.inf


@pytest.mark.parametrize("delta, alpha", [(0.8, 1.0), (0.8, 0.7), (0.2, 0.9)])
def test_radii_by_enumeration(delta, alpha):
    """Nested half-spaces attain the true radius: a larger one is false, with probability <= delta."""
    counts = outcomes(30, 3)
    bounds = bound_layers(statistics(HALVES, counts), delta)
    radii = layered_radii(bounds, sigma=1.0, alpha=alpha).radius
    grid = outcomes(30, 3).astype(float)
    laws = grid / grid.sum(1, keepdims=True)
    true = np.array([true_radius(law, alpha) for law in laws])
    failure = np.where(radii > true[:, None] + 1e-9, probabilities(counts, laws), 0.0).sum(1)
    assert failure.max() <= delta * (1 + 1e-9)
    assert failure.max() > 0.001 * delta
    assert radii.max() > 0


@pytest.mark.parametrize("delta", [0.8, 0.2])
def test_layers_hold_together_by_enumeration(delta):
    """All layers of the selected class, of the followed rival and the rest at once."""
    counts = outcomes(TRIALS, 4)
    bounds = bound_layers(statistics(HALF, counts), delta)
    laws = laws_for(HALF, np.array([0.5]))
    cut = bounds.own_lower.shape[1] // 2
    own = np.stack([laws[:, 1:].sum(1), laws[:, 3]], 1)  # P[score >= s] up to 1/2, and above
    rival = np.stack([laws[:, :2].sum(1), laws[:, 0]], 1)
    own, rival = (np.repeat(x, cut, axis=1)[:, None] for x in (own, rival))
    wrong = (bounds.own_lower > own + 1e-12).any(2)
    wrong |= (bounds.rival_upper[:, 0] < rival - 1e-12).any(2)
    wrong |= bounds.rest_upper < 0.5 * laws[:, 2:3] - 1e-12
    failure = np.where(wrong, probabilities(counts, laws), 0.0).sum(1)
    assert 0.01 * delta < failure.max() <= delta * (1 + 1e-9)
