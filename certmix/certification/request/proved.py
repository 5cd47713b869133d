"""Certifications that draw no samples.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from certmix.certification.request.noisy import ENUMERATED
from certmix.certification.request.parts import (
    DEFAULT_RADII,
    Alpha,
    Radii,
    Row,
    Sampled,
    StandardTemperature,
    checked_gate,
    meanings,
    usual_radii,
)
from certmix.errors import ParameterError, check_choice
from certmix.radii import CERTIFICATES, SMOOTHINGS, Smoothing, norms_of
from certmix.radii._checks import CONSTANTS_OF, Cases
from certmix.radii.counted import EXACT, THEOREM, cases_of, largest_radius
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs.settings import DERIVED, Count, Option, Positive, Settings, norm_name
from certmix.tables.words import DETERMINISTIC, PATCH

NORMS = ("l2", "linf", "l1")
NORMS_OF = {"margin": ("linf", "l2"), "lipschitz-constant": NORMS}
"""Norms that certificates without samples can give radii in."""
RADII_OF = {"l2": DEFAULT_RADII, "linf": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), "l1": DEFAULT_RADII}
"""Columns of the table by norm."""
MAX_RADIUS = {"linf": 32 / 255, "l2": 4.0}
"""Largest radius that bound propagation tries, by norm."""
BOUND_METHODS = ("interval", "crown-ibp", "crown")
"""The methods of `certmix.margins.propagation`, in order of cost."""


def draws_no_samples(
    certificates: Sequence[str], norm: str | None, sigma: float | None, noise: str | None = None
) -> bool:
    """Return whether these certificates draw no samples; ParameterError unless they, norm and noise fit.

    `sigma` is the level of noise of any kind, and `noise` its kind.
    """
    norm = norm_name(norm)
    for name in certificates:
        if name not in (*CERTIFICATES, *NORMS_OF):
            known = ", ".join((*CERTIFICATES, *NORMS_OF))
            raise ParameterError(f"certificate {name!r} is unknown: use one of {known}")
    alone = [name for name in certificates if name in DETERMINISTIC]
    if alone and len(certificates) > 1:
        raise ParameterError(
            f"certificates {', '.join(certificates)}: {alone[0]} draws no samples and cannot share a run "
            "with others: ask for it alone"
        )
    if alone and norm not in (None, *NORMS_OF[alone[0]]):
        norms = " or ".join(NORMS_OF[alone[0]])
        raise ParameterError(f"certificate {alone[0]} gives radii in {norms}, not {norm}: use another norm")
    if noise is not None:
        check_choice("noise", noise, SMOOTHINGS)
    if alone and (sigma, noise) != (None, None):
        told = f"noise = {noise}" if sigma is None else f"sigma = {sigma}"
        raise ParameterError(
            f"{told}: certificate {alone[0]} takes the robust classifier as it is, without noise: "
            "leave --sigma, --noise and --scale out, or use --certificate exact"
        )
    kind = noise or GAUSSIAN
    if not alone and norm not in (None, *norms_of(kind)):
        norms, told = " or ".join(norms_of(kind)), f"norm {norm}: {kind} noise gives radii in"
        raise ParameterError(f"{told} {norms}: use one of these, or another --noise or --certificate")
    if not alone and sigma is None and kind == GAUSSIAN:
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

    def rows(self) -> list[Row]:
        """Return the rows of the table."""
        made: Any = self  # its kinds have these fields
        mixed = Row("mixed", made.certificate, self.alpha, temperature=made.standard_temperature)
        return [Row("robust", made.certificate, 1.0), mixed]


class Margin(Proved, frozen=True):
    """Bound propagation through the robust classifier as it is."""

    certificate: Annotated[Literal["margin"], Option("")] = "margin"
    norm: Annotated[
        Literal["linf", "l2"],
        Option("Norm of the radii.", shown="l2; linf for margin", choices=NORMS_OF["margin"], read=norm_name),
    ] = "linf"
    inputs: Sampled = 100
    radii: Radii = DERIVED
    bound_method: Annotated[
        str, Option("margin: how bounds are propagated, from cheap to dear.", choices=BOUND_METHODS)
    ] = "crown-ibp"
    arithmetic: Annotated[
        Literal["float32", "exact"],
        Option("margin: what is proved, of h as it runs or as its weights define it."),
    ] = "float32"
    max_radius: Annotated[
        Positive, Option("margin: largest radius that is tried.", shown="32/255 in linf, 4 in l2")
    ] = DERIVED
    standard_temperature: StandardTemperature = 1.0

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
        return {
            "norm": self.norm, "method": self.bound_method, "arithmetic": self.arithmetic,
            "max_radius": self.max_radius,
        }  # fmt: skip


class GivenConstant(Proved, frozen=True):
    """A robust classifier of known Lipschitz constant."""

    certificate: Annotated[Literal["lipschitz-constant"], Option("")] = "lipschitz-constant"
    norm: Annotated[str, Option("Norm of the radii.", choices=NORMS, read=norm_name)] = "l2"
    inputs: Sampled = 100
    radii: Radii = DERIVED
    lipschitz_constant: Annotated[
        Positive, Option("lipschitz-constant: an upper bound of h's, which you vouch for.")
    ] = DERIVED
    constant_of: Annotated[
        str,
        Option(
            f"lipschitz-constant: what it is a constant of. {meanings(CONSTANTS_OF)}.",
            choices=CONSTANTS_OF,
            shown="logits",
        ),
    ] = "logits"
    standard_temperature: StandardTemperature = 1.0

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


class Enumerated(Proved, frozen=True):
    """A robust classifier by votes on all cases of an input: no samples, and no failure probability."""

    certificate: Annotated[Literal["enumerated"], Option("")] = "enumerated"
    noise: Annotated[str, Option("Kind of smoothing.", choices=ENUMERATED)] = DERIVED
    scale: Annotated[Positive, Option("splitting: lambda; bands: columns.")] = DERIVED
    inputs: Sampled = 100
    patch: Annotated[Count, Option("bands: the largest patch of the table, in pixels a side.")] = 5
    radii: Radii = DERIVED
    gate: Annotated[float, Option("Least largest probability of a vote that counts.", check=checked_gate)] = (
        0.0
    )
    standard_temperature: StandardTemperature = 1.0

    def usual(self, name: str) -> Any:
        """Return the scale of the shipped models, and columns up to what votes that all agree reach."""
        if name == "noise":
            raise ParameterError(f"no kind of smoothing is named: give --noise {' or '.join(ENUMERATED)}")
        if name == "scale":
            return self.cases.scale
        if self.norm == PATCH:
            return tuple(map(float, range(1, self.patch + 1)))
        unit, votes = self.cases.per_unit, self.cases.count(self.scale, ())
        most = largest_radius(self.noise, self.scale, votes, 1.0) * unit
        return tuple(radius / unit for radius in usual_radii(max(most, 1.0)))

    def check(self) -> None:
        """Refuse patches that are no whole number of pixels, and such settings of another kind."""
        kind = SMOOTHINGS[self.noise]
        if kind.whole and not all(radius.is_integer() and radius > 0 for radius in self.radii):
            told = f"radii = {list(self.radii)}: of {self.noise} they are whole numbers of pixels"
            raise ParameterError(f"{told}: give 1, 2, 5")
        if kind.whole and not self.scale.is_integer():
            told = f"scale = {self.scale:g}: of {self.noise} it is {kind.scale}"
            raise ParameterError(f"{told}: give a whole number such as {kind.cases.scale:g}")

    def refuse_wider(self, columns: int) -> None:
        """Refuse patches that do not lie within images of so many columns: ParameterError."""
        if self.norm == PATCH and (widest := max(self.radii, default=0)) > columns:
            raise ParameterError(
                f"a patch of {widest:g} columns does not lie within images of {columns}: "
                f"give --patch {columns} or less"
            )

    @property
    def cases(self) -> Cases:
        """What its kind has of which no case is left out."""
        return cases_of(self.noise)

    @property
    def smoothing(self) -> Smoothing:
        """Its kind, and how much of it."""
        return Smoothing(self.noise, self.scale)

    @property
    def norm(self) -> str:
        """The norm of the radii."""
        return norms_of(self.noise)[0]

    @property
    def cell(self) -> str:
        """The cell of the ballots of all cases."""
        return f"ballots, {self.noise}, scale {self.scale!r}"

    def rows(self) -> list[Row]:
        """Return the rows of the table, h alone first."""
        mixed = (EXACT, THEOREM)
        return [
            Row("robust", EXACT, 1.0, self.gate),
            *(Row("mixed", name, self.alpha, self.gate, self.standard_temperature) for name in mixed),
        ]

    def identity(self) -> dict[str, Any]:
        """Return what the votes depend on besides data and h, whatever alpha, gate and columns are."""
        return {"noise": self.noise, "scale": self.scale}


DeterministicRequest = Margin | GivenConstant | Enumerated
ROBUST, LABEL = "robust logits", "label"
"""Cells of the robust model's clean logits, and of the labels."""


def standard_logits(checksum: str) -> str:
    """Return the cell of the standard model's logits: it is no part of the run's identity."""
    return f"standard logits {checksum}"


def margin_cell(alpha: float) -> str:
    """Return the cell of (radius, status, evaluations) at one alpha."""
    return f"margin, alpha {alpha!r}"


def column_cell(alpha: float, radius: float) -> str:
    """Return the cell that says whether a column just beyond an input's radius was verified, 1 or 0."""
    return f"margin, alpha {alpha!r}, at {radius!r}"


def needed_cells(request: DeterministicRequest) -> list[str]:
    """Return the cells that follow from the robust model, but for columns near a radius."""
    if isinstance(request, Enumerated):
        return [request.cell]
    margins = [margin_cell(alpha) for alpha in request.weights()] if request.certificate == "margin" else []
    return [ROBUST, *margins]
