"""certmix: certified robustness of mixed classifiers.

Mix an accurate classifier g and a robust one h, ``log((1 - alpha) g + alpha h)``, and prove how far an input
can move before the answer changes.  Names are loaded on first use: ``import certmix`` imports no torch.
"""

from __future__ import annotations

from certmix.lazy import lazily

_HOMES = {
    "CertifyResult": "certification.evaluate",
    "CertmixWarning": "errors",
    "Evidence": "assurance.pack",
    "Falsification": "verification.falsify.falsify",
    "MixedClassifier": "models.mixture",
    "SmoothedClassifier": "models.smoothed",
    "SmoothedMixture": "models.smoothed",
    "StudyResult": "studies.study",
    "TradeOff": "tables.trade_off",
    "Verification": "verification.verify",
    "assert_certified": "verification.asserting",
    "attack": "api",
    "certify": "certification.run",
    "certify_radii": "radii",
    "compare_trust": "api",
    "confidence": "api",
    "evidence": "api",
    "exact_radius": "radii",
    "falsify": "api",
    "guarantee_check": "api",
    "guarantee_init": "api",
    "lipschitz": "api",
    "lipschitz_radius": "radii",
    "mix_sweep": "api",
    "nuts_evaluate": "api",
    "nuts_fit": "api",
    "recertify": "api",
    "report": "api",
    "reproduce": "api",
    "smoothing_radius": "radii",
    "trade_off": "api",
    "verify": "api",
}
"""Their types are in the stub beside this file."""

__all__ = sorted(_HOMES)
__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
