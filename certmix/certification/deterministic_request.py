"""What a user asks of the certificates that draw no samples, validated once.  No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from certmix.certification.request import DEFAULT_RADII, checked_radii
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES, check_alpha
from certmix.radii.constant import CONSTANTS_OF
from certmix.runs.keywords import norm_name, plain_numbers
from certmix.tables.words import DETERMINISTIC

__all__ = [
    "BOUND_METHODS", "DETERMINISTIC", "MAX_RADIUS", "NORMS", "NORMS_OF", "RADII_OF", "DeterministicRequest",
    "draws_no_samples",
]  # fmt: skip

NORMS = ("l2", "linf", "l1")
NORMS_OF: dict[str, tuple[str, ...]] = {
    **{name: (rule.norm,) for name, rule in CERTIFICATES.items()},
    "margin": ("linf", "l2"),
    "lipschitz-constant": NORMS,
}
"""Norms that each certificate can give radii in; the first is the default."""

RADII_OF = {"l2": DEFAULT_RADII, "linf": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), "l1": DEFAULT_RADII}
"""Columns of the table by norm."""

MAX_RADIUS = {"linf": 32 / 255, "l2": 4.0}
"""Largest radius that bound propagation tries, by norm."""

BOUND_METHODS = ("interval", "crown-ibp", "crown")
"""The methods of `certmix.margins.propagation`, in order of cost."""

_GUIDE = (
    f"{', '.join(CERTIFICATES)} give l2 (by noise, --sigma), margin gives linf or l2, "
    "lipschitz-constant the norm that its constant is for"
)


def draws_no_samples(certificates: Sequence[str], norm: str | None, sigma: float | None) -> bool:
    """Return whether these certificates draw no samples, once they, norm and sigma fit together.

    Raises
    ------
    ParameterError
        If they do not; the message says which certificate gives which norm.
    """
    for name in certificates:
        if name not in NORMS_OF:
            raise ParameterError(f"certificate {name!r} is unknown: use one of {', '.join(NORMS_OF)}")
    alone = [name for name in certificates if name in DETERMINISTIC]
    if alone and len(certificates) > 1:
        raise ParameterError(
            f"certificates {', '.join(certificates)}: {alone[0]} draws no samples and cannot share a run "
            "with others: ask for it alone"
        )
    norm = norm_name(norm)
    for name in certificates:
        if norm is not None and norm not in NORMS_OF[name]:
            raise ParameterError(
                f"certificate {name} gives radii in {' or '.join(NORMS_OF[name])}, not {norm}: {_GUIDE}"
            )
    if alone and sigma is not None:
        raise ParameterError(
            f"sigma = {sigma}: certificate {alone[0]} takes the robust classifier as it is, without noise: "
            "leave --sigma out, or use --certificate exact"
        )
    if not alone and sigma is None:
        raise ParameterError(
            f"no noise level for certificate {certificates[0] if certificates else 'exact'}: give --sigma "
            "(0.25, 0.5, 1), or use --certificate margin or lipschitz-constant, which need none"
        )
    return bool(alone)


@dataclass(frozen=True)
class DeterministicRequest:
    """All that a certification without samples is asked for, apart from data and models.

    Parameters
    ----------
    alpha
        Mixing weight in [1/2, 1].
    certificate
        ``margin`` (bound propagation) or ``lipschitz-constant``.
    norm
        Of the radii; None for the first in `NORMS_OF`.
    images
        How many images, spread over the data set, or ``"all"``.
    radii
        Of the table; None for `RADII_OF`.
    bound_method, max_radius
        ``margin`` only: a name in `BOUND_METHODS`, by default ``crown-ibp``; the
        largest radius that is tried, by default `MAX_RADIUS`.
    lipschitz_constant, constant_of
        ``lipschitz-constant`` only: an upper bound, and what of
        (`certmix.radii.constant.CONSTANTS_OF`), by default ``logits``.

    Raises
    ------
    ParameterError
        For any value out of range, or of the other certificate.
    """

    alpha: float
    certificate: str
    norm: str | None = None
    images: int | str = 100
    radii: tuple[float, ...] | None = None
    bound_method: str | None = None
    max_radius: float | None = None
    lipschitz_constant: float | None = None
    constant_of: str | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        if self.certificate not in DETERMINISTIC:
            raise ParameterError(f"certificate {self.certificate!r}: use {' or '.join(DETERMINISTIC)}")
        _set(self, norm=norm_name(self.norm))
        draws_no_samples([self.certificate], self.norm, None)
        check_alpha(self.alpha)
        if self.images != "all" and (not isinstance(self.images, int) or self.images < 1):
            raise ParameterError(f"images = {self.images!r}: give a number of at least 1, or 'all'")
        norm = NORMS_OF[self.certificate][0] if self.norm is None else self.norm
        _set(self, norm=norm, radii=checked_radii(RADII_OF[norm] if self.radii is None else self.radii))
        if self.certificate == "margin":
            self._check_margin(norm)
        else:
            self._check_constant()

    def _check_margin(self, norm: str) -> None:
        self._refuse("margin", lipschitz_constant=self.lipschitz_constant, constant_of=self.constant_of)
        _set(self, bound_method="crown-ibp" if self.bound_method is None else self.bound_method)
        _set(self, max_radius=MAX_RADIUS[norm] if self.max_radius is None else self.max_radius)
        if self.bound_method not in BOUND_METHODS:
            raise ParameterError(
                f"bound method {self.bound_method!r} is unknown: use one of {', '.join(BOUND_METHODS)}"
            )
        if not 0 < self.most < math.inf:
            raise ParameterError(f"max radius = {self.max_radius}: it must be a positive number")
        if self.columns[-1] > self.most:
            raise ParameterError(
                f"radius {self.columns[-1]:g} lies beyond the largest that is tried, {self.most:g}: "
                "raise --max-radius, or ask for smaller --radii"
            )

    def _check_constant(self) -> None:
        self._refuse("lipschitz-constant", bound_method=self.bound_method, max_radius=self.max_radius)
        _set(self, constant_of=self.constant_of or "logits")
        if self.constant_of not in CONSTANTS_OF:
            raise ParameterError(
                f"a constant of {self.constant_of!r} is unknown: use one of {', '.join(CONSTANTS_OF)}"
            )
        if self.lipschitz_constant is None:
            raise ParameterError(
                "certificate lipschitz-constant needs the constant: give --lipschitz-constant, an upper bound"
            )
        if not 0 < self.lipschitz_constant < math.inf:
            raise ParameterError(
                f"Lipschitz constant {self.lipschitz_constant}: give an upper bound that is a positive number"
            )

    def _refuse(self, certificate: str, **others: object) -> None:
        for name, value in others.items():
            if value is not None:
                option = name.replace("_", "-")
                raise ParameterError(f"--{option} is not for certificate {certificate}: leave it out")

    @property
    def columns(self) -> tuple[float, ...]:
        """The radii of the table."""
        assert self.radii is not None
        return self.radii

    @property
    def most(self) -> float:
        """The largest radius that bound propagation tries."""
        assert self.max_radius is not None
        return self.max_radius

    @property
    def given(self) -> tuple[float, str]:
        """The Lipschitz constant, and what it is of."""
        assert self.lipschitz_constant is not None
        assert self.constant_of is not None
        return self.lipschitz_constant, self.constant_of

    @property
    def tolerance(self) -> float:
        """How far below a radius that was refused a verified one may lie."""
        return self.most / 1024

    @property
    def measure(self) -> str:
        """The norm of the radii."""
        assert self.norm is not None
        return self.norm

    def weights(self) -> tuple[float, ...]:
        """Return the alphas of the rows: h alone first, then the mix."""
        return (1.0, self.alpha)

    def identity(self) -> dict[str, Any]:
        """Return what stored figures depend on besides data and h, whatever alpha and columns are."""
        if self.certificate == "lipschitz-constant":
            return {}
        return {"norm": self.norm, "method": self.bound_method, "max_radius": self.most}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return asdict(self)

    def name(self, standard_checksum: str) -> str:
        """Return a readable and unique name for this request's products."""
        text = json.dumps([self.as_dict(), standard_checksum], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"alpha{self.alpha:g}-{self.certificate}-{self.norm}-images{self.images}-{digest}"


def _set(request: DeterministicRequest, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(request, name, value)
