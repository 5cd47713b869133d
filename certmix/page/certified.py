"""One result of a certification run: curves, table, histogram."""

from __future__ import annotations

from certmix.page.chart import NORMS, Chart, Series
from certmix.page.curves import Axis, axis, steps
from certmix.page.markup import Markup, tag
from certmix.page.values import Result, lead_row
from certmix.tables.survival import coinciding
from certmix.tables.words import (
    CLEAN_LABELS,
    LETTERS,
    certificate_label,
    classifier_label,
    clean_values,
    deterministic,
    mean_radius,
    radius_heading,
)
from certmix.text import accuracy, interval_ends, known
from certmix.types import CertifiedAccuracy, Curve, Summary

__all__ = ["accuracy_table", "clean_table", "figure_cells", "result_chart", "scroll", "span", "start_radius"]

COLOURS = ("exact", "smoothing", "lipschitz", "lipschitz-paper", "margin", "lipschitz-constant")


def start_radius(summary: Summary) -> float:
    """Return the radius that a page speaks of: the smallest column above 0, or else 0."""
    return next((r for r in summary.radii if r > 0), 0.0)


def span(summary: Summary, largest: float) -> Axis:
    """Return the axis for a table's curves, no shorter than its first column above 0."""
    return axis(max(largest, start_radius(summary)), summary.norm)


def result_chart(result: Result, key: str) -> Chart | None:
    """Return the curves of a result, None where its images are not known."""
    summary, images = result.summary, result.images
    if images is None or not summary.rows:
        return None
    rows = range(len(summary.rows))
    largest = max((float(r) for k in rows for r in images.certified(k) if r < float("inf")), default=0.0)
    along = span(summary, largest)
    curves = [
        Curve(row.classifier, row.certificate, images.certified(k), summary.images, None)
        for k, row in enumerate(summary.rows)
    ]
    series: list[Series] = []
    lead, place = summary.rows[lead_row(summary.rows)], None
    clean = {"robust": summary.clean_accuracy.robust, "mixed": summary.clean_accuracy.mixed}
    for group in coinciding(curves):
        first = group[0]
        if first.classifier == lead.classifier and lead.certificate in {c.certificate for c in group}:
            place = len(series)
        names = ", ".join(certificate_label(c.certificate, LETTERS) for c in group)
        series.append(
            Series(
                f"{key}-s{len(series)}",
                classifier_label(first.classifier, summary.alpha, LETTERS),
                names,
                _colour(first),
                steps(first.radii, summary.images, along),
                clean.pop(first.classifier, None),
            )
        )
    if known(summary.clean_accuracy.standard):
        words = ("standard (g)", "nothing certified", "standard")
        series.append(Series(f"{key}-g", *words, None, summary.clean_accuracy.standard))
    about = f"Certified accuracy over the {summary.norm} radius, {summary.images:,} images."
    start = along.units(start_radius(summary)) // along.stride * along.stride
    return Chart(key, _title(summary), about, along, tuple(series), place, start)


def _title(summary: Summary) -> str:
    return f"Certified accuracy over the {NORMS.get(summary.norm, summary.norm)} radius"


def _colour(curve: Curve) -> str:
    if curve.classifier == "robust":
        return "robust"
    return curve.certificate if curve.certificate in COLOURS else "other"


def scroll(label: str, *parts: Markup, kind: str = "figures", titled: bool = True) -> list[Markup | None]:
    """Return a titled table that scrolls by itself where it is too wide, with the keyboard too."""
    title = tag("p", label, class_="table-title", aria_hidden="true") if titled else None
    table = tag("table", tag("caption", label, class_="hidden"), parts, class_=kind)
    return [title, tag("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")]


def accuracy_table(summary: Summary) -> list[Markup | None]:
    """Return the certified-accuracy table: percent with intervals, rounded outwards."""
    head = tag(
        "tr",
        tag("th", "classifier, certificate", scope="col"),
        [tag("th", radius_heading(r, LETTERS), scope="col", class_="number") for r in summary.radii],
        tag("th", "mean radius", scope="col", class_="number"),
    )
    body = [
        tag(
            "tr",
            row_name(classifier_label(row.classifier, summary.alpha, LETTERS), row.certificate),
            figure_cells(row),
            tag("td", mean_radius(row, norm=summary.norm), class_="number"),
        )
        for row in summary.rows
    ]
    caption = f"Certified accuracy (%) at {NORMS.get(summary.norm, summary.norm)} radius, with 95 % intervals"
    return scroll(caption, tag("thead", head), tag("tbody", body))


def row_name(classifier: str, certificate: str) -> Markup:
    """Return the heading of a row: its classifier above its certificate."""
    below = tag("span", certificate_label(certificate, LETTERS), class_="under")
    return tag("th", classifier, " ", below, scope="row")


def figure_cells(row: CertifiedAccuracy) -> list[Markup]:
    """Return a row's figures, each above its interval."""
    cells = []
    for share, ends in zip(row.certified_accuracy, row.interval, strict=True):
        low, high = interval_ends(ends)
        below = tag("span", f"[{low}, {high}]", class_="under interval") if known(share) else None
        cells.append(tag("td", accuracy(share), " ", below, class_="number"))
    return cells


def clean_table(summary: Summary) -> list[Markup | None]:
    """Return clean accuracies, and whether they are estimates."""
    kind = "exact on these images" if deterministic(summary) else "estimates for h and the mix"
    head = tag("tr", [tag("th", label, scope="col", class_="number") for label in CLEAN_LABELS])
    cells = [tag("td", value, class_="number") for value in clean_values(summary.clean_accuracy)]
    parts = tag("thead", head), tag("tbody", tag("tr", cells))
    return scroll(f"Clean accuracy (%), {kind}", *parts, kind="figures narrow")
