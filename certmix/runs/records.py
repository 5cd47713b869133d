"""What was sampled for many inputs, column by column: objects for 200,000 of them would take a minute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from certmix.bounds.statistics import ScoreStatistics
from certmix.errors import RunError
from certmix.runs.vectors import unpacked
from certmix.sampling.ballots import Ballots, Behind, Cast
from certmix.types import FloatArray, IntArray

__all__ = ["Answers", "InputRecord", "Look", "Records", "having", "pieces", "places_of"]

_TOGETHER = 1 << 21  # votes, inputs times classes, that are in memory at a time
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class InputRecord:
    """What was sampled for one input.

    Parameters
    ----------
    index, label, input_checksum
        Index in the data set's source, class, and SHA-256 of the input's float32 bytes.
    selection
        int64 (c,): votes of the selection samples, or their summed soft scores in steps of 2^-16.
    estimation, scores, ballots
        Number of estimation samples -> votes int64 (c,), statistics of soft scores, or `Ballots`, cumulative.
    selection_ballots
        Those of the selection samples; None, and no ballots, of soft scores and where they were not read.
    seconds, device
        Wall time spent on sampling, and the device type that drew the newest samples.
    noise_error, lost
        eps: how far a probability under the drawn noise may be from one under the Gaussian; l2 distance
        between the input and the grid point that was sampled, 0 for 8-bit inputs.
    places
        Batch places that the smoothed classifier is the average over: 1 where answers do not depend on them.
    gate
        Threshold behind which votes were counted; above 0 they are (c + 1,), the last the abstentions.
    """

    index: int
    label: int
    input_checksum: str
    selection: IntArray
    estimation: Mapping[int, IntArray] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    scores: Mapping[int, ScoreStatistics] = field(default_factory=dict)
    noise_error: float = 0.0
    lost: float = 0.0
    places: int = 1
    ballots: Mapping[int, Ballots] = field(default_factory=dict)
    selection_ballots: Ballots | None = None
    gate: float = 0.0

    @property
    def selected(self) -> int:
        """The class that the selection samples chose, -1 if all of them abstained."""
        votes = self.selection[:-1] if self.gate else self.selection
        return int(votes.argmax()) if votes.any() else -1

    @property
    def drawn(self) -> int:
        """Estimation samples drawn so far."""
        return max(self.estimation, default=0)


class Look(NamedTuple):
    """What some of the inputs gave after one number of samples.

    `rows` (k,) are their places among the inputs, increasing; input `rows[i]` gave ``kept[at[i]]``: votes
    (c,), also as rows of the store, score statistics, or `Ballots`.
    """

    rows: IntArray
    at: IntArray
    kept: Any

    def of(self, rows: IntArray) -> Any:
        """Return the votes (len(rows), c), or a list of score statistics, of inputs that have this look."""
        at = self.at[np.searchsorted(self.rows, rows)]
        if isinstance(self.kept, np.ndarray | Behind):
            return self.kept[at]
        found = [self._one(place) for place in at.tolist()]
        return np.stack(found) if found and isinstance(found[0], np.ndarray) else found

    def get(self, row: int) -> Any:
        """Return what one input gave, None if it has no such look."""
        place = int(np.searchsorted(self.rows, row))
        has = place < len(self.rows) and self.rows[place] == row
        return self._one(int(self.at[place])) if has else None

    def _one(self, place: int) -> Any:
        kept = self.kept[place]
        return unpacked(*kept[1:]) if isinstance(kept, tuple) else kept

    def taken(self, place_of: IntArray) -> Look:
        """Return the look of other inputs: `place_of` (m,) has the new place of each, -1 for none."""
        new = place_of[self.rows]
        kept = np.flatnonzero(new >= 0)
        kept = kept[np.argsort(new[kept], kind="stable")]
        return Look(new[kept], self.at[kept], self.kept)


@dataclass(frozen=True)
class _OfInput(Mapping[int, Any]):
    """Number of samples -> what one input gave; looked up when it is asked for."""

    looks: Mapping[int, Look]
    row: int

    def __getitem__(self, samples: int) -> Any:
        found = self.looks[samples].get(self.row)
        if found is None:
            raise KeyError(samples)
        return found

    def __iter__(self) -> Iterator[int]:
        return (samples for samples, look in self.looks.items() if look.get(self.row) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __reduce__(self) -> Any:  # another process gets this input alone
        return dict, (dict(self),)


@dataclass(frozen=True, eq=False)
class Records(Sequence[InputRecord]):
    """Records of inputs (m,), each as an `InputRecord` when it is asked for.

    The columns are those of `InputRecord`; `devices` are places in `DEVICES`, `checksum_of` gives an input's
    checksum by its place, and `votes`, `scores` and `ballots` hold a `Look` for each number of samples.
    `chosen` are the ballots of the selection samples, None where ballots were not read, or lack.
    """

    indices: IntArray
    labels: IntArray
    checksum_of: Callable[[int], str]
    selection: IntArray
    seconds: FloatArray
    devices: IntArray
    noise_error: FloatArray
    lost: FloatArray
    places: IntArray
    votes: Mapping[int, Look] = field(default_factory=dict)
    scores: Mapping[int, Look] = field(default_factory=dict)
    ballots: Mapping[int, Look] = field(default_factory=dict)
    chosen: Cast | None = None
    gate: float = 0.0

    @classmethod
    def of(cls, records: Iterable[InputRecord]) -> Records:
        """Return records as columns."""
        if isinstance(records, Records):
            return records
        inputs = list(records)
        about = np.array([(r.index, r.label, r.places) for r in inputs], np.int64).reshape(-1, 3)
        chosen = [r.selection_ballots for r in inputs if r.selection_ballots is not None]
        looks = {
            samples: Look(look.rows, look.at, Cast.of(look.kept))
            for samples, look in _looks([r.ballots for r in inputs]).items()
        }
        numbers = np.array([(r.seconds, r.noise_error, r.lost) for r in inputs], np.float64).reshape(-1, 3)
        return cls(
            about[:, 0], about[:, 1], [r.input_checksum for r in inputs].__getitem__,
            np.stack([r.selection for r in inputs]) if inputs else np.zeros((0, 1), np.int64), numbers[:, 0],
            np.array([DEVICES.index(r.device) for r in inputs], np.int64), numbers[:, 1], numbers[:, 2],
            about[:, 2], _looks([r.estimation for r in inputs]), _looks([r.scores for r in inputs]),
            looks, Cast.of(chosen) if len(chosen) == len(inputs) else None,
            inputs[0].gate if inputs else 0.0,
        )  # fmt: skip

    def behind(self, gate: float) -> Records:
        """Return the records of votes behind a gate, (c + 1,) with abstentions; RunError without ballots."""
        if gate == self.gate:
            return self
        classes = self.selection.shape[1] - (self.gate > 0)
        if self.chosen is None or any(
            n not in self.ballots or not np.array_equal(self.ballots[n].rows, look.rows)
            for n, look in self.votes.items()
        ):
            raise RunError(
                "there are no ballots, from which votes behind a gate are counted: leave the gate out, or "
                "sample again with --fresh"
            )
        looks = {n: self.ballots[n] for n in self.votes}
        bad = self.chosen.totals != self.selection.sum(1)
        for n, look in looks.items():
            bad[look.rows] |= look.kept.totals[look.at] != n
        if bad.any():
            raise RunError(
                f"the ballots of input {self.indices[bad.argmax()]} do not add up to its samples: restore "
                "the run from a copy, or sample again with --fresh"
            )
        votes = {n: Look(look.rows, look.at, Behind(look.kept, classes, gate)) for n, look in looks.items()}
        return replace(self, selection=self.chosen.votes(classes, gate), votes=votes, gate=gate)

    @cached_property
    def selected(self) -> IntArray:
        """The class that each input's selection samples chose, (m,), -1 where all abstained."""
        votes = self._of_classes
        return np.where(votes.any(1), votes.argmax(1), -1)

    @cached_property
    def frequencies(self) -> FloatArray:
        """The shares (m, c) of the selection samples."""
        shares: FloatArray = self._of_classes / self.selection.sum(1, keepdims=True)
        return shares

    @property
    def _of_classes(self) -> IntArray:
        return self.selection[:, :-1] if self.gate else self.selection

    @cached_property
    def drawn(self) -> IntArray:
        """Estimation samples drawn so far, (m,)."""
        found = np.zeros(len(self), np.int64)
        for samples in sorted(self.votes):
            found[self.votes[samples].rows] = samples
        return found

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> InputRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> InputRecord | Records:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        row = range(len(self))[place]
        return InputRecord(
            int(self.indices[row]), int(self.labels[row]), self.checksum_of(row), self.selection[row],
            _OfInput(self.votes, row), float(self.seconds[row]), DEVICES[int(self.devices[row])],
            _OfInput(self.scores, row), float(self.noise_error[row]), float(self.lost[row]),
            int(self.places[row]), _OfInput(self.ballots, row),
            None if self.chosen is None else self.chosen[row], self.gate,
        )  # fmt: skip

    def __reduce__(self) -> Any:
        return Records.of, (list(self),)

    def take(self, rows: IntArray) -> Records:
        """Return the records at these places, in this order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        place_of = np.full(len(self), -1)
        place_of[rows] = np.arange(len(rows))
        old, checksum_of = rows.tolist(), self.checksum_of

        def moved(looks: Mapping[int, Look]) -> dict[int, Look]:
            found = {n: look.taken(place_of) for n, look in looks.items()}
            return {n: look for n, look in found.items() if len(look.rows)}

        return Records(
            self.indices[rows], self.labels[rows], lambda row: checksum_of(old[row]), self.selection[rows],
            self.seconds[rows], self.devices[rows], self.noise_error[rows], self.lost[rows],
            self.places[rows], moved(self.votes), moved(self.scores), moved(self.ballots),
            None if self.chosen is None else self.chosen.take(rows), self.gate,
        )  # fmt: skip

    def of_inputs(self, indices: Sequence[int] | IntArray) -> Records:
        """Return the records of inputs by index, in the order asked, without those that are not here."""
        return self.take((places := places_of(self.indices, indices))[places >= 0])


def _looks(inputs: Sequence[Mapping[int, Any]]) -> dict[int, Look]:
    """Return by number of samples what inputs (m,) gave."""
    found: dict[int, tuple[list[int], list[Any]]] = {}
    for row, one in enumerate(inputs):
        for samples, kept in one.items():
            rows, every = found.setdefault(samples, ([], []))
            rows.append(row)
            every.append(kept)
    return {n: Look(np.array(rows), np.arange(len(rows)), every) for n, (rows, every) in found.items()}


def having(looks: Mapping[int, Look], samples: int, inputs: int) -> NDArray[np.bool_]:
    """Return which of the inputs (m,) have a look after so many samples."""
    found = np.zeros(inputs, bool)
    found[looks[samples].rows if samples in looks else []] = True
    return found


def pieces(rows: IntArray, width: int) -> list[IntArray]:
    """Return rows (k,) in pieces whose vectors of this width may be in memory at a time."""
    parts = np.array_split(rows, max(1, math.ceil(len(rows) * width / _TOGETHER)))
    return [part for part in parts if len(part)]


def places_of(held: IntArray, wanted: Sequence[int] | IntArray) -> IntArray:
    """Return where each number wanted stands among different ones, -1 where it does not."""
    order, numbers = np.argsort(held, kind="stable"), np.asarray(wanted, np.int64)
    if not len(held):
        return np.full(len(numbers), -1)
    at = order[np.minimum(np.searchsorted(held, numbers, sorter=order), len(held) - 1)]
    return np.where(held[at] == numbers, at, -1)


@dataclass(frozen=True, eq=False)
class Answers(Mapping[int, FloatArray]):
    """Vectors (m, c) of inputs by their indices (m,), which increase."""

    indices: IntArray
    vectors: FloatArray

    @classmethod
    def of(cls, answers: Mapping[int, FloatArray]) -> Answers:
        """Return a mapping as columns."""
        if isinstance(answers, Answers):
            return answers
        known = sorted(answers)
        return cls(np.array(known, np.int64), np.array([answers[index] for index in known], np.float64))

    def rows(self, indices: IntArray) -> FloatArray | None:
        """Return the vectors (n, c) of these inputs, None if one of them is not here."""
        places = places_of(self.indices, indices)
        return self.vectors[places] if np.all(places >= 0) else None

    def __getitem__(self, index: int) -> FloatArray:
        place = int(np.searchsorted(self.indices, index))
        if place == len(self) or self.indices[place] != index:
            raise KeyError(index)
        vector: FloatArray = self.vectors[place]
        return vector

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices.tolist())

    def __len__(self) -> int:
        return len(self.indices)
