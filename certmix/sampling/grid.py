"""The grid that noisy inputs live on: multiples of one step, fine beside the noise.

The base classifier is f = net o value o R: R rounds every coordinate to the
nearest multiple of the step, `Grid.value` is the float32 that the network sees.
f is a function of real inputs, and h is its exact Gaussian smoothing.  Where x
lies on the grid, R(x + sigma z) = x + R(sigma z): noise is drawn as whole
numbers of steps, so neither x nor the noise can be told from the last bits of a
float.  The step depends on sigma alone, and k/255 is always on the grid.

With feature scales the grid, the noise and all distances are of z = x / scale:
f is net o value o R, R rounds z, and value multiplies by the scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.errors import DataError, ParameterError
from certmix.radii.smoothings import Smoothing
from certmix.types import FloatArray

FINEST = 4096
"""Steps of a standard deviation, at least: the grid costs an input that is not on it 0.0003 sigma sqrt(d)."""

_MOST = 2**30
_SMALLEST = 2.0**-80
_LEVELS = 255
_ROUNDED = 2.0**-23 * (1 + 2.0**-20)
"""Relative error of k times the float32 1/255, in float32: two roundings."""


@dataclass(frozen=True, eq=False)
class GridPoint:
    """An input on the grid: coordinates in steps, int32, and at most how far it is from the input given.

    `is_8bit`: every value given was one of k/255, to float32 precision; the point is the one that was meant.
    """

    steps: NDArray[np.int32]
    distance: float
    is_8bit: bool

    @property
    def lost(self) -> float:
        """What a radius about this point loses as one about the given input: 0 for an 8-bit input."""
        return 0.0 if self.is_8bit else self.distance


@dataclass(frozen=True)
class Grid:
    """Multiples of 1 / per_unit, for noise of level sigma in units of the input, or of `scale`, of its shape.

    per_unit is a multiple of 255 for sigma up to 32, a whole number up to 8192.  Distances are in `norm`.
    """

    sigma: float
    per_unit: float
    scale: FloatArray | None = field(default=None, compare=False)
    norm: str = "l2"

    @classmethod
    def of(cls, level: float | Smoothing, scale: FloatArray | None = None) -> Grid:
        """Return the grid of a noise level, or of another kind of noise."""
        smoothing = Smoothing.of(level)
        sigma, norm = float(smoothing.scale), smoothing.own_norm
        if not _SMALLEST <= sigma <= 1 / _SMALLEST:
            drawn = f"noise is drawn for {_SMALLEST:g} to {1 / _SMALLEST:g}"
            raise ParameterError(f"sigma = {sigma}: {drawn}: use other units of the input")
        for levels in (_LEVELS, 1):  # k/255, else whole numbers, on the grid wherever that is not too fine
            if 2.0**-20 <= sigma <= 2 * FINEST / levels:
                steps = levels * math.ceil(Fraction(FINEST, levels) / Fraction(sigma))
                return cls(sigma, float(steps), scale, norm)
        return cls(sigma, math.nextafter(FINEST / sigma, math.inf), scale, norm)

    @property
    def steps_per_sigma(self) -> Fraction:
        """sigma in steps, exact."""
        return Fraction(self.sigma) * Fraction(self.per_unit)

    def nearest(self, values: ArrayLike) -> GridPoint:
        """Return the grid point next to an input (any shape); DataError if float32 would lose the noise."""
        given, one_rounding = np.array(values, np.float64, ndmin=1), 2.0**-52
        if self.scale is not None:  # the quotient is rounded, too
            given, one_rounding = given / self.scale, 2.0**-51
        steps = np.rint(given * self.per_unit)
        if not np.all(np.abs(steps) <= _MOST):  # NaN is neither
            wrong = given[~(np.abs(steps) <= _MOST)].flat[0]
            raise DataError(
                f"an input holds {wrong:g}{'' if self.scale is None else ' scales'} beside noise of sigma = "
                f"{self.sigma:g}: values must be finite and "
                f"at most {_MOST / self.per_unit:.6g} in size: scale the features, or use more noise"
            )
        off = np.abs(given - steps / self.per_unit) + np.abs(given) * one_rounding
        if self.per_unit.is_integer() and self.scale is None:
            off[given == np.rint(given)] = 0.0
        in_steps = float(np.linalg.norm((off * self.per_unit).ravel(), 1 if self.norm == "l1" else 2))
        distance = in_steps / self.per_unit * (1 + (given.size + 8) * 2.0**-52)
        scale = self.per_unit / _LEVELS
        levels = steps / scale
        whole = (levels == np.rint(levels)) & (levels >= 0) & (levels <= _LEVELS)
        is_8bit = bool(
            self.scale is None
            and scale == np.rint(scale)
            and np.all(whole)
            and np.all(off <= np.abs(given) * _ROUNDED)
        )
        distance = math.nextafter(distance, math.inf) if off.any() else 0.0
        return GridPoint(steps.reshape(np.shape(values)).astype(np.int32), distance, is_8bit)

    def is_within(self, values: ArrayLike, lost: float) -> bool:
        """Whether an input is no farther from its grid point: decided exactly, to the last digit."""
        point = self.nearest(values)
        if lost >= point.lost:
            return True
        given = np.array(values, np.float64)
        scale = np.broadcast_to(1.0 if self.scale is None else self.scale, given.shape)
        rows = zip(given.ravel().tolist(), scale.ravel().tolist(), point.steps.ravel().tolist(), strict=True)
        unit, power = Fraction(self.per_unit), 1 if self.norm == "l1" else 2
        off = (abs(Fraction(x) / Fraction(s) - k / unit) ** power for x, s, k in rows)
        return sum(off, Fraction(0)) <= Fraction(lost) ** power

    def value(self, steps: ArrayLike) -> NDArray[np.float32]:
        """Return the float32 that the network sees for grid points."""
        plain = (np.asarray(steps, np.float64) / self.per_unit).astype(np.float32)
        return plain if self.scale is None else plain * self.scale.astype(np.float32)

    def real(self, steps: ArrayLike) -> FloatArray:
        """Return grid points, in the units of noise, to float64 precision."""
        return np.asarray(steps, np.float64) / self.per_unit


def lost_by(smoothing: Smoothing, values: ArrayLike, scale: FloatArray | None = None) -> float:
    """Return what a certificate about the sampled point loses as one about an input, a distance in own norm.

    Nothing is lost where nothing is added to the input.
    """
    return Grid.of(smoothing, scale).nearest(values).lost if smoothing.entry.law is not None else 0.0
