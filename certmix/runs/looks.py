"""Counts at several numbers of samples, kept without zeros: small for many classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from certmix.types import IntArray

__all__ = ["SparseLooks"]


class SparseLooks(Mapping[int, IntArray]):
    """Number of samples -> votes int64 (c,), made anew whenever they are asked for.

    Parameters
    ----------
    looks
        Number of samples -> votes.
    classes
        c.

    Examples
    --------
    >>> looks = SparseLooks({100: np.array([97, 0, 3])}, 3)
    >>> looks[100], list(looks), {**looks}[100].sum()
    (array([97,  0,  3]), [100], np.int64(100))
    """

    __slots__ = ("_classes", "_kept")

    def __init__(self, looks: Mapping[int, IntArray], classes: int) -> None:
        self._classes = classes
        self._kept = {n: _kept(votes) for n, votes in looks.items()}

    def __getitem__(self, samples: int) -> IntArray:
        votes = np.zeros(self._classes, np.int64)
        where, kept = self._kept[samples]
        votes[where] = kept
        return votes

    def __iter__(self) -> Iterator[int]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def _kept(votes: IntArray) -> tuple[np.ndarray, np.ndarray]:
    where = np.flatnonzero(votes)
    small = votes.max(initial=0) < 2**31
    return where.astype(np.int32), votes[where].astype(np.int32 if small else np.int64)
