"""certmix: certified robustness of mixed classifiers.

Mix an accurate classifier g and a robust one h, ``log((1 - alpha) g + alpha h)``, and prove how far an input
can move before the answer changes.  Names are loaded on first use: ``import certmix`` imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily

if TYPE_CHECKING:
    from certmix.certification.evaluate import CertifyResult
    from certmix.certification.run import CertmixWarning, certify
    from certmix.models.mixture import MixedClassifier
    from certmix.models.smoothed import SmoothedClassifier
    from certmix.radii import certify_radii, exact_radius, lipschitz_radius, smoothing_radius
    from certmix.verification.asserting import assert_certified

__all__ = [
    "CertifyResult",
    "CertmixWarning",
    "MixedClassifier",
    "SmoothedClassifier",
    "assert_certified",
    "certify",
    "certify_radii",
    "exact_radius",
    "lipschitz_radius",
    "smoothing_radius",
]

_HOMES = {
    "CertifyResult": "certification.evaluate",
    "CertmixWarning": "certification.run",
    "MixedClassifier": "models.mixture",
    "SmoothedClassifier": "models.smoothed",
    "assert_certified": "verification.asserting",
    "certify": "certification.run",
    "certify_radii": "radii",
    "exact_radius": "radii",
    "lipschitz_radius": "radii",
    "smoothing_radius": "radii",
}


__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
