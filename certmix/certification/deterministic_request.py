"""What a user asks of the certificates that draw no samples, validated once.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from certmix.certification.request import DEFAULT_RADII, Alpha, Radii, Sampled
from certmix.errors import ParameterError
from certmix.files import digest_of
from certmix.radii import CERTIFICATES
from certmix.radii._checks import CONSTANTS_OF
from certmix.runs.settings import DERIVED, Option, Positive, Settings, norm_name
from certmix.tables.words import DETERMINISTIC

__all__ = [
    "BOUND_METHODS", "DETERMINISTIC", "LABEL", "MAX_RADIUS", "NORMS", "RADII_OF", "ROBUST",
    "DeterministicRequest", "GivenConstant", "Margin", "column_cell", "draws_no_samples", "margin_cell",
    "needed_cells", "standard_logits",
]  # fmt: skip

NORMS = ("l2", "linf", "l1")
NORMS_OF = {"margin": ("linf", "l2"), "lipschitz-constant": NORMS}
"""Norms that certificates without samples can give radii in; the others have one."""


def norms_of(certificate: str) -> tuple[str, ...]:
    """Return the norms that a certificate can give radii in.

    Raises
    ------
    ParameterError
        If there is no such certificate.
    """
    if certificate not in (*CERTIFICATES, *NORMS_OF):
        known = ", ".join((*CERTIFICATES, *NORMS_OF))
        raise ParameterError(f"certificate {certificate!r} is unknown: use one of {known}")
    return NORMS_OF.get(certificate) or (CERTIFICATES[certificate].norm,)


RADII_OF = {"l2": DEFAULT_RADII, "linf": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), "l1": DEFAULT_RADII}
"""Columns of the table by norm."""

MAX_RADIUS = {"linf": 32 / 255, "l2": 4.0}
"""Largest radius that bound propagation tries, by norm."""

BOUND_METHODS = ("interval", "crown-ibp", "crown")
"""The methods of `certmix.margins.propagation`, in order of cost."""

_CONSTANTS = "; ".join(f"{name}: {meaning}" for name, meaning in CONSTANTS_OF.items())

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
        norms_of(name)
    alone = [name for name in certificates if name in DETERMINISTIC]
    if alone and len(certificates) > 1:
        raise ParameterError(
            f"certificates {', '.join(certificates)}: {alone[0]} draws no samples and cannot share a run "
            "with others: ask for it alone"
        )
    norm = norm_name(norm)
    for name in certificates:
        if norm is not None and norm not in norms_of(name):
            raise ParameterError(
                f"certificate {name} gives radii in {' or '.join(norms_of(name))}, not {norm}: {_GUIDE}"
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


class Proved(Settings, frozen=True):
    """What certifications without samples share, apart from data and models."""

    alpha: Alpha

    def weights(self) -> tuple[float, ...]:
        """Return the alphas of the rows: h alone first, then the mix."""
        return (1.0, self.alpha)

    def name(self, standard_checksum: str) -> str:
        """Return a readable and unique name for this request's products."""
        plain = self.as_dict()
        digest = digest_of([plain, standard_checksum])
        kind = f"{plain['certificate']}-{plain['norm']}-images{plain['images']}"
        return f"alpha{self.alpha:g}-{kind}-{digest[:8]}"


class Margin(Proved, frozen=True):
    """Bound propagation through the robust classifier as it is."""

    certificate: Annotated[Literal["margin"], Option("")] = "margin"
    norm: Annotated[
        Literal["linf", "l2"],
        Option("Norm of the radii.", shown="l2; linf for margin", choices=NORMS_OF["margin"], read=norm_name),
    ] = "linf"
    images: Sampled = 100
    radii: Radii = DERIVED
    bound_method: Annotated[
        str, Option("margin: how bounds are propagated, from cheap to dear.", choices=BOUND_METHODS)
    ] = "crown-ibp"
    max_radius: Annotated[
        Positive, Option("margin: largest radius that is tried.", shown="32/255 in linf, 4 in l2")
    ] = DERIVED

    def usual(self, name: str) -> Any:
        """Return the columns, and the largest radius, of the norm."""
        return RADII_OF[self.norm] if name == "radii" else MAX_RADIUS[self.norm]

    def check(self) -> None:
        """Refuse columns that no radius reaches."""
        if self.radii[-1] > self.max_radius:
            raise ParameterError(
                f"radius {self.radii[-1]:g} lies beyond the largest that is tried, {self.max_radius:g}: "
                "raise --max-radius, or ask for smaller --radii"
            )

    @property
    def tolerance(self) -> float:
        """How far below a radius that was refused a verified one may lie."""
        return self.max_radius / 1024

    def identity(self) -> dict[str, Any]:
        """Return what stored figures depend on besides data and h, whatever alpha and columns are."""
        return {"norm": self.norm, "method": self.bound_method, "max_radius": self.max_radius}


class GivenConstant(Proved, frozen=True):
    """A robust classifier of known Lipschitz constant."""

    certificate: Annotated[Literal["lipschitz-constant"], Option("")] = "lipschitz-constant"
    norm: Annotated[str, Option("Norm of the radii.", choices=NORMS, read=norm_name)] = "l2"
    images: Sampled = 100
    radii: Radii = DERIVED
    lipschitz_constant: Annotated[
        Positive, Option("lipschitz-constant: an upper bound of h's, which you vouch for.")
    ] = DERIVED
    constant_of: Annotated[
        str,
        Option(
            f"lipschitz-constant: what it is a constant of. {_CONSTANTS}.",
            choices=CONSTANTS_OF,
            shown="logits",
        ),
    ] = "logits"

    def usual(self, name: str) -> Any:
        """Return the columns of the norm; there is no usual constant."""
        if name == "radii":
            return RADII_OF[self.norm]
        raise ParameterError(
            "certificate lipschitz-constant needs the constant: give --lipschitz-constant, an upper bound"
        )

    @property
    def given(self) -> tuple[float, str]:
        """The Lipschitz constant, and what it is of."""
        return self.lipschitz_constant, self.constant_of

    def identity(self) -> dict[str, Any]:
        """Return nothing: logits alone are stored, whatever the constant."""
        return {}


DeterministicRequest = Margin | GivenConstant


ROBUST, LABEL = "robust logits", "label"
"""Cells of the robust model's clean logits, and of the labels."""


def standard_logits(checksum: str) -> str:
    """Return the cell of the standard model's logits: it is no part of the run's identity."""
    return f"standard logits {checksum}"


def margin_cell(alpha: float) -> str:
    """Return the cell of (radius, status, evaluations) at one alpha."""
    return f"margin, alpha {alpha!r}"


def column_cell(alpha: float, radius: float) -> str:
    """Return the cell that says whether a column just beyond an image's radius was verified, 1 or 0."""
    return f"margin, alpha {alpha!r}, at {radius!r}"


def needed_cells(request: DeterministicRequest) -> list[str]:
    """Return the cells that follow from the robust model, but for columns near a radius."""
    margins = [margin_cell(alpha) for alpha in request.weights()] if request.certificate == "margin" else []
    return [ROBUST, *margins]
