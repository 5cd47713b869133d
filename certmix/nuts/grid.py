"""The parameters of the nonlinear transform, and the candidates that Algorithm 1 tries.  No torch."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np

from certmix.errors import ParameterError, check_choice

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

CLAMP_NAMES = ("gelu", "relu", "elu", "softplus", "linear")

LARGEST = {"s": 1e6, "p": 32.0, "c": 100.0}
"""Largest scale, exponent and |bias|: within them no logit leaves float64's range."""


def _check_value(name: str, value: float) -> None:
    largest = LARGEST[name]
    least = -largest if name == "c" else math.nextafter(0.0, 1.0)
    if not least <= value <= largest:  # NaN is neither
        needed = f"+-{largest:g}" if name == "c" else f"(0, {largest:g}]"
        raise ParameterError(f"{name} = {value}: the transform needs {name} in {needed}")


def check_top_k(top_k: int | None) -> None:
    """Refuse a number of largest logits that has no variance."""
    if top_k is not None and top_k < 2:
        raise ParameterError(f"top_k = {top_k}: a variance needs at least 2 logits; leave it out for all")


def check_shares(**shares: float | None) -> None:
    """Refuse named numbers outside [0, 1]; None passes."""
    for name, value in shares.items():
        if value is not None and not 0.0 <= value <= 1.0:
            raise ParameterError(f"{name} = {value}: it must lie in [0, 1]")


class Described(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plain data of ``nuts.json``; texts are of one line."""

    def __post_init__(self) -> None:
        for name, value in msgspec.structs.asdict(self).items():
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and len(f"{text}.".splitlines()) > 1:
                    raise ParameterError(f"{name} is {text[:40]!r}: a text of one line is needed")


class TransformSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of ``M(z) = s |z_c|^p sgn(z_c)``, ``z_c = clamp(LN(z) + c)``: equation 4.

    Scale s and exponent p are > 0; the clamp is one of `CLAMP_NAMES`, of which ``"linear"`` leaves logits as
    they are; LN takes mean and variance from the `top_k` largest logits, None for all.  What is out of range
    is a ParameterError.
    """

    s: float
    p: float
    c: float
    clamp: str = "gelu"
    top_k: int | None = None

    def __post_init__(self) -> None:
        for name in ("s", "p", "c"):
            _check_value(name, getattr(self, name))
        check_choice("clamp", self.clamp, CLAMP_NAMES)
        check_top_k(self.top_k)


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Candidates of each parameter, at least one, in range and increasing; all combinations are tried."""

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


def _grid(**ranges: tuple[float, float, int]) -> Grid:
    spaced = {name: np.geomspace if name == "s" else np.linspace for name in ranges}
    return Grid(**{name: tuple(spaced[name](*ends).tolist()) for name, ends in ranges.items()})


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
"""Section 5.1: the share of rightly classified attacked inputs that must keep their margin."""

TOP_K = {"cifar10": None, "cifar100": None, "imagenet": 250}
"""Appendix D.7: the number of logits behind LN's mean and variance."""


def parse_grid(text: str) -> Grid:
    """Return the grid ``s=LOW:HIGH:NUMBER,p=LOW:HIGH:NUMBER,c=LOW:HIGH:NUMBER``; ParameterError for others.

    s is spaced evenly in logarithm, p and c evenly.  A single number stands
    for a single candidate, as in ``c=0``.

    >>> parse_grid("s=0.1:10:3,p=1:4:4,c=-1").p
    (1.0, 2.0, 3.0, 4.0)
    """
    remedy = (
        "write s=LOW:HIGH:NUMBER,p=LOW:HIGH:NUMBER,c=LOW:HIGH:NUMBER, such as s=0.05:5:8,p=1:4:8,c=-1.1:0:8"
    )
    named = [part.partition("=") for part in text.replace(" ", "").split(",")]
    if sorted(name for name, _, _ in named) != ["c", "p", "s"]:
        raise ParameterError(f"grid = {text!r} must name s, p and c once each: {remedy}")
    ranges = {}
    for name, _, value in named:
        try:
            low, high, number = value.split(":") if ":" in value else (value, value, "1")
            ends = float(low), float(high), int(number)
        except ValueError:
            raise ParameterError(f"grid = {text!r} is of another form: {remedy}") from None
        _check_value(name, ends[0])
        _check_value(name, ends[1])
        if not 1 <= ends[2] <= 1000 or (ends[2] == 1) != (ends[0] == ends[1]):
            found = f"{name} = {ends[0]:g}:{ends[1]:g}:{ends[2]}"
            raise ParameterError(f"{found}: 2 to 1000 candidates of a range are needed, or one number alone")
        ranges[name] = ends
    return _grid(**ranges)


QUANTILES = ("conservative", "linear")

RIVALS = ("label", "second")
"""Which class a misclassified clean input's margin is taken to, see `margin_grid`; the first by default."""


class FitFacts(Described, frozen=True):
    """How Algorithm 1 came to its numbers, as ``nuts.json`` keeps it.

    ``margin_threshold`` is q: alpha is 1 / (1 + q), and a margin of at least q withstands any standard model.
    ``objective`` is the share of the ``clean_wrong`` inputs whose margin is >= q, which no standard model can
    mend, 0 if there are none; with the rival ``"label"`` every right standard model mends all others.
    ``constraint_share`` is the share of the ``attacked_right`` inputs whose margin is >= q, which the
    conservative quantile keeps >= beta.  ``ties`` counts feasible grid points with this objective, the chosen
    one included; ``on_edge`` names those of s, p, c that end their range on the grid: the optimum may lie
    beyond.
    """

    beta: float
    quantile: str
    margin_threshold: float
    objective: float
    constraint_share: float
    ties: Number
    on_edge: tuple[str, ...]
    conditional: bool
    inputs: Number
    clean_wrong: Number
    attacked_right: Number
    grid: Grid

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("beta", "margin_threshold", "objective", "constraint_share")
        check_shares(**{name: getattr(self, name) for name in names})

    @classmethod
    def of(cls, fit: FitFacts) -> FitFacts:
        """Return the facts alone of a fit that holds more."""
        return cls(*(getattr(fit, name) for name in cls.__struct_fields__))
