"""Several certification runs side by side: whether they can be compared, curves, figures, parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.page.certified import row_name, scroll, start_radius
from certmix.page.chart import Chart, Series
from certmix.page.curves import axis, steps
from certmix.page.markup import Markup, tag
from certmix.page.values import CertifiedRun, Facts, Result, StudyRun, lead_row
from certmix.tables.words import (
    LETTERS,
    certificate_label,
    classifier_label,
    clean_values,
    mean_radius,
    radius_heading,
)
from certmix.text import accuracy, interval_ends

__all__ = ["comparability", "comparison_chart", "differing", "figures_table", "letter", "parameters_table"]

MOST_COLUMNS = 10


def letter(place: int) -> str:
    """Return A, B, ..., Z, then A2, B2, ...

    Examples
    --------
    >>> letter(0), letter(26)
    ('A', 'A2')
    """
    turn, rest = divmod(place, 26)
    return f"{chr(65 + rest)}{turn + 1 if turn else ''}"


def comparability(runs: Sequence[tuple[str, CertifiedRun]]) -> list[tuple[bool, str]]:
    """Return sentences: whether each is a reason not to compare, and what it says."""
    norms = {run.newest.summary.norm for _, run in runs}
    found: list[tuple[bool, str]] = []
    if len(norms) > 1:
        named = "; ".join(f"{name} {run.newest.summary.norm}" for name, run in runs)
        found.append((True, f"Not comparable: radii are in different norms ({named})."))
    sums = {run.data_checksum for _, run in runs}
    if len(sums) > 1:
        named = "; ".join(f"{name} {run.newest.summary.data} {run.data_checksum[:12]}" for name, run in runs)
        found.append((True, f"Not comparable: the runs are about different data ({named})."))
    else:
        found += _same_images(runs)
    partial = [name for name, run in runs if not run.newest.summary.complete]
    if partial:
        found.append((True, f"Partial results: {', '.join(partial)}."))
    return found or [(False, "All runs are about the same data, images and norm.")]


def _same_images(runs: Sequence[tuple[str, CertifiedRun]]) -> list[tuple[bool, str]]:
    images = [run.newest.images for _, run in runs]
    known = [set(part.indices.tolist()) for part in images if part is not None]
    if len(known) < len(images):
        return [(True, "Whether the runs are about the same images is not known.")]
    common = set.intersection(*known)
    if all(part == common for part in known):
        return []
    counts = "; ".join(f"{name} {len(part):,}" for (name, _), part in zip(runs, known, strict=True))
    return [
        (
            True,
            f"Not comparable: the runs are about different images of the same data ({counts}; "
            f"{len(common):,} in common).",
        )
    ]


def comparison_chart(runs: Sequence[tuple[str, CertifiedRun]]) -> Chart | None:
    """Return the curves of all runs' mixes, None where norms differ or no images are known."""
    if len({run.newest.summary.norm for _, run in runs}) > 1:
        return None
    shown = [
        (name, run.newest) for name, run in runs if run.newest.images is not None and run.newest.summary.rows
    ]
    radii = [_mixed(result) for _, result in shown]
    if not shown:
        return None
    first = shown[0][1].summary
    largest = max((float(r) for part in radii for r in part if r < float("inf")), default=0.0)
    along = axis(max(largest, start_radius(first)), first.norm)
    series = []
    for k, ((name, result), part) in enumerate(zip(shown, radii, strict=True)):
        summary = result.summary
        row = summary.rows[lead_row(summary.rows)]
        label = f"{name}: {classifier_label(row.classifier, summary.alpha, LETTERS)}"
        under = certificate_label(row.certificate, LETTERS)
        curve = steps(part, summary.images, along)
        series.append(Series(f"all-{k}", label, under, f"run-{k % 6}", curve, summary.clean_accuracy.mixed))
    start = along.units(start_radius(first)) // along.stride * along.stride
    about = f"Certified accuracy of {len(series)} runs' mixes over the {first.norm} radius."
    return Chart("all", "Certified accuracy, run by run", about, along, tuple(series), None, start)


def _mixed(result: Result) -> np.ndarray:
    assert result.images is not None
    return result.images.certified(lead_row(result.summary.rows))


def figures_table(runs: Sequence[tuple[str, CertifiedRun]]) -> list[Markup | None]:
    """Return two rows a run, h alone and the mix, at the radii of all runs' tables."""
    radii = sorted({r for _, run in runs for r in run.newest.summary.radii})
    columns = radii if len(radii) <= MOST_COLUMNS else list(runs[0][1].newest.summary.radii)
    head = tag(
        "tr",
        tag("th", "run", scope="col"),
        [tag("th", radius_heading(r, LETTERS), scope="col", class_="number") for r in columns],
        [tag("th", h, scope="col", class_="number") for h in ("mean radius", "clean")],
    )
    rows = [row for name, run in runs for row in _rows(name, run.newest, columns)]
    caption = "Certified accuracy (%) with 95 % intervals, h alone and the mix of each run"
    return scroll(caption, tag("thead", head), tag("tbody", rows))


def _rows(name: str, result: Result, columns: Sequence[float]) -> list[Markup]:
    summary = result.summary
    if not summary.rows:
        return []
    clean = clean_values(summary.clean_accuracy)
    lines = []
    for k in dict.fromkeys((0, lead_row(summary.rows))):
        row = summary.rows[k]
        label = f"{name}: {classifier_label(row.classifier, summary.alpha, LETTERS)}"
        cells = [_cell(result, k, radius) for radius in columns]
        mean = tag("td", mean_radius(row, norm=summary.norm), class_="number")
        share = tag("td", clean[1 if row.classifier == "robust" else 2], class_="number")
        lines.append(tag("tr", row_name(label, row.certificate), cells, mean, share))
    return lines


def _cell(result: Result, row: int, radius: float) -> Markup:
    """Return a figure at any radius: the table's, or counted from the images."""
    summary, images = result.summary, result.images
    if radius in summary.radii:
        at = summary.radii.index(radius)
        share, ends = summary.rows[row].certified_accuracy[at], summary.rows[row].interval[at]
    elif images is None:
        return tag("td", "-", class_="number")
    else:
        count = int((images.certified(row) >= radius).sum())
        low, high = clopper_pearson.interval(np.array([count]), summary.images)
        share, ends = count / summary.images, (float(low[0]), float(high[0]))
    below = tag("span", "[{}, {}]".format(*interval_ends(ends)), class_="under interval")
    return tag("td", accuracy(share), " ", below, class_="number")


def differing(facts: Sequence[Facts], alike: bool = True) -> list[str]:
    """Return the names whose values are not the same in all runs, in the order of their first run.

    Unless the runs are `alike`, of one study, a name that some of them lack tells nothing.
    """
    tables = [dict(one) for one in facts]
    names = dict.fromkeys(name for one in facts for name, _ in one)
    values = {name: [table[name] for table in tables if name in table] for name in names}
    return [
        name for name, found in values.items() if len(set(found)) > 1 or (alike and len(found) < len(tables))
    ]


def parameters_table(runs: Sequence[tuple[str, CertifiedRun | StudyRun]]) -> list[Markup | None]:
    """Return all parameters of all runs, those that differ marked and first."""
    facts = [run.parameters + run.provenance for _, run in runs]
    tables, marked = [dict(one) for one in facts], differing(facts, len({run.study for _, run in runs}) == 1)
    names = [*marked, *(n for n in dict.fromkeys(n for one in facts for n, _ in one) if n not in marked)]
    head = tag("tr", tag("th", "parameter", scope="col"), [tag("th", name, scope="col") for name, _ in runs])
    rows = [
        tag("tr", tag("th", name, tag("span", "differs", class_="badge differs") if name in marked else None,
            scope="row"), [tag("td", table.get(name, "-")) for table in tables],
            class_="differs" if name in marked else None)
        for name in names
    ]  # fmt: skip
    caption = "Parameters and provenance; what differs comes first"
    return scroll(caption, tag("thead", head), tag("tbody", rows), kind="facts several")
