"""Choosing a transform for certified accuracy: scores of a smoothed h from stored noisy logits.  No torch.

With the transform inside the expectation, h(x) = E softmax(M(base(x + noise)))
has values in the simplex, so every certificate of a smoothed classifier
stands.  Nothing here is certified: these are averages over a few tuning
samples, and a choice among them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import DataError, ParameterError
from certmix.nuts._certified_kernel import right_over_alphas, sums_over_scales
from certmix.nuts.grid import CLAMP_NAMES, Grid, check_choice
from certmix.nuts.margins import CLAMPS, check_labels, check_logits, normalize_numpy
from certmix.types import FloatArray, IntArray

__all__ = [
    "ALPHAS",
    "Choice",
    "NoisyLogits",
    "ScoreSums",
    "choose",
    "grid_sums",
    "score_sums",
    "softmax_numpy",
]

ALPHAS = tuple(k / 1000 for k in range(501, 1001))
"""Mixing weights that are tried: thousandths above 1/2."""

_LARGEST_GRID = 2**28  # means that are held at once


@dataclass(frozen=True, eq=False)
class NoisyLogits:
    """Everything that a choice depends on, image by image.

    Parameters
    ----------
    standard
        float64 (m, c): logits of the standard classifier on clean images.
    noisy
        float64 (m, n, c): logits of h's base on noisy copies.
    labels, indices
        int64 (m,).

    Raises
    ------
    DataError
        If the arrays do not fit together or hold numbers that are not finite.
    """

    standard: FloatArray
    noisy: FloatArray
    labels: IntArray
    indices: IntArray

    def __post_init__(self) -> None:
        shape = np.shape(self.noisy)
        if len(shape) != 3 or 0 in shape or np.shape(self.standard) != (shape[0], shape[2]):
            found = f"noisy logits have shape {shape}, the standard classifier's {np.shape(self.standard)}"
            raise DataError(f"{found}: give (images, samples, classes) and (images, classes)")
        check_logits(self.standard)
        check_logits(self.noisy.reshape(-1, shape[2]))
        check_labels(self.labels, shape[0], shape[2])

    @property
    def samples(self) -> int:
        """Noisy copies of each image, n."""
        return int(self.noisy.shape[1])


@dataclass(frozen=True, eq=False)
class ScoreSums:
    """Sums over n noisy copies of the scores of candidates, and of their squares: (candidates, m, c)."""

    totals: FloatArray
    squares: FloatArray
    samples: int

    @property
    def means(self) -> FloatArray:
        """Average scores (candidates, m, c): h as far as these samples tell."""
        return self.totals / self.samples


def softmax_numpy(logits: ArrayLike) -> FloatArray:
    """Return softmax over the last axis, in float64."""
    z = np.asarray(logits, np.float64)
    powers: FloatArray = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def score_sums(noisy: FloatArray, score: Callable[[FloatArray], FloatArray]) -> ScoreSums:
    """Return the sums of one candidate, given as a map from logits (..., c) to scores (..., c).

    Parameters
    ----------
    noisy
        (m, n, c).
    score
        Such as `softmax_numpy`.
    """
    scores = score(noisy)
    return ScoreSums(scores.sum(1)[None], (scores**2).sum(1)[None], noisy.shape[1])


def grid_sums(
    noisy: FloatArray,
    grid: Grid,
    *,
    clamp: str = "gelu",
    top_k: int | None = None,
    threads: int | None = None,
) -> ScoreSums:
    """Return the sums of softmax(M(z)) over the noise at every point of a grid.

    Parameters
    ----------
    noisy
        (m, n, c): logits of the base on noisy copies.
    grid, clamp, top_k
        As in `certmix.nuts.margin_grid`.
    threads
        Number of threads, the available processors by default; the result does not depend on it.

    Returns
    -------
    ScoreSums
        Candidates in the order of ``np.ndindex(grid.shape)``: s, then p, then c.

    Raises
    ------
    ParameterError
        If the clamp is unknown, or the grid is too large for these images.
    """
    check_choice("clamp", clamp, CLAMP_NAMES)
    images, samples, classes = noisy.shape
    size = int(np.prod(grid.shape)) * images * classes
    if size > _LARGEST_GRID:
        raise ParameterError(
            f"{np.prod(grid.shape)} grid points, {images} images and {classes} classes are {size:,} means, "
            f"of which at most {_LARGEST_GRID:,} are held: take fewer images or a smaller grid"
        )
    shape = (len(grid.c), len(grid.p), len(grid.s), images, classes)
    totals, squares, scales = np.empty(shape), np.empty(shape), np.array(grid.s)
    normalized = normalize_numpy(noisy.reshape(-1, classes), top_k).reshape(noisy.shape)
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for k, c in enumerate(grid.c):
            clamped = CLAMPS[clamp](normalized + c)
            task = partial(_sum_task, clamped, scales)
            list(pool.map(task, grid.p, totals[k], squares[k]))
    flat = [x.transpose(2, 1, 0, 3, 4).reshape(-1, images, classes) for x in (totals, squares)]
    return ScoreSums(flat[0], flat[1], samples)


def _sum_task(
    clamped: FloatArray, scales: FloatArray, p: float, totals: FloatArray, squares: FloatArray
) -> None:
    sums_over_scales(clamped, p, scales, totals, squares)


@dataclass(frozen=True)
class Choice:
    """The best candidate and mixing weight; counts are of tuning images, estimates all.

    Parameters
    ----------
    candidate
        Its number.
    alpha
        Mixing weight.
    certified, clean
        Tuning images that are planned to be right and certified, and that the mix gets right.
    images
        Of how many.
    ties
        Candidates that reach the same two counts at some alpha, this one included.
    """

    candidate: int
    alpha: float
    certified: int
    clean: int
    images: int
    ties: int


def choose(
    margins: FloatArray,
    robust: FloatArray,
    standard: FloatArray,
    labels: IntArray,
    floor: float,
    *,
    alphas: tuple[float, ...] = ALPHAS,
) -> Choice | None:
    """Return the candidate and alpha that certify most images under a floor of clean accuracy.

    An image counts as certified at alpha where h's class is its label and its
    margin exceeds (1 - alpha) / alpha.  Of equals the first of these decides:
    more clean images right, the larger alpha, the earlier candidate.

    Parameters
    ----------
    margins
        float64 (candidates, m): lower bounds, as planned, of h's margin at the radius wanted.
    robust
        float64 (candidates, m, c): h as far as the tuning samples tell.
    standard
        float64 (m, c): probabilities of g.
    labels
        int64 (m,).
    floor
        Least clean accuracy of the mix on these images, in [0, 1].
    alphas
        Increasing, in [1/2, 1].

    Returns
    -------
    Choice or None
        None where no candidate reaches the floor at any alpha.
    """
    weights = np.array(alphas)
    clean = np.empty((len(robust), len(weights)), np.int64)
    right_over_alphas(np.ascontiguousarray(standard), np.ascontiguousarray(robust), labels, weights, clean)
    counted = np.sort(np.where(robust.argmax(2) == labels, margins, -np.inf), 1)
    threshold = (1.0 - weights) / weights
    certified = np.stack([len(labels) - np.searchsorted(row, threshold, "right") for row in counted])
    feasible = clean >= np.ceil(round(floor * len(labels), 9))
    if not feasible.any():
        return None
    rows, columns = np.nonzero(feasible)
    keys = (rows, -columns, -clean[rows, columns], -certified[rows, columns])
    best = np.lexsort(keys)[0]
    at = int(rows[best]), int(columns[best])
    same = feasible & (certified == certified[at]) & (clean == clean[at])
    return Choice(
        at[0], float(weights[at[1]]), int(certified[at]), int(clean[at]), len(labels), int(same.any(1).sum())
    )
