"""The parameters of the nonlinear transform, and the candidates that Algorithm 1 tries.  No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from certmix.errors import ParameterError

__all__ = ["BETAS", "CLAMP_NAMES", "GRIDS", "TOP_K", "Grid", "TransformSettings", "parse_grid"]

CLAMP_NAMES = ("gelu", "relu", "elu", "softplus", "linear")

LARGEST = {"s": 1e6, "p": 32.0, "c": 100.0}
"""Largest scale, exponent and |bias|: within them no logit leaves float64's range."""

_RANGES = {"s": f"in (0, {LARGEST['s']:g}]", "p": f"in (0, {LARGEST['p']:g}]", "c": f"in +-{LARGEST['c']:g}"}


def _check_value(name: str, value: float) -> None:
    smallest_allowed = value > 0.0 if name in ("s", "p") else value >= -LARGEST["c"]
    if not (math.isfinite(value) and smallest_allowed and value <= LARGEST[name]):
        raise ParameterError(f"{name} = {value}: the transform needs {name} {_RANGES[name]}")


def check_clamp(clamp: str) -> None:
    """Refuse an unknown clamp."""
    if clamp not in CLAMP_NAMES:
        raise ParameterError(f"clamp {clamp!r} is unknown: use one of {', '.join(CLAMP_NAMES)}")


def check_top_k(top_k: int | None) -> None:
    """Refuse a number of largest logits that has no variance."""
    if top_k is not None and top_k < 2:
        raise ParameterError(f"top_k = {top_k}: a variance needs at least 2 logits; leave it out for all")


@dataclass(frozen=True)
class TransformSettings:
    """The parameters of ``M(z) = s |z_c|^p sgn(z_c)``, ``z_c = clamp(LN(z) + c)``.

    Parameters
    ----------
    s, p, c
        Scale > 0, exponent > 0 and bias of equation 4 of MixedNUTS.
    clamp
        One of `CLAMP_NAMES`; ``"linear"`` leaves logits as they are.
    top_k
        Take the mean and variance of LN from the k largest logits; None for all.

    Raises
    ------
    ParameterError
        For a value out of range or an unknown clamp.

    References
    ----------
    Equation 4 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS: Training-Free
    Accuracy-Robustness Balance via Nonlinearly Mixed Classifiers", TMLR 2024.
    """

    s: float
    p: float
    c: float
    clamp: str = "gelu"
    top_k: int | None = None

    def __post_init__(self) -> None:
        for name in ("s", "p", "c"):
            _check_value(name, getattr(self, name))
        check_clamp(self.clamp)
        check_top_k(self.top_k)


@dataclass(frozen=True)
class Grid:
    """Candidates of each parameter, increasing; all combinations are tried.

    Raises
    ------
    ParameterError
        For no candidate, a candidate out of range, or candidates that do not increase.
    """

    s: tuple[float, ...]
    p: tuple[float, ...]
    c: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("s", "p", "c"):
            values = getattr(self, name)
            if not values:
                raise ParameterError(f"the grid has no candidate for {name}: give at least one")
            for value in values:
                _check_value(name, value)
            if any(after <= before for before, after in pairwise(values)):
                raise ParameterError(f"the candidates for {name} must increase: order them, each once")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of candidates of s, p and c."""
        return len(self.s), len(self.p), len(self.c)

    def edges(self, at: tuple[int, int, int]) -> tuple[str, ...]:
        """Return the names of the parameters whose candidate at these indices ends its range."""
        ends = zip("spc", at, self.shape, strict=True)
        return tuple(name for name, i, n in ends if n > 1 and i in (0, n - 1))


def _spaced(name: str, low: float, high: float, number: int) -> tuple[float, ...]:
    values = np.geomspace(low, high, number) if name == "s" else np.linspace(low, high, number)
    return tuple(map(float, values))


def _grid(**ranges: tuple[float, float, int]) -> Grid:
    return Grid(**{name: _spaced(name, *ends) for name, ends in ranges.items()})


GRIDS = {
    "cifar10": _grid(s=(0.05, 5.0, 8), p=(1.0, 4.0, 8), c=(-1.1, 0.0, 8)),
    "cifar100": _grid(s=(0.05, 4.0, 8), p=(1.0, 4.0, 8), c=(-2.5, -0.4, 8)),
    "imagenet": _grid(s=(0.01, 0.2, 8), p=(2.0, 3.0, 8), c=(-2.0, 0.0, 8)),
}
"""The grids of Table 3 of MixedNUTS: s evenly spaced in logarithm, p and c evenly.

The CIFAR-100 optimum printed there, c = -2.14, is not on its printed grid: it
is the second of eight candidates from -2.5 to 0.
"""

BETAS = {"cifar10": 0.985, "cifar100": 0.985, "imagenet": 0.99}
"""Section 5.1: the share of rightly classified attacked images that must keep their margin."""

TOP_K = {"cifar10": None, "cifar100": None, "imagenet": 250}
"""Appendix D.7: the number of logits behind LN's mean and variance."""


def parse_grid(text: str) -> Grid:
    """Return the grid ``s=LOW:HIGH:NUMBER,p=LOW:HIGH:NUMBER,c=LOW:HIGH:NUMBER``.

    s is spaced evenly in logarithm, p and c evenly.  A single number stands
    for a single candidate, as in ``c=0``.

    Raises
    ------
    ParameterError
        If the text is of another form, a name is missing or a value out of range.

    Examples
    --------
    >>> parse_grid("s=0.1:10:3,p=1:4:4,c=-1").p
    (1.0, 2.0, 3.0, 4.0)
    """
    remedy = (
        "write s=LOW:HIGH:NUMBER,p=LOW:HIGH:NUMBER,c=LOW:HIGH:NUMBER, such as s=0.05:5:8,p=1:4:8,c=-1.1:0:8"
    )
    named = [part.partition("=") for part in text.replace(" ", "").split(",")]
    if sorted(name for name, _, _ in named) != ["c", "p", "s"]:
        raise ParameterError(f"grid = {text!r} must name s, p and c once each: {remedy}")
    try:
        ranges = {name: _range(value) for name, _, value in named}
    except ValueError:
        raise ParameterError(f"grid = {text!r} is of another form: {remedy}") from None
    for name, (low, high, number) in ranges.items():
        _check_value(name, low)
        _check_value(name, high)
        if not 1 <= number <= 1000 or (number == 1) != (low == high):
            found = f"{name} = {low:g}:{high:g}:{number}"
            raise ParameterError(f"{found}: 2 to 1000 candidates of a range are needed, or one number alone")
    return _grid(**ranges)


def _range(value: str) -> tuple[float, float, int]:
    parts = value.split(":")
    if len(parts) == 1:
        return float(value), float(value), 1
    low, high, number = parts
    return float(low), float(high), int(number)
