"""Sums of soft scores, made where scores are computed: whole numbers of `certmix.bounds.statistics`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from certmix.bounds.statistics import BIN_STEPS, BINS, ROW_SLACK, SCALE, ScoreStatistics, add
from certmix.sampling.devices import send
from certmix.sampling.packing import Part
from certmix.sampling.rows import not_finite
from certmix.types import IntArray


def sums_of(scores: Tensor, parts: Sequence[Part], followed: IntArray) -> Tensor:
    """Return what scores (n, c) add to the statistics of each part: int64 (parts, w), nobody waits for them.

    `followed` (parts, f) are the classes whose bins are kept, the selected one first.  A row holds the sums
    of `SUMS`, with f rows of bins, then votes (c,), then how many samples have no scores.
    """
    counts, device = [part.count for part in parts], scores.device
    owner = send(torch.from_numpy(np.repeat(np.arange(len(parts)), counts)), device)
    kept = send(torch.from_numpy(np.repeat(followed, counts, 0)), device)
    scaled = scores.nan_to_num(0.0) * SCALE
    steps = scaled.ceil().scatter(1, kept[:, :1], scaled.gather(1, kept[:, :1]).floor()).long()
    of_kept = steps.gather(1, kept)
    place = (of_kept // BIN_STEPS).clamp(max=BINS - 1)
    bins = place + BINS * torch.arange(kept.shape[1], device=device)
    bad = ~((scores.sum(1, keepdim=True) - 1).abs() <= ROW_SLACK)  # true of NaN

    def added(width: int, places: Tensor | None, values: Tensor) -> Tensor:
        into = torch.zeros((len(parts), width), dtype=torch.int64, device=device)
        if places is None:
            return into.index_add_(0, owner, values)
        flat = (places + width * owner[:, None]).flatten()
        return into.view(-1).index_add_(0, flat, values.flatten()).view(into.shape)

    classes, bins_kept = scores.shape[1], BINS * kept.shape[1]
    one = torch.ones_like(kept[:, :1])
    return torch.cat(
        [
            added(classes, None, steps), added(classes, None, steps * steps),
            added(bins_kept, bins, one.expand_as(bins)), added(bins_kept, bins, of_kept - place * BIN_STEPS),
            added(classes, scores.argmax(1, keepdim=True), one), added(1, None, bad.long()),
        ],
        1,
    )  # fmt: skip


def take_sums(statistics: ScoreStatistics, samples: int, row: IntArray) -> tuple[ScoreStatistics, IntArray]:
    """Return the statistics with a row of `sums_of` added, and its votes; ModelError if scores are none."""
    classes, shape = statistics.classes, statistics.bin_counts.shape
    bins = (len(row) - 3 * classes - 1) // 2
    totals, squares, counts, excess, votes, bad = np.split(
        row, np.cumsum([classes, classes, bins, bins, classes])
    )
    if bad[0]:
        raise not_finite()
    own = [rows[: shape[0] * BINS].reshape(shape) for rows in (counts, excess)]
    return add(statistics, samples, totals, squares, *own), votes
