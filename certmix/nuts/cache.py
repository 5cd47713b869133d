"""The margins that Algorithm 1 of MixedNUTS works on, from saved logits, once for every beta.  No torch."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.errors import DataError, ParameterError
from certmix.nuts._fit_kernel import PREDICTED, margins_over_scales
from certmix.nuts.grid import Grid, TransformSettings, check_clamp
from certmix.nuts.margins import CLAMPS, check_labels, check_logits, normalize_numpy
from certmix.types import FloatArray, IntArray

__all__ = ["RIVALS", "MarginGrid", "check_rival", "classified_right", "constraint_share", "margin_grid"]

RIVALS = ("label", "second")
"""Which class a misclassified clean image's margin is taken to, see `margin_grid`; the first by default."""

_LARGEST_CACHE = 2**31  # bytes


def check_rival(rival: str) -> None:
    """Refuse an unknown rival."""
    if rival not in RIVALS:
        raise ParameterError(f"rival {rival!r} is unknown: use one of {', '.join(RIVALS)}")


@dataclass(frozen=True, eq=False)
class MarginGrid:
    """Margins at every point of a grid: any beta follows from them at once.

    Parameters
    ----------
    grid, clamp, top_k
        What was tried.
    attacked
        float64 (s, p, c, images): label's probability less the largest other, of
        attacked images that the robust model classifies right; sorted.
    clean_wrong
        float64 (s, p, c, images): largest probability less the rival's, of clean
        images that it classifies wrong; sorted.
    images
        Images of which these are parts.
    rival, conditional
        Which rival, and whether `clean_wrong` is confined to images that the standard model gets right.
    """

    grid: Grid
    clamp: str
    top_k: int | None
    attacked: FloatArray
    clean_wrong: FloatArray
    images: int
    rival: str
    conditional: bool


def margin_grid(
    clean_logits: ArrayLike,
    attacked_logits: ArrayLike,
    labels: ArrayLike,
    grid: Grid,
    *,
    clamp: str = "gelu",
    top_k: int | None = None,
    rival: str = RIVALS[0],
    standard_correct: ArrayLike | None = None,
    threads: int | None = None,
) -> MarginGrid:
    """Return the sorted margins that Algorithm 1 needs, at every point of a grid.

    Right and wrong are decided before the transform, by the largest logit (the
    lowest class on a tie), which LN does not change.

    Parameters
    ----------
    clean_logits, attacked_logits
        (m, c): logits of the robust model on images and on their perturbations
        of least margin, one row an image.
    labels
        (m,) classes from 0.
    grid
        Candidates of s, p and c.
    clamp, top_k
        As in `TransformSettings`.
    rival
        ``"label"``: the margin of a misclassified clean image is that over its
        label, which is what a right standard model must outweigh.
        ``"second"``: that of Definition 2.1, to its second class, as in the
        paper.  The two differ where the label comes third or later.
    standard_correct
        Optional bool (m,): where the standard model classifies the clean image
        right.  The objective is then conditioned on it (Appendix D.8.3).
    threads
        Number of threads, the available processors by default; the result does not depend on it.

    Raises
    ------
    DataError, ParameterError
        As in `fit`.
    """
    check_clamp(clamp)
    check_rival(rival)
    clean, attacked = check_logits(clean_logits), check_logits(attacked_logits)
    if clean.shape != attacked.shape:
        found = f"clean logits have shape {clean.shape}, attacked ones {attacked.shape}"
        raise DataError(f"{found}: give one row of each for every image")
    y = check_labels(labels, *clean.shape)
    wrong = clean.argmax(1) != y
    if standard_correct is not None:
        wrong &= _check_flags(standard_correct, len(y))
    attacked, targets = classified_right(attacked, y)
    _check_cache(grid, len(targets) + int(wrong.sum()))
    sort = partial(_sorted_margins, grid=grid, clamp=clamp, top_k=top_k, threads=threads)
    if rival == "label":
        unmended = -sort(clean[wrong], y[wrong])[..., ::-1]
    else:
        unmended = sort(clean[wrong], np.full(wrong.sum(), PREDICTED, np.int64))
    conditional = standard_correct is not None
    return MarginGrid(grid, clamp, top_k, sort(attacked, targets), unmended, len(y), rival, conditional)


def _sorted_margins(
    logits: FloatArray, labels: IntArray, *, grid: Grid, clamp: str, top_k: int | None, threads: int | None
) -> FloatArray:
    """Margins (s, p, c, m), sorted along the last axis; one task of the pool an exponent and bias."""
    margins = np.empty((len(grid.c), len(grid.p), len(grid.s), len(logits)))
    normalized, scales = normalize_numpy(logits, top_k), np.array(grid.s)

    def task(clamped: FloatArray, p: float, out: FloatArray) -> None:
        margins_over_scales(clamped, labels, p, scales, out)
        out.sort(-1)

    with _pool(threads) as pool:
        for c, block in zip(grid.c, margins, strict=True):
            list(pool.map(partial(task, CLAMPS[clamp](normalized + c)), grid.p, block))
    return margins.transpose(2, 1, 0, 3)


def constraint_share(
    attacked_logits: ArrayLike, labels: ArrayLike, settings: TransformSettings, threshold: float
) -> float:
    """Return the left side of (7)'s constraint on any images: to be compared with beta.

    The share of attacked images that are classified right whose margin after
    the transform is at least `threshold`.

    Parameters
    ----------
    attacked_logits, labels
        (m, c) before the transform, and (m,).
    settings, threshold
        `settings` and `margin_threshold` of a `NutsFit`, or others.
    """
    logits = check_logits(attacked_logits)
    logits, targets = classified_right(logits, check_labels(labels, *logits.shape))
    grid = Grid((settings.s,), (settings.p,), (settings.c,))
    margins = _sorted_margins(
        logits, targets, grid=grid, clamp=settings.clamp, top_k=settings.top_k, threads=1
    )
    return float(np.mean(margins >= threshold))


def _pool(threads: int | None) -> ThreadPoolExecutor:
    if threads is not None and threads < 1:
        raise ParameterError(f"threads = {threads}: at least 1 is needed; leave it out for all processors")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(threads or available)


def classified_right(logits: FloatArray, labels: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the rows whose largest logit is the label's, and their labels."""
    right = logits.argmax(1) == labels
    if not right.any():
        remedy = "take more images, a smaller eps or a more robust model"
        raise DataError(f"none of {len(labels)} attacked images is classified right: {remedy}")
    return logits[right], labels[right]


def _check_flags(standard_correct: ArrayLike, images: int) -> NDArray[np.bool_]:
    flags = np.asarray(standard_correct)
    if flags.shape != (images,) or flags.dtype != np.bool_:
        found = f"standard_correct has shape {flags.shape} and type {flags.dtype}"
        raise DataError(f"{found}: give true or false for each of {images} images")
    return flags


def _check_cache(grid: Grid, images: int) -> None:
    points = math.prod(grid.shape)
    if 8 * points * images > _LARGEST_CACHE:
        remedy = "take a coarser grid or fewer images"
        raise ParameterError(f"{points} grid points of {images} margins need more than 2 GiB: {remedy}")
