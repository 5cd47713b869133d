"""What the template draws of runs: charts, tables in print, and several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.page.charts import Series, chart, histogram
from certmix.page.runs import Certified, Run
from certmix.tables.table import (
    Cell,
    Quantity,
    Table,
    column_units,
    printed,
    printed_headings,
    printed_notes,
    text_columns,
)
from certmix.tables.words import certificate_label, classifier_label, radius_heading, symbols
from certmix.text import known, plain_decimal
from certmix.types import (
    AccuracyShare,
    AttackedAccuracy,
    CertifiedAccuracy,
    CertifiedShare,
    EstimatedAccuracy,
)

KINDS = {
    "estimate": "estimated over these images, with a 95 % interval over images",
    "attacked": "under attack: an upper bound of robust accuracy, never a certificate",
    "certified": "certified: images that are right and proved, each with its own failure probability",
}
"""What a figure may be, and what that means."""
COLOURS = ("exact", "smoothing", "lipschitz", "lipschitz-paper", "margin", "lipschitz-constant")
NORMS = {"l1": "\u2113\u2081", "l2": "\u2113\u2082", "linf": "\u2113\u221e"}
MOST_COLUMNS = 10
UNKNOWN = (float("nan"), float("nan"))


def run_chart(found: Certified, key: str) -> dict[str, Any]:
    """Return the curves of h and of the mix, each certificate and mixing weight, and g's clean accuracy."""
    summary, clean = found.summary, found.summary.clean_accuracy
    alphas = [alpha for alpha, _, _ in found.weights]
    right = found.images.right
    series = []
    for k, row in enumerate(summary.rows):
        mixed = row.classifier != "robust"
        radii = [rows[k][right & (rows[k] > 0)] for _, rows, _ in found.weights]
        colour = row.certificate if row.certificate in COLOURS else "other"
        series.append(Series(
            [symbols(classifier_label(row.classifier, alpha)) for alpha in (alphas if mixed else alphas[:1])],
            certificate_label(row.certificate), colour if mixed else "robust",
            radii if mixed else radii[:1],
            [share for _, _, share in found.weights] if mixed else [clean.robust],
            summary.images, k == found.lead,
        ))  # fmt: skip
    if known(clean.standard):
        series.append(Series(["standard (g)"], "nothing certified", "standard", (), [clean.standard], 0))
    weights = [plain_decimal(alpha) for alpha in alphas]
    start, at = summary.radii[found.column], alphas.index(summary.alpha)
    return chart(key, series, summary.norm, start, weights if len(weights) > 1 else (), at)


def run_histogram(found: Certified) -> dict[str, Any] | None:
    """Return how the certified radii of the mix and of h alone are spread."""
    images, summary = found.images, found.summary
    radii, start = (images.certified(0), images.certified(found.lead)), summary.radii[found.column]
    drawn = histogram(*radii, summary.norm, start)
    rest = ((why, int(which.sum())) for why, which in images.left_out(found.lead).items())
    return drawn and {**drawn, "rest": ", ".join(f"{count:,} {why}" for why, count in rest if count)}


def table_view(table: Table) -> dict[str, Any]:
    """Return a table in print; a column's heading tells of what kind its figures are, if all are of one."""
    units, words = column_units(table), text_columns(table)
    kinds = [{kind for cell in table.column(k) if (kind := _kind(cell))} for k in range(len(units))]
    once = [next(iter(found)) if len(found) == 1 else "" for found in kinds]

    def shown(cell: Cell, k: int) -> dict[str, Any]:
        one, kind = printed(cell), "" if once[k] else _kind(cell)
        text = f"{one.text} {one.unit}" if one.unit and units[k] is None else one.text
        return {"text": text, "interval": one.interval, "kind": kind, "number": not words[k]}

    headings = zip(printed_headings(table, units), once, (not flush for flush in words), strict=True)
    bodies = [
        (name, [[shown(c, k) for k, c in enumerate(row)] for row in rows]) for name, rows in table.blocks()
    ]
    meanings = [(kind, KINDS[kind]) for kind in sorted(set().union(*kinds))]
    return {"table": table, "headings": list(headings), "bodies": bodies, "kinds": meanings,
            "notes": printed_notes(table)}  # fmt: skip


def _kind(cell: Any) -> str:
    if not isinstance(cell, AccuracyShare):
        return ""
    return (
        "certified"
        if isinstance(cell, CertifiedShare)
        else "attacked"
        if isinstance(cell, AttackedAccuracy)
        else "estimate"
    )


def _mean(row: CertifiedAccuracy, norm: str) -> Quantity:
    return Quantity(row.mean_certified_radius, 5 if norm == "linf" else 3, rounding="down")


def letter(place: int) -> str:
    """Return A, B, ..., Z, then A2, B2, ...

    Examples
    --------
    >>> letter(0), letter(26)
    ('A', 'A2')
    """
    turn, rest = divmod(place, 26)
    return f"{chr(65 + rest)}{turn + 1 if turn else ''}"


def compared(runs: Sequence[Run]) -> dict[str, Any]:
    """Return runs side by side: whether they can be compared, the mixes' curves, figures, and parameters."""
    named = [(letter(k), run, run.certified) for k, run in enumerate(runs)]
    certified = [(name, run, found) for name, run, found in named if found is not None]
    parts: dict[str, Any] = {"parameters": _parameters(runs), "said": [], "chart": None, "figures": None}
    if len(certified) > 1:
        parts["said"] = _comparability(certified)
        if len({found.summary.norm for _, _, found in certified}) == 1:
            filled = [(name, found) for name, _, found in certified if found.summary.rows]
            parts["chart"] = _mixes(filled) if filled else None
            parts["figures"] = _figures(filled) if filled else None
    return parts


def _comparability(runs: Sequence[tuple[str, Run, Certified]]) -> list[tuple[bool, str]]:
    """Return sentences: whether each is a reason not to compare, and what it says."""
    told: list[tuple[bool, str]] = []
    if len({found.summary.norm for _, _, found in runs}) > 1:
        each = "; ".join(f"{name} {found.summary.norm}" for name, _, found in runs)
        told.append((True, f"Not comparable: radii are in different norms ({each})."))
    indices = [set(found.images.indices.tolist()) for _, _, found in runs]
    common = set.intersection(*indices)
    if len({run.data_checksum for _, run, _ in runs}) > 1:
        each = "; ".join(f"{name} {found.summary.data} {run.data_checksum[:12]}" for name, run, found in runs)
        told.append((True, f"Not comparable: the runs are about different data ({each})."))
    elif any(part != common for part in indices):
        each = "; ".join(f"{name} {len(part):,}" for (name, _, _), part in zip(runs, indices, strict=True))
        words = f"the runs are about different images of the same data ({each}; {len(common):,} in common)"
        told.append((True, f"Not comparable: {words}."))
    if partial := [name for name, _, found in runs if not found.summary.complete]:
        told.append((True, f"Partial results: {', '.join(partial)}."))
    return told or [(False, "All runs are about the same data, images and norm.")]


def _mixes(runs: Sequence[tuple[str, Certified]]) -> dict[str, Any]:
    """Return the curves of all runs' mixes."""
    series = []
    for k, (name, found) in enumerate(runs):
        row, summary = found.summary.rows[found.lead], found.summary
        label = f"{name}: {symbols(classifier_label(row.classifier, summary.alpha))}"
        under, radii = certificate_label(row.certificate), [found.images.certified(found.lead)]
        clean = [summary.clean_accuracy.mixed]
        series.append(Series([label], under, f"run-{k % 6}", radii, clean, summary.images))
    first = runs[0][1]
    return chart("all", series, first.summary.norm, first.summary.radii[first.column])


def _figures(runs: Sequence[tuple[str, Certified]]) -> Table:
    """Return h alone and the mix of each run, at the radii of all runs' tables."""
    radii = sorted({r for _, found in runs for r in found.summary.radii})
    columns = radii if len(radii) <= MOST_COLUMNS else list(runs[0][1].summary.radii)
    rows: list[tuple[Cell, ...]] = []
    norm = runs[0][1].summary.norm
    for name, found in runs:
        summary, images = found.summary, found.summary.images
        for k in dict.fromkeys((0, found.lead)):
            row, held = summary.rows[k], found.images.certified(k)
            counts = np.array([int((held >= radius).sum()) for radius in columns])
            ends = zip(*(end.tolist() for end in clopper_pearson.interval(counts, images)), strict=True)
            shares = (CertifiedShare(n, images, e) for n, e in zip(counts.tolist(), ends, strict=True))
            told = (
                summary.clean_accuracy.robust if row.classifier == "robust" else summary.clean_accuracy.mixed
            )
            clean = None if told is None else EstimatedAccuracy(round(told * images), images, UNKNOWN)
            label = f"{name}: {symbols(classifier_label(row.classifier, summary.alpha))}"
            under = certificate_label(row.certificate)
            rows.append((label, under, *shares, _mean(row, norm), clean))
    headings = ("run", "certificate", *(symbols(radius_heading(r)) for r in columns), "mean radius", "clean")
    title = f"Certified accuracy (%) at {NORMS.get(norm, norm)} radius, h alone and the mix of each run"
    return Table("comparison", title, "", headings, tuple(rows))


def _parameters(runs: Sequence[Run]) -> list[tuple[str, bool, list[str]]]:
    """Return each parameter, whether it differs, and the runs' values; what differs comes first.

    Among runs of several studies, a parameter that some of them lack tells nothing.
    """
    tables: list[dict[str, str]] = [dict(run.parameters + run.provenance) for run in runs]
    alike, rows = len({run.study for run in runs}) == 1, []
    for name in dict.fromkeys(name for table in tables for name in table):
        known_values = [table[name] for table in tables if name in table]
        differs = len(set(known_values)) > 1 or (alike and len(known_values) < len(tables))
        rows.append((name, differs, [table.get(name, "-") for table in tables]))
    return sorted(rows, key=lambda row: not row[1])
