"""Votes with how sure each was: votes behind a gate, of any threshold, are counted from them.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certmix.errors import ParameterError
from certmix.types import IntArray

__all__ = ["LEVELS", "Ballots", "level_of"]

LEVELS = 20
"""Equal steps in which the largest softmax probability of a noisy copy is kept, rounded down."""


def level_of(gate: float) -> int:
    """Return the number of steps of a gate, a multiple of 1/20 from 0 to 0.95; ParameterError for others."""
    level = round(float(gate) * LEVELS) if 0 <= gate < 1 else -1
    if level < 0 or abs(gate * LEVELS - level) > 1e-9:
        raise ParameterError(f"gate = {gate}: it must be a multiple of 0.05 from 0 to 0.95, such as 0.6")
    return level


@dataclass(frozen=True, eq=False)
class Ballots:
    """How many noisy copies gave each answer: `codes` (k,) increase, `counts` (k,) are at least 1.

    A code is class * `LEVELS` + level, the level the copy's largest softmax probability in steps of
    1 / `LEVELS`, rounded down.

    >>> both = Ballots.of([7 * LEVELS + 13, 7 * LEVELS + 19]) + Ballots.of([7 * LEVELS + 13, 2 * LEVELS])
    >>> both.votes(10).tolist(), both.votes(10, gate=0.9).tolist()
    ([0, 0, 1, 0, 0, 0, 0, 3, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 3])
    """

    codes: IntArray
    counts: IntArray

    @classmethod
    def of(cls, answers: Sequence[int] | IntArray) -> Ballots:
        """Return the ballots of single answers (n,)."""
        return cls(*np.unique(np.asarray(answers, np.int64), return_counts=True))

    def __add__(self, other: Ballots) -> Ballots:
        codes, where = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, where, np.concatenate([self.counts, other.counts]))
        return Ballots(codes, counts)

    def votes(self, classes: int, gate: float = 0.0) -> IntArray:
        """Return int64 votes (classes,); behind a gate above 0, (classes + 1,), the last the abstentions.

        A copy votes if its largest probability is at least the gate.
        """
        level, total = level_of(gate), int(self.counts.sum())
        sure = self.codes % LEVELS >= level
        found = np.zeros(classes + (level > 0), np.int64)
        np.add.at(found, self.codes[sure] // LEVELS, self.counts[sure])
        if level:
            found[classes] = total - found.sum()
        return found

    def as_vector(self) -> NDArray[np.uint32]:
        """Return codes and counts in a row, uint32, as stores keep them."""
        if self.counts.max(initial=0) >= 1 << 32:
            raise ParameterError(
                "2^32 equal answers of one input are more than ballots hold: lower --samples"
            )
        return np.concatenate([self.codes, self.counts]).astype(np.uint32)

    @classmethod
    def from_vector(cls, vector: IntArray, classes: int) -> Ballots:
        """Return what `as_vector` gave, of so many classes; ValueError if it cannot be that."""
        if len(vector) == 0 or len(vector) % 2:
            raise ValueError(f"{len(vector)} numbers are no ballots")
        codes, counts = vector.astype(np.int64).reshape(2, -1)
        if np.any(np.diff(codes) <= 0) or codes[0] < 0 or codes[-1] >= classes * LEVELS or counts.min() < 1:
            raise ValueError("ballots of no such classes, or that nobody cast")
        return cls(codes, counts)


@dataclass(frozen=True, eq=False)
class Cast:
    """Ballots of many inputs (k,), one after another: those of input i are ``ends[i]`` to ``ends[i + 1]``."""

    ends: IntArray
    codes: IntArray
    counts: IntArray

    @classmethod
    def of(cls, ballots: Sequence[Ballots]) -> Cast:
        """Return ballots of many inputs in a row."""
        none = np.zeros(0, np.int64)
        ends = np.cumsum([0, *(len(one.codes) for one in ballots)])
        codes, counts = ([none, *(getattr(one, name) for one in ballots)] for name in ("codes", "counts"))
        return cls(ends, np.concatenate(codes), np.concatenate(counts))

    @classmethod
    def from_vectors(cls, vectors: IntArray, lengths: IntArray, classes: int) -> tuple[Cast, IntArray]:
        """Return what `Ballots.as_vector` gave of inputs, in a row, and which of them cannot be that."""
        begin, many = np.cumsum(lengths) - lengths, lengths // 2
        ends = np.concatenate([[0], np.cumsum(many)])
        made = cls(ends, *(_gathered(vectors, begin + k * many, many) for k in (0, 1)))
        owner = np.repeat(np.arange(len(many)), many)
        bad = (made.counts < 1) | (made.codes >= classes * LEVELS)
        bad[1:] |= (np.diff(made.codes) <= 0) & (np.diff(owner) == 0)
        return made, np.flatnonzero((lengths % 2 > 0) | (many < 1) | (np.bincount(owner, bad, len(many)) > 0))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def totals(self) -> IntArray:
        """How many answers of each input there are, (k,)."""
        return np.diff(np.concatenate([[0], self.counts.cumsum()])[self.ends])

    def __getitem__(self, place: int) -> Ballots:
        own = slice(self.ends[place], self.ends[place + 1])
        return Ballots(self.codes[own], self.counts[own])

    def take(self, places: IntArray) -> Cast:
        """Return the ballots of some inputs."""
        begin, many = self.ends[places], self.ends[places + 1] - self.ends[places]
        return Cast(
            np.cumsum([0, *many]), _gathered(self.codes, begin, many), _gathered(self.counts, begin, many)
        )

    def votes(self, classes: int, gate: float) -> IntArray:
        """Return the votes of each input, as `Ballots.votes` does: int64 (k, classes + 1)."""
        level, owner = level_of(gate), np.repeat(np.arange(len(self)), np.diff(self.ends))
        found = np.zeros((len(self), classes + 1), np.int64)
        column = np.where(self.codes % LEVELS >= level, self.codes // LEVELS, classes)
        np.add.at(found, (owner, column), self.counts)
        return found if level else found[:, :classes]


@dataclass(frozen=True, eq=False)
class Behind:
    """Votes of many inputs behind a gate, counted for those that are asked for."""

    cast: Cast
    classes: int
    gate: float

    def __len__(self) -> int:
        return len(self.cast)

    def __getitem__(self, place: int | IntArray) -> IntArray:
        votes = self.cast.take(np.atleast_1d(place)).votes(self.classes, self.gate)
        return votes if isinstance(place, np.ndarray) else votes[0]


def _gathered(values: IntArray, begin: IntArray, many: IntArray) -> IntArray:
    """Return `many` values from each beginning on, one stretch after another."""
    shift = np.repeat(begin - (np.cumsum(many) - many), many)
    return np.asarray(values[shift + np.arange(len(shift))], np.int64)
