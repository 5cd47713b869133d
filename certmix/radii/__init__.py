"""From bounds (p, q) to certified radii: one table, `CERTIFICATES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from certmix.errors import ParameterError
from certmix.radii._checks import alpha_remedy, check_alpha, less_lost
from certmix.radii.exact import exact_radius
from certmix.radii.theorems import (
    PAPER_CONSTANT,
    TIGHT_CONSTANT,
    gaussian_lipschitz_radius,
    lipschitz_radius,
    smoothing_radius,
)
from certmix.types import CertifiedRadii, ConfidenceBounds, FloatArray, Status

__all__ = [
    "CERTIFICATES",
    "MARGIN_SLACK",
    "PAPER_CONSTANT",
    "TIGHT_CONSTANT",
    "Certificate",
    "alpha_remedy",
    "certify_radii",
    "check_alpha",
    "exact_radius",
    "gaussian_lipschitz_radius",
    "lipschitz_radius",
    "margin_slack_of",
    "smoothing_radius",
]


MARGIN_SLACK = 2.0**-22
"""More than a mix in float64 of float32 outputs is off by: what certified mixes keep free of their margin."""


def margin_slack_of(alpha: float) -> float:
    """Return the slack of published radii: 0 for h alone, where nothing is mixed."""
    return 0.0 if alpha == 1.0 else MARGIN_SLACK


@dataclass(frozen=True)
class Certificate:
    """All that is known of a certificate; commands, tables and verification read it here.

    Parameters
    ----------
    name, label, meaning
        As ``--certificate`` takes it, as tables show it, and in a few words.
    radius
        ``(p_lower, q_upper, sigma, alpha, margin_slack=0.0)`` to radii, float64, rounded down; 0 where
        nothing is certified.
    norm
        Of the radii.
    plain
        ``(p, q, sigma, alpha, slack)`` to the radius of one image straight from the equation, not rounded
        and sharing no code, which `certmix verify` compares.  The certificates of this package have
        theirs in `certmix.verification.plain`.
    """

    name: str
    label: str
    meaning: str
    radius: Callable[..., FloatArray]
    norm: str = "l2"
    plain: Callable[..., float] | None = None


CERTIFICATES = {
    one.name: one
    for one in (
        Certificate(
            "exact", "exact",
            "the largest radius that the two probability bounds allow (Neyman-Pearson).", exact_radius,
        ),
        Certificate("smoothing", "smoothing (Thm 3.7)", "Theorem 3.7.", smoothing_radius),
        Certificate(
            "lipschitz", "lipschitz (tight constant)",
            "Theorem 3.5 with the tight constant, half the published one.",
            partial(gaussian_lipschitz_radius, unit_constant=TIGHT_CONSTANT),
        ),
        Certificate(
            "lipschitz-paper", "lipschitz-paper (Thm 3.5)", "Theorem 3.5 with the published constant.",
            partial(gaussian_lipschitz_radius, unit_constant=PAPER_CONSTANT),
        ),
    )
}  # fmt: skip
"""Certificates by name; the first is the default."""


def certify_radii(
    bounds: ConfidenceBounds,
    *,
    sigma: float,
    alpha: float,
    certificate: str = "exact",
    margin_slack: float = 0.0,
) -> CertifiedRadii:
    """Return the certified radii that confidence bounds give under one certificate.

    Parameters
    ----------
    bounds
        Bounds p and q that hold together, image by image, shape (m,).
    sigma, alpha, margin_slack
        As for `exact_radius`; alpha = 1 is the robust classifier alone.
    certificate
        A name in `CERTIFICATES`.

    Raises
    ------
    ParameterError
        For an unknown certificate or parameters out of range.
    """
    if certificate not in CERTIFICATES:
        raise ParameterError(f"certificate {certificate!r} is unknown: use one of {', '.join(CERTIFICATES)}")
    rule = CERTIFICATES[certificate]
    radius = np.atleast_1d(
        rule.radius(bounds.p_lower, bounds.q_upper, sigma, alpha, margin_slack=margin_slack)
    )
    radius = less_lost(radius, bounds.lost)
    status = np.where(radius > 0, Status.CERTIFIED, Status.NOT_CERTIFIED)
    status = np.where(bounds.p_lower > bounds.q_upper, status, Status.ABSTAIN)
    return CertifiedRadii(certificate, rule.norm, sigma, alpha, radius, status.astype(np.int64))
