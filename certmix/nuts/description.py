"""What a fitted nonlinear mix is made of, and how it was found.  No torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.nuts.fit import NutsFit
from certmix.nuts.grid import Grid, TransformSettings
from certmix.types import IntArray

__all__ = [
    "FitFacts",
    "MixSettings",
    "ModelReference",
    "NutsDescription",
    "TuningImages",
    "check_auxiliary",
    "check_mix",
]

COLDEST, HOTTEST = 1e-6, 1e6


def check_mix(alpha: float, temperature: float) -> None:
    """Refuse a mixing weight or a temperature out of range, and both at 0."""
    if not 0.0 <= alpha <= 1.0:
        raise ParameterError(f"alpha = {alpha}: the mixing weight must lie in [0, 1]")
    if temperature != 0.0 and not COLDEST <= temperature <= HOTTEST:
        found = f"temperature = {temperature}"
        raise ParameterError(f"{found}: give 0 (the class alone) or a number from {COLDEST:g} to {HOTTEST:g}")
    if alpha == 0.0 and temperature == 0.0:
        raise ParameterError(
            "alpha = 0 at temperature 0: a one-hot output has no finite logarithm: "
            "raise one of them, or use the standard model itself"
        )


def check_auxiliary(alpha_d: float, r_d: float) -> None:
    """Refuse weights of the auxiliary mix that are out of range."""
    for name, value in (("alpha_d", alpha_d), ("r_d", r_d)):
        if not 0.0 <= value <= 1.0:
            raise ParameterError(f"{name} = {value}: the auxiliary mix needs {name} in [0, 1]")


@dataclass(frozen=True)
class MixSettings:
    """The numbers of a nonlinear mix.

    Parameters
    ----------
    transform
        s, p, c, clamp and top_k.
    alpha, temperature
        See `certmix.nuts.mixture.NutsMixture`.
    alpha_d, r_d
        Of the auxiliary mix that attacks differentiate, see
        `certmix.nuts.adaptive.AuxiliaryMixture`; alpha_d None if unknown.

    Raises
    ------
    ParameterError
        For a value out of range.
    """

    transform: TransformSettings
    alpha: float
    temperature: float = 0.0
    alpha_d: float | None = None
    r_d: float = 0.9

    def __post_init__(self) -> None:
        check_mix(self.alpha, self.temperature)
        check_auxiliary(0.0 if self.alpha_d is None else self.alpha_d, self.r_d)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, flat."""
        plain = asdict(self)
        return {**plain.pop("transform"), **plain}


@dataclass(frozen=True)
class ModelReference:
    """Where a base model comes from: what `load_model` takes, and the checksum it must have.

    Paths in ``spec``, ``weights`` and ``files`` (further files that it reads) are relative to
    the folder, beginning with ``./``, for files inside it, and absolute for others.
    """

    spec: str
    weights: str | None
    normalize: str | None
    checksum: str
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.checksum):
            raise ParameterError(f"checksum {self.checksum[:70]!r}: a SHA-256 in 64 hex digits is needed")


@dataclass(frozen=True)
class FitFacts:
    """How Algorithm 1 came to its numbers: the fields of `NutsFit` without the margins."""

    beta: float
    quantile: str
    margin_threshold: float
    objective: float
    constraint_share: float
    ties: int
    on_edge: tuple[str, ...]
    conditional: bool
    images: int
    clean_wrong: int
    attacked_right: int
    grid: Grid

    def __post_init__(self) -> None:
        for name in ("beta", "margin_threshold", "objective", "constraint_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ParameterError(f"{name} = {value}: it must lie in [0, 1]")
        for name in ("ties", "images", "clean_wrong", "attacked_right"):
            _check_count(name, getattr(self, name))

    @classmethod
    def of(cls, fit: NutsFit) -> FitFacts:
        """Return the facts worth keeping of a fit."""
        return cls(**{one.name: getattr(fit, one.name) for one in fields(cls)})


@dataclass(frozen=True)
class TuningImages:
    """The images that a mix was tuned on: no result should be reported on them.

    Parameters
    ----------
    data, split, checksum
        Of the `certmix.types.Dataset` they are from.
    indices
        Their indices in that data's source.
    attack
        Plain data: the attack behind the margins, such as its name, norm and eps.
    """

    data: str
    split: str
    checksum: str
    indices: tuple[int, ...]
    attack: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", tuple(int(index) for index in self.indices))
        for index in self.indices:
            _check_count("an index of a tuning image", index)
        try:
            object.__setattr__(self, "attack", json.loads(json.dumps(self.attack, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"attack is no plain data ({error}): give finite numbers and texts"
            ) from None

    def shared(self, checksum: str, indices: ArrayLike) -> IntArray:
        """Return those of the indices, of data with this checksum, that were tuned on; sorted, each once."""
        asked = np.asarray(indices, np.int64)
        same = checksum == self.checksum
        return np.intersect1d(asked, np.array(self.indices if same else (), np.int64))


@dataclass(frozen=True)
class NutsDescription:
    """A nonlinear mix as it is saved; `fit` and `tuning` are None where unknown."""

    settings: MixSettings
    standard: ModelReference
    robust: ModelReference
    fit: FitFacts | None = None
    tuning: TuningImages | None = None


def _check_count(name: str, value: int) -> None:
    if not 0 <= value < 2**63:
        raise ParameterError(f"{name} is {value}: a whole number of at least 0 is needed")
