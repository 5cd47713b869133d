"""The sequence of looks, and the share of the failure probability that each may spend.

The sequence is fixed once and for all and has no end, so that every run keeps
counts at the same places, a longer run goes on where a shorter one stopped, and
a bound that spends its failure probability over looks holds for both, whatever
made a run stop or go on.
"""

from __future__ import annotations

from itertools import count, takewhile

LOOKS_ARE_MULTIPLES_OF = 100

_FIRST, _RATIO, _STEP = LOOKS_ARE_MULTIPLES_OF, 1.2, LOOKS_ARE_MULTIPLES_OF
_PEAK, _RISE, _FALL = 50_000, 0.5, 0.5

_SEQUENCE = [_FIRST]


def look(number: int) -> int:
    """Return the sample number of look 0, 1, 2, ...: about a fifth more each time.

    >>> [look(k) for k in range(12)]
    [100, 200, 300, 400, 500, 600, 700, 800, 1000, 1200, 1400, 1700]
    """
    while len(_SEQUENCE) <= number:
        last = _SEQUENCE[-1]
        _SEQUENCE.append(max(last + _STEP, round(last * _RATIO / _STEP) * _STEP))
    return _SEQUENCE[number]


def looks(maximum: int) -> tuple[int, ...]:
    """Return all looks up to and including `maximum` samples."""
    return tuple(takewhile(lambda samples: samples <= maximum, map(look, count())))


def _weight(samples: int) -> float:
    """Spend little where inputs are settled anyway, most near 50,000, less and less after."""
    ratio = samples / _PEAK
    return ratio**_RISE if ratio <= 1 else ratio**-_FALL


def _total() -> float:
    """Return an upper bound of the sum of all weights."""
    head = looks(10**9)  # beyond it each is more than 1.19 times the one before: below a geometric series
    return (sum(map(_weight, head)) + _weight(head[-1]) / (1.19**_FALL - 1)) * (1 + 1e-12)


_TOTAL = _total()


def share(number: int) -> float:
    """Return the share of the failure probability of one look; all shares sum to at most 1."""
    return _weight(look(number)) / _TOTAL
