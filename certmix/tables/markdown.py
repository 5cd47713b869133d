"""The summary as a Markdown table that also reads well as plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from certmix.tables.cells import CLEAN_LABELS, accuracy, clean_values, interval_ends, known, mean_radius
from certmix.tables.wording import (
    PLAIN,
    certificate_label,
    classifier_label,
    notes,
    one_line,
    partial_warning,
    radius_heading,
    settings,
)
from certmix.types import CertifiedAccuracy, Summary

__all__ = ["markdown_table"]


def markdown_table(summary: Summary) -> str:
    """Return the summary in Markdown: settings, certified accuracies, clean accuracies, notes.

    Percent with one decimal; certified figures and lower ends are rounded
    down, upper ends up.
    """
    warning = partial_warning(summary)
    heading = [
        "classifier",
        "certificate",
        *(radius_heading(radius, _MARKDOWN) for radius in summary.radii),
        "mean radius",
    ]
    blocks = [
        "# Certified accuracy" + (" (partial)" if warning else ""),
        *([f"**{warning[0].upper()}{warning[1:]}.**"] if warning else []),
        f"Certified accuracy (%) at {summary.norm} radius, with the two-sided 95 % Clopper-Pearson interval "
        f"over images; {settings(summary, _MARKDOWN)}.",
        _aligned([heading, *(_cells(summary, row) for row in summary.rows)], left=2),
        "Clean accuracy (%):",
        _aligned([list(CLEAN_LABELS), list(clean_values(summary.clean_accuracy, _MARKDOWN))], left=0),
        "Notes:",
        "\n".join(f"- {note}" for note in notes(summary, _MARKDOWN)),
    ]
    return "\n\n".join(blocks) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", one_line(text))


_MARKDOWN = replace(PLAIN, escape=_escape)


def _cells(summary: Summary, row: CertifiedAccuracy) -> list[str]:
    figures = []
    for share, interval in zip(row.certified_accuracy, row.interval, strict=True):
        low, high = interval_ends(interval)
        figures.append(f"{accuracy(share)} [{low}, {high}]" if known(share) else PLAIN.unknown)
    return [
        classifier_label(row.classifier, summary.alpha, _MARKDOWN),
        certificate_label(row.certificate, _MARKDOWN),
        *figures,
        mean_radius(row, _MARKDOWN, norm=summary.norm),
    ]


def _aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    """Lay out a pipe table; the first `left` columns are flush left, the others right."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])
