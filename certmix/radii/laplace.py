"""Laplace noise: its curve in l1, and the radii that follow; docs/laplace.md has the proof.

Each coordinate has the density exp(-|z| / b) / (2 b), F is its distribution for b = 1.  In an l1 ball of
radius t b the least that a mean p can become is G_t(p) = F(F^-1(p) - t): to move along one axis is worst.
"""

from __future__ import annotations

import numpy as np

from certmix.radii._checks import Kind
from certmix.radii.curve import exact_by, lipschitz_by
from certmix.types import FloatArray


def _curve(p: FloatArray, t: FloatArray, up: bool, *_: object) -> FloatArray:
    """Return G_t(p), or 1 - G_t(1 - p), without forming 1 - p where p is small."""
    x, rest = np.exp(-t), 1.0 - p
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        if up:
            below = np.where(p <= 0.5 * x, p / x, 1.0 - 0.25 * x / np.maximum(p, 1e-300))
            return np.asarray(np.where(p <= 0.5, below, 1.0 - rest * x))
        above = np.where(rest <= 0.5 * x, 1.0 - rest / x, 0.25 * x / np.maximum(rest, 1e-300))
        return np.asarray(np.where(p >= 0.5, above, p * x))


KIND = Kind(
    "laplace", "Laplace noise (l1)", "b, the mean size of a value's noise",
    {"l1": {
        "exact": exact_by(_curve, "l1"),
        "lipschitz": lipschitz_by(lambda *_: 1.0, "l1", "the smallest constant, 1/(2 b)"),
    }},
    law="certmix.sampling.laplace:weights",
)  # fmt: skip
