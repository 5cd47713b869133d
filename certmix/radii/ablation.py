"""Ablation: all but k of D pixels are hidden; its curve in l0, and the radii; docs/ablation.md has the proof.

A random set of k pixels meets given rho pixels with probability Delta = 1 - C(D - rho, k) / C(D, k): no mean
of values in [0, 1] can change by more, and one does.  Radii are whole numbers of pixels.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from certmix.errors import ParameterError
from certmix.radii._checks import Kind
from certmix.radii._normal import EPS
from certmix.radii.curve import exact_by, lipschitz_by
from certmix.radii.uniform import _moved
from certmix.types import FloatArray


@lru_cache(maxsize=16)
def changes(pixels: int, kept: int) -> FloatArray:
    """Return Delta, rounded up, of 0, 1, ... changed pixels, as long as it is below 1/2."""
    if kept >= pixels:
        raise ParameterError(f"scale = {kept}: ablation keeps fewer than all {pixels} pixels: give less")
    found, missed = [0.0], 1.0
    for rho in range(pixels - kept):
        missed *= (pixels - kept - rho) / (pixels - rho) * (1.0 - 4 * EPS)  # more than its two roundings
        if missed <= 0.5:
            break
        found.append(float(np.nextafter(1.0 - missed, 1.0)))
    table = np.array(found)
    table.setflags(write=False)
    return table


def _curve(p: FloatArray, t: FloatArray, up: bool, scale: float, dimension: int) -> FloatArray:
    table = np.append(changes(int(dimension), int(scale)), 1.0)
    return _moved(p, table[np.minimum(np.ceil(t), len(table) - 1).astype(np.int64)], up)


KIND = Kind(
    "ablation", "all but some pixels hidden (l0)", "the whole number of pixels that are kept",
    {"l0": {
        "exact": exact_by(_curve, "l0", of_dimension=True, whole=True),
        "lipschitz": lipschitz_by(
            lambda k, d: 2 * k / d, "l0", "Lip_0 = k/D", of_dimension=True, whole=True
        ),
    }},
    sampler="certmix.sampling.ablation:Ablation", whole=True,
)  # fmt: skip
