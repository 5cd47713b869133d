"""Drawing some images' samples anew: selection and a stretch with the run's seed, and with a new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certmix.bounds.statistics import SCALE, ScoreStatistics, start, update
from certmix.errors import RunError
from certmix.records import ImageRecord
from certmix.sampling import Sampler
from certmix.sampling.packing import Draw
from certmix.studies.request import CertifyRequest
from certmix.types import IntArray
from certmix.verification.rederivation.reload import Reloaded
from certmix.verification.rederivation.stored import StoredRun

__all__ = ["Again", "Drawn", "draw_again", "samplers"]


@dataclass(frozen=True)
class Again:
    """What to sample again, with what; see `certmix.verification.resampling.resample.resample`."""

    run: Path
    reloaded: Reloaded
    device: torch.device
    images: int
    samples: int
    new_seed: int
    error_rate: float
    say: Callable[[str], None]
    progress: Callable[[int, int], None] | None

    def report(self, done: int, total: int) -> None:
        """Tell the progress."""
        if self.progress is not None:
            self.progress(done, total)


@dataclass(frozen=True)
class Drawn:
    """One image's counts, drawn anew.

    Parameters
    ----------
    record
        What is stored.
    before, after, stretch
        Estimation samples before..after - 1 with the run's seed: votes (c,).
    fresh, fresh_bins
        Votes (c,) with the new seed; of soft scores also the selected class's bins.
    moved
        How many votes of selection and stretch differ from the stored ones.  Soft
        scores add what their sums differ by, in votes, where it is more than a
        step a sample.
    redrawn
        Samples of selection and stretch.
    """

    record: ImageRecord
    before: int
    after: int
    stretch: IntArray
    fresh: IntArray
    fresh_bins: IntArray | None
    moved: int
    redrawn: int

    @property
    def told(self) -> IntArray:
        """Stored votes (c,) of the stretch."""
        nothing = np.zeros_like(self.stretch)
        found: IntArray = self.record.estimation.get(self.after, nothing) - self.record.estimation.get(
            self.before, nothing
        )
        return found


def samplers(
    again: Again, run: StoredRun, request: CertifyRequest, compiled: bool
) -> tuple[Sampler, Sampler]:
    """Return what draws as the run did, and what draws with the new seed; the latter is never compiled."""
    model, size = again.reloaded.models["robust"], _batch_size(again.run, run.description)
    assert model is not None
    settings: dict[str, Any] = {"device": again.device, "precision": request.precision, "batch_size": size}
    common = (model.module, run.classes, request.sigma)
    return (
        Sampler(*common, request.seed, compiled=compiled, **settings),
        Sampler(*common, again.new_seed, **settings),
    )


def draw_again(
    again: Again,
    run: StoredRun,
    request: CertifyRequest,
    by: tuple[Sampler, Sampler],
    index: int,
    position: int,
) -> Drawn:
    """Draw selection, one stretch between two looks, and fresh samples of an image, by `samplers`."""
    dataset = again.reloaded.dataset
    assert dataset is not None
    record, image = run.images[index], torch.from_numpy(dataset.read(position))
    before, after = _stretch(record, again)

    def draw(sampler: Sampler, stream: str, begin: int, end: int) -> tuple[IntArray, ScoreStatistics | None]:
        wanted = Draw(image, index, (end,), begin, stream)
        if request.scores == "soft":
            kept = record.scores.get(0) if stream == "estimation" else None
            return _scores(sampler, wanted, kept or start(run.classes, 0), request.temperature)
        nothing = np.zeros(run.classes, np.int64)
        return (sampler.submit([wanted]).result()[0][0] if end > begin else nothing), None

    selection = draw(by[0], "selection", 0, request.selection_samples)
    stretch = draw(by[0], "estimation", before, after)
    fresh, statistics = draw(by[1], "estimation", 0, again.samples)
    bins = None if statistics is None else statistics.bin_counts[0]
    moved = _moved(record, before, after, selection, stretch)
    redrawn = request.selection_samples + after - before
    return Drawn(record, before, after, stretch[0], fresh, bins, moved, redrawn)


def _batch_size(folder: Path, description: dict[str, Any]) -> int | None:
    """Return the batch size of a run, which its rounding depends on."""
    size = description.get("batch_size")
    if size is None or (isinstance(size, int) and not isinstance(size, bool) and 1 <= size < 1 << 20):
        return size
    raise RunError(f"{folder}/run.json: batch size {size!r} is none: restore the file")


def _stretch(record: ImageRecord, again: Again) -> tuple[int, int]:
    """Return a random stretch between neighbouring looks that is short enough; (0, 0) if there is none."""
    ends = [0, *sorted(n for n in record.estimation if n > 0)]
    short = [(a, b) for a, b in pairwise(ends) if b - a <= again.samples]
    if not short:
        return 0, 0
    return short[int(np.random.default_rng([again.new_seed, record.index & 0xFFFFFFFF]).integers(len(short)))]


def _scores(
    sampler: Sampler, draw: Draw, kept: ScoreStatistics, temperature: float
) -> tuple[IntArray, ScoreStatistics]:
    """Return votes and statistics of soft scores."""
    votes = np.zeros(sampler.classes, np.int64)
    if draw.stops[-1] > draw.start:
        for _, scores in sampler.scores([draw], temperature):
            kept = update(kept, scores)
            votes += np.bincount(scores.argmax(1), minlength=sampler.classes)
    return votes, kept


def _moved(
    record: ImageRecord, before: int, after: int,
    selection: tuple[IntArray, ScoreStatistics | None], stretch: tuple[IntArray, ScoreStatistics | None],
) -> int:  # fmt: skip
    """Return how many votes differ from the stored ones; a difference of soft sums counts as votes."""
    nothing = np.zeros_like(record.selection)
    told = record.estimation.get(after, nothing) - record.estimation.get(before, nothing)
    moved = int(np.abs(told - stretch[0]).sum()) // 2
    if selection[1] is None or stretch[1] is None:
        return moved + int(np.abs(record.selection - selection[0]).sum()) // 2
    moved += _mass(record.selection - selection[1].totals, selection[1].samples)
    if after > before and {before, after} <= set(record.scores):
        sums = record.scores[after].totals - record.scores[before].totals
        moved += _mass(sums - stretch[1].totals, after - before)
    return moved


def _mass(differences: IntArray, samples: int) -> int:
    """Return what soft sums (c,) differ by, in votes rounded up, where it is more than a step a sample."""
    far = np.abs(differences)
    return -(-int(far[far > samples].sum()) // (2 * SCALE))
