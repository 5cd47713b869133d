"""From bounds (p, q) to certified radii: one table, `CERTIFICATES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.errors import ParameterError, check_choice
from certmix.lazy import lazily
from certmix.radii._checks import Certificate, Kind, alpha_remedy, check_alpha, statuses
from certmix.radii.smoothings import CERTIFICATES, SMOOTHINGS, Smoothing, norms_of
from certmix.types import CertifiedRadii, ConfidenceBounds

if TYPE_CHECKING:
    from certmix.radii.exact import exact_radius
    from certmix.radii.theorems import (
        PAPER_CONSTANT,
        TIGHT_CONSTANT,
        gaussian_lipschitz_radius,
        lipschitz_radius,
        smoothing_radius,
    )

__all__ = [
    "CERTIFICATES",
    "MARGIN_SLACK",
    "PAPER_CONSTANT",
    "SMOOTHINGS",
    "TIGHT_CONSTANT",
    "Certificate",
    "Kind",
    "Smoothing",
    "alpha_remedy",
    "certify_radii",
    "check_alpha",
    "exact_radius",
    "gaussian_lipschitz_radius",
    "lipschitz_radius",
    "margin_slack_of",
    "norms_of",
    "smoothing_radius",
]

_THEOREMS = (
    "PAPER_CONSTANT", "TIGHT_CONSTANT", "gaussian_lipschitz_radius", "lipschitz_radius", "smoothing_radius",
)  # fmt: skip
__getattr__ = lazily(__name__, {"exact_radius": "exact", **dict.fromkeys(_THEOREMS, "theorems")})


MARGIN_SLACK = 2.0**-22
"""More than a mix in float64 of float32 outputs is off by: what certified mixes keep free of their margin."""


def margin_slack_of(alpha: float) -> float:
    """Return the slack of published radii: 0 for h alone, where nothing is mixed."""
    return 0.0 if alpha == 1.0 else MARGIN_SLACK


def certify_radii(
    bounds: ConfidenceBounds,
    *,
    sigma: float | Smoothing,
    alpha: float,
    certificate: str = "exact",
    margin_slack: float = 0.0,
) -> CertifiedRadii:
    """Return the certified radii that confidence bounds, shape (m,), give under one certificate.

    `sigma` is the noise level of a Gaussian, or a `Smoothing` of another kind or norm, and the certificate a
    name in its `certificates` (`CERTIFICATES`); the other parameters and errors are those of `exact_radius`,
    and alpha = 1 is the robust classifier alone.
    """
    smoothing = Smoothing.of(sigma)
    check_choice("certificate", certificate, smoothing.certificates)
    if not isinstance(bounds, ConfidenceBounds):
        told = f"bounds of type {type(bounds).__name__}"
        raise ParameterError(f"{told}: give what certmix.bounds.bound_counts returns")
    p, q, kind = bounds.kinds
    radius = smoothing.radius(certificate, p, q, alpha, margin_slack, lost=bounds.lost, rows=kind)
    status = statuses(radius, bounds.p_lower > bounds.q_upper)
    norm = smoothing.norm if smoothing.converted_from else smoothing.certificates[certificate].norm
    return CertifiedRadii(certificate, norm, smoothing.scale, alpha, radius, status)
