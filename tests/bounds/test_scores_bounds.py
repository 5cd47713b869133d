"""Bounds of mean scores against independent references, and the properties they must have."""

import math
import statistics as plain
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from certmix.bounds import BOUNDS, bernstein, betting, bound_scores, bounds_of, hoeffding
from certmix.bounds.betting import BETS
from certmix.bounds.means import own_values, rival_values, simplex
from certmix.bounds.statistics import ROW_SLACK, SCALE, plan, start, update
from certmix.errors import ParameterError

quick = settings(deadline=None, max_examples=40)
deltas = st.sampled_from([0.4, 0.05, 0.001, 1e-9])
LAWS = {"spread": (2, 1), "narrow": (80, 20), "votes": (0.05, 0.005), "rare": (0.1, 3)}


def scores(law, n, seed=0, classes=2):
    """Class 0 from a beta law, on a grid that rounding leaves alone; the others share the rest."""
    own = np.round(np.random.default_rng(seed).beta(*LAWS[law], n) * 1024) / 1024
    rest = [(1 - own) * share for share in ([1.0] if classes == 2 else [0.5, 0.25, 0.25])]
    return np.stack([own, *rest], 1)


def kept(rows, selected=0, rivals=(1,)):
    return update(start(rows.shape[1], selected, rivals), rows)


def lower_of(name):
    """The lower bound of a mean behind a bound of the table."""
    return BOUNDS[name].compute.keywords["lower"]


def selected_lower(name, input, delta):
    return lower_of(name)(own_values(input), delta, 1.0)


def rival_upper(name, input, delta):
    return 1 - min(lower_of(name)(rival_values(input, i), delta, 1.0) for i in input.others())


def betting_of(tuned):
    return "betting-fixed" if tuned else "betting"


MEANS = list(bounds_of("soft", distribution=False))


# -------------------------------------------------------------- references


@pytest.mark.parametrize("delta", [0.3, 0.001])
@pytest.mark.parametrize("mean, n", [(0.0, 10), (0.3, 100), (0.999, 10**5), (1.0, 1000), (1e-4, 10**6)])
def test_hoeffding_and_relative_entropy_in_40_digits(mean, n, delta):
    with mpmath.workdps(40):
        m, wanted = mpmath.mpf(mean), mpmath.log(1 / mpmath.mpf(delta)) / n
        low = max(mpmath.mpf(0), m - mpmath.sqrt(wanted / 2))
        got = hoeffding.lower_bound(mean, n, delta)
        assert low - mpmath.mpf("3e-14") <= got <= low

        def entropy(x):
            first = m * mpmath.log(m / x) if m > 0 else 0
            return first + ((1 - m) * mpmath.log((1 - m) / (1 - x)) if m < 1 else 0)

        got = mpmath.mpf(float(hoeffding.entropy_lower_bound(mean, n, delta)))
        if mean == 0:
            assert got == 0
        else:
            assert entropy(got) >= wanted
            assert entropy(got + mpmath.mpf("1e-12") * (1 + n * 1e-4)) < wanted
        high = mpmath.mpf(float(hoeffding.entropy_upper_bound(mean, n, delta)))
        assert mean < 1 or got == pytest.approx(delta ** (1 / n), rel=1e-12)  # all ones: a power
        assert high == 1 if mean == 1 else entropy(min(high, 1 - mpmath.mpf("1e-30"))) >= wanted


@pytest.mark.parametrize("law", LAWS)
def test_bernstein_is_the_theorem(law):
    """Variance by the standard library's exact fractions; 2 in the logarithm, n - 1 and 7/3."""
    rows, delta = scores(law, 200), 0.01
    own = [Fraction(x) for x in rows[:, 0]]
    mean, variance = plain.mean(own), plain.variance(own)
    width = math.sqrt(2 * variance * math.log(2 / delta) / 200) + 7 * math.log(2 / delta) / (3 * 199)
    got = selected_lower("bernstein", kept(rows), delta)
    assert max(0.0, float(mean) - width) - 2e-14 <= got <= max(0.0, float(mean) - width)
    upper = min(1.0, 1 - float(mean) + width)
    assert upper <= rival_upper("bernstein", kept(rows), delta) <= upper + 2e-14


def test_variance_does_not_cancel():
    rows, delta = np.tile([[0.75, 0.25]], (1000, 1)), 0.01
    for got in (
        selected_lower("bernstein", kept(rows), delta),
        1 - rival_upper("bernstein", kept(rows), delta),
    ):
        assert got == bernstein.lower_bound(0.75, 0.0, 1000, delta)


def hedged(values, delta, m, planned):
    """Largest log-capital of the one-sided hedged capital process, as the paper writes it."""
    log_capital, best, seen, squares = 0.0, 0.0, [], []
    for t, x in enumerate(values, start=1):
        variance = (0.25 + sum(squares)) / t  # sigma^2_{t-1}
        horizon = planned if planned else t * math.log(t + 1)
        bet = min(math.sqrt(2 * math.log(1 / delta) / (variance * horizon)), 0.75 / m)
        log_capital += math.log(1 + bet * (x - m))
        best = max(best, log_capital)
        seen.append(x)
        mean = (0.5 + sum(seen)) / (t + 1)
        squares.append((x - mean) ** 2)
    return best


@pytest.mark.parametrize("planned", [None, 120, 5000])
@pytest.mark.parametrize("law", LAWS)
def test_plug_in_bets_against_the_paper(law, planned):
    values, delta = scores(law, 120, seed=3)[:, 0].tolist(), 0.02
    for sequence, got in (
        (values, betting.lower_bound(values, delta, planned)),
        ([1 - x for x in values], 1 - betting.upper_bound(values, delta, planned)),
    ):
        if got > 0:
            assert hedged(sequence, delta, got, planned) >= math.log(1 / delta)
        assert hedged(sequence, delta, got + 1e-8, planned) < math.log(1 / delta)


def test_a_capital_that_sinks_below_every_float_can_rise_again():
    """Bold bets lose a factor 1e-400 on zeros and win it back on ones."""
    values, delta = [0.0] * 2000 + [1.0] * 2000, 0.1
    got = betting.lower_bound(values, delta, planned=1)
    assert got > 0.05
    assert math.prod([1 - min(4, 0.75 / got) * got] * 2000) == 0.0
    assert hedged(values, delta, got + 1e-8, 1) < math.log(10) <= hedged(values, delta, got, 1)


def mixture(values, m, weights):
    """Log-capital of the constant bets, sample by sample."""
    bets = np.minimum(4 * 2.0 ** (-0.5 * np.arange(BETS)), 0.99 / m)
    logs = np.log1p(bets[:, None] * (np.asarray(values)[None] - m)).sum(1)
    return np.logaddexp.reduce(logs + np.log(weights))


@pytest.mark.parametrize("n", [30, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("law", LAWS)
def test_betting_on_sums_loses_little_against_betting_on_values(law, n):
    """What is refuted from bins is refuted by the values themselves, and nearly the converse."""
    rows, delta = scores(law, n, seed=2), 0.01
    empty = plan(update(start(2, 0, [1]), scores(law, 100, seed=9)))
    for tuned in (False, True):
        label = empty.selected
        whole = update(empty, rows)
        steps = np.floor(rows[:, label] * SCALE) / SCALE
        weights = betting.weights(n, whole.deviations[label] / SCALE if tuned else 0.0)
        got = selected_lower(betting_of(tuned), whole, delta)
        mean, wanted = steps.mean(), math.log(1 / delta)
        if got > 0:
            assert mixture(steps, got, weights) >= wanted
        if mixture(steps, 1e-9, weights) > wanted:
            best = brentq(lambda m: mixture(steps, m, weights) - wanted, 1e-9, mean)  # noqa: B023
            assert best - got <= 0.03 * (mean - best) + 2e-5


def test_tuned_bets_go_by_the_class_they_are_for():
    """Each class's own deviation in the selection samples; without one, all bets weigh the same."""
    rows = scores("spread", 500, classes=4)

    def found(deviations):
        whole = update(start(4, 1, [0], deviations), rows)
        return selected_lower("betting-fixed", whole, 0.01), rival_upper("betting-fixed", whole, 0.01)

    low, high = found([16000, 8000, 1, 1])
    assert found([1, 8000, 1, 1])[0] == low != found([16000, 1, 1, 1])[0]
    assert found([16000, 1, 1, 1])[1] == high != found([1, 8000, 1, 1])[1]
    untuned = update(start(4, 1, [0], [16000, 8000, 1, 1]), rows)
    assert selected_lower("betting", untuned, 0.01) == found([0, 0, 0, 0])[0] < low
    assert rival_upper("betting", untuned, 0.01) == found([0, 0, 0, 0])[1] > high


def test_rivals_without_bins_are_bounded_from_their_sums():
    rows = scores("spread", 2000, classes=4)
    followed, alone = kept(rows, 0, [1]), kept(rows, 0, [])
    steps = 1 - np.ceil(rows[:, 1] * SCALE) / SCALE
    weights = np.full(BETS, 1 / BETS)
    for whole in (followed, alone):
        got = 1 - rival_upper("betting", whole, 0.001)
        assert mixture(steps, got - 1e-13, weights) >= math.log(1000)
    assert rival_upper("betting", followed, 0.001) <= rival_upper("betting", alone, 0.001)


def test_largest_rival_decides_whichever_it_is():
    """The shortcut that skips rivals gives the maximum over all of them."""
    rng = np.random.default_rng(4)
    rows = rng.dirichlet([5, 0.3, 2.0, 1.9, 0.01], 300)
    for rivals in ([], [3], [1, 2]):
        whole = kept(rows, 0, rivals)
        for name in MEANS:
            _, q = simplex(np.zeros(1), np.array([rival_upper(name, whole, 0.01)]), np.array([5.0]))
            p = selected_lower(name, whole, 0.01)
            expected = min(q[0], 1 - p + 1.1 * ROW_SLACK)
            assert bound_scores([whole], 0.02, name).q_upper[0] == pytest.approx(expected, abs=2e-7)


# -------------------------------------------------------------- properties


@quick
@given(st.sampled_from(sorted(LAWS)), st.integers(5, 100), st.integers(0, 99), deltas, st.data())
def test_a_higher_score_never_lowers_bounds_from_averages(law, n, seed, delta, data):
    """True of bounds that look at the mean alone; a variance may grow more than the mean."""
    rows = scores(law, n, seed)
    i = data.draw(st.integers(0, n - 1))
    raised = rows.copy()
    raised[i, 0] += (1 - rows[i, 0]) * data.draw(st.floats(0, 1))
    raised[i, 1] = 1 - raised[i, 0]
    for name in ("hoeffding", "relative-entropy"):
        before, after = (bound_scores([kept(x)], delta, name) for x in (rows, raised))
        assert after.p_lower[0] >= before.p_lower[0]
        assert after.q_upper[0] <= before.q_upper[0]


@quick
@given(st.sampled_from(sorted(LAWS)), st.integers(2, 200), st.integers(0, 99), deltas)
def test_upper_bounds_are_lower_bounds_of_the_complement(law, n, seed, delta):
    """Two classes: class 1's scores are 1 minus class 0's, so its upper bound mirrors the lower one."""
    rows = scores(law, n, seed)
    whole = kept(rows)
    for name in set(MEANS) - {"betting-fixed"}:
        assert rival_upper(name, whole, delta) == pytest.approx(
            1 - selected_lower(name, whole, delta), abs=1e-12
        )
    own = rows[:, 0]
    assert betting.upper_bound(own, delta) == pytest.approx(
        1 - betting.lower_bound(1 - own, delta), abs=1e-15
    )


@quick
@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 1000))
def test_simplex_step_in_fractions(p, q, classes):
    """Never tighter than rows that add up to 1 within the slack allow, and no looser than 1.1 of it."""
    got_p, got_q = (
        Fraction(float(x[0])) for x in simplex(np.array([p]), np.array([q]), np.array([float(classes)]))
    )
    slack = Fraction(ROW_SLACK)
    best_p = max(Fraction(p), 1 - slack - (classes - 1) * Fraction(q))
    best_q = min(Fraction(q), 1 + slack - got_p)
    assert best_p - slack / 10 <= got_p <= best_p
    assert best_q <= got_q <= best_q + slack / 10


@pytest.mark.parametrize("name", MEANS)
def test_the_simplex_step_is_taken_and_what_is_used_recorded(name):
    rows = scores("spread", 1000)
    bounds = bound_scores([kept(rows), kept(rows, 1, [0])], 0.01, name)
    np.testing.assert_allclose(bounds.q_upper, 1 - bounds.p_lower, rtol=0, atol=1.1 * ROW_SLACK)
    assert (bounds.method, bounds.failure_probability) == (name, 0.01)
    assert bounds.split == {"p": 0.005, "q": 0.005}
    assert bounds.p_lower.dtype == bounds.q_upper.dtype == np.float64
    assert bound_scores([], 0.01, name).p_lower.shape == (0,)


@pytest.mark.parametrize("name", MEANS)
def test_bad_arguments_are_refused(name):
    for statistics, delta in (
        ([start(2, 0)], 0.1), ([kept(scores("spread", 5))], 0.0), ([kept(scores("spread", 5))], math.nan),
    ):  # fmt: skip
        with pytest.raises(ParameterError) as caught:
            bound_scores(statistics, delta, name)
        assert "\n" not in str(caught.value)


def test_more_bad_arguments():
    with pytest.raises(ParameterError, match="at least 2"):
        bernstein.lower_bound(0.5, 0.1, 1, 0.1)
    with pytest.raises(ParameterError, match="variance"):
        bernstein.lower_bound(0.5, 0.6, 10, 0.1)
    with pytest.raises(ParameterError, match="outside"):
        hoeffding.lower_bound(1.1, 10, 0.1)
    for values in ([], [0.5, 1.5], [math.nan], [[0.5]]):
        with pytest.raises(ParameterError):
            betting.lower_bound(values, 0.1)
    with pytest.raises(ParameterError, match="planned"):
        betting.lower_bound([0.5], 0.1, 0)
    with pytest.raises(ParameterError, match="wilson") as caught:
        bound_scores([], 0.1, "wilson")
    assert all(name in str(caught.value) for name in MEANS)
