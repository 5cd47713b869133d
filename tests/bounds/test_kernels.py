"""Kernels compute what plain numpy does, and numba is left alone until it is needed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from certmix.bounds import betting, clopper_pearson
from certmix.bounds.bound import selected_and_runner_up
from certmix.kernels import kernel

DRAWN = {
    "mixed": lambda rng, n: rng.random(n), "zeros": lambda rng, n: np.zeros(n), "ones": lambda rng, n: np.ones(n),
    "rare": lambda rng, n: (rng.random(n) < 0.01).astype(float), "rising": lambda rng, n: np.sort(rng.random(n)),
}  # fmt: skip


def refutes_in_parts(values, bets, m, wanted):
    """Return what the kernel does, by numpy: so many factors are multiplied at a time that none overflows."""
    capital, scale, largest, most = 1.0, 0, betting.SHARE / m, float(bets.max())
    whole, most = most <= largest, min(most, largest)
    step = int(500 / max(-math.log2(1.0 - most * m), math.log2(1.0 + most * (1.0 - m)), 500 / 4096))
    for begin in range(0, len(values), step):
        part = slice(begin, begin + step)
        product = values[part] - m
        product *= bets[part] if whole else np.minimum(bets[part], largest)
        product += 1.0
        product[0] *= capital
        np.cumprod(product, out=product)
        top, power = math.frexp(product.max())
        if power + scale > 1000 or math.ldexp(top, power + scale) >= wanted:
            return True
        capital, power = math.frexp(product[-1])
        scale += power
    return False


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("size", [1, 2, 50, 9000])
def test_a_betting_bound_is_the_same_without_numba(monkeypatch, drawn, size):
    values, found = DRAWN[drawn](np.random.default_rng(size), size), []
    for refutes in (betting._sequence_refutes, refutes_in_parts):
        monkeypatch.setattr(betting, "_sequence_refutes", refutes)
        found.append([
            bound(values, delta, planned) for bound in (betting.lower_bound, betting.upper_bound)
            for delta in (0.025, 1e-80) for planned in (None, 10 * size)
        ])  # fmt: skip
    assert found[0] == found[1]


def test_a_binomial_bound_is_the_same_without_numba(monkeypatch):
    trials = np.array([1, 2, 10, 1000, 100_000])
    successes, found = trials * np.arange(5)[:, None] // 4, []
    for fraction in (clopper_pearson._fraction, clopper_pearson._fraction.plain):
        monkeypatch.setattr(clopper_pearson, "_fraction", fraction)
        with np.errstate(all="ignore"):
            found.append(clopper_pearson.interval(successes, trials, 0.05))
    np.testing.assert_array_equal(*found)


@kernel()
def _square(x):
    """x squared."""
    return x * x


@kernel()
def _squares(values):
    """The sum of squares; from ten on 1 is added."""
    total = 0.0 if len(values) < 10 else 1.0
    for k in range(len(values)):
        total += _square(values[k])
    return total


def test_kernels_call_kernels():
    assert _squares(np.arange(12.0)) == 507.0
    assert _squares.__doc__.startswith("The sum")


def test_votes_of_the_selected_class_and_the_runner_up():
    counts = np.random.default_rng(0).integers(0, 9, (50, 4))
    selected = np.arange(50) % 4
    votes, rivals = selected_and_runner_up(counts, selected)
    for row, own, vote, rival in zip(counts, selected, votes, rivals, strict=True):
        assert vote == row[own] and rival == np.delete(row, own).max()
