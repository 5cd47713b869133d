"""The certified-accuracy table: names of its rows and columns, how the figures came about, notes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from certmix.errors import one_line
from certmix.tables.table import Cell, Label, Quantity, Share, Table
from certmix.text import accuracy, as_given, floor_digits, known, plain_decimal
from certmix.types import CertifiedAccuracy, Summary

DETERMINISTIC = ("margin", "lipschitz-constant")
"""Certificates that draw no samples: no noise level, and nothing that could fail by chance."""

_LABELS = {"margin": "margin (verified)", "lipschitz-constant": "lipschitz-constant (given)"}

_MEANINGS = {
    "margin": "Lemma 3.2 with margins of h that are verified by bound propagation; no samples.",
    "lipschitz-constant": "Theorem 3.5 with a constant that was given, not verified; no samples.",
}


CLEAN_LABELS = ("standard (g)", "robust (h)", "mixed")


def symbols(text: str) -> str:
    """Return our own words with their symbols, for where these can be shown."""
    for word, symbol in (("alpha = ", "\u03b1 = "), ("sigma = ", "\u03c3 = "), (">= ", "\u2265 ")):
        text = text.replace(word, symbol)
    return text


def classifier_label(classifier: str, alpha: float) -> str:
    """Return ``robust (alpha = 1)``, ``mixed (alpha = 0.76)``, or the name itself."""
    weights = {"robust": 1.0, "mixed": alpha}
    if classifier not in weights:
        return one_line(classifier)
    return f"{classifier} (alpha = {plain_decimal(weights[classifier])})"


def certificate_label(certificate: str) -> str:
    """Return what a row calls its certificate; an unknown one keeps its name."""
    from certmix.radii import CERTIFICATES  # here: scipy is slow to import, and most tables need none

    if certificate in CERTIFICATES:
        return CERTIFICATES[certificate].label
    return _LABELS.get(certificate) or one_line(certificate)


def radius_heading(radius: float) -> str:
    """Return a column's heading: ``> 0`` (a radius of 0 certifies nothing), ``>= 0.25`` or ``>= 8/255``."""
    return "> 0" if radius == 0 else f">= {as_given(radius)}"


def deterministic(summary: Summary) -> bool:
    """Whether no figure rests on samples."""
    return bool(summary.rows) and all(row.certificate in DETERMINISTIC for row in summary.rows)


def settings(summary: Summary) -> str:
    """Return sigma, alpha, samples, failure probability and images in one line."""
    alpha = f"alpha = {plain_decimal(summary.alpha)}"
    images = f"{summary.images:,} image{'' if summary.images == 1 else 's'}"
    if deterministic(summary):
        return f"{alpha}, no failure probability: deterministic, {images}"
    sigma = "sigma of the best source" if summary.sigma is None else f"sigma = {as_given(summary.sigma)}"
    parts, mean = [sigma, alpha], summary.mean_samples
    if summary.samples is not None:
        drawn = f"{summary.samples:,} samples an image"
        fixed = mean is None or mean == summary.samples
        parts.append(f"n = {drawn}" if fixed else f"n at most {drawn} ({mean:,.0f} on average)")
    delta = summary.failure_probability
    parts.append(f"failure probability {'unknown' if delta is None else f'{plain_decimal(delta)} an image'}")
    return ", ".join([*parts, images])


def notes(summary: Summary) -> list[str]:
    """Return the notes at the end of a table, one sentence or more each."""
    lines = [
        "Accuracies, mean radii and lower ends of intervals are rounded down, upper ends up. "
        "An image counts in column > 0 when some radius above 0 is certified.",
        "Clean accuracies are exact on these images."
        if deterministic(summary)
        else "Clean accuracies of the robust and the mixed classifier are plug-in estimates "
        "from noisy votes, not certificates.",
    ]
    if summary.abstained:
        plural = "" if summary.abstained == 1 else "s"
        lines.append(
            f"The class could not be established (abstained) on {summary.abstained:,} image{plural}; "
            "such an image counts as not certified."
        )
    present = {row.certificate for row in summary.rows}
    from certmix.radii import CERTIFICATES

    meanings = {**{name: one.meaning for name, one in CERTIFICATES.items()}, **_MEANINGS}
    lines += [f"{name}: {text}" for name, text in meanings.items() if name in present]
    names = ("data", "standard", "robust", "bound", "goal", "selection samples", "seed")
    pairs = {name: getattr(summary, name.replace(" ", "_")) for name in names}
    told = (f"{name} {one_line(str(value))}" for name, value in pairs.items() if value is not None)
    return [*lines, f"Run: {'; '.join(told)}.", *map(one_line, summary.notes)]


def mean_radius(row: CertifiedAccuracy, *, norm: str = "l2") -> str:
    """Return a row's mean certified radius with three decimals (l-inf: five), rounded down."""
    value = row.mean_certified_radius
    return floor_digits(value, _radius_digits(norm)) if known(value) else "-"


def _radius_digits(norm: str) -> int:
    return 5 if norm == "linf" else 3


def summary_table(summary: Summary) -> Table:
    """Return the certified accuracies as a table: a row a certificate, a column a radius."""
    rows: list[tuple[Cell, ...]] = []
    groups = []
    for classifier, found in groupby(summary.rows, key=lambda row: row.classifier):
        of_group: list[tuple[Cell, ...]] = [
            (
                Label(certificate_label(row.certificate), one_line(row.certificate)),
                *(Share(*pair) for pair in zip(row.certified_accuracy, row.interval, strict=True)),
                Quantity(row.mean_certified_radius, _radius_digits(summary.norm), rounding="down"),
            )
            for row in found
        ]
        rows += of_group
        groups.append((classifier_label(classifier, summary.alpha), len(of_group)))
    shares = summary.clean_accuracy
    clean = zip(CLEAN_LABELS, (shares.standard, shares.robust, shares.mixed), strict=True)
    planned = "" if summary.planned_images is None else f" of {summary.planned_images:,} planned"
    return Table(
        name="certified-accuracy",
        title=f"Certified accuracy (%) at {summary.norm} radius, with its 95 % interval over images",
        settings=settings(summary),
        headings=("certificate", *map(radius_heading, summary.radii), "mean radius"),
        rows=tuple(rows),
        notes=tuple(notes(summary)),
        complete=bool(summary.complete),
        groups=tuple(groups),
        extent=f"{summary.images:,}{planned} images",
        below=f"Clean accuracy (%): {', '.join(f'{label} {accuracy(share)}' for label, share in clean)}",
        data=summary.as_dict(),
        records=_records(summary),
    )


def _records(summary: Summary) -> tuple[tuple[Any, ...], ...]:
    """Return the lines of the CSV: its column names are fixed, and programs know them."""
    radii = [plain_decimal(radius) for radius in summary.radii]
    norm = [summary.norm] if deterministic(summary) or summary.norm != "l2" else []
    headings = [
        "classifier", "certificate", "sigma", "alpha", "images", "failure_probability",
        *(f"{name}@{radius}" for name in ("certified_accuracy", "lower", "upper") for radius in radii),
        "mean_certified_radius", *(f"clean_accuracy_{name}" for name in ("standard", "robust", "mixed")),
        "complete", *(["norm"] if norm else []),
    ]  # fmt: skip
    clean = summary.clean_accuracy
    lines = [
        (
            row.classifier, row.certificate, summary.sigma, summary.alpha, summary.images,
            summary.failure_probability, *row.certified_accuracy, *(low for low, _ in row.interval),
            *(high for _, high in row.interval), row.mean_certified_radius,
            clean.standard, clean.robust, clean.mixed, bool(summary.complete), *norm,
        )
        for row in summary.rows
    ]  # fmt: skip
    return (tuple(headings), *lines)
