"""The summary as comma-separated values, one line a row, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io

from certmix.tables.cells import known
from certmix.tables.wording import deterministic
from certmix.text import plain_decimal
from certmix.types import CertifiedAccuracy, Summary

__all__ = ["csv_table"]


def csv_table(summary: Summary) -> str:
    """Return one line a row, with a heading line.

    Columns: classifier, certificate; sigma, alpha, images, failure_probability
    of the run; certified_accuracy@R for every radius R, then lower@R, then
    upper@R; mean_certified_radius; clean_accuracy_standard, _robust, _mixed;
    complete; norm, where no samples were drawn or radii are not l2.  Plain
    decimals that read back as the same numbers, accuracies as shares of 1,
    empty where unknown.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_columns(summary))
    writer.writerows(_values(summary, row) for row in summary.rows)
    return buffer.getvalue()


def _columns(summary: Summary) -> list[str]:
    radii = [plain_decimal(radius) for radius in summary.radii]
    return [
        "classifier",
        "certificate",
        "sigma",
        "alpha",
        "images",
        "failure_probability",
        *(f"{name}@{radius}" for name in ("certified_accuracy", "lower", "upper") for radius in radii),
        "mean_certified_radius",
        *(f"clean_accuracy_{name}" for name in ("standard", "robust", "mixed")),
        "complete",
        *(["norm"] if _says_norm(summary) else []),
    ]


def _values(summary: Summary, row: CertifiedAccuracy) -> list[str]:
    clean = summary.clean_accuracy
    figures = [
        *row.certified_accuracy,
        *(low for low, _ in row.interval),
        *(high for _, high in row.interval),
        row.mean_certified_radius,
        clean.standard,
        clean.robust,
        clean.mixed,
    ]
    return [
        row.classifier,
        row.certificate,
        _number(summary.sigma),
        _number(summary.alpha),
        str(summary.images),
        _number(summary.failure_probability),
        *map(_number, figures),
        "true" if summary.complete else "false",
        *([summary.norm] if _says_norm(summary) else []),
    ]


def _says_norm(summary: Summary) -> bool:
    return deterministic(summary) or summary.norm != "l2"


def _number(value: float | None) -> str:
    return plain_decimal(value) if known(value) else ""
