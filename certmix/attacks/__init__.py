"""Attacks: each one function `(model, inputs, labels, norm, eps, *, settings) -> adversarials`.

What an attack does not break is not thereby robust: accuracy under it is an upper bound of robust accuracy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from certmix.attacks.apgd import apgd, apgd_ce, apgd_dlr, apgd_targeted
from certmix.attacks.autoattack import autoattack
from certmix.attacks.losses import LOSSES
from certmix.attacks.pgd import fgsm, pgd
from certmix.attacks.search import Common
from certmix.attacks.square import square

__all__ = [
    "ATTACKS", "LOSSES", "Attack", "apgd", "apgd_ce", "apgd_dlr", "apgd_targeted", "autoattack", "fgsm",
    "pgd", "square",
]  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """An attack as the command line and the studies see it.

    `settings` are the names of its own keywords, `gradient_free` says whether it asks the model for logits
    alone; `loss`, a name in `LOSSES`, is what it begins with.
    """

    function: Callable[..., Tensor]
    summary: str
    norms: tuple[str, ...]
    settings: tuple[str, ...]
    gradient_free: bool
    loss: str = "cross-entropy"


def _attack(
    function: Callable[..., Tensor], summary: str, norms: str, loss: str = "cross-entropy", free: bool = False
) -> Attack:
    """Read the settings off the function's keywords."""
    keywords = inspect.signature(function).parameters.values()
    fixed = {*Common.__annotations__, *getattr(function, "keywords", ())}
    settings = tuple(k.name for k in keywords if k.kind is k.KEYWORD_ONLY and k.name not in fixed)
    return Attack(function, summary, tuple(norms.split()), settings, free, loss)


ATTACKS: dict[str, Attack] = {
    "fgsm": _attack(fgsm, "one step along the gradient", "linf l2 l1"),
    "pgd": _attack(pgd, "projected gradient ascent with steps of equal size", "linf l2 l1"),
    "apgd-ce": _attack(apgd_ce, "Auto-PGD on the cross-entropy", "linf l2"),
    "apgd-dlr": _attack(apgd_dlr, "Auto-PGD on the difference of logits ratio", "linf l2", "dlr"),
    "apgd-targeted": _attack(
        apgd_targeted, "Auto-PGD towards each likely other class", "linf l2", "targeted-dlr"
    ),
    "square": _attack(square, "random squares, without gradients", "linf l2", "margin", free=True),
    "autoattack": _attack(autoattack, "the ensemble of the package pyautoattack", "linf l2 l1"),
}
