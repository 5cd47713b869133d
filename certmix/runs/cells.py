"""The one loop of all runs: what inputs lack is computed, batch by batch, and kept as it comes."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certmix.data import stack
from certmix.runs.engine import Engine, Handler, Open, Take, Work
from certmix.runs.store import Store
from certmix.sampling.devices import full_float32
from certmix.types import Dataset, FloatArray, IntArray

Numbers = list[tuple[str, int, Any]]
"""Cell, input and vector (k,) of all that was computed, or is known."""


@dataclass(frozen=True)
class Progress:
    """Reported as numbers come: inputs done, over all cells, the last cell's name, and samples drawn.

    ``certified`` counts the inputs certified at any radius > 0 by the row that decides, ``right`` right ones.
    """

    done: int
    total: int
    cell: str
    seconds: float
    drawn: int = 0
    certified: int = 0
    right: int = 0


@dataclass(frozen=True)
class Found:
    """What a piece of work brought, and what it adds to the `Progress`."""

    numbers: Numbers
    done: int
    cell: str = ""
    drawn: int = 0
    certified: int = 0
    right: int = 0


@dataclass(frozen=True)
class Todo:
    """What is lacking: the work, which hands over `Found`, its items, and what is there already."""

    work: Work
    items: list[Any]
    total: int
    begun: Found


def fill(
    store: Store,
    todo: Todo,
    *,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> bool:
    """Do what is lacking, in this process or by `engine`; False if an interrupt ended it."""
    start, sums = time.monotonic(), np.zeros(4, np.int64)

    def take(found: Found) -> None:
        nonlocal sums
        store.write_all(found.numbers)
        sums += (found.done, found.drawn, found.certified, found.right)
        if progress is not None and found.done:
            done, *more = sums.tolist()
            progress(Progress(done, todo.total, found.cell, time.monotonic() - start, *more))

    try:
        take(todo.begun)
        if engine is None:
            todo.work.here()(todo.items, math.inf, take)
        else:
            engine.run(todo.work, todo.items, take)
    except KeyboardInterrupt:
        return False
    return True


@dataclass(frozen=True)
class Batch:
    """Inputs (n, ...), labels (n,), a generator, all on the device; the inputs' indices; what is known."""

    inputs: Tensor
    labels: Tensor
    generator: torch.Generator
    indices: IntArray
    held: Store


@dataclass(frozen=True)
class Cell:
    """One condition of a run: ``compute`` returns what it keeps of each input, (n, k).

    ``key`` shares the random starts of another cell; ``wanted`` says which of the inputs (m,), by index, that
    hold all cells before this one want it: all of them if it is None.
    """

    name: str
    compute: Callable[[Batch], FloatArray | IntArray]
    key: str | None = None
    wanted: Callable[[Store, IntArray], NDArray[np.bool_]] | None = None

    def lacks(self, store: Store, indices: IntArray) -> NDArray[np.bool_]:
        """Return which inputs (m,) want this cell and lack it."""
        lacks = ~np.isin(indices, list(store.known(self.name, indices)))
        if self.wanted is not None and lacks.any():
            lacks[lacks] = self.wanted(store, indices[lacks])
        return lacks


@dataclass(frozen=True)
class Part:
    """Inputs that are worked on together, by position; what another process is to know of them."""

    positions: IntArray
    index: int
    known: Numbers = field(default_factory=list)


@dataclass(frozen=True)
class Cells:
    """Cells of a data set, `step` inputs together, on a device; random starts are keyed by `seed`."""

    cells: Sequence[Cell]
    dataset: Dataset
    device: torch.device
    step: int
    seed: int = 0

    def lacking(self, store: Store, positions: IntArray) -> NDArray[np.bool_]:
        """Return which inputs (m,) lack any cell."""
        indices = self.dataset.indices[positions]
        found = np.zeros(len(indices), bool)
        for cell in self.cells:
            rest = np.flatnonzero(~found)  # a cell may depend on those before it
            found[rest] = cell.lacks(store, indices[rest])
        return found

    def todo(self, store: Store, positions: IntArray, elsewhere: Callable[[], Open] | None = None) -> Todo:
        """Return what inputs lack; `elsewhere` as in `certmix.runs.engine.Work`, where others may do it.

        Batches go through all cells before the next begins, so that an interruption leaves inputs with every
        figure.  Random starts are keyed by seed, cell and the inputs of the batch: runs repeat.
        """
        lacking, known = self.lacking(store, positions), dict[int, Numbers]()
        for cell in self.cells if elsewhere is not None else ():
            held = sorted(store.known(cell.name))
            for index, vector in zip(held, store.read(cell.name, held), strict=True):
                known.setdefault(index, []).append((cell.name, index, vector))
        parts, done = [], 0
        for begin in range(0, len(positions), self.step):
            part = positions[begin : begin + self.step]
            indices = self.dataset.indices[part].tolist()
            if lacking[begin : begin + self.step].any():
                told = [number for index in indices for number in known.get(index, ())]
                parts.append(Part(part, indices[0], told))
            else:
                done += len(part) * len(self.cells)
        work = Work(
            here=lambda: self.handler(store),
            elsewhere=elsewhere or _nowhere,
            name=lambda part: f"the batch of input {part.index}",
        )
        return Todo(work, parts, len(positions) * len(self.cells), Found([], done, self.cells[-1].name))

    def handler(self, store: Store | None = None) -> Handler:
        """Return what computes the cells that parts lack; without a store, from what they bring along."""
        return partial(self._handle, store)

    def _handle(self, store: Store | None, parts: list[Part], seconds: float, take: Take) -> list[Part]:
        end = time.monotonic() + seconds
        for number, part in enumerate(parts, 1):
            with nullcontext(store) if store is not None else closing(Store(None)) as held:
                if store is None:
                    held.write_all(part.known)
                for cell in self.cells:
                    vectors = self._compute(cell, part, held)
                    if store is None:
                        held.write_all(vectors)
                    take(Found(vectors, len(part.positions), cell.name))
            if time.monotonic() >= end:
                return parts[number:]
        return []

    def _compute(self, cell: Cell, part: Part, held: Store) -> Numbers:
        """Return what a cell lacks of a part's inputs."""
        positions = part.positions[cell.lacks(held, self.dataset.indices[part.positions])]
        if not len(positions):
            return []
        indices = self.dataset.indices[positions]
        # torch's CPU generator uses no more than 32 bits
        digest = hashlib.sha256(f"{self.seed}\0{cell.key or cell.name}\0".encode())
        digest.update(indices.astype("<i8").tobytes())
        generator = torch.Generator(self.device)
        generator.manual_seed(int.from_bytes(digest.digest()[:4], "little"))
        inputs = torch.from_numpy(stack(self.dataset, positions.tolist())).to(self.device)
        labels = torch.from_numpy(self.dataset.labels[positions]).to(self.device)
        with full_float32():
            vectors = cell.compute(Batch(inputs, labels, generator, indices, held))
        return [(cell.name, index, vector) for index, vector in zip(indices.tolist(), vectors, strict=True)]


def _nowhere() -> Open:
    raise AssertionError("these cells are computed in this process")
