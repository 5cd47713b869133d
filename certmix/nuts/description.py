"""What a fitted nonlinear mix is made of, how it was found, and the published optima.  No torch."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from certmix.errors import ParameterError
from certmix.models.temperature import check_mix
from certmix.nuts.grid import TOP_K, Described, FitFacts, Number, TransformSettings, check_shares
from certmix.types import IntArray

__all__ = ["PUBLISHED", "FitFacts", "MixSettings", "ModelReference", "NutsDescription", "TuningInputs"]


class MixSettings(Described, frozen=True):
    """The numbers of a nonlinear mix; what is out of range is a ParameterError.

    ``alpha`` and ``standard_temperature`` are those of `certmix.nuts.mixture.NutsMixture`, ``alpha_d`` (None
    if unknown) and ``r_d`` of `certmix.nuts.adaptive.AuxiliaryMixture`.
    """

    transform: TransformSettings
    alpha: float
    standard_temperature: float = 0.0
    alpha_d: float | None = None
    r_d: float = 0.9

    def __post_init__(self) -> None:
        check_mix(self.alpha, self.standard_temperature)
        check_shares(alpha_d=self.alpha_d, r_d=self.r_d)


class ModelReference(Described, frozen=True):
    """Where a base model comes from: what `load_model` takes, and the checksum it must have.

    Paths in ``spec``, ``weights`` and ``files`` (further files that it reads) are relative to
    the folder, beginning with ``./``, for files inside it, and absolute for others.
    """

    spec: str
    weights: str | None
    normalize: str | None
    checksum: str
    files: tuple[str, ...] = ()
    outputs: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[0-9a-f]{64}", self.checksum):
            raise ParameterError(f"checksum {self.checksum[:70]!r}: a SHA-256 in 64 hex digits is needed")


class TuningInputs(Described, frozen=True):
    """The inputs that a mix was tuned on: no result should be reported on them.

    ``indices`` are those in the source of the `certmix.types.Dataset` that ``data``, ``split`` and
    ``checksum`` are of; ``attack`` is plain data on the attack behind the margins, such as its name, norm and
    eps.
    """

    data: str
    split: str
    checksum: str
    indices: tuple[Number, ...]
    attack: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        indices = tuple(map(int, self.indices))
        if min(indices, default=0) < 0:
            raise ParameterError(f"an index of a tuning input is {min(indices)}: at least 0 is needed")
        msgspec.structs.force_setattr(self, "indices", indices)
        try:
            plain = json.loads(json.dumps(self.attack, allow_nan=False))
            msgspec.structs.force_setattr(self, "attack", plain)
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"attack is no plain data ({error}): give finite numbers and texts"
            ) from None

    def shared(self, checksum: str, indices: ArrayLike) -> IntArray:
        """Return those of the indices, of data with this checksum, that were tuned on; sorted, each once."""
        asked = np.asarray(indices, np.int64)
        same = checksum == self.checksum
        return np.intersect1d(asked, np.array(self.indices if same else (), np.int64))


class NutsDescription(Described, frozen=True):
    """A nonlinear mix as it is saved; `fit` and `tuning` are None where unknown."""

    settings: MixSettings
    standard: ModelReference
    robust: ModelReference
    fit: FitFacts | None = None
    tuning: TuningInputs | None = None


def _optimum(name: str, s: float, c: float, p: float, alpha: float, alpha_d: float) -> MixSettings:
    return MixSettings(TransformSettings(s, p, c, "gelu", TOP_K[name]), alpha, alpha_d=alpha_d)


PUBLISHED = {
    "cifar10": _optimum("cifar10", 5.0, -1.1, 4.0, 0.9987500602493457, 0.9570535356459247),
    "cifar100": _optimum(
        "cifar100", 0.6115753843212784, -2.142857142857143, 3.571428571428571,
        0.9860300534207915, 0.9706995384302841,
    ),
    "imagenet": _optimum(
        "imagenet", 0.023535468936502525, -0.2857142857142858, 2.7142857142857144,
        0.9971266414518896, 0.90683792395046,
    ),
}  # fmt: skip
"""By data set: the optimum of Table 3 of MixedNUTS, with the digits of the published configuration.

alpha_d is the published one too, of the raw logits of the paper's robust models.
"""
