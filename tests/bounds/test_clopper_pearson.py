"""Clopper-Pearson bounds against exact binomial tails, ball arithmetic, statsmodels and 40-digit quantiles."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb
from pathlib import Path

import mpmath
import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from certmix.bounds import clopper_pearson as cp
from certmix.errors import ParameterError

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "radii.json").read_text())["clopper_pearson"]
DELTAS = [0.5, 0.3, 0.1, 0.025, 0.001, 1e-6, 1e-12]
quick = settings(deadline=None, max_examples=100)
deltas = st.one_of(st.floats(1e-12, 0.5), st.sampled_from([1e-12, 0.001, 0.05]))


@st.composite
def count_pairs(draw):
    n = draw(st.one_of(st.integers(1, 200), st.integers(1, 10**6)))
    return draw(st.one_of(st.integers(0, n), st.just(0), st.just(n), st.integers(0, min(n, 20)))), n


def outwards(value, true, side):
    """How far a bound lies on its safe side of the true quantile, as a Decimal."""
    return (Decimal(true) - Decimal(value)) * (1 if side == "lower" else -1)


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_never_inside_the_true_quantile(side):
    inside = []
    with localcontext() as context:
        context.prec = 60
        for row in GOLDEN:
            value = float(getattr(cp, f"{side}_bound")(row["k"], row["n"], row["delta"]))
            if outwards(value, row[side], side) < 0:
                inside.append((row["k"], row["n"], row["delta"], value, row[side]))
    assert not inside, f"(k, n, delta, bound, true quantile): {inside}"


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_close_to_the_true_quantile(side):
    """2e-12 of the distance to the nearer end of [0, 1], plus a few units of rounding."""
    with localcontext() as context:
        context.prec = 60
        for row in GOLDEN:
            true = Decimal(row[side])
            value = float(getattr(cp, f"{side}_bound")(row["k"], row["n"], row["delta"]))
            allowed = Decimal("2e-12") * min(true, 1 - true) + Decimal("5e-16")
            assert abs(outwards(value, row[side], side)) <= allowed, (row, value)


def test_golden_file_covers_the_extremes():
    assert {10**9, 1} <= {row["n"] for row in GOLDEN}
    assert any(row["k"] == 0 for row in GOLDEN)
    assert any(row["k"] == row["n"] for row in GOLDEN)
    assert min(row["delta"] for row in GOLDEN) <= 1e-12


def lower_tail(k, n, p):
    """P(Bin(n, p) <= k) in 40 digits, for small k."""
    with mpmath.workdps(40):
        p = mpmath.mpf(p)
        term = total = mpmath.exp(n * mpmath.log1p(-p))
        for j in range(k):
            term = term * (n - j) / (j + 1) * p / (1 - p)
            total += term
        return total


@pytest.mark.parametrize("n", [10, 1000, 10**5, 10**6, 10**7, 10**8, 10**9])
def test_upper_bounds_of_few_successes_leave_at_most_delta(n):
    """At the bound itself so few successes have probability <= delta, however many trials."""
    too_likely = []
    for k in (0, 1, 2, 3, 5):
        for delta in (0.3, 0.025, 0.001, 1e-9):
            excess = float(lower_tail(k, n, float(cp.upper_bound(k, n, delta))) / delta - 1)
            if excess > 0:
                too_likely.append((k, n, delta, excess))
    assert not too_likely, f"(k, n, delta, P / delta - 1): {too_likely}"


@pytest.mark.parametrize("delta", [5e-324, 1e-320, 1e-310, 1e-300, 1e-100, 1e-6, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("n", [1, 20, 100, 10**4, 10**6, 10**8, 10**9])
def test_tails_in_ball_arithmetic(n, delta):
    """P(at least k) <= delta is proved at the bound, and fails 2.2e-12 of the nearer end further in."""
    ctx.prec = 160
    k = sorted({k for k in (0, 1, 2, 20, n // 1000, n // 9, n // 2, n - n // 1000, n - 2, n) if 0 <= k <= n})
    low, high = cp.lower_bound(np.array(k), n, delta), cp.upper_bound(np.array(k), n, delta)
    for j, lower, upper in zip(k, low.tolist(), high.tolist(), strict=True):
        for side, least, found in (("lower", j, arb(lower)), ("upper", n - j, 1 - arb(upper))):
            bound = lower if side == "lower" else upper
            further = found + arb(2.2e-12) * min(bound, 1 - bound) + arb(2.3e-16) * bound + arb(1e-323)
            if least > 0:
                where = (side, j, n, delta, bound)
                assert found == 0 or found.beta_lower(arb(least), arb(n - least + 1), 1) <= arb(delta), where
                tight = further >= 1 or further.beta_lower(arb(least), arb(n - least + 1), 1) > arb(delta)
                assert tight, where


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize("delta", [0.5, 0.3, 0.025, 1e-12])
def test_tails_in_fractions(n, delta):
    """P_lower(X >= k) <= delta <= P_{slightly above}(X >= k), without any rounding."""
    k = np.arange(n + 1)
    low, high = cp.lower_bound(k, n, delta), cp.upper_bound(k, n, delta)

    def at_least(j, p):
        return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(j, n + 1))

    for j in range(n + 1):
        if j > 0:
            assert at_least(j, Fraction(low[j])) <= Fraction(delta)
            assert at_least(j, Fraction(low[j] * (1 + 1e-11))) > Fraction(delta)
        if j < n:
            p = Fraction(high[j])
            assert 1 - at_least(j + 1, p) <= Fraction(delta)
            inner = (
                1 - (1 - p) * (1 + Fraction(1, 10**11))
                if p > Fraction(1, 2)
                else p * (1 - Fraction(1, 10**11))
            )
            assert 1 - at_least(j + 1, inner - Fraction(5, 10**16)) > Fraction(delta)


@pytest.mark.parametrize("n", [1, 2, 5, 17, 40, 60])
@pytest.mark.parametrize("delta", DELTAS)
def test_coverage_by_enumeration(n, delta):
    """Failure probability on a fine grid, and just inside each bound, where it is largest."""
    k = np.arange(n + 1)
    low, high = cp.lower_bound(k, n, delta), cp.upper_bound(k, n, delta)
    grid = np.concatenate([np.linspace(0, 1, 401), np.nextafter(low, 0), np.nextafter(high, 1)])
    pmf = binom.pmf(k, n, grid[:, None])
    for failed in (low > grid[:, None], high < grid[:, None]):
        failure = np.where(failed, pmf, 0.0).sum(1)
        assert failure.max() <= delta * (1 + 1e-10)
        assert failure.max() >= delta * (1 - 1e-2)  # and no wider than needed


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_agrees_with_statsmodels(confidence):
    k = np.concatenate([np.arange(51), [0, 1, 400, 9_999, 10_000]])
    n = np.concatenate([np.full(51, 50), np.full(5, 10_000)])
    low, high = cp.interval(k, n, confidence)
    expected = proportion_confint(k, n, alpha=1 - confidence, method="beta")
    np.testing.assert_allclose(low, expected[0], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(high, expected[1], rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(low, cp.lower_bound(k, n, (1 - confidence) / 2))
    np.testing.assert_array_equal(high, cp.upper_bound(k, n, (1 - confidence) / 2))


@pytest.mark.parametrize("n", [1, 10, 10**5, 10**9])
@pytest.mark.parametrize("delta", DELTAS)
def test_ends(n, delta):
    assert cp.lower_bound(0, n, delta) == 0
    assert cp.upper_bound(n, n, delta) == 1
    assert cp.lower_bound(n, n, delta) == pytest.approx(delta ** (1 / n), rel=1e-11)
    assert cp.upper_bound(0, n, delta) == pytest.approx(-np.expm1(np.log(delta) / n), rel=1e-8)
    assert cp.lower_bound(n, n, delta) < 1
    assert cp.upper_bound(0, n, delta) > 0


@quick
@given(count_pairs(), deltas)
def test_symmetry(pair, delta):
    k, n = pair
    low, high = cp.lower_bound(k, n, delta), cp.upper_bound(n - k, n, delta)
    assert low == pytest.approx(1 - high, rel=0, abs=4e-12 * min(low, 1 - low) + 1e-15)


@quick
@given(count_pairs(), deltas, deltas)
def test_nested_and_in_range(pair, one, other):
    k, n = pair
    low, high = cp.lower_bound(k, n, [one, other][one > other]), cp.upper_bound(k, n, min(one, other))
    assert 0 <= low <= cp.lower_bound(k, n, max(one, other)) <= k / n
    assert k / n <= cp.upper_bound(k, n, max(one, other)) <= high <= 1


@quick
@given(count_pairs(), deltas)
def test_monotone_in_counts(pair, delta):
    k, n = pair
    for bound in (cp.lower_bound, cp.upper_bound):
        here = bound(k, n, delta)
        assert bound(k, n + 1, delta) <= here  # one more failure
        assert bound(k + 1, n + 1, delta) >= here  # one more success
        if k < n:
            assert bound(k + 1, n, delta) >= here


def test_strictly_increasing_at_a_million():
    k = np.arange(0, 10**6 + 1, 997)
    for bound in (cp.lower_bound, cp.upper_bound):
        assert np.all(np.diff(bound(k, 10**6, 0.001)) > 0)


def test_shapes_broadcast():
    k, n = np.array([[1], [2], [3]]), np.array([10, 20])
    assert cp.lower_bound(k, n, 0.01).shape == (3, 2)
    assert cp.upper_bound(np.zeros(0, int), np.zeros(0, int), 0.01).shape == (0,)
    assert np.shape(cp.lower_bound(3, 10, 0.01)) == ()
    np.testing.assert_array_equal(
        cp.upper_bound(k, n, 0.01)[1], [cp.upper_bound(2, m, 0.01) for m in (10, 20)]
    )
    assert cp.lower_bound(np.uint8(200), np.uint8(255), 0.01) == cp.lower_bound(200, 255, 0.01)
    assert cp.lower_bound(np.int8([100]), np.int64([10**9]), 0.01) == cp.lower_bound(100, 10**9, 0.01)


@pytest.mark.parametrize("bound", [cp.lower_bound, cp.upper_bound, cp.interval])
@pytest.mark.parametrize("k, n", [(5.0, 10), (5, 10.0), (np.array([5.5]), 10), (True, 10), ("5", 10)])
def test_only_whole_numbers(bound, k, n):
    with pytest.raises(ParameterError, match="whole numbers"):
        bound(k, n, 0.1)


@pytest.mark.parametrize("bound", [cp.lower_bound, cp.upper_bound, cp.interval])
@pytest.mark.parametrize("k, n", [(-1, 10), (11, 10), (0, 0), ([3, 12], [10, 10])])
def test_impossible_counts(bound, k, n):
    with pytest.raises(ParameterError) as caught:
        bound(k, n, 0.1)
    assert "0 <= successes <= trials" in str(caught.value)


@pytest.mark.parametrize("k, n, found", [(-7, 10, "-7"), (13, 10, "13")])
def test_message_states_the_impossible_count(k, n, found):
    with pytest.raises(ParameterError) as caught:
        cp.lower_bound(k, n, 0.1)
    assert found in str(caught.value)


@pytest.mark.parametrize("bound", [cp.lower_bound, cp.upper_bound])
@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_failure_probability_out_of_range(bound, delta):
    with pytest.raises(ParameterError) as caught:
        bound(5, 10, delta)
    assert str(delta) in str(caught.value)
    assert "between 0 and 1" in str(caught.value)


@pytest.mark.parametrize("confidence", [1.5, 95, 1.0, -0.2])
def test_interval_names_the_confidence_it_refuses(confidence):
    """A message about a failure probability of -47 does not help who wrote confidence=95."""
    with pytest.raises(ParameterError) as caught:
        cp.interval(5, 10, confidence)
    assert str(confidence) in str(caught.value)
