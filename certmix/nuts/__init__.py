"""MixedNUTS: a nonlinear transform of the robust logits, and the four numbers that tune it.

Names are loaded on first use: settings, which help reads, need neither compiled code nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily
from certmix.nuts.grid import BETAS, GRIDS, TOP_K, Grid, TransformSettings, parse_grid

if TYPE_CHECKING:
    from certmix.nuts.algorithm import MarginGrid, NutsFit, auxiliary_alpha, fit, margin_grid, solve_beta
    from certmix.nuts.margins import attacked_margin, clean_margin, transform_numpy
    from certmix.nuts.transform import NonlinearTransform, changed_share, layer_normalize

__all__ = [
    "BETAS", "GRIDS", "TOP_K", "Grid", "MarginGrid", "NonlinearTransform", "NutsFit", "TransformSettings",
    "attacked_margin", "auxiliary_alpha", "changed_share", "clean_margin", "fit", "layer_normalize",
    "margin_grid", "parse_grid", "solve_beta", "transform_numpy",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(("MarginGrid", "NutsFit", "auxiliary_alpha", "fit"), "algorithm"),
    **dict.fromkeys(("margin_grid", "solve_beta"), "algorithm"),
    **dict.fromkeys(("NonlinearTransform", "changed_share", "layer_normalize"), "transform"),
    **dict.fromkeys(("attacked_margin", "clean_margin", "transform_numpy"), "margins"),
}

__getattr__ = lazily(__name__, _HOMES)
