"""Samples of several inputs in one batch: what is wanted, cut into full batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """Samples of one input (any shape) that are wanted: number `start` to the last of the increasing `stops`.

    `index`, the input's in its data set, and `stream`, ``selection`` or ``estimation``, are part of the
    noise's key; `point` is what `Sampler.place` gave of the input, if it was asked before.
    """

    input: Tensor
    index: int
    stops: tuple[int, ...]
    start: int = 0
    stream: str = "estimation"
    point: Tensor | None = None

    @property
    def samples(self) -> int:
        """How many are wanted."""
        return max(0, self.stops[-1] - self.start) if self.stops else 0


@dataclass(frozen=True)
class Part:
    """Rows of a batch that hold samples, from number `begin` on, of one draw, all before the same stop.

    ``draw`` and ``stop`` are positions in the list of draws and in its stops, ``last``: the stop is reached.
    """

    draw: int
    stop: int
    begin: int
    row: int
    count: int
    last: bool

    @property
    def rows(self) -> slice:
        """The rows of the batch."""
        return slice(self.row, self.row + self.count)


@dataclass(frozen=True)
class Cursor:
    """How far a list of draws has been cut; `Cursor()` is its beginning."""

    draw: int = 0
    stop: int = 0
    done: int = 0

    def fill(self, draws: Sequence[Draw], size: int, alone: bool = False) -> tuple[list[Part], Cursor]:
        """Return the parts of the next batch (none: the end), of one draw if `alone`, and where it ends."""
        parts: list[Part] = []
        row, at = 0, self
        while row < size and at.draw < len(draws):
            wanted = draws[at.draw]
            if alone and parts and parts[0].draw != at.draw:
                break
            if at.stop >= len(wanted.stops):
                at = Cursor(at.draw + 1)
                continue
            begin = wanted.start + at.done
            count = min(wanted.stops[at.stop] - begin, size - row)
            last = begin + count >= wanted.stops[at.stop]
            if count > 0:
                parts.append(Part(at.draw, at.stop, begin, row, count, last))
            row, at = row + max(count, 0), Cursor(at.draw, at.stop + last, at.done + max(count, 0))
        return parts, at
