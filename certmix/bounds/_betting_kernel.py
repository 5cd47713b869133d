"""The numba kernels behind the betting bounds.

Each decides whether a candidate mean m is refuted: whether somebody who bets
that the mean exceeds m has multiplied an initial capital of 1 by 1 / delta.
Refuting m refutes everything below it, because no bet here grows with m; a
lower bound is the largest m that was seen refuted.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from certmix.types import FloatArray

BETS = 28
"""Constant bets in the mixture: `LARGEST_BET` times 1, 2^-1/2, 2^-1, ..."""

LARGEST_BET = 4.0

_LARGEST_SHARE = 0.99  # of the capital, at any bet

_HALVINGS = 42  # to 2e-13
_BIG = 2.0**1000  # above every `wanted`


@njit(cache=True, nogil=True)
def planned_bets(values: FloatArray, log_odds: float, planned: int) -> FloatArray:
    """The predictable plug-in bets, before truncation.

    sqrt(2 log_odds / (n v)) with v the variance estimated from earlier values;
    n is `planned`, or t log(t + 1) if that is 0.
    """
    bets = np.empty(values.size)
    total, spread = 0.5, 0.25
    for t in range(1, values.size + 1):
        horizon = float(planned) if planned > 0 else t * math.log(t + 1.0)
        bets[t - 1] = math.sqrt(2.0 * log_odds * t / (spread * horizon))
        total += values[t - 1]
        deviation = values[t - 1] - total / (t + 1)
        spread += deviation * deviation
    return bets


@njit(cache=True, nogil=True)
def sequence_refutes(values: FloatArray, bets: FloatArray, m: float, share: float, wanted: float) -> bool:
    """Whether prod_t (1 + min(bet_t, share / m) (x_t - m)) reaches `wanted` at some time.

    The product is kept within [1 / BIG, BIG]; `scale` counts the powers of BIG taken out.
    """
    capital, scale, largest = 1.0, 0, share / m
    for t in range(values.size):
        capital *= 1.0 + min(bets[t], largest) * (values[t] - m)
        if capital >= _BIG:
            capital /= _BIG
            scale += 1
        elif capital < 1.0 / _BIG:
            capital *= _BIG
            scale -= 1
        if scale > 0 or (scale == 0 and capital >= wanted):
            return True
    return False


@njit(cache=True, nogil=True)
def sequence_lower(values: FloatArray, bets: FloatArray, share: float, wanted: float) -> float:
    """The largest m found refuted by halving [0, 1]; 0 if none was."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if sequence_refutes(values, bets, middle, share, wanted):
            low = middle
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _moment_log(share: float, m: float, n: float, total: float, square: float) -> float:
    """A lower bound of sum log(1 + share (x - m) / m) from sum x and sum x^2.

    log(1 + b u) >= b u + u^2 (log(1 - b) + b) for u >= -1 and 0 <= b < 1 (Fan, Grama, Liu).
    """
    curvature = -(math.log1p(-share) + share) / (m * m)
    first, second = total - n * m, square - 2.0 * m * total + n * m * m
    rounding = 1e-15 * n * (share / m + 4.0 * curvature)
    return share / m * first - curvature * max(second, 0.0) - rounding


@njit(cache=True, nogil=True)
def _chord_log(share: float, m: float, counts: FloatArray, places: FloatArray) -> float:
    """A lower bound of the same sum from bins: the logarithm lies above its chord in each.

    counts: values in each of equal bins; places: their mean place in the bin, from 0 to 1.
    """
    found, size, right, known = 0.0, 0.0, 0.0, False
    for k in range(counts.size):
        if counts[k] == 0.0:
            known = False
            continue
        left = right if known else math.log(1.0 - share + share * k / (counts.size * m))
        right = math.log(1.0 - share + share * (k + 1.0) / (counts.size * m))
        known = True
        found += counts[k] * (left + (right - left) * places[k])
        size += counts[k] * (abs(left) + abs(right) + 0.01)
    return found - 1e-13 * size


@njit(cache=True, nogil=True)
def mixture_log(
    m: float,
    n: float,
    total: float,
    square: float,
    counts: FloatArray,
    places: FloatArray,
    weights: FloatArray,
) -> float:
    """Logarithm of the mixture's capital against m, rounded down: a weighted mean over constant bets.

    Without bins (`counts` of size 0) it rests on the two sums alone.
    """
    logs = np.empty(BETS)
    for j in range(BETS):
        share = min(LARGEST_BET * 2.0 ** (-0.5 * j) * m, _LARGEST_SHARE)
        logs[j] = _moment_log(share, m, n, total, square)
        if counts.size > 0:
            logs[j] = max(logs[j], _chord_log(share, m, counts, places))
    top = logs.max()
    return top + math.log((weights * np.exp(logs - top)).sum()) - 1e-13


@njit(cache=True, nogil=True)
def mixture_lower(
    n: float,
    total: float,
    square: float,
    counts: FloatArray,
    places: FloatArray,
    weights: FloatArray,
    wanted: float,
    useful: float,
) -> float:
    """The largest m found refuted by halving [0, mean]; anything above `useful` stays unsaid.

    `useful` is tried first: if it is refuted, it is returned.
    """
    if 0.0 < useful < 1.0 and mixture_log(useful, n, total, square, counts, places, weights) >= wanted:
        return useful
    low, high = 0.0, min(total / n, 1.0)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle > 0.0 and mixture_log(middle, n, total, square, counts, places, weights) >= wanted:
            low = middle
        else:
            high = middle
    return low
