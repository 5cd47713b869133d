"""The temperature of the standard classifier, at the same s, p, c and alpha."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from certmix.studies.nuts_fit import fit_cached
from certmix.studies.nuts_studies.inputs import Inputs, Product
from certmix.studies.nuts_studies.judging import headings, judge, notes, rule_of
from certmix.tables.table import Table
from certmix.text import plain_decimal

__all__ = ["TEMPERATURES", "study"]

TEMPERATURES = (0.0, 0.25, 0.5, 1.0, 2.0)


def study(inputs: Inputs) -> Product:
    """Fit on half the cached images, and judge at several temperatures on the other half.

    References
    ----------
    Appendix D.4 and Table 10 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    tune, held = inputs.fit.halves()
    found = fit_cached(tune, inputs.fit.choices)
    rows: list[tuple[Any, ...]] = []
    for temperature in sorted({*TEMPERATURES, inputs.fit.choices.temperature}):
        rule = replace(rule_of(found.settings), temperature=temperature)
        rows.append((plain_decimal(temperature), *judge(rule, held, inputs.points).cells()))
    own = found.fit
    table = Table(
        name="nuts-temperature",
        title="Temperature T of g: accuracy (%) on images held out from this fit, with 95 % intervals",
        settings=f"beta {plain_decimal(own.beta)}: s {own.s:.3g}, p {own.p:.3g}, c {own.c:.3g}, "
        f"alpha {own.alpha:.5g}",
        headings=("T", *headings(inputs.points)),
        rows=tuple(rows),
        notes=(
            "T 0 takes g's answer alone, T 1 its own probabilities. What any g can do does not depend on T, "
            "and neither do s, p, c and alpha.",
            *notes(inputs),
        ),
    )
    return Product(table)
