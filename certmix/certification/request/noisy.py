"""Noise of a request: its kind, its level, and the norm of radii.  No torch."""

from __future__ import annotations

from typing import Any

import msgspec

from certmix.certification.request.parts import PENDING
from certmix.errors import ParameterError
from certmix.radii import SMOOTHINGS, Smoothing, norms_of
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs.settings import DERIVED, Settings, norm_name

NORMS_OF_NOISE = tuple(dict.fromkeys(norm for name in SMOOTHINGS for norm in norms_of(name)))
ENUMERATED = tuple(name for name, kind in SMOOTHINGS.items() if kind.cases is not None)
"""Kinds that go through every case of an input."""


class Noisy(Settings, frozen=True):
    """What requests with noise share: its kind, how much of it there is, and the norm of radii."""

    @property
    def smoothing(self) -> Smoothing:
        """The noise, and the norm of the radii."""
        made: Any = self  # its kinds have these fields
        level = made.scale if made.sigma is None else made.sigma
        if made.noise in ENUMERATED:
            raise ParameterError(
                f"noise = {made.noise}: it is not sampled: all of its cases are gone through"
            )
        if made.noise == GAUSSIAN and level is None:
            raise ParameterError("no noise level: give --sigma (0.25, 0.5, 1)")
        if level is None:
            told = f"{made.noise} noise needs a scale, {SMOOTHINGS[made.noise].scale}"
            raise ParameterError(f"{told}: give --scale")
        return Smoothing(made.noise, level, norm_name(made.norm) or "", made.dimension)

    def of_dimension(self, dimension: int) -> Any:
        """Return the request about inputs of so many values, or pixels, as far as radii depend on it."""
        given: Any = self
        if given.dimension not in (None, dimension):
            raise ParameterError(
                f"dimension = {given.dimension}: inputs of the data have {dimension}: leave it out"
            )
        if not self.smoothing.needs_dimension or given.dimension is not None:
            return self
        derived = {"radii": DERIVED} if getattr(self, "radii", None) == PENDING else {}
        return self.replace(dimension=dimension, **derived)

    def check_noise(self) -> None:
        """Refuse a level of other noise; the scale of Gaussian noise becomes its sigma."""
        made: Any = self
        if made.noise != GAUSSIAN and made.sigma is not None:
            told = f"sigma = {made.sigma:g}: it is the level of gaussian noise"
            raise ParameterError(f"{told}: give --scale for {made.noise} noise, or leave --noise out")
        if made.noise == GAUSSIAN and made.scale is not None:
            if made.sigma not in (None, made.scale):
                told = f"sigma = {made.sigma:g} and scale = {made.scale:g} differ"
                raise ParameterError(f"{told}: leave --scale out")
            msgspec.structs.force_setattr(self, "sigma", made.scale)
            msgspec.structs.force_setattr(self, "scale", None)
