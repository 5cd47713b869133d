"""The trade-off over beta: nonlinear mixes beside plain ones, each with the alpha that beta asks for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from certmix.errors import ParameterError
from certmix.nuts.fit import auxiliary_alpha
from certmix.studies.nuts_fit import fit_cached
from certmix.studies.nuts_studies.inputs import Inputs, Product
from certmix.studies.nuts_studies.judging import (
    PARAMETERS,
    Judged,
    Rule,
    headings,
    judge,
    notes,
    parameters,
    rule_of,
)
from certmix.tables.nuts_beta_plot import BetaCurve, BetaCurves, beta_image
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal

__all__ = ["BETAS", "study"]

BETAS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.985, 0.99, 1.0)
NUTS, PLAIN, ENDS = "MixedNUTS", "plain mix", "base models"


def study(inputs: Inputs) -> Product:
    """Solve Algorithm 1 for each beta on half the cached images, and judge on the other half.

    The plain mix has the alpha that keeps the same share of attacked margins
    of softmax(h), so that both columns promise the same.

    References
    ----------
    Section 5.1 and Figure 8 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    tune, held = inputs.fit.halves()
    judged: dict[str, dict[float, Judged]] = {NUTS: {}, PLAIN: {}}
    rows: dict[str, list[tuple[Any, ...]]] = {NUTS: [], PLAIN: []}
    missing = []
    for beta in sorted({*BETAS, inputs.fit.choices.share}):
        choices = replace(inputs.fit.choices, beta=beta)
        try:
            found = fit_cached(tune, choices)
        except ParameterError:
            missing.append(plain_decimal(beta))
        else:
            one = judge(rule_of(found.settings), held, inputs.points)
            judged[NUTS][beta] = one
            rows[NUTS].append((plain_decimal(beta), *parameters(found), *one.cells()))
        alpha = auxiliary_alpha(tune.attacked, tune.labels, beta, quantile=choices.quantile, normalize=False)
        one = judge(Rule(alpha), held, inputs.points)
        judged[PLAIN][beta] = one
        unused = (Quantity(None, 3),) * 3
        rows[PLAIN].append((plain_decimal(beta), *unused, Quantity(alpha, 6, rounding="up"), *one.cells()))
    ends = {name: judge(Rule(alpha), held, inputs.points) for name, alpha in (("g", 0.0), ("h", 1.0))}
    bases = [(name, *(Quantity(None, 3),) * 4, *one.cells()) for name, one in ends.items()]
    table = Table(
        name="nuts-beta",
        title="Accuracy (%) over beta, judged on images held out from these fits, with 95 % intervals",
        settings=f"clamp {inputs.fit.choices.clamp}, T {plain_decimal(inputs.fit.choices.temperature)}",
        headings=("beta", *PARAMETERS, *headings(inputs.points)),
        rows=(*bases, *rows[NUTS], *rows[PLAIN]),
        groups=((ENDS, 2), (NUTS, len(rows[NUTS])), (PLAIN, len(rows[PLAIN]))),
        notes=(
            "beta: share of the rightly classified attacked images that must withstand any g, on the fitted "
            "half. The plain mix (T 1, no transform) meets it by alpha alone.",
            *([f"No transform of the grid meets beta {', '.join(missing)}."] if missing else []),
            *notes(inputs),
        ),
    )
    return Product(table, {"nuts-beta": partial(beta_image, _curves(inputs, judged, ends["h"]))})


def _curves(inputs: Inputs, judged: dict[str, dict[float, Judged]], robust: Judged) -> BetaCurves:
    def curves(second: str) -> tuple[BetaCurve, ...]:
        return tuple(
            BetaCurve(
                name, tuple(map(plain_decimal, by)), tuple(one.clean for one in by.values()),
                tuple(getattr(one, second) for one in by.values()),
            )
            for name, by in [*judged.items(), ("robust (h) alone", {1.0: robust})]
        )  # fmt: skip

    panels = {"withstands any g (%, estimate)": curves("any_standard")}
    if inputs.points is not None:
        panels["attacked accuracy (%, by transfer, upper bound)"] = curves("attacked")
    held = len(inputs.fit.halves()[1].labels)
    return BetaCurves(
        panels,
        title=f"{inputs.fit.model('standard')} mixed with {inputs.fit.model('robust')}",
        subtitle=f"{held:,} held-out images; {inputs.fit.request.words()}; numbers: beta",
    )
