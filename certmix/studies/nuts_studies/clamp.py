"""Clamps compared: what Algorithm 1 finds with each, and how the mix then does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from certmix.errors import ParameterError
from certmix.nuts.grid import CLAMP_NAMES
from certmix.studies.nuts_fit import fit_cached
from certmix.studies.nuts_studies.inputs import Inputs, Product
from certmix.studies.nuts_studies.judging import PARAMETERS, headings, judge, notes, parameters, rule_of
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal

__all__ = ["study"]


def study(inputs: Inputs) -> Product:
    """Fit with each clamp on half the cached images, and judge on the other half.

    References
    ----------
    Appendix D.2 and Table 7 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    tune, held = inputs.fit.halves()
    columns = ("clamp", *PARAMETERS, "objective", "on edge", *headings(inputs.points))
    rows: list[tuple[Any, ...]] = []
    for clamp in CLAMP_NAMES:
        try:
            found = fit_cached(tune, replace(inputs.fit.choices, clamp=clamp))
        except ParameterError:
            rows.append((clamp, *(Quantity(None, 3),) * 5, "no fit", *(None,) * (len(columns) - 7)))
            continue
        one = judge(rule_of(found.settings), held, inputs.points)
        edges = ", ".join(found.fit.on_edge) or "no"
        rows.append((clamp, *parameters(found), Quantity(found.fit.objective, 4), edges, *one.cells()))
    table = Table(
        name="nuts-clamp",
        title="Clamps compared: accuracy (%) on images held out from these fits, with 95 % intervals",
        settings=f"beta {plain_decimal(inputs.fit.choices.share)}, the grid of {inputs.fit.folder.name}",
        headings=columns,
        rows=tuple(rows),
        notes=(
            "objective: share of the wrong clean images, on the fitted half, whose margin is >= q; lower is "
            "better. on edge: the optimum ends the grid's range there, and a wider grid may do better.",
            *notes(inputs),
        ),
    )
    return Product(table)
