"""How the objective of Algorithm 1 depends on s, p and c."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from certmix.nuts.fit import NutsFit, mixing_weight
from certmix.studies.nuts_studies.inputs import Inputs, Product
from certmix.tables.nuts_sensitivity_plot import SensitivityMaps, sensitivity_image
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal

__all__ = ["study"]

NEAR = 0.01


def study(inputs: Inputs) -> Product:
    """Tabulate the best point for each c, and map objective and threshold over s and p.

    References
    ----------
    Appendix D.1 and Figure 9 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    found = inputs.fit.fitted.fit
    near = found.feasible & (found.objectives <= found.objective + NEAR + 1e-12)
    table = Table(
        name="nuts-sensitivity",
        title="Sensitivity of Algorithm 1: the best s and p for each c (estimates on tuning images)",
        settings=f"beta {plain_decimal(found.beta)}, clamp {found.clamp}, {found.quantile} quantile, "
        f"rival {found.rival}",
        headings=("c", "s", "p", "objective", "threshold q", "alpha", "points", "feasible", "near-optimal"),
        rows=tuple(_row(found, near, k) for k in range(len(found.grid.c))),
        notes=(
            f"Chosen: s {found.s:.4g}, p {found.p:.3g}, c {found.c:.3g}, alpha {found.alpha:.5g}: objective "
            f"{found.objective:.4f}, q {found.margin_threshold:.4g}.",
            f"objective: share of the {found.clean_wrong:,} misclassified clean images whose margin is >= q, "
            "which g cannot mend; lower is better. near-optimal: within "
            f"{plain_decimal(NEAR)} of the chosen point's; {int(near.sum())} of {near.size} points are.",
            "The least of many estimates on the same images is optimistic; nothing here is held out.",
            inputs.fit.origin,
        ),
        extra={
            "grid": {name: list(getattr(found.grid, name)) for name in "spc"},
            "objectives": found.objectives.tolist(),
            "thresholds": found.thresholds.tolist(),
            "feasible": found.feasible.tolist(),
        },
    )
    return Product(
        table,
        {
            "nuts-sensitivity": partial(sensitivity_image, _maps(inputs, "objective")),
            "nuts-thresholds": partial(sensitivity_image, _maps(inputs, "threshold q")),
        },
    )


def _row(found: NutsFit, near: np.ndarray, k: int) -> tuple[Any, ...]:
    """Return the best feasible point at one c: least objective, then largest q."""
    c, feasible = found.grid.c[k], found.feasible[:, :, k]
    counts = (feasible.size, int(feasible.sum()), int(near[:, :, k].sum()))
    if not feasible.any():
        return (Quantity(c, 3), *(Quantity(None, 3) for _ in range(5)), *counts)
    objectives = np.where(feasible, found.objectives[:, :, k], np.inf)
    q = found.thresholds[:, :, k]
    i, j = min(np.ndindex(objectives.shape), key=lambda at: (objectives[at], -q[at]))
    return (
        Quantity(c, 3), Quantity(found.grid.s[i], 3), Quantity(found.grid.p[j], 2),
        Quantity(float(objectives[i, j]), 4), Quantity(float(q[i, j]), 6, rounding="down"),
        Quantity(mixing_weight(float(q[i, j])), 6, rounding="up"), *counts,
    )  # fmt: skip


def _maps(inputs: Inputs, what: str) -> SensitivityMaps:
    found, fit = inputs.fit.fitted.fit, inputs.fit
    values = found.objectives if what == "objective" else found.thresholds
    chosen = tuple(getattr(found.grid, name).index(getattr(found, name)) for name in "spc")
    return SensitivityMaps(
        found.grid.s, found.grid.p, found.grid.c, np.where(found.feasible, values, np.nan),
        (chosen[0], chosen[1], chosen[2]), what,
        title=f"{fit.model('robust')}: {_WORDS[what]} over s, p and c",
        subtitle=f"beta {plain_decimal(found.beta)}, clamp {found.clamp}; {found.images:,} tuning images, "
        f"{found.clean_wrong:,} of them wrong clean",
        logarithmic=what != "objective",
    )  # fmt: skip


_WORDS = {
    "objective": "share of wrong clean images that g cannot mend",
    "threshold q": "margin threshold q (alpha = 1 / (1 + q))",
}
