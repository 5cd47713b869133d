"""How certified radii are spread: bars of the mix, the outline of h alone, and a table of both."""

from __future__ import annotations

import numpy as np

from certmix.page.certified import scroll, span
from certmix.page.chart import NORMS, frame
from certmix.page.curves import Axis
from certmix.page.markup import Markup, tag
from certmix.page.values import Images, Result, lead_row
from certmix.tables.words import LETTERS, certificate_label, classifier_label
from certmix.types import FloatArray, IntArray

__all__ = ["BINS", "histogram"]

BINS = 24


def histogram(result: Result) -> Markup | None:
    """Return the figure of one result, None where its images are not known."""
    images, summary = result.images, result.summary
    if images is None or not summary.rows:
        return None
    lead = lead_row(summary.rows)
    radii = [images.certified(0), images.certified(lead)]
    largest = max((float(r) for part in radii for r in part if r < float("inf")), default=0.0)
    if largest <= 0:
        return None
    along = span(summary, largest)
    robust, mixed = (_counts(part, along) for part in radii)
    top = _top(int(max(robust.max(), mixed.max())))
    name = certificate_label(summary.rows[lead].certificate, LETTERS)
    label = f"{NORMS.get(summary.norm, summary.norm)} radius (units of the input)"
    about = f"Histogram of certified radii of {summary.images:,} images; its figures are in the table below."
    plot = frame(
        [_bars(mixed, robust, top)], along, _values(top), ("images", label), top, about,
    )  # fmt: skip
    mix = classifier_label("mixed", summary.alpha, LETTERS)
    words = (
        f"Bars: {mix}, {name}. Outline: robust alone. Rightly classified images only. "
        f"{_rest(images, lead, summary.images)}"
    )
    table = tag(
        "details",
        tag("summary", "Histogram as a table"),
        _table(along, mixed, robust, mix),
        class_="as-table",
    )
    return tag("figure", plot, tag("figcaption", words), table, class_="histogram")


def _counts(radii: FloatArray, along: Axis) -> IntArray:
    units = np.array([along.units(min(r, along.end / along.scale)) for r in radii.tolist()], np.int64)
    bins = np.minimum(units * BINS // along.end, BINS - 1)
    return np.bincount(bins, minlength=BINS).astype(np.int64)


def _top(most: int) -> int:
    return next(t for k in range(12) for t in (10**k * n for n in (2, 4, 6, 8, 10)) if t >= most)


def _values(top: int) -> tuple[int, ...]:
    return (0, top // 2, top)


def _bars(mixed: IntArray, robust: IntArray, top: int) -> Markup:
    wide = 1000 / BINS
    bars = [
        tag("rect", x=f"{k * wide + 2:.1f}", y=f"{1000 - 1000 * n / top:.1f}", width=f"{wide - 4:.1f}",
            height=f"{1000 * n / top:.1f}", class_="bar")
        for k, n in enumerate(mixed.tolist())
        if n
    ]  # fmt: skip
    outline = "".join(
        f"V{1000 - 1000 * n / top:.1f}H{(k + 1) * wide:.1f}" for k, n in enumerate(robust.tolist())
    )
    line = tag("path", d=f"M0 1000{outline}V1000", class_="line robust")
    return tag("svg", bars, line, class_="lines", viewBox="0 0 1000 1000", preserveAspectRatio="none")


def _rest(images: Images, lead: int, total: int) -> str:
    parts = [
        f"{int(which.sum()):,} {reason}" for reason, which in images.left_out(lead).items() if which.any()
    ]
    if not parts:
        return f"Every one of {total:,} images is certified."
    return f"Not shown of {total:,} images: {', '.join(parts)}."


def _table(along: Axis, mixed: IntArray, robust: IntArray, mix: str) -> list[Markup | None]:
    edges = [-(-along.end * k // BINS) for k in range(BINS + 1)]
    head = tag("tr", [tag("th", h, scope="col") for h in ("radius from", mix, "robust alone")])
    rows = [
        tag("tr", tag("th", along.label(edges[k]), scope="row"), tag("td", f"{mixed[k]:,}", class_="number"),
            tag("td", f"{robust[k]:,}", class_="number"))
        for k in range(BINS)
        if mixed[k] or robust[k]
    ]  # fmt: skip
    return scroll(
        "Certified radii: images by bin", tag("thead", head), tag("tbody", rows), kind="figures narrow",
        titled=False,
    )  # fmt: skip
