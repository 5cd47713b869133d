"""The kernel behind Algorithm 1: margins of transformed logits for every scale at once.

It is scalar and works image by image, so that neither the order of images nor
the number of threads changes a bit of the result.  It holds no lock: the
caller runs it in threads, one exponent each.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from certmix.types import FloatArray, IntArray

PREDICTED = -1
"""In place of a label: the class that is predicted after the transform."""


@njit(cache=True, nogil=True)
def _signed_power(x: float, p: float) -> float:
    return -((-x) ** p) if x < 0.0 else x**p


@njit(cache=True, nogil=True)
def margins_over_scales(
    clamped: FloatArray, labels: IntArray, p: float, scales: FloatArray, margins: FloatArray
) -> None:
    """Write the margins of softmax(s |z|^p sgn z) for each scale s.

    clamped: z, (m, c); labels: (m,), `PREDICTED` or a class; margins: (scales, m).
    """
    images, classes = clamped.shape
    below = np.empty(classes)
    for i in range(images):
        top, second, first = -math.inf, -math.inf, 0
        for j in range(classes):
            value = _signed_power(clamped[i, j], p)
            below[j] = value
            if value > top:
                second, top, first = top, value, j
            elif value > second:
                second = value
        right = labels[i] == PREDICTED or labels[i] == first
        gap = top - second if right else top - below[labels[i]]
        for j in range(classes):
            below[j] = top - below[j]
        for k in range(scales.size):
            total = 0.0
            for j in range(classes):
                total += math.exp(-scales[k] * below[j])
            margin = -math.expm1(-scales[k] * gap) / total
            margins[k, i] = margin if right else 0.0 - margin
