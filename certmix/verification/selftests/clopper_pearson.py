"""Clopper-Pearson bounds: coverage for every true proportion, by enumeration in whole numbers.

A lower bound L(k) that grows with k fails at the truth p when X >= k, k the
least count with L(k) > p.  That is likeliest as p nears L(k): the bound is valid
for all p if P(X >= k) <= delta at p = L(k), for every k.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb

import numpy as np

from certmix.bounds import clopper_pearson as bounds
from certmix.types import FloatArray
from certmix.verification.selftests.draws import shown
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

MOST = 24
DELTAS = (0.5, 0.1, 0.025, 0.001, 1e-9)
TRIALS = (1, 2, 3, 7, MOST)
WIDE = 1e-5


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Both sides at every count of small samples; unanimous votes of large ones."""
    pairs = [(n, delta) for n in TRIALS for delta in DELTAS]
    pairs += [
        (int(random.integers(1, MOST + 1)), float(10.0 ** -random.uniform(0.1, 9)))
        for _ in range(cases // 4 + 1)
    ]
    for n, delta in pairs:
        k = np.arange(n + 1)
        low, high = bounds.lower_bound(k, n, delta), bounds.upper_bound(k, n, delta)
        _side(tally, "lower", n, delta, low)
        _side(tally, "upper", n, delta, (1 - high)[::-1], high[::-1])
        nested = np.concatenate([np.diff(low), np.diff(high), high - low if delta <= 0.5 else []])
        tally.record(
            "bounds grow with the count, the upper above the lower", nested,
            lambda _, n=n, delta=delta: shown(trials=n, delta=delta), unit="probability",
        )  # fmt: skip
    _unanimous(random, cases, tally)


def _side(
    tally: Tally, side: str, n: int, delta: float, bound: FloatArray, above: FloatArray | None = None
) -> None:
    """Hold P(at least k successes) at the bound against delta; upper bounds count failures."""
    for k in range(1, n + 1):
        p = Fraction(float(bound[k])) if above is None else 1 - Fraction(float(above[k]))
        tail = _at_least(k, n, p)

        def case(_: int, k: int = k) -> str:
            return f"{shown(trials=n, delta=delta)}, count {k if side == 'lower' else n - k}"

        left = float(1 - tail / Fraction(delta))
        tally.record(f"{side} bounds fail with probability at most delta", [left], case, unit="of delta")
        tally.record(f"{side} bounds are no wider than that needs", [WIDE - left], case, unit="of delta")


def _at_least(k: int, n: int, p: Fraction) -> Fraction:
    """P(X >= k), X binomial, exactly."""
    a, d = p.numerator, p.denominator
    return Fraction(sum(comb(n, j) * a**j * (d - a) ** (n - j) for j in range(k, n + 1)), d**n)


def _unanimous(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """All of n successes: the bound is delta^(1/n), and 1 - delta^(1/n) for none."""
    for n in (10.0 ** random.uniform(0, 9, cases)).astype(np.int64).tolist():
        delta = float(10.0 ** -random.uniform(0.1, 12))
        with localcontext() as context:
            context.prec = 50
            root = Decimal(delta) ** (1 / Decimal(n))
            low = root - Decimal(float(bounds.lower_bound(n, n, delta)))
            high = Decimal(float(bounds.upper_bound(0, n, delta))) - (1 - root)
        tally.record(
            "unanimous votes of large samples are bounded outwards", [float(low), float(high)],
            lambda k, n=n, delta=delta: f"{shown(trials=n, delta=delta)}, {('all', 'none')[k]}",
            unit="probability",
        )  # fmt: skip
