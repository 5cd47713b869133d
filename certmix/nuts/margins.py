"""Confidence margins of logits before and after the nonlinear transform, on arrays.  No torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from certmix.errors import DataError
from certmix.nuts.grid import Grid, TransformSettings, check_top_k
from certmix.types import FloatArray, IntArray

LAYER_NORM = "unbiased"
"""Part of what identifies a mix, and the margins searched for it: under another LN both are others."""

ADDED_VARIANCE = 1e-8
"""Added to the variance in LN, as in published code: equal logits give zeros."""

SMALLEST_DEVIATION = 1e-8
"""Least standard deviation in LN, in units of the input's spread: met only where the top k logits tie."""

LARGEST_LOGIT = 1e307
"""Logits beyond this are refused: their differences leave float64's range."""

CLAMPS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "gelu": lambda x: x * ndtr(x),
    "relu": lambda x: np.maximum(x, 0.0),
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "linear": lambda x: x,
}
"""Clamps by name (Section 4.2 of MixedNUTS); GELU is the exact x Phi(x)."""


def check_logits(logits: ArrayLike) -> FloatArray:
    """Return logits (m, c) as float64; DataError if they are no table, or not within +-1e307."""
    z = np.ascontiguousarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] < 2:
        raise DataError(f"logits have shape {z.shape}: give one row an input and at least 2 classes")
    bad = int(np.count_nonzero(~(np.abs(z) <= LARGEST_LOGIT)))
    if bad:
        raise DataError(
            f"{bad} of {z.size} logits are not within +-{LARGEST_LOGIT:g}: check the robust model"
        )
    return z


def check_labels(labels: ArrayLike, inputs: int, classes: int) -> IntArray:
    """Return labels (m,) as int64; DataError if they are not one class from 0 to c - 1 an input."""
    y = np.asarray(labels)
    if y.shape != (inputs,) or not (y.size == 0 or np.issubdtype(y.dtype, np.integer)):
        found = f"labels have shape {y.shape} and type {y.dtype}"
        raise DataError(f"{found}: give one whole number for each of {inputs} inputs")
    if y.size and not 0 <= y.min() <= y.max() < classes:
        raise DataError(f"labels run from {y.min()} to {y.max()}: they must lie in 0..{classes - 1}")
    return y.astype(np.int64)


def standardize(shifted: Any, kept: Any, spread: Any) -> Any:
    """Return LN of arrays or tensors: the one place where mean and variance are taken.

    ``(z - mean) / sqrt(var + 1e-8)`` with the unbiased variance (divided by k - 1), as in the reference
    implementation, so that published (s, p, c) mean the same transform.  `shifted` (..., c) are logits less
    the largest of their row, `kept` (..., k) those that mean and variance are taken from, `spread` (..., 1)
    is the largest less the smallest logit, a constant to gradients: divided by it first, no square overflows.
    """
    scale = spread.clip(1.0)
    shifted, kept = shifted / scale, kept / scale
    centre = kept.mean(-1, keepdims=True)
    variance = ((kept - centre) ** 2).sum(-1, keepdims=True) / (kept.shape[-1] - 1)
    floored = (variance + (ADDED_VARIANCE**0.5 / scale) ** 2).clip(SMALLEST_DEVIATION**2)
    return (shifted - centre) / floored**0.5


def normalize_numpy(logits: ArrayLike, top_k: int | None = None) -> FloatArray:
    """Return LN of logits (m, c); `certmix.nuts.transform.layer_normalize` on arrays."""
    check_top_k(top_k)
    z = check_logits(logits)
    shifted = z - z.max(1, keepdims=True)
    kept = shifted if top_k is None or top_k >= z.shape[1] else np.sort(shifted, 1)[:, -top_k:]
    normalized: FloatArray = standardize(shifted, kept, -shifted.min(1, keepdims=True))
    return normalized


def softmax_numpy(logits: ArrayLike) -> FloatArray:
    """Return softmax over the last axis, in float64."""
    z = np.asarray(logits, np.float64)
    powers: FloatArray = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def over_grid(
    task: Callable[..., None],
    logits: FloatArray,
    grid: Grid,
    clamp: str,
    *shapes: tuple[int, ...],
) -> list[FloatArray]:
    """Return float64 (s, p, c, *shape) for each shape, as ``task(clamped, p, *blocks)`` fills the blocks.

    A task is an exponent at a bias; its blocks are (s, *shape), and `clamped` is the clamp of `logits` after
    LN plus the bias.  Tasks run on threads, one an available processor.
    """
    arrays = [np.empty((len(grid.c), len(grid.p), len(grid.s), *shape)) for shape in shapes]
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(available) as pool:
        for k, c in enumerate(grid.c):
            clamped = CLAMPS[clamp](logits + c)
            list(pool.map(partial(task, clamped), grid.p, *(array[k] for array in arrays)))
    return [array.swapaxes(0, 2) for array in arrays]


def bend(normalized: FloatArray, settings: TransformSettings) -> FloatArray:
    """Return what M makes of logits after LN."""
    clamped = CLAMPS[settings.clamp](normalized + settings.c)
    return settings.s * (np.sign(clamped) * np.abs(clamped) ** settings.p)


def transform_numpy(logits: ArrayLike, settings: TransformSettings) -> FloatArray:
    """Return M(logits), (m, c); `certmix.nuts.transform.NonlinearTransform` on arrays."""
    return bend(normalize_numpy(logits, settings.top_k), settings)


def clean_margin(logits: ArrayLike) -> FloatArray:
    """Return the margin of softmax(logits), (m, c): its largest probability less the second.

    Definition 2.1 of MixedNUTS: never negative, whether the prediction is right or wrong.

    >>> clean_margin([[-1.0, 1.1, 1.0]]).round(3)  # case 2 of Figure 3
    array([0.047])
    """
    z = check_logits(logits)
    return _margins(z, z.argmax(1))


def attacked_margin(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Return the label's probability in softmax(logits), (m, c), less the largest other.

    Negative where the prediction is wrong, 0 where the label ties for the largest.
    """
    z = check_logits(logits)
    return _margins(z, check_labels(labels, *z.shape))


def _margins(z: FloatArray, labels: IntArray) -> FloatArray:
    """Differences of probabilities from differences of logits, so that small ones keep their digits."""
    rows = np.arange(len(z))
    first = z.argmax(1)
    top = z[rows, first]
    others = z.copy()
    others[rows, first] = -np.inf
    total = np.exp(z - top[:, None]).sum(1)
    right = -np.expm1(others.max(1, initial=-np.inf) - top)
    return np.where(first == labels, right, np.expm1(z[rows, labels] - top)) / total
