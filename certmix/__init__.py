"""certmix: certified robustness of mixed classifiers.

Mix an accurate classifier g and a robust one h, ``log((1 - alpha) g + alpha h)``, and prove how far an input
can move before the answer changes.  Names are loaded on first use: ``import certmix`` imports no torch.
"""

from __future__ import annotations

from certmix.lazy import lazily

_HOMES = {
    "CertifyResult": "certification.evaluate",
    "CertmixWarning": "errors",
    "MixedClassifier": "models.mixture",
    "SmoothedClassifier": "models.smoothed",
    "SmoothedMixture": "models.smoothed",
    "assert_certified": "verification.asserting",
    "certify": "certification.run",
    "certify_radii": "radii",
    "exact_radius": "radii",
    "lipschitz_radius": "radii",
    "smoothing_radius": "radii",
}
"""Their types are in the stub beside this file."""

__all__ = sorted(_HOMES)
__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
