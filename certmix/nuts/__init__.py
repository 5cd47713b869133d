"""MixedNUTS: a nonlinear transform of the robust logits, and the four numbers that tune it.

Importing this package does not import torch; the transform does, on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from certmix.nuts.fit import (
    MarginGrid,
    NutsFit,
    auxiliary_alpha,
    constraint_share,
    fit,
    margin_grid,
    solve_beta,
)
from certmix.nuts.grid import BETAS, GRIDS, TOP_K, Grid, TransformSettings, parse_grid
from certmix.nuts.margins import attacked_margin, clean_margin, transform_numpy

if TYPE_CHECKING:
    from certmix.nuts.transform import NonlinearTransform, changed_share, layer_normalize

_WITH_TORCH = ("NonlinearTransform", "changed_share", "layer_normalize")

__all__ = [
    "BETAS",
    "GRIDS",
    "TOP_K",
    "Grid",
    "MarginGrid",
    "NonlinearTransform",
    "NutsFit",
    "TransformSettings",
    "attacked_margin",
    "auxiliary_alpha",
    "changed_share",
    "clean_margin",
    "constraint_share",
    "fit",
    "layer_normalize",
    "margin_grid",
    "parse_grid",
    "solve_beta",
    "transform_numpy",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("certmix.nuts.transform"), name)
