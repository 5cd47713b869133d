"""From bounds of what was drawn to bounds of the Gaussian smoothing that certificates speak of."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from certmix.bounds.layers import LayerBounds
from certmix.types import ConfidenceBounds, FloatArray

B = TypeVar("B", bound=ConfidenceBounds | LayerBounds)


def allow_for_noise(bounds: B, noise_error: ArrayLike, lost: ArrayLike = 0.0) -> B:
    """Return bounds of the exact Gaussian smoothing: p - eps, q + eps, and each layer likewise.

    The mean of any function with values in [0, 1] differs by at most the total
    variation of the two laws of noise, eps.  It is no event that could fail:
    the failure probability stays as it is.

    Parameters
    ----------
    bounds
        Of the noise that is drawn, for m images.
    noise_error
        eps, a number or (m,); see `certmix.sampling.law.noise_error`.
    lost
        l2 distance, a number or (m,), between each input and the grid point that was
        sampled, where the certificate is to speak of the input.
    """
    eps = np.asarray(noise_error, np.float64)
    changed: dict[str, FloatArray] = {"lost": np.asarray(lost, np.float64)}
    if isinstance(bounds, LayerBounds):
        changed["own_lower"] = _down(bounds.own_lower, eps[..., None])
        changed["rival_upper"] = _up(bounds.rival_upper, eps[..., None, None])
        changed["rest_upper"] = _up(bounds.rest_upper, eps)
    else:
        p = changed["p_lower"] = _down(bounds.p_lower, eps)
        opposite = (bounds.q_upper == 1.0 - bounds.p_lower) & (p >= 0.5)  # that 1 - p is exact
        changed["q_upper"] = np.where(opposite, 1.0 - p, _up(bounds.q_upper, eps))
    return replace(bounds, **changed)  # type: ignore[arg-type]


def _down(values: FloatArray, eps: FloatArray) -> FloatArray:
    return np.where(eps > 0, np.maximum(0.0, np.nextafter(values - eps, -1.0)), values)


def _up(values: FloatArray, eps: FloatArray) -> FloatArray:
    return np.where(eps > 0, np.minimum(1.0, np.nextafter(values + eps, 2.0)), values)
