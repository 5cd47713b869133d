"""Fewer tuning images: what Algorithm 1 finds on parts of the cached ones, and how the mixes then do."""

from __future__ import annotations

from typing import Any

import numpy as np

from certmix.errors import CertmixError, DataError
from certmix.studies.nuts_fit import fit_cached
from certmix.studies.nuts_margins import CachedLogits
from certmix.studies.nuts_studies.inputs import Inputs, Product
from certmix.studies.nuts_studies.judging import Judged, Rule, headings, judge, notes, rule_of, withstands
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal

__all__ = ["study"]

LEAST = 25
"""Images of the smallest part."""


def study(inputs: Inputs) -> Product:
    """Fit on the whole of one half, on its halves, quarters and so on; judge all on the other half.

    References
    ----------
    Appendix D.3, Tables 8 and 9, of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    tune, held = inputs.fit.halves()
    rows: list[tuple[Any, ...]] = []
    first: tuple[Rule, Judged] | None = None
    stride = 1
    while stride == 1 or len(tune.labels) // stride >= LEAST:
        rules, failed = _fits(inputs, tune, stride)
        judged = [judge(rule, held, inputs.points) for rule in rules]
        if judged:
            first = first or (rules[0], judged[0])
            rows.append(_row(len(tune.labels) // stride, failed, rules, judged, held))
        stride *= 2
    if first is None:
        raise DataError(f"{inputs.fit.folder}: no part of its images can be fitted on: fit on more images")
    seen = judge(first[0], tune)
    columns = (
        "images",
        "fits",
        "alpha",
        "beta kept",
        *headings(inputs.points),
        "clean, all fits",
        "any g, all",
    )
    table = Table(
        name="nuts-tuning-size",
        title="Fewer tuning images: accuracy (%) on images held out from these fits, with 95 % intervals",
        settings=f"beta {plain_decimal(inputs.fit.choices.share)}, clamp {inputs.fit.choices.clamp}",
        headings=columns,
        rows=tuple(rows),
        notes=(
            "images: of each part; the parts of a size share no image. alpha and the accuracies with "
            "intervals are of the first part; 'all' gives the range over all parts. beta kept: share of the "
            "held-out, attacked, right images that withstand any g, mean over parts; compare with beta.",
            *_seen(seen, first[1]),
            *notes(inputs),
        ),
        extra={"seen": {"clean": seen.clean.accuracy, "any_g": seen.any_standard.accuracy}},
    )
    return Product(table)


def _fits(inputs: Inputs, tune: CachedLogits, stride: int) -> tuple[list[Rule], int]:
    """Fit on each of `stride` interleaved parts; return the mixes, and how many parts allowed none."""
    rules, failed = [], 0
    for start in range(stride):
        part = np.arange(start, len(tune.labels), stride)
        try:
            rules.append(rule_of(fit_cached(tune.take(part), inputs.fit.choices).settings))
        except CertmixError:
            failed += 1
    return rules, failed


def _row(
    images: int, failed: int, rules: list[Rule], judged: list[Judged], held: CachedLogits
) -> tuple[Any, ...]:
    right = held.attacked.argmax(1) == held.labels
    kept = [withstands(rule, held.attacked[right], held.labels[right]) for rule in rules]
    share = float(np.mean([one.mean() for one in kept])) if right.any() else None
    fits = f"{len(rules)}" + (f" of {len(rules) + failed}" if failed else "")
    return (
        str(images), fits, Quantity(rules[0].alpha, 6, rounding="up"), Quantity(share, 3), *judged[0].cells(),
        _range([one.clean.accuracy for one in judged]), _range([one.any_standard.accuracy for one in judged]),
    )  # fmt: skip


def _range(shares: list[float]) -> str:
    """Return the least and the largest share, in percent."""
    return "-" if len(shares) == 1 else f"{100 * min(shares):.1f} to {100 * max(shares):.1f}"


def _seen(seen: Judged, unseen: Judged) -> tuple[str, ...]:
    """Compare with the accuracy on the images that were fitted on (Table 8)."""
    words = ", ".join(
        f"{name} {100 * one.accuracy:.1f} (seen) and {100 * other.accuracy:.1f} (held out)"
        for name, one, other in (
            ("clean", seen.clean, unseen.clean), ("any g", seen.any_standard, unseen.any_standard),
        )
    )  # fmt: skip
    return (f"The fit on all images of its half, on images it has seen and on others (%): {words}.",)
