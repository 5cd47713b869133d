"""Kinds of smoothing: one table, `SMOOTHINGS`, of what is drawn and of the curve that follows from it.

With noise of a kind, h(x) = E f(x with noise) for an f with values in [0, 1]; its curve for a norm is
G_t(p) = inf{E f(x' with noise) : E f(x with noise) >= p, ||x' - x|| <= t}.  The mix keeps its answer within
distance t while G_t(p) - (1 - G_t(1 - q)) exceeds the margin threshold, whatever g is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError, check_choice
from certmix.lazy import LazyTable
from certmix.radii._checks import Certificate, Kind, check_sigma, less_lost
from certmix.types import FloatArray, IntArray

__all__ = ["GAUSSIAN", "SMOOTHINGS", "Smoothing"]

CERTIFICATES = LazyTable({
    "exact": "certmix.radii.exact:CERTIFICATE", "smoothing": "certmix.radii.theorems:SMOOTHING",
    "lipschitz": "certmix.radii.theorems:TIGHT", "lipschitz-paper": "certmix.radii.theorems:PAPER",
})  # fmt: skip
"""Certificates of Gaussian noise by name; the first is the default."""

GAUSSIAN = "gaussian"

SMOOTHINGS = LazyTable({
    GAUSSIAN: Kind(
        GAUSSIAN, "normal noise", "its standard deviation", {"l2": CERTIFICATES},
        law="certmix.sampling.gaussian:weights",
    ),
    "laplace": "certmix.radii.laplace:KIND", "uniform": "certmix.radii.uniform:KIND",
    "ablation": "certmix.radii.ablation:KIND",
    "splitting": "certmix.radii.splitting:KIND", "bands": "certmix.radii.bands:KIND",
})  # fmt: skip
"""Kinds of smoothing by name; the first is the default."""

_STRETCHES = {("l2", "linf"): 1, ("l1", "l2"): 1, ("l1", "linf"): 2}
"""(norm proved, norm asked for) -> k: a ball of radius r lies in the proved one of radius r d^(k/2)."""


@dataclass(frozen=True)
class Smoothing:
    """Noise of one kind and scale, and the norm that radii are wanted in.

    Parameters
    ----------
    kind
        A name in `SMOOTHINGS`.
    scale
        How much noise, in units of the input (``ablation``: pixels kept).
    norm
        Norm of the radii; "" for the kind's own.  Others are converted, which is always sound: an l1 ball
        lies in the l2 ball of its radius, that in the linf ball, and an linf ball in the l2 ball of sqrt(d)
        times its radius, that in the l1 ball of sqrt(d) times its own.
    dimension
        Values of an input, d, or pixels where these are what is kept; None where nothing depends on it.

    Raises
    ------
    ParameterError
        For values that cannot be.

    Examples
    --------
    >>> Smoothing("gaussian", 0.5).radius("exact", 0.99, 0.01, alpha=0.76).round(4)
    array([0.9598])
    """

    kind: str
    scale: float
    norm: str = ""
    dimension: int | None = None

    def __post_init__(self) -> None:
        check_choice("noise", self.kind, SMOOTHINGS)
        entry = self.entry
        if self.kind == GAUSSIAN or not isinstance(self.scale, Real):
            check_sigma(self.scale)
        if not 0 < self.scale < math.inf or (entry.whole and self.scale != round(self.scale)):
            wanted = "a whole number of at least 1" if entry.whole else "a positive number"
            raise ParameterError(
                f"scale = {self.scale}: of {self.kind} noise it is {entry.scale}: give {wanted}"
            )
        object.__setattr__(self, "norm", self.norm or next(iter(entry.certificates)))
        if self.norm not in norms_of(self.kind):
            known = " or ".join(norms_of(self.kind))
            raise ParameterError(f"norm {self.norm}: {self.kind} noise gives radii in {known}")

    @classmethod
    def of(cls, level: float | Smoothing) -> Smoothing:
        """Return a smoothing as it is, a number as that of Gaussian noise."""
        return level if isinstance(level, Smoothing) else cls(GAUSSIAN, level)

    @property
    def entry(self) -> Kind:
        """What is known of its kind."""
        found: Kind = SMOOTHINGS[self.kind]
        return found

    @property
    def sigma(self) -> float | None:
        """The standard deviation of Gaussian noise, None of others."""
        return self.scale if self.kind == GAUSSIAN else None

    @property
    def level(self) -> float | None:
        """About how far noise moves a value, None where it moves none."""
        return None if self.entry.law is None else self.scale

    @property
    def own_norm(self) -> str:
        """The norm that distances are counted in before they are converted."""
        return next(iter(self.entry.certificates))

    @property
    def curve(self) -> str:
        """The norm whose curve radii follow from: that asked for, else the kind's own, which is converted."""
        return self.norm if self.norm in self.entry.certificates else self.own_norm

    @property
    def converted_from(self) -> str | None:
        """The norm that radii are converted from, if they are."""
        return None if self.norm == self.curve else self.curve

    @property
    def certificates(self) -> Mapping[str, Certificate]:
        """The certificates by name."""
        return self.entry.certificates[self.curve]

    @property
    def needs_dimension(self) -> bool:
        """Whether radii depend on how many values, or pixels, an input has."""
        rules = self.entry.certificates[self.curve]
        return (self.curve, self.norm) in _STRETCHES or (
            self.kind != GAUSSIAN and any(rule.of_dimension for rule in rules.values())
        )

    @property
    def told(self) -> str:
        """Kind and scale, in words."""
        return (
            f"sigma {self.scale:g}" if self.kind == GAUSSIAN else f"{self.kind} noise of scale {self.scale:g}"
        )

    @property
    def stretch(self) -> int:
        """The square of what radii in `norm` times give those in the norm of the curve."""
        power = _STRETCHES.get((self.curve, self.norm), 0)
        return self._dimension() ** power if power else 1

    def size_of(self, shape: tuple[int, ...]) -> int:
        """Return how many values an input of a shape has, or pixels, where these are what is hidden."""
        return math.prod(shape[1:] if self.entry.whole and len(shape) == 3 else shape)

    def of_shape(self, shape: tuple[int, ...]) -> Smoothing:
        """Return the smoothing of inputs of a shape, as far as radii depend on it."""
        return replace(self, dimension=self.size_of(shape)) if self.needs_dimension else self

    def _dimension(self) -> int:
        if self.dimension is None:
            told = f"{self.norm} radii of {self.kind} noise depend on how many values an input has"
            raise ParameterError(f"{told}: give dimension")
        return int(self.dimension)

    def radius(
        self,
        certificate: str,
        p_lower: ArrayLike,
        q_upper: ArrayLike,
        alpha: float,
        margin_slack: float = 0.0,
        *,
        lost: FloatArray | float = 0.0,
        rows: IntArray | None = None,
    ) -> FloatArray:
        """Return certified radii in `norm`, rounded down; 0 where not certified.

        Parameters
        ----------
        certificate
            A name in `certificates`.
        p_lower, q_upper, alpha, margin_slack
            As for `certmix.radii.exact_radius`; so are the errors.
        lost
            What radii in `own_norm` lose: the distance of inputs from the points that p and q are about.
        rows
            Of which pair each radius is, where many are alike.
        """
        rule = self.certificates[certificate]
        more = {"dimension": self._dimension()} if rule.of_dimension else {}
        given = p_lower, q_upper, self.scale, alpha
        found = np.atleast_1d(rule.radius(*given, margin_slack=margin_slack, **more))
        return self.converted(found if rows is None else found[rows], lost)

    def converted(self, radius: FloatArray, lost: FloatArray | float) -> FloatArray:
        """Return radii of the curve in `norm`, less what they lose, rounded down."""
        found = less_lost(radius, lost)
        if (stretch := self.stretch) > 1:
            found = found / math.sqrt(stretch) * (1.0 - 4 * 2.0**-53)
        return found

    def moved(self, p: FloatArray, distance: FloatArray, up: bool = False) -> FloatArray:
        """Return the least that means p of values in [0, 1] can become, with `up` the most.

        `distance` is in the norm of the curve, in scales of the noise (pixels, where these are hidden).
        """
        if (curve := self.certificates["exact"].curve) is None:
            raise ParameterError(f"{self.kind} noise has no curve=: add it (docs/extending.md)")
        return curve(p, distance, up, self.scale, self.dimension)


def norms_of(kind: str) -> tuple[str, ...]:
    """Return the norms that a kind gives radii in: its own, then those that they are converted to."""
    own, lp = tuple(SMOOTHINGS[kind].certificates), ("l2", "l1", "linf")
    converted = own[0] in lp and SMOOTHINGS[kind].cases is None
    return tuple(dict.fromkeys((*own, *(lp if converted else ()))))
