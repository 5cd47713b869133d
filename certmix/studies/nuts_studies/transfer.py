"""s, p and c of one fit on the models of another, with alpha solved again and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from certmix.errors import ParameterError
from certmix.nuts.grid import TransformSettings
from certmix.studies.nuts_fit import FitChoices, NutsFitted, fit_cached
from certmix.studies.nuts_margins import CachedLogits
from certmix.studies.nuts_studies.inputs import FitCache, Inputs, Product
from certmix.studies.nuts_studies.judging import PARAMETERS, Judged, headings, judge, parameters, rule_of
from certmix.tables.table import Quantity, Table

__all__ = ["study"]


def study(inputs: Inputs) -> Product:
    """Judge, for each fit's models, the s, p and c of each fit.

    References
    ----------
    Appendix D.5 and Table 11 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    names = _names(inputs.fits)
    halves = {name: fit.halves() for name, fit in names.items()}
    fitted = {name: fit_cached(halves[name][0], fit.choices) for name, fit in names.items()}
    rows: list[tuple[Any, ...]] = []
    for target, fit in names.items():
        tune, held = halves[target]
        for source, found in {target: fitted[target], **fitted}.items():
            if source == target:
                rows.append(_row(source, "own", found, judge(rule_of(found.settings), held)))
                continue
            solved = _solved(tune, names[source].choices, found.fit.settings, fit.choices.share)
            again = None if solved is None else judge(rule_of(solved.settings), held)
            rows.append(_row(source, "solved again", solved, again))
            rows.append(_row(source, "kept", found, judge(rule_of(found.settings), held)))
    table = Table(
        name="nuts-transfer",
        title="Transfer of s, p and c between models: accuracy (%) on held-out images, with 95 % intervals",
        settings="; ".join(f"{name}: beta {fit.choices.share:g}" for name, fit in names.items()),
        headings=("s, p, c of", "alpha is", *PARAMETERS, *headings(None)),
        rows=tuple(rows),
        groups=tuple((f"on {name}", 2 * len(names) - 1) for name in names),
        notes=(
            "Estimates. Fits are made on a folder's cached images at even positions, and judged on those at "
            "odd positions of the folder they are tried on. solved again: alpha from that folder's even "
            "positions at its own beta, with s, p and c as they are; kept: alpha comes along.",
            "any g: the class stands at the point of smallest margin (margin >= (1 - alpha) / alpha), even "
            "if g puts all it has on the runner-up.",
            *(f"{name} is: {fit.origin}" for name, fit in names.items()),
        ),
    )
    return Product(table)


def _names(fits: tuple[FitCache, ...]) -> dict[str, FitCache]:
    """Name fits by their folders' last parts, or by all of them where these are not unique."""
    short = [fit.folder.resolve().name for fit in fits]
    named = {
        name if short.count(name) == 1 else str(fit.folder): fit
        for name, fit in zip(short, fits, strict=True)
    }
    if len(named) < len(fits):
        raise ParameterError("a folder is named twice: name each fit once")
    return named


def _solved(
    tune: CachedLogits, choices: FitChoices, own: TransformSettings, beta: float
) -> NutsFitted | None:
    """Solve for alpha alone, s, p and c given; None where that transform cannot meet beta."""
    point = ",".join(f"{name}={getattr(own, name)!r}" for name in "spc")
    try:
        return fit_cached(tune, replace(choices, grid=point, beta=beta))
    except ParameterError:
        return None


def _row(source: str, how: str, found: NutsFitted | None, judged: Judged | None) -> tuple[Any, ...]:
    if found is None or judged is None:
        return (source, f"{how}: none meets beta", *(Quantity(None, 3),) * 4, None, None)
    return (source, how, *parameters(found), *judged.cells())
