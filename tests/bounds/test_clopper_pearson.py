"""Clopper-Pearson bounds against exact binomial tails, ball arithmetic and 40-digit quantiles."""

import json
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from flint import arb, ctx

from certmix.bounds import clopper_pearson as cp
from certmix.errors import ParameterError

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "radii.json").read_text())["clopper_pearson"]


def outwards(value, true, side):
    """How far a bound lies on its safe side of the true quantile, as a Decimal."""
    return (Decimal(true) - Decimal(value)) * (1 if side == "lower" else -1)


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_never_inside_the_true_quantile_and_close_to_it(side):
    """2e-12 of the distance to the nearer end of [0, 1], plus a few units of rounding."""
    wrong = []
    with localcontext() as context:
        context.prec = 60
        for row in GOLDEN:
            value = float(getattr(cp, f"{side}_bound")(row["k"], row["n"], row["delta"]))
            true = Decimal(row[side])
            allowed = Decimal("2e-12") * min(true, 1 - true) + Decimal("5e-16")
            if not 0 <= outwards(value, row[side], side) <= allowed:
                wrong.append((row["k"], row["n"], row["delta"], value, row[side]))
    assert not wrong, f"(k, n, delta, bound, true quantile): {wrong}"
    assert {10**9, 1} <= {row["n"] for row in GOLDEN}
    assert any(row["k"] == 0 for row in GOLDEN) and any(row["k"] == row["n"] for row in GOLDEN)
    assert min(row["delta"] for row in GOLDEN) <= 1e-12


DELTAS = (5e-324, 1e-320, 1e-310, 1e-300, 1e-100, 1e-6, 0.001, 0.3, 0.9, 0.999)
FEW = {10**4: (5e-324, 1e-100, 0.001, 0.999), 10**9: (1e-320, 1e-6, 0.3), 10**6: (), 10**8: ()}
"""Probabilities of the short suite for many trials."""


@pytest.mark.parametrize(
    ("n", "delta"),
    [
        pytest.param(n, delta, marks=[pytest.mark.long] * (delta not in FEW.get(n, DELTAS)))
        for n in (1, 20, 100, 10**4, 10**6, 10**8, 10**9)
        for delta in DELTAS
    ],
)
def test_tails_in_ball_arithmetic(n, delta):
    """P(at least k) <= delta is proved at the bound, and fails 2.2e-12 of the nearer end further in."""
    ctx.prec = 160
    k = sorted(
        {k for k in (0, 1, 2, 3, 5, 20, n // 1000, n // 9, n // 2, n - n // 1000, n - 2, n) if 0 <= k <= n}
    )
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


def test_shapes_broadcast():
    k, n = np.array([[1], [2], [3]]), np.array([10, 20])
    halves = (1 - 0.95) / 2  # of an interval's two sides
    np.testing.assert_array_equal(
        cp.interval(k, n), [cp.lower_bound(k, n, halves), cp.upper_bound(k, n, halves)]
    )
    assert cp.lower_bound(k, n, 0.01).shape == (3, 2)
    assert cp.upper_bound(np.zeros(0, int), np.zeros(0, int), 0.01).shape == (0,)
    assert np.shape(cp.lower_bound(3, 10, 0.01)) == ()
    np.testing.assert_array_equal(
        cp.upper_bound(k, n, 0.01)[1], [cp.upper_bound(2, m, 0.01) for m in (10, 20)]
    )
    assert cp.lower_bound(np.uint8(200), np.uint8(255), 0.01) == cp.lower_bound(200, 255, 0.01)
    assert cp.lower_bound(np.int8([100]), np.int64([10**9]), 0.01) == cp.lower_bound(100, 10**9, 0.01)


@pytest.mark.parametrize("bound", [cp.lower_bound, cp.upper_bound, cp.interval])
@pytest.mark.parametrize("k, n, told", [
    (5.0, 10, "whole numbers"), (5, 10.0, "whole numbers"), (np.array([5.5]), 10, "whole numbers"),
    (True, 10, "whole numbers"), ("5", 10, "whole numbers"), (-7, 10, "-7 .*0 <= successes <= trials"),
    (13, 10, "13 .*0 <= successes <= trials"), (0, 0, "trials >= 1"), ([3, 12], [10, 10], "12 successes"),
])  # fmt: skip
def test_impossible_counts_are_refused(bound, k, n, told):
    with pytest.raises(ParameterError, match=told):
        bound(k, n, 0.1)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 95, float("nan"), float("inf")])
def test_failure_probability_and_confidence_out_of_range(delta):
    """A message about a failure probability of -47 does not help who wrote confidence=95."""
    for bound in (cp.lower_bound, cp.upper_bound, cp.interval):
        with pytest.raises(ParameterError, match=f"= {delta}:.*between 0 and 1"):
            bound(5, 10, delta)
