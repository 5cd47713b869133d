"""Records of sampled inputs in a run's database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from certmix.bounds.statistics import MOST_SAMPLES, SCALE, from_vector, to_vector
from certmix.runs.database import INSERT, WRITES, Database
from certmix.runs.records import DEVICES, Answers, InputRecord, Look, Records, places_of
from certmix.runs.vectors import LONG, Row
from certmix.sampling.ballots import Cast
from certmix.types import IntArray

__all__ = [
    "BALLOTS", "INPUT", "SAMPLING", "SCORES", "SELECTION", "SELECTION_BALLOTS", "VOTES", "WRITES", "Store",
]  # fmt: skip

_TOGETHER = 1 << 21  # votes, inputs times classes, that are in memory with all zeros at a time
_HUGE = 1.7976931348623157e308

INPUT, SAMPLING, SELECTION, VOTES, SCORES = "input", "sampling", "selection", "votes@", "scores@"
BALLOTS, SELECTION_BALLOTS = "ballots@", "selection ballots"
"""Cells of a sampled run: of the input (label, SHA-256), of its sampling, and what samples gave."""


class Store(Database):
    """A run's database; `classes` are those of a run that is sampled.

    >>> store = Store(None)
    >>> store.write("votes@100", [3, 5], np.array([[97, 3], [50, 50]]))
    >>> store.known("votes@100"), store.read("votes@100", [5])
    ({3, 5}, array([[50, 50]]))
    """

    _held: tuple[Any, Records] | None = None

    def __init__(
        self, path: Path | None, classes: int | None = None, *, read_only: bool = False, alone: bool = False
    ) -> None:
        self.classes = classes
        super().__init__(path, read_only=read_only, alone=alone)

    def write_inputs(self, records: Iterable[InputRecord]) -> None:
        """Write inputs' records in one transaction, replacing what was there."""
        self.write_all(cell for record in records for cell in cells_of(record))

    def copy(self, parts: Sequence[tuple[Store, IntArray]]) -> None:
        """Write all that other stores hold of sampled inputs, of (k,) each: those of many a transaction."""
        many = sum(len(inputs) for _, inputs in parts) >= self.block
        for _, found in _of_some(parts):
            written = []
            for cell, rows in found.items():
                single = (INSERT, [(cell, *row) for row in rows])
                written += (many and self.in_blocks(cell, rows)) or [single]
            self._commit(*written)
            self.wrote(set(found))

    def holds_only(self, parts: Sequence[tuple[Store, IntArray]]) -> bool:
        """Return whether all that is known of sampled inputs is what other stores hold, of some each."""
        cells, same = [cell for cell in self.cells() if is_of_input(cell)], 0
        for among, found in _of_some(parts) if cells else ():
            for cell in cells:
                given = {row[0]: row for row in found.get(cell, ())}
                own = list(self.kept(cell, among).rows())
                if not all(given.get(row[0]) == row for row in own):
                    return False
                same += len(own)
        return same == sum(len(self.known(cell)) for cell in cells)

    def records(self, *, ballots: bool = False) -> Records:
        """Return all inputs' records, by index, with or without their ballots.

        They are read again only after something was written.
        """
        state = self._rows("PRAGMA data_version"), self._version, ballots  # the first is of others' writes
        if self._held is None or self._held[0] != state:
            self._held = state, self._all_records(ballots)
        return self._held[1]

    def _all_records(self, ballots: bool) -> Records:
        cells = self.cells()
        (index, inputs), (also, sampling) = (
            self.column(INPUT, "int64", 5),
            self.column(SAMPLING, "float64", 5),
        )
        chosen, selection = self._votes(SELECTION, self.classes)
        if not (np.array_equal(chosen, index) and np.array_equal(chosen, also)):
            raise self._unreadable("an input without its input, its sampling or its selection samples")
        classes = selection.shape[1] if len(index) else self.classes
        noise_error, lost, places, seconds, device = sampling.T
        good = (inputs[:, 0] >= 0) & (places == np.floor(places)) & (device == np.floor(device))
        ranges = ((0, noise_error, 1), (1, places, 1 << 32), (0, device, len(DEVICES) - 1))
        for low, values, most in (*ranges, (0, lost, _HUGE), (0, seconds, _HUGE)):
            good &= (values >= low) & (values <= most)
        if not good.all():
            wrong = f"{INPUT} or {SAMPLING} of input {index[good.argmin()]}"
            raise self._unreadable(f"{wrong}: a value that cannot be")
        looks: dict[str, dict[int, Look]] = {VOTES: {}, SCORES: {}}
        for kind, found in looks.items():
            for samples, cell in sorted((self._samples(one), one) for one in cells if one.startswith(kind)):
                if kind == VOTES:
                    of, kept = self._votes(cell, classes, packed=True)
                else:
                    of, kept = self._statistics(cell, samples, classes)
                rows = places_of(index, of)
                if len(rows) and rows.min() < 0:
                    raise self._unreadable(f"{cell} of an input without selection samples")
                found[samples] = Look(rows, np.arange(len(rows)), kept)
        sums, casts = np.ascontiguousarray(inputs[:, 1:], "<i8"), dict[int, Look]()
        chosen_ballots = None if len(index) else Cast.of([])
        wanted = [one for one in cells if one.startswith(BALLOTS) or one == SELECTION_BALLOTS]
        for cell in wanted if ballots else ():
            of, cast = self._cast(cell, classes or 0)
            rows = places_of(index, of)
            if len(rows) and rows.min() < 0:
                raise self._unreadable(f"{cell} of an input without selection samples")
            if cell != SELECTION_BALLOTS:
                casts[self._samples(cell)] = Look(rows, np.arange(len(rows)), cast)
            elif len(rows) == len(index):
                chosen_ballots = cast
        return Records(
            index, inputs[:, 0], lambda row: sums[row].tobytes().hex(), selection, seconds,
            device.astype(np.int64), noise_error, lost, places.astype(np.int64), looks[VOTES], looks[SCORES],
            casts, chosen_ballots,
        )  # fmt: skip

    def _cast(self, cell: str, classes: int) -> tuple[IntArray, Cast]:
        """Return a cell's inputs and ballots; RunError names an input whose ballots are damaged."""
        kept = self.kept(cell)
        if kept.kinds != "uint32" or np.any(kept.lengths % 4):
            for number, kind, data in kept.rows():
                if kind != "uint32" or len(data) % 4:
                    raise self._unreadable(f"{cell} of input {number} is damaged: no ballots")
        index, numbers, lengths = kept.indices, np.frombuffer(kept.data, "<u4"), kept.lengths // 4
        cast, bad = Cast.from_vectors(numbers, lengths, classes)
        if len(bad):
            raise self._unreadable(f"{cell} of input {index[bad[0]]} is damaged: no ballots of its classes")
        return index, cast

    def _votes(self, cell: str, classes: int | None, *, packed: bool = False) -> tuple[IntArray, Any]:
        """Return a cell's inputs and votes (k, c): of many classes in a list, as stored, where `packed`."""
        index, votes = self.column(cell, "int64", classes, packed=packed and 8 * (classes or 0) >= LONG)
        step = max(1, _TOGETHER // (classes or 1))
        for begin in range(0, len(index), step):
            table = votes[begin : begin + step]
            if isinstance(table, list) and packed:
                table = np.stack([self._unpacked(cell, row, "int64", classes) for row in table])
            if isinstance(table, list):
                raise self._unreadable(f"{cell}: votes among different numbers of classes")
            good = table.min() >= 0 and table.max() <= MOST_SAMPLES * SCALE and table.any(1).all()
            if not good:
                bad = (table.min(1) < 0) | (table.max(1) <= 0) | (table.max(1) > MOST_SAMPLES * SCALE)
                wrong = index[begin + int(bad.argmax())]
                raise self._unreadable(f"{cell} of input {wrong}: no votes, or too many")
        return index, votes

    def _statistics(self, cell: str, samples: int, classes: int | None) -> tuple[IntArray, list[Any]]:
        """Return a cell's inputs and score statistics."""
        (index, vectors), found = self.column(cell, "int64"), []
        for one, vector in zip(index.tolist(), vectors, strict=True):
            try:
                found.append(from_vector(vector))
                if (found[-1].samples, found[-1].classes) != (samples, classes):
                    raise ValueError("statistics of another number of samples or classes")
            except ValueError as error:
                raise self._unreadable(f"{cell} of input {one}: {error}") from None
        return index, found

    def inputs(self, *, ballots: bool = False) -> dict[int, InputRecord]:
        """Return all inputs' records by index, with or without their ballots."""
        return {record.index: record for record in self.records(ballots=ballots)}

    def _samples(self, cell: Any) -> int:
        """Return the number of samples in the name of a cell of votes or of scores."""
        number = str(cell).partition("@")[2]
        if not number.isascii() or not number.isdecimal() or len(number) > 10 or str(int(number)) != number:
            raise self._unreadable(f"cell {cell!r:.40}: no number of samples")
        return int(number)

    def standard(self, checksum: str) -> Answers:
        """Return the probabilities (c,) stored for a standard classifier, by input index."""
        cell = standard_cell(checksum)
        index, found = self.column(cell, "float64")
        if len(index):
            good = isinstance(found, np.ndarray) and self.classes in (None, found.shape[1])
            if not good or not np.all((found >= 0) & (found <= 1)):
                raise self._unreadable(f"{cell}: not {self.classes} probabilities of each input")
        return Answers(index, found)


def standard_cell(checksum: str) -> str:
    """Return the cell of a standard classifier's probabilities."""
    return f"standard {checksum}"


def is_look(cell: str) -> bool:
    """Whether a cell holds what a table is made of: no input, no selection, no standard model's outputs."""
    return cell not in (INPUT, SAMPLING, SELECTION, SELECTION_BALLOTS) and not cell.startswith("standard ")


def is_of_input(cell: str) -> bool:
    """Whether a cell is one of those that `cells_of` gives."""
    return cell in (INPUT, SAMPLING, SELECTION, SELECTION_BALLOTS) or cell.startswith(
        (VOTES, SCORES, BALLOTS)
    )


def _of_some(
    parts: Sequence[tuple[Store, IntArray]],
) -> Iterator[tuple[tuple[int, int], dict[str, list[Row]]]]:
    """Yield what stores hold of sampled inputs, of (k,) each: the first and last of some, their rows by cell.

    Of each store there are as many as in a block, so that none is read more than a few times.
    """
    every = np.sort(np.concatenate([inputs for _, inputs in parts]))
    cells = [[cell for cell in source.cells() if is_of_input(cell)] for source, _ in parts]
    for begin in range(0, len(every), step := Store.block * len(parts)):
        some = every[begin : begin + step]
        low, high = int(some[0]), int(some[-1])
        found: dict[str, list[Row]] = {}
        for (source, inputs), names in zip(parts, cells, strict=True):
            wanted = set(inputs[(inputs >= low) & (inputs <= high)].tolist())
            for cell in names if wanted else ():
                rows = source.kept(cell, (min(wanted), max(wanted))).rows()
                found.setdefault(cell, []).extend(row for row in rows if row[0] in wanted)
        yield (low, high), {cell: sorted(rows) for cell, rows in found.items() if rows}


def cells_of(record: InputRecord) -> Iterator[tuple[str, int, Any]]:
    """Yield cell, index and vector of all that a record holds."""
    index, checksum = record.index, np.frombuffer(bytes.fromhex(record.input_checksum), "<i8")
    yield INPUT, index, np.array([record.label, *checksum], np.int64)
    device = DEVICES.index(record.device)
    numbers = (record.noise_error, record.lost, record.places, record.seconds, device)
    yield SAMPLING, index, np.array(numbers, np.float64)
    yield SELECTION, index, record.selection
    if record.selection_ballots is not None:
        yield SELECTION_BALLOTS, index, record.selection_ballots.as_vector()
    for samples, ballots in record.ballots.items():
        yield f"{BALLOTS}{samples}", index, ballots.as_vector()
    for samples, votes in record.estimation.items():
        yield f"{VOTES}{samples}", index, votes
    for samples, statistics in record.scores.items():
        yield f"{SCORES}{samples}", index, to_vector(statistics)
