"""Bounds from votes once more, straight from their formulas: numpy and scipy, no kernel of the run.

Nothing is rounded outwards here.  A published bound, which is, lies on the
safe side of these by no more than their own error, see `SLACK`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, gammaln

from certmix.types import IntArray

__all__ = [
    "SLACK", "VOTE_BOUNDS", "interval", "look", "looks", "proportion_lower",
    "proportion_upper", "share", "uniform_lower",
]  # fmt: skip

SLACK = 1e-9
"""Relative difference to a published bound or radius that rounding may explain.

A binomial probability's logarithm is right to about 1e-15 max(k, 1) here, and
a tail's logarithm has a slope of about sqrt(k) against that of the proportion:
far below 1e-9 for n up to 10^7.  What the run gives away itself is 1e-12 of a
proportion.
"""

_TIGHT = {"xtol": 1e-300, "rtol": 4 * 2.0**-52, "maxiter": 1000}

_LOOKS = [100]


def look(number: int) -> int:
    """Return the sample number of look 0, 1, 2, ...: 100, 200, ..., about a fifth more each time."""
    while len(_LOOKS) <= number:
        last = _LOOKS[-1]
        _LOOKS.append(max(last + 100, round(1.2 * last / 100) * 100))
    return _LOOKS[number]


def looks(maximum: int) -> list[int]:
    """Return all looks up to and including `maximum` samples."""
    number = 0
    while look(number) <= maximum:
        number += 1
    return [look(k) for k in range(number)]


def _weight(samples: int) -> float:
    return min(samples / 50_000, 50_000 / samples) ** 0.5


@lru_cache(maxsize=1)
def _total() -> float:
    """All weights: those up to 10^9 samples, and a geometric series above the rest."""
    head = [_weight(samples) for samples in looks(10**9)]
    return (math.fsum(head) + head[-1] / (math.sqrt(1.19) - 1)) * (1 + 1e-12)


def share(number: int) -> float:
    """Return the share of the failure probability that one look may spend."""
    return _weight(look(number)) / _total()


def _beyond_stirling(n: int) -> float:
    """Return log n! - log(sqrt(2 pi n) (n / e)^n)."""
    if n < 20:
        return float(gammaln(n + 1) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi))
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * n * n)) / (n * n)) / (n * n)) / n


def _log_probability(k: int, n: int, p: float) -> float:
    """Logarithm of P[X = k], X ~ Bin(n, p), for 0 < k < n.

    Stirling's formula and the divergence of k / n from p: logarithms of
    factorials, which are of the size n log n, would leave their rounding error.
    """
    excess = k - n * p if p < 0.5 else n * (1 - p) - (n - k)
    divergence = k * math.log1p(excess / (n * p)) + (n - k) * math.log1p(-excess / (n * (1 - p)))
    corrections = _beyond_stirling(n) - _beyond_stirling(k) - _beyond_stirling(n - k)
    return corrections - divergence - 0.5 * math.log(2 * math.pi * k * (n - k) / n)


def _log_tail(k: int, n: int, p: float) -> float:
    """Logarithm of P[X >= k], X ~ Bin(n, p): the terms from k on, relative to the first.

    Below p = k / n they fall like a normal density of at most sqrt(n) / 2
    deviation, so that 12 sqrt(n) of them leave out less than exp(-288).
    """
    terms = n - k if p > k / n else min(n - k, 100 + int(12 * math.sqrt(n)))
    j = np.arange(k, k + terms, dtype=np.float64)
    ratios = np.log(n - j) - np.log(j + 1) + math.log(p) - math.log1p(-p)
    steps = np.concatenate([[0.0], np.cumsum(ratios)])
    top = steps.max()
    return float(_log_probability(k, n, p) + top + math.log(np.exp(steps - top).sum()))


@lru_cache(maxsize=1 << 18)
def proportion_lower(k: int, n: int, failure_probability: float) -> float:
    """Return the p at which k or more of n have this probability (Clopper-Pearson); 0 for k = 0."""
    if k == 0:
        return 0.0
    wanted = math.log(failure_probability)
    if k == n:
        return math.exp(wanted / n)

    def excess(p: float) -> float:
        return _log_tail(k, n, p) - wanted

    low, high = math.exp(max(wanted - math.log(2) * n, -700.0)) * 1e-3, k / n
    if excess(high) <= 0:
        high = 1 - 2.0**-53
    return float(brentq(excess, low, high, **_TIGHT))


def proportion_upper(k: int, n: int, failure_probability: float) -> float:
    """Return the p at which k or fewer of n have this probability; 1 for k = n."""
    return 1.0 - proportion_lower(n - k, n, failure_probability)


def interval(k: int, n: int) -> tuple[float, float]:
    """Return the two-sided 95 % Clopper-Pearson interval."""
    return proportion_lower(k, n, 0.025), proportion_upper(k, n, 0.025)


@lru_cache(maxsize=1 << 18)
def uniform_lower(k: int, n: int, failure_probability: float) -> float:
    """Return the p below k / n at which the mixture martingale reaches 1 / failure probability."""
    if k == 0:
        return 0.0
    wanted = -math.log(failure_probability)

    def excess(p: float) -> float:
        evidence = betaln(0.5 + k, 0.5 + n - k) - math.log(math.pi)
        missed = (n - k) * math.log1p(-p) if k < n else 0.0
        return float(evidence) - k * math.log(p) - missed - wanted

    return k / n if excess(k / n) >= 0 else float(brentq(excess, 1e-300, k / n, **_TIGHT))


Pair = tuple[float, float]


def _clopper_pearson(counts: IntArray, selected: int, delta: float) -> Pair:
    """p takes all of delta, q = 1 - p."""
    p = proportion_lower(int(counts[selected]), int(counts.sum()), delta)
    return p, 1.0 - p


def _runner_up(counts: IntArray, selected: int) -> int:
    return int(np.delete(counts, selected).max())


def _two_sided(counts: IntArray, selected: int, delta: float) -> Pair:
    """Half of delta each; probabilities add up to 1."""
    n = int(counts.sum())
    p = proportion_lower(int(counts[selected]), n, delta / 2)
    q = proportion_upper(_runner_up(counts, selected), n, delta / 2)
    p = max(p, 1.0 - (len(counts) - 1) * q)
    return p, min(q, 1.0 - p)


def _mixture(counts: IntArray, selected: int, delta: float) -> Pair:
    n = int(counts.sum())
    p = uniform_lower(int(counts[selected]), n, delta / 2)
    q = 1.0 - uniform_lower(n - _runner_up(counts, selected), n, delta / 2)
    return p, min(q, 1.0 - p)


VOTE_BOUNDS: dict[str, Callable[[IntArray, int, float], Pair]] = {
    "clopper-pearson": _clopper_pearson,
    "clopper-pearson-two-sided": _two_sided,
    "beta-binomial": _mixture,
}
"""(votes (c,), selected class, failure probability) -> (p, q), by the name of the bound."""
