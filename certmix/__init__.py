"""certmix: certified robustness of mixed classifiers.

Mix an accurate classifier g and a robust one h, ``log((1 - alpha) g + alpha h)``,
and prove how far an input can move before the answer changes.  Names are
loaded on first use: ``import certmix`` imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    "CertifyResult": "certmix.certification.evaluate",
    "CertmixWarning": "certmix.certification.run",
    "MixedClassifier": "certmix.models.mixture",
    "SmoothedClassifier": "certmix.models.smoothed",
    "assert_certified": "certmix.verification.asserting",
    "certify": "certmix.certification.run",
    "certify_radii": "certmix.radii",
    "exact_radius": "certmix.radii",
    "lipschitz_radius": "certmix.radii",
    "smoothing_radius": "certmix.radii",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'certmix' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
