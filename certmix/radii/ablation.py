"""Ablation: all but k of D pixels are hidden; its curve in l0, and the radii; docs/ablation.md has the proof.

A random set of k pixels meets given rho pixels with probability Delta = 1 - C(D - rho, k) / C(D, k): no mean
of values in [0, 1] can change by more, and one does.  Radii are whole numbers of pixels.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.radii._checks import Certificate, Kind
from certmix.radii._normal import EPS
from certmix.radii.curve import exact_by
from certmix.radii.uniform import _moved, _share
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


def lipschitz_radius(
    p_lower: ArrayLike,
    q_upper: ArrayLike,
    scale: float,
    alpha: float,
    margin_slack: float = 0.0,
    *,
    dimension: int,
) -> FloatArray:
    """Return l0 radii of Theorem 3.5, Lip_0 = k / D: a set meets rho pixels with chance rho k / D at most."""
    lost = _share(p_lower, q_upper, alpha, margin_slack)
    return np.asarray(np.maximum(0.0, np.ceil(lost * (dimension / scale) * (1.0 - 8 * EPS)) - 1.0))


def _curve(p: FloatArray, t: FloatArray, up: bool, scale: float, dimension: int) -> FloatArray:
    table = np.append(changes(int(dimension), int(scale)), 1.0)
    return _moved(p, table[np.minimum(np.ceil(t), len(table) - 1).astype(np.int64)], up)


KIND = Kind(
    "ablation", "all but some pixels hidden (l0)", "the whole number of pixels that are kept",
    {"l0": {
        "exact": exact_by(_curve, "l0", of_dimension=True, whole=True),
        "lipschitz": Certificate(
            "lipschitz", "lipschitz (tight constant)", "Theorem 3.5 with Lip_0 = k/D.",
            lipschitz_radius, "l0", of_dimension=True,
        ),
    }},
    sampler="certmix.sampling.ablation:Ablation", whole=True,
)  # fmt: skip
