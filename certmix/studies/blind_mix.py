"""Nonlinear mixes searched by gradients that they do not have: `#bypass` lends them some."""

from __future__ import annotations

from torch import nn

from certmix.models.spec import LoadedModel
from certmix.nuts.adaptive import DirectBypass
from certmix.nuts.mixture import NutsMixture

__all__ = ["blind_mixes", "is_blind"]


def is_blind(module: nn.Module) -> bool:
    """Whether a module is, or holds, a mix whose standard model answers one-hot, without the bypass.

    At temperature 0 no gradient flows through that answer, and attacks have to
    go around it: Section 3.1 and Appendix B.2 of MixedNUTS.
    """
    if isinstance(module, DirectBypass):
        return False
    if isinstance(module, NutsMixture) and module.temperature == 0.0:
        return True
    return any(is_blind(part) for part in module.children())


def blind_mixes(models: tuple[LoadedModel | None, ...]) -> tuple[str, ...]:
    """Return a note for each model that a search by gradients sees only in part."""
    return tuple(
        f"{model.name}: attack may be blind: its one-hot g (temperature 0) gives no gradient, so it seems "
        f"more robust than it is; {_instead(model.name)} instead (docs/nuts-use.md#attack)"
        for model in models
        if model is not None and is_blind(model.module)
    )


def _instead(name: str) -> str:
    if name.startswith("nuts:"):
        return f"name {name}#bypass"
    return "give its certmix.nuts.adaptive.direct_bypass"
