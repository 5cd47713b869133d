"""The sections about one certification run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from certmix.page.certified import accuracy_table, clean_table, result_chart
from certmix.page.chart import chart_data, chart_figure
from certmix.page.facts import budget, commands, facts_table
from certmix.page.gallery import gallery
from certmix.page.histogram import histogram
from certmix.page.markup import Markup, tag
from certmix.page.values import CertifiedRun, Result
from certmix.page.words import headline, key_figures, status, warning
from certmix.text import plain_decimal
from certmix.types import Summary

__all__ = ["Blocks", "certified_sections", "section", "summary_blocks"]

Blocks = list[Markup | None]


def section(level: int, title: str, *content: Any) -> Markup:
    """Return a section under a heading of a level from 1 to 6; content is as for `tag`."""
    return tag("section", tag(f"h{level}", title), *content)


def summary_blocks(run: CertifiedRun) -> Blocks:
    """Return what a page says first of a run's newest result: what it lacks, its headline, its figures."""
    summary = run.newest.summary
    return [warning(summary), tag("p", headline(summary), class_="lead"), key_figures(summary)]


def certified_sections(run: CertifiedRun, key: str, level: int, charts: list[dict[str, Any]]) -> Blocks:
    """Return all sections about one run.

    Parameters
    ----------
    run
        What to show.
    key
        Begins the ids of its elements: no other run of the page may have it.
    level
        Of the sections' headings.
    charts
        The data of every chart are appended, for the page's script.
    """
    results = [_result(r, f"{key}-{k}", level + 1, run, charts) for k, r in enumerate(run.results)]
    below = level + 1
    pictures = gallery(run.gallery, run.gallery_note, below)
    return [
        section(level, "Certified accuracy over the radius", _chooser(run, key), results),
        section(level, "Images", pictures) if any(pictures) else None,
        section(level, "What is certified, what is estimated", status(run, below)),
        section(level, "Parameters", facts_table(run.parameters, "Parameters")),
        section(level, "Failure budget", budget(run)),
        section(level, "Provenance", facts_table(run.provenance, "Provenance")),
        section(level, "Make it again", commands(run.commands)),
    ]


def _chooser(run: CertifiedRun, key: str) -> Markup | None:
    """Return the selector of stored results, which the script shows."""
    if len(run.results) < 2:
        return None
    labels = _labels([result.summary for result in run.results])
    options = [tag("option", label, value=f"{key}-{k}") for k, label in enumerate(labels)]
    name = f"{key}-chooser"
    return tag(
        "p", tag("label", "Stored result ", for_=name), tag("select", options, id=name, data_chooser=key),
        class_="chooser", hidden=True, data_live=True,
    )  # fmt: skip


def _labels(summaries: Sequence[Summary]) -> list[str]:
    """Return what tells results apart: alpha, and whatever else differs."""
    parts = {
        "images": [f"{s.images:,} images" for s in summaries],
        "samples": [f"n \u2264 {s.samples:,}" if s.samples else "" for s in summaries],
        "failure": [f"failure probability {s.failure_probability:g}" if s.failure_probability else ""
                    for s in summaries],
        "goal": [f"goal {s.goal}" if s.goal else "" for s in summaries],
        "bound": [str(s.bound or "") for s in summaries],
        "standard": [f"g {s.standard}" for s in summaries],
        "norm": [s.norm for s in summaries],
        "rows": [", ".join(r.certificate for r in s.rows if r.classifier == "mixed") for s in summaries],
        "radii": [f"{len(s.radii)} radii" for s in summaries],
    }  # fmt: skip
    telling = [values for values in parts.values() if len(set(values)) > 1]
    found = [
        ", ".join([f"\u03b1 = {plain_decimal(s.alpha)}", *(v[k] for v in telling if v[k])])
        for k, s in enumerate(summaries)
    ]
    return [("newest: " if k == 0 else "") + label for k, label in enumerate(found)]


def _result(result: Result, key: str, level: int, run: CertifiedRun, charts: list[dict[str, Any]]) -> Markup:
    """Return curves, tables and histogram of one stored result."""
    summary, chart = result.summary, result_chart(result, key)
    heading = None
    if len(run.results) > 1:
        labels = _labels([r.summary for r in run.results])
        heading = tag(f"h{level}", labels[run.results.index(result)])
    if chart is None:
        shown: Markup | None = tag("p", _no_curve(summary), class_="warning", role="note")
    else:
        charts.append(chart_data(chart))
        shown = chart_figure(chart, _caption(summary))
    partial = warning(summary) if result is not run.newest else None
    tables = [*accuracy_table(summary), *clean_table(summary)] if summary.rows else []
    return tag("div", heading, partial, shown, tables, histogram(result), id=f"{key}-result", data_result=key)


def _no_curve(summary: Summary) -> str:
    if not summary.rows:
        return "No image is finished: there is nothing to draw."
    return (
        "The run's records do not give this table (they were changed, or drawn under settings that are not "
        "stored): its curve is left out, and the table stands as it was published."
    )


def _caption(summary: Summary) -> str:
    words = (
        "Nothing is smoothed or interpolated. A hollow dot at radius 0 is a clean accuracy. Shaded: the "
        "95 % interval over images of the mix."
    )
    if summary.goal == "radii":
        words += (
            " Sampling stopped once the table's columns were settled: between them curves are understated."
        )
    return words
