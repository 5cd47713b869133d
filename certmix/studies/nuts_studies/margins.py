"""Confidence margins before and after the transform, of right and wrong answers, clean and attacked."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from certmix.nuts.margins import clean_margin, normalize_numpy, transform_numpy
from certmix.studies.accuracy import estimated_accuracy
from certmix.studies.nuts_studies.inputs import FitCache, Inputs, Product
from certmix.studies.nuts_suite import STD
from certmix.tables.confidence_plot import ConfidenceGaps, GapPanel, confidence_image
from certmix.tables.nuts_margin_plot import MarginBars, MarginGroup, margin_bars_image
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal
from certmix.types import FloatArray

__all__ = ["study"]

CLEAN, ATTACKED, TRANSFER = "clean", "smallest margin", "STD attack"
STANDARD, BENT = "g", "M(h)"


def study(inputs: Inputs) -> Product:
    """Tabulate margins of g, h, LN(h) and M(h), with the share of M(h)'s that reach the threshold q.

    References
    ----------
    Figures 6 and 7, Section 5.2, and Table 6, Appendix C.3, of Bai, Zhou,
    Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    groups, q = _groups(inputs), inputs.fit.fitted.fit.margin_threshold
    rows: list[tuple[Any, ...]] = []
    for one in groups:
        for answer, margins in (("right", one.right), ("wrong", one.wrong)):
            share = estimated_accuracy(margins >= q) if one.logits == BENT and len(margins) else None
            rows.append((one.logits, answer, len(margins), *_middles(margins), share))
    conditions = list(dict.fromkeys(one.condition for one in groups))
    counts = [2 * sum(one.condition == name for one in groups) for name in conditions]
    table = Table(
        name="nuts-margins",
        title="Confidence margins before and after the transform (estimates on tuning images)",
        settings=_settings(inputs.fit),
        headings=("logits", "answer", "images", "mean margin", "median margin", "margin >= q (%)"),
        rows=tuple(rows),
        groups=tuple(zip(conditions, counts, strict=True)),
        notes=(*_notes(inputs, groups), inputs.fit.origin),
        extra={"margin_gap": {name: gap for name, gap in _gaps(groups).items() if gap is not None}},
    )
    return Product(
        table,
        {
            "nuts-margins": partial(confidence_image, _histograms(inputs, groups)),
            "nuts-margin-bars": partial(margin_bars_image, _bars(inputs, groups)),
        },
    )


def _groups(inputs: Inputs) -> list[MarginGroup]:
    logits, labels = inputs.fit.logits, inputs.fit.logits.labels
    own = inputs.fit.fitted.fit.settings
    groups = [_group(STANDARD, CLEAN, logits.standard, labels)]
    for condition, robust in ((CLEAN, logits.robust), (ATTACKED, logits.attacked)):
        groups.append(_group("h", condition, robust, labels))
        groups.append(_group("LN(h)", condition, normalize_numpy(robust, own.top_k), labels))
        groups.append(_group(BENT, condition, transform_numpy(robust, own), labels))
    points = inputs.points
    if points is not None and STD in points.base:
        standard = np.split(points.base[STD], 2, axis=1)[0]
        attacked = ~np.isnan(standard).any(1)
        groups.append(_group(STANDARD, TRANSFER, standard[attacked], points.labels[attacked]))
    return groups


def _group(name: str, condition: str, logits: FloatArray, labels: np.ndarray) -> MarginGroup:
    """Split margins by whether these very logits give the right answer."""
    margins, right = clean_margin(logits), logits.argmax(1) == labels
    return MarginGroup(name, condition, margins[right], margins[~right])


def _middles(margins: FloatArray) -> tuple[Quantity, Quantity]:
    if not len(margins):
        return Quantity(None, 4), Quantity(None, 4)
    return Quantity(float(margins.mean()), 4), Quantity(float(np.median(margins)), 4)


def _gaps(groups: list[MarginGroup]) -> dict[str, float | None]:
    """Return, by logits, the median of right attacked images less that of wrong clean ones (Figure 6)."""
    at = {(one.logits, one.condition): one for one in groups}
    found: dict[str, float | None] = {}
    for name in ("h", "LN(h)", BENT):
        right, wrong = at[name, ATTACKED].right, at[name, CLEAN].wrong
        found[name] = float(np.median(right) - np.median(wrong)) if len(right) and len(wrong) else None
    return found


def _notes(inputs: Inputs, groups: list[MarginGroup]) -> tuple[str, ...]:
    gaps = ", ".join(f"{n} {'-' if g is None else format(g, '.4f')}" for n, g in _gaps(groups).items())
    attacked = (
        "smallest margin: the point of smallest margin of LN(h) that the fit's attack found. "
        + (
            "It stops at an image's first misclassification, so wrong answers there are barely wrong. "
            if inputs.fit.choices.early_stop
            else ""
        )
        + "M was chosen on these images."
    )
    notes = [
        "margin: the largest probability less the second. Where M(h) is right with margin >= q, no g can "
        "harm the mix; where it is wrong with margin < q, g can overrule it.",
        f"Margin gap, median of right attacked less median of wrong clean images (Figure 6): {gaps}.",
        attacked,
    ]
    if inputs.points is not None:
        notes.append(
            f"STD attack: g at the points made on it in {inputs.points.folder.name}, on other images."
        )
    return tuple(notes)


def _settings(fit: FitCache) -> str:
    own = fit.fitted.fit
    values = ", ".join(f"{name} {getattr(own, name):.4g}" for name in "spc")
    return (
        f"{values}, clamp {own.clamp}, beta {plain_decimal(own.beta)}: "
        f"alpha {own.alpha:.6g}, threshold q {own.margin_threshold:.4g}"
    )


def _histograms(inputs: Inputs, groups: list[MarginGroup]) -> ConfidenceGaps:
    panels = tuple(GapPanel(one.logits, one.condition, one.right, one.wrong) for one in groups)
    return ConfidenceGaps(panels, f"{inputs.fit.model('robust')}: margins; {_settings(inputs.fit)}")


def _bars(inputs: Inputs, groups: list[MarginGroup]) -> MarginBars:
    return MarginBars(
        tuple(groups), BENT, inputs.fit.fitted.fit.margin_threshold,
        title=f"{inputs.fit.model('robust')}: margins before and after the transform",
        subtitle=_settings(inputs.fit),
    )  # fmt: skip
