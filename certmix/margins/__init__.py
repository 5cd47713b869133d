"""Verified bounds of a network over a ball, by propagation through its layers; torch on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily
from certmix.margins.estimates import EstimatedRadius, LipschitzEstimate, estimated_radius
from certmix.margins.margins import softmax_margin_lower

if TYPE_CHECKING:
    from certmix.margins.local_search import local_search
    from certmix.margins.propagation import (
        VerifiedRadii,
        certified_radius,
        logit_differences_lower,
        margin_lower,
    )
    from certmix.margins.translation import build_graph

_WITH_TORCH = {
    **dict.fromkeys(
        ("VerifiedRadii", "certified_radius", "logit_differences_lower", "margin_lower"), "propagation"
    ),
    "build_graph": "translation",
    "local_search": "local_search",
}

__all__ = [
    "EstimatedRadius", "LipschitzEstimate", "VerifiedRadii", "build_graph", "certified_radius",
    "estimated_radius", "local_search", "logit_differences_lower", "margin_lower", "softmax_margin_lower",
]  # fmt: skip
__getattr__ = lazily(__name__, _WITH_TORCH)
