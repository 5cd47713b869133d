"""The prediction test: against the exact binomial test, and its errors by enumeration."""

import itertools
from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest

from certmix.bounds import is_established


def two_sided_p_value(top, runner_up):
    """Exact: twice the upper tail of a fair coin, at most 1."""
    n = top + runner_up
    tail = Fraction(sum(comb(n, i) for i in range(max(top, runner_up), n + 1)), 2**n)
    return min(Fraction(1), 2 * tail)


@pytest.mark.parametrize("delta", [0.5, 0.1, 0.001])
def test_equals_the_exact_binomial_test(delta):
    for n in (1, 2, 9, 30, 31):
        for top in range((n + 1) // 2, n + 1):
            p_value = two_sided_p_value(top, n - top)
            if abs(p_value - Fraction(delta)) > Fraction(1, 10**9):
                assert is_established(top, n - top, delta) == (p_value <= Fraction(delta)), (top, n - top)


def test_monotone_and_large():
    decisions = [is_established(top, 1000 - top, 0.001) for top in range(500, 1001)]
    assert decisions == sorted(decisions)
    assert decisions[0] is False
    assert decisions[-1] is True
    assert is_established(99_000, 1_000, 1e-12)
    assert not is_established(50_001, 49_999, 0.001)
    assert is_established(np.int64(80), np.int64(20), 0.001)


@pytest.mark.parametrize("delta", [0.2, 0.05])
@pytest.mark.parametrize("n", [6, 15, 22])
def test_a_wrong_class_is_rarely_returned(n, delta):
    """Three classes, all counts: P(the most voted is established and not the most probable) <= delta."""
    counts = [(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)]
    returned = {}
    for row in counts:
        order = sorted(range(3), key=lambda i: -row[i])
        if is_established(row[order[0]], row[order[1]], delta):
            returned[row] = order[0]
    assert returned
    tiny = 1e-9
    grid = [(i / 20, j / 20) for i, j in itertools.product(range(21), repeat=2) if i + j <= 20]
    grid += [(0.5 + tiny, 0.5 - tiny), (0.4 + tiny, 0.4), (1 / 3 + tiny, 1 / 3), (0.45 + tiny, 0.45)]
    worst = 0.0
    for a, b in grid:
        h = (a, b, max(0.0, 1 - a - b))
        best = max(h)
        wrong = 0.0
        for row, winner in returned.items():
            if h[winner] < best - 1e-12:
                ways = factorial(n) // (factorial(row[0]) * factorial(row[1]) * factorial(row[2]))
                wrong += ways * h[0] ** row[0] * h[1] ** row[1] * h[2] ** row[2]
        worst = max(worst, wrong)
    assert worst <= delta
    assert worst > 0.05 * delta


@pytest.mark.parametrize("top, runner_up, delta", [
    (9, 1, 0.0), (9, 1, 1.0), (9, 1, float("nan")), (5, -3, 0.01), (5.5, 3, 0.01),
])  # fmt: skip
def test_impossible_arguments_are_refused(top, runner_up, delta):
    with pytest.raises((ValueError, TypeError)):  # ParameterError is a ValueError
        is_established(top, runner_up, delta)


@pytest.mark.parametrize("top, runner_up", [(20, 80), (0, 50), (0, 0)])
def test_the_runner_up_is_never_established(top, runner_up):
    """Votes handed over in the wrong order must not establish the loser."""
    assert not is_established(top, runner_up, 0.9)
