"""From bounds (p, q) to certified radii: one table of certificates.

A certificate here is a function of a lower bound p on the robust classifier's
probability of its class, an upper bound q on every other class's, the noise
level sigma and the mixing weight alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from certmix.errors import ParameterError
from certmix.radii._checks import alpha_remedy, check_alpha, less_lost
from certmix.radii.exact import exact_radius
from certmix.radii.lipschitz import (
    PAPER_CONSTANT,
    TIGHT_CONSTANT,
    gaussian_lipschitz_radius,
    lipschitz_radius,
)
from certmix.radii.smoothing import smoothing_radius
from certmix.types import CertifiedRadii, ConfidenceBounds, FloatArray, Status

__all__ = [
    "CERTIFICATES",
    "MARGIN_SLACK",
    "PAPER_CONSTANT",
    "TIGHT_CONSTANT",
    "CertificateRule",
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
class CertificateRule:
    """One entry of the table: how bounds become radii, and what to call it."""

    name: str
    title: str
    radius: Callable[..., FloatArray]
    norm: str = "l2"


CERTIFICATES = {
    rule.name: rule
    for rule in (
        CertificateRule("exact", "exact (Neyman-Pearson, largest possible)", exact_radius),
        CertificateRule("smoothing", "Theorem 3.7", smoothing_radius),
        CertificateRule(
            "lipschitz",
            "Theorem 3.5, tight constant",
            partial(gaussian_lipschitz_radius, unit_constant=TIGHT_CONSTANT),
        ),
        CertificateRule(
            "lipschitz-paper",
            "Theorem 3.5, the paper's constant",
            partial(gaussian_lipschitz_radius, unit_constant=PAPER_CONSTANT),
        ),
    )
}
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
    sigma, alpha
        Noise level and mixing weight; alpha = 1 is the robust classifier alone.
    certificate
        A name in `CERTIFICATES`.
    margin_slack
        What the margin must exceed the threshold (1 - alpha)/alpha by.

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
