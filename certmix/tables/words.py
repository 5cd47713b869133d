"""The certified-accuracy table: names of its rows and columns, how the figures came about, notes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from certmix.errors import one_line
from certmix.tables.table import Cell, Quantity, Share, Table
from certmix.text import accuracy, as_given, known, plain_decimal
from certmix.types import CertifiedAccuracy, Curve, Summary

DETERMINISTIC = ("margin", "lipschitz-constant", "enumerated", "enumerated-lipschitz")
"""Certificates that draw no samples: no noise level, and nothing that could fail by chance."""

_LABELS = {"margin": "margin (verified)", "lipschitz-constant": "lipschitz-constant (given)"}

_MEANINGS = {
    "margin": "Lemma 3.2 with margins of h that are verified by bound propagation; no samples.",
    "lipschitz-constant": "Theorem 3.5 with a constant that was given, not verified; no samples.",
}


def symbols(text: str) -> str:
    """Return our own words with their symbols, for where these can be shown."""
    for word, symbol in (("alpha = ", "\u03b1 = "), ("sigma = ", "\u03c3 = "), (">= ", "\u2265 ")):
        text = text.replace(word, symbol)
    return text


def classifier_label(of: CertifiedAccuracy | Curve, alpha: float, *, short: bool = False) -> str:
    """Return ``robust (alpha = 1)``, ``mixed, gated (alpha = 0.62, gate 0.6, g one-hot)``, or the name.

    `alpha` is that of the mix; the tuned one has its own.  A `short` one names alpha alone.
    """
    names = {"robust": "robust", "mixed": "mixed", "gated": "mixed, gated"}
    if of.classifier not in names:
        return one_line(of.classifier)
    own = {"robust": 1.0, "mixed": alpha}.get(of.classifier, of.alpha)
    parts = [] if own is None else [f"alpha = {plain_decimal(own)}"]
    if not short:
        parts += [f"gate {plain_decimal(of.gate)}"] if of.gate else []
        parts += temperature_words(of.standard_temperature)
    return f"{names[of.classifier]} ({', '.join(parts)})"


def temperature_words(standard_temperature: float) -> tuple[str, ...]:
    """Return how g is sharpened, in words; none at temperature 1."""
    if standard_temperature == 1.0:
        return ()
    cold = standard_temperature == 0.0
    return ("g one-hot" if cold else f"g at temperature {plain_decimal(standard_temperature)}",)


def certificate_label(certificate: str) -> str:
    """Return what a row calls its certificate; an unknown one keeps its name."""
    from certmix.radii import CERTIFICATES, counted  # here: scipy is slow to import, and most need none

    for table in (CERTIFICATES, counted.CERTIFICATES):
        if certificate in table:
            return str(table[certificate].label)
    return _LABELS.get(certificate) or one_line(certificate)


def radius_heading(radius: float, norm: str = "l2") -> str:
    """Return a column's heading: ``> 0`` (a radius of 0 certifies nothing), ``>= 0.25``, or ``5 x 5``."""
    if norm == PATCH:
        return f"{radius:g} x {radius:g}"
    return "> 0" if radius == 0 else f">= {as_given(radius)}"


PATCH = "patch"
"""The norm of certificates against patches: radii are their sides, in pixels."""


def deterministic(summary: Summary) -> bool:
    """Whether no figure rests on samples."""
    return bool(summary.rows) and all(row.certificate in DETERMINISTIC for row in summary.rows)


def noise_words(of: Any, drawn: bool = True) -> str:
    """Return the noise, and how much of it there is, that a table or request names; "" without any."""
    if of.scale is not None:
        return f"{of.noise}{' noise' * drawn}, scale = {as_given(of.scale)}"
    return "" if of.sigma is None else f"sigma = {as_given(of.sigma)}"


def settings(summary: Summary) -> str:
    """Return sigma, alpha, samples, failure probability and inputs in one line."""
    alpha = f"alpha = {plain_decimal(summary.alpha)}"
    inputs = f"{summary.inputs:,} input{'' if summary.inputs == 1 else 's'}"
    noise = noise_words(summary, not deterministic(summary))
    if deterministic(summary):
        return f"{noise}{', ' * bool(noise)}{alpha}, no failure probability: deterministic, {inputs}"
    parts, mean = [noise or "sigma of the best source", alpha], summary.mean_samples
    if summary.samples is not None:
        drawn = f"{summary.samples:,} samples an input"
        fixed = mean is None or mean == summary.samples
        parts.append(f"n = {drawn}" if fixed else f"n at most {drawn} ({mean:,.0f} on average)")
    delta = summary.failure_probability
    parts.append(f"failure probability {'unknown' if delta is None else f'{plain_decimal(delta)} an input'}")
    return ", ".join([*parts, inputs])


_RANGES = (
    "A range ends at what all samples that were allowed could still give: an estimate, too low with "
    "probability 2.5 %. --settle all samples on for the rows of theorems, --goal radius for mean radii."
)
_GATED = (
    "gate: a noisy copy's answer counts only where its largest softmax probability is at least this. Gate, "
    "temperature of g and alpha must have been chosen on other inputs (docs/gates.md)."
)
_MEANS = (
    "Intervals of mean radii: 95 %, by betting bounds, for a random sample of inputs and any distribution of "
    "radii up to the largest that could be certified. As of shares, certificates are taken as right."
)
MOST_NOTES = 5  # lines under a certified-accuracy table; the rest are details


def _within(summary: Summary) -> str:
    if summary.norm == PATCH:
        return "wherever such a patch lies and whatever it shows"
    converted = f" (converted from {summary.converted_from})" if summary.converted_from else ""
    return f"within the {summary.norm} radius{converted}"


def notes(summary: Summary, open_: bool) -> tuple[list[str], list[str]]:
    """Return the notes of a table and its details; `open_` says whether one of its figures is a range."""
    delta, proved = summary.failure_probability, deterministic(summary)
    fails = "unknown" if delta is None else f"at most {plain_decimal(delta)}"
    found = [
        *map(one_line, summary.notes),
        "Certified, given the constant: right, and proved to stay so up to the radius."
        if any(row.certificate == "lipschitz-constant" for row in summary.rows)
        else f"Certified: right, and proved to stay so {_within(summary)}, whatever g is.",
        "Nothing is left to chance: no samples are drawn."
        if proved
        else f"Each certificate fails with probability {fails}, each row by itself.",
        *(["40-45: 40 % is certified, 45 % could be with more samples (see --details)."] if open_ else []),
        *([] if proved else ["Clean accuracies of h and the mix are estimates; figures are rounded down."]),
    ]
    details = [
        *found[MOST_NOTES:],
        "Accuracies, mean radii and lower ends of intervals are rounded down, upper ends up. "
        "An input counts in column > 0 when some radius above 0 is certified.",
        *([_MEANS] if any(row.mean_radius_interval for row in summary.rows) else []),
        *(["Clean accuracies are exact on these inputs."] if proved else []),
        *([_RANGES] if open_ else []),
        *([_GATED] if any(row.gate for row in summary.rows) else []),
    ]
    if summary.abstained:
        some = f"{summary.abstained:,} input{'' if summary.abstained == 1 else 's'}"
        lost = f"The class could not be established (abstained) on {some}"
        details.append(f"{lost}; such an input counts as not certified.")
    present = {row.certificate for row in summary.rows}
    from certmix.radii import SMOOTHINGS

    rules = SMOOTHINGS[summary.noise or "gaussian"].certificates
    own = rules.get(summary.converted_from or summary.norm) or next(iter(rules.values()))
    meanings = {**{name: one.meaning for name, one in own.items()}, **_MEANINGS}
    details += [f"{name}: {text}" for name, text in meanings.items() if name in present]
    names = ("data", "standard", "robust", "bound", "goal", "selection samples", "seed")
    pairs = {name: getattr(summary, name.replace(" ", "_")) for name in names}
    told = (f"{name} {one_line(str(value))}" for name, value in pairs.items() if value is not None)
    return found[:MOST_NOTES], [*details, f"Run: {'; '.join(told)}.", *map(one_line, summary.details)]


def settled(value: float, most: float, inputs: int) -> bool:
    """Whether more samples could add no more than half a point to an accuracy, or one input in a hundred."""
    return not round((most - value) * inputs) > max(0.005 * inputs, inputs >= 100)


def share_of(value: float, interval: tuple[float, float], most: float, inputs: int) -> Share:
    """Return an accuracy as a cell: one figure where it is settled, else a range."""
    if not known(value) or settled(value, most, inputs):
        return Share(value, interval)
    from certmix.bounds import clopper_pearson  # here: scipy is slow to import

    _, high = clopper_pearson.interval(np.array([round(most * inputs)]), inputs)
    return Share(value, interval, (most, float(high[0])))


def _rows(summary: Summary) -> list[tuple[Cell, ...]]:
    return [
        (
            one_line(row.certificate),
            Share(row.clean_accuracy),
            *(
                share_of(*cell, summary.inputs)
                for cell in zip(row.certified_accuracy, row.interval, row.could_reach, strict=True)
            ),
            mean_radius(row, norm=summary.norm),
        )
        for row in summary.rows
    ]


def mean_radius(row: CertifiedAccuracy, *, norm: str = "l2") -> Quantity:
    """Return a row's mean radius as a cell: a range where more samples could add more than one percent."""
    value, most, ends = row.mean_certified_radius, row.mean_radius_could_reach, row.mean_radius_interval
    open_ = known(value) and known(most) and most > 1.01 * value
    if open_ and ends is not None:
        ends = ends[0], ends[1] + most - value
    digits = 5 if norm == "linf" else 3
    return Quantity(value, digits, rounding="down", most=most if open_ else None, interval=ends)


def summary_table(summary: Summary) -> Table:
    """Return the certified accuracies as a table: a row a certificate, a column a radius."""
    named = (classifier_label(row, summary.alpha) for row in summary.rows)
    groups = [(name, len(list(of_group))) for name, of_group in groupby(named)]
    planned = "" if summary.planned_inputs is None else f" of {summary.planned_inputs:,} planned"
    rows, standard = _rows(summary), summary.clean_accuracy.standard
    patches, columns = summary.norm == PATCH, [radius_heading(r, summary.norm) for r in summary.radii]
    at = "against patches" if patches else f"at {summary.norm} radius"
    short, details = notes(
        summary, any(getattr(cell, "most", None) is not None for row in rows for cell in row)
    )
    return Table(
        name="certified-accuracy",
        title=f"Certified accuracy (%) {at}, with its 95 % interval over inputs",
        settings=settings(summary),
        headings=("certificate", "clean", *columns, "mean size" if patches else "mean radius"),
        rows=tuple(rows),
        notes=tuple(short),
        details=tuple(details),
        doubts=min(len(summary.notes), MOST_NOTES),
        complete=bool(summary.complete),
        groups=tuple(groups),
        extent=f"{summary.inputs:,}{planned} inputs",
        below=""
        if standard is None
        else f"Clean accuracy (%) of the standard classifier g: {accuracy(standard)}",
        data=summary.as_dict(),
        records=_records(summary),
    )


def _records(summary: Summary) -> tuple[tuple[Any, ...], ...]:
    """Return the lines of the CSV: its column names are fixed, and programs know them."""
    radii = [plain_decimal(radius) for radius in summary.radii]
    norm = [summary.norm] if deterministic(summary) or summary.norm != "l2" else []
    names = ("certified_accuracy", "lower", "upper", "could_reach")
    headings = [
        "classifier", "certificate", "sigma", "alpha", "gate", "standard_temperature", "inputs",
        "failure_probability", "clean_accuracy",
        *(f"{name}@{radius}" for name in names for radius in radii),
        "mean_certified_radius", "mean_radius_lower", "mean_radius_upper", "mean_radius_could_reach",
        "clean_accuracy_standard", "complete",
        *(["norm"] if norm else []),
    ]  # fmt: skip
    lines = [
        (
            row.classifier, row.certificate, summary.sigma, summary.alpha if row.alpha is None else row.alpha,
            row.gate, row.standard_temperature, summary.inputs,
            summary.failure_probability, row.clean_accuracy, *row.certified_accuracy,
            *(low for low, _ in row.interval), *(high for _, high in row.interval), *row.could_reach,
            row.mean_certified_radius, *(row.mean_radius_interval or (None, None)),
            row.mean_radius_could_reach, summary.clean_accuracy.standard, bool(summary.complete), *norm,
        )
        for row in summary.rows
    ]  # fmt: skip
    return (tuple(headings), *lines)
