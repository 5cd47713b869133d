"""Certification without samples, batch by batch: in this process, or in those of an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from certmix.certification.deterministic_fill import (
    Work,
    fill,
    graph_of,
    keep_logits,
    unfinished,
)
from certmix.certification.deterministic_request import DeterministicRequest, standard_logits
from certmix.runs import Store, engine
from certmix.runs.attacking import Progress
from certmix.runs.elsewhere import Named
from certmix.types import FloatArray, IntArray

__all__ = ["Batch", "Found", "fill_all", "load"]

Cells = dict[str, tuple[list[int], FloatArray]]
"""Indices and vectors (m, k) by cell."""


@dataclass(frozen=True)
class Batch:
    """Images that are worked on together, by position; the first one's index; what is known of them."""

    positions: IntArray
    index: int
    known: Cells


@dataclass(frozen=True)
class Found:
    """What a batch brought: all of it is known now."""

    positions: IntArray
    cells: Cells


def handler_of(work: Work) -> engine.Handler:
    """Return what works on batches until time is up, with what is loaded."""

    def handle(batches: list[Batch], seconds: float, take: engine.Take) -> list[Batch]:
        end = time.monotonic() + seconds
        for done, batch in enumerate(batches, 1):
            take(_found(work, batch))
            if time.monotonic() >= end:
                return batches[done:]
        return []

    return handle


def load(request: DeterministicRequest, named: Named, batch_size: int | None, device: str) -> engine.Handler:
    """Return such a handler in another process, which loads data and robust model itself.

    Raises
    ------
    RunError
        If they are not what the driver loaded.
    """
    chosen = torch.device(device)
    loaded = named.load(chosen)
    graph = graph_of(request, loaded)
    return handler_of(Work(request, loaded, chosen, batch_size, graph, Store(None), None))


def _found(base: Work, batch: Batch) -> Found:
    """Work on a batch with a store of its own, and return what is new."""
    work = replace(base, store=Store(None))
    try:
        for cell, (indices, vectors) in batch.known.items():
            work.store.write(cell, indices, vectors)
        fill(work, batch.positions)
        new: Cells = {}
        for cell in work.store.cells():
            before = batch.known[cell][0] if cell in batch.known else []
            indices = sorted(work.store.known(cell) - set(before))
            if indices:
                new[cell] = indices, work.store.read(cell, indices)
        return Found(batch.positions, new)
    finally:
        work.store.close()


def fill_all(work: Work, positions: IntArray, by: engine.Engine, named: Named) -> IntArray:
    """Compute what the store lacks, batch by batch; return the positions that it holds in full.

    A keyboard interrupt ends the work; batches in flight are lost.
    """
    start, step, done = time.monotonic(), work.step, set[int]()

    def take(found: Found) -> None:
        for cell, (indices, vectors) in found.cells.items():
            work.store.write(cell, indices, vectors)
        done.update(found.positions.tolist())
        if work.progress is not None:
            elapsed = time.monotonic() - start
            work.progress(Progress(len(done), len(positions), work.request.certificate, elapsed))

    batches = [positions[begin : begin + step] for begin in range(0, len(positions), step)]
    alone = replace(work, loaded=replace(work.loaded, standard=None))
    try:
        _standard_logits(work, batches)
        lacking, known = unfinished(work, positions), _known(work)
        for batch in batches:
            if lacking.isdisjoint(batch.tolist()):
                take(Found(batch, {}))
        wanted = [batch for batch in batches if not lacking.isdisjoint(batch.tolist())]
        by.run(
            engine.Work(
                here=lambda: handler_of(alone),
                elsewhere=lambda: partial(load, work.request, named, work.batch_size),
                name=lambda batch: f"the batch of image {batch.index}",
            ),
            _asked(work, wanted, known),
            take,
        )
    except KeyboardInterrupt:
        pass
    kept: IntArray = positions[np.isin(positions, np.array(sorted(done), np.int64))]
    return kept


def _standard_logits(work: Work, batches: list[IntArray]) -> None:
    """Keep the standard model's clean logits, which workers do not compute."""
    model = work.loaded.standard
    if model is None:
        return
    known, indices = work.store.known(standard_logits(model.checksum)), work.loaded.dataset.indices
    for batch in batches:
        if not known.issuperset(indices[batch].tolist()):
            keep_logits(work, standard_logits(model.checksum), model, batch)


def _known(work: Work) -> Cells:
    """Return what the store holds of the robust model."""
    model, cells = work.loaded.standard, Cells()
    for cell in work.store.cells():
        if model is None or cell != standard_logits(model.checksum):
            indices = sorted(work.store.known(cell))
            cells[cell] = indices, work.store.read(cell, indices)
    return cells


def _asked(work: Work, batches: list[IntArray], known: Cells) -> list[Batch]:
    """Return batches as they are handed out, each with what is known of its images."""
    asked = []
    for positions in batches:
        indices, cells = work.loaded.dataset.indices[positions], Cells()
        for cell, (held, vectors) in known.items():
            rows = np.flatnonzero(np.isin(np.array(held), indices))
            if len(rows):
                cells[cell] = [held[row] for row in rows], vectors[rows]
        asked.append(Batch(positions, int(indices[0]), cells))
    return asked
