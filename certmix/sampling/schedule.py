"""The sequence of looks: at which sample numbers counts are kept.

The sequence is fixed once and for all and has no end, so that every run keeps
counts at the same places, a longer run goes on where a shorter one stopped,
and bounds that spend their failure probability over looks apply to both.
"""

from __future__ import annotations

from itertools import count, takewhile

__all__ = ["look", "looks"]

_FIRST, _RATIO, _STEP = 100, 1.2, 100


def look(number: int) -> int:
    """Return the sample number of look 0, 1, 2, ...: about a fifth more each time.

    Examples
    --------
    >>> [look(k) for k in range(12)]
    [100, 200, 300, 400, 500, 600, 700, 800, 1000, 1200, 1400, 1700]
    """
    samples = _FIRST
    for _ in range(number):
        samples = max(samples + _STEP, round(samples * _RATIO / _STEP) * _STEP)
    return samples


def looks(maximum: int) -> tuple[int, ...]:
    """Return all looks up to and including `maximum` samples."""
    return tuple(takewhile(lambda samples: samples <= maximum, map(look, count())))
