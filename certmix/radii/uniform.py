"""Uniform noise: its curves in l1 and in linf, and the radii that follow; docs/uniform.md has the proofs.

Each coordinate is uniform on [-lambda, lambda].  The boxes around x and x + d share a part s of their volume,
and G_t(p) = p - (1 - s) for the smallest s of the ball: 1 - t / (2 lambda) in l1, and (1 - t / (2 lambda))^D
in linf, of D values.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from certmix.radii._checks import Kind
from certmix.radii._normal import EPS
from certmix.radii.curve import exact_by, lipschitz_by
from certmix.types import FloatArray


def _moved(p: FloatArray, lost: FloatArray, up: bool) -> FloatArray:
    """Return what is left of p where a part of the volume is `lost`, or with `up` what it may become."""
    return np.asarray(np.minimum(1.0, p + lost) if up else np.maximum(0.0, p - lost))


def _l1_curve(p: FloatArray, t: FloatArray, up: bool, *_: object) -> FloatArray:
    return _moved(p, 0.5 * t, up)


def _linf_curve(p: FloatArray, t: FloatArray, up: bool, scale: float, dimension: int) -> FloatArray:
    return _moved(p, -np.expm1(dimension * np.log1p(-np.minimum(0.5 * t, 1.0 - EPS))), up)


_L1 = lipschitz_by(lambda *_: 1.0, "l1", "Lip_1 = 1/(2 lambda), which is tight")
KIND = Kind(
    "uniform", "uniform noise (l1, linf)", "lambda, the most that noise adds to a value",
    {
        "l1": {"exact": replace(exact_by(_l1_curve, "l1"), radius=_L1.radius), "lipschitz": _L1},
        "linf": {
            "exact": exact_by(_linf_curve, "linf", of_dimension=True),
            "lipschitz": lipschitz_by(lambda _, d: d, "linf", "Lip_inf = D/(2 lambda)", of_dimension=True),
        },
    },
    law="certmix.sampling.uniform:weights",
)  # fmt: skip
