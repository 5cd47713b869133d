"""The kernels behind the certified choice: sums of scores over noise, and clean accuracy over alpha.

Both are scalar and work image by image, so that neither the order of images
nor the number of threads changes a bit of the result.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from certmix.types import FloatArray, IntArray


@njit(cache=True, nogil=True)
def sums_over_scales(
    clamped: FloatArray, p: float, scales: FloatArray, totals: FloatArray, squares: FloatArray
) -> None:
    """Write the sums over noise of softmax(s |z|^p sgn z) and of its squares, for each scale s.

    clamped: z, (m, n, c); totals, squares: (scales, m, c).
    """
    images, samples, classes = clamped.shape
    below, score = np.empty(classes), np.empty(classes)
    totals[:] = 0.0
    squares[:] = 0.0
    for i in range(images):
        for t in range(samples):
            top = -math.inf
            for j in range(classes):
                z = clamped[i, t, j]
                below[j] = -((-z) ** p) if z < 0.0 else z**p
                top = max(top, below[j])
            for k in range(scales.size):
                total = 0.0
                for j in range(classes):
                    score[j] = math.exp(scales[k] * (below[j] - top))
                    total += score[j]
                for j in range(classes):
                    share = score[j] / total
                    totals[k, i, j] += share
                    squares[k, i, j] += share * share


@njit(cache=True, nogil=True)
def right_over_alphas(
    standard: FloatArray, robust: FloatArray, labels: IntArray, alphas: FloatArray, counts: IntArray
) -> None:
    """Write how many images argmax((1 - alpha) g + alpha h) gets right, the lowest class winning ties.

    standard: g, (m, c); robust: h, (candidates, m, c); counts: (candidates, alphas).
    """
    candidates, images, classes = robust.shape
    counts[:] = 0
    for k in range(candidates):
        for a in range(alphas.size):
            for i in range(images):
                best, first = -math.inf, 0
                for j in range(classes):
                    value = (1.0 - alphas[a]) * standard[i, j] + alphas[a] * robust[k, i, j]
                    if value > best:
                        best, first = value, j
                counts[k, a] += first == labels[i]
