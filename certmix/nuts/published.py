"""The optima of MixedNUTS that were published, to mix models of one's own without a fit.  No torch."""

from __future__ import annotations

from certmix.nuts.description import MixSettings
from certmix.nuts.grid import TOP_K, TransformSettings

__all__ = ["CLASSES", "PUBLISHED", "SIDES"]


def _optimum(name: str, s: float, c: float, p: float, alpha: float, alpha_d: float) -> MixSettings:
    return MixSettings(TransformSettings(s, p, c, "gelu", TOP_K[name]), alpha, alpha_d=alpha_d)


PUBLISHED = {
    "cifar10": _optimum("cifar10", 5.0, -1.1, 4.0, 0.9987500602493457, 0.9570535356459247),
    "cifar100": _optimum(
        "cifar100", 0.6115753843212784, -2.142857142857143, 3.571428571428571,
        0.9860300534207915, 0.9706995384302841,
    ),
    "imagenet": _optimum(
        "imagenet", 0.023535468936502525, -0.2857142857142858, 2.7142857142857144,
        0.9971266414518896, 0.90683792395046,
    ),
}  # fmt: skip
"""By data set: the optimum of Table 3 of MixedNUTS, with the digits of the published configuration.

alpha_d is the published one too, of the raw logits of the paper's robust models.
"""

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
"""The number of classes that each optimum is for."""

SIDES = {"cifar10": 32, "cifar100": 32, "imagenet": 224}
"""The usual side of the data's square inputs, in pixels."""
