"""Curves as inline SVG: a picture without the script, with read-out and switches with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from certmix.page.curves import Axis, Steps, share_text
from certmix.page.markup import Markup, tag
from certmix.text import accuracy, known

__all__ = ["NORMS", "Chart", "Series", "chart_data", "chart_figure", "count_at", "frame"]

NORMS = {"l1": "\u2113\u2081", "l2": "\u2113\u2082", "linf": "\u2113\u221e"}
PERCENTS = (0, 20, 40, 60, 80, 100)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Parameters
    ----------
    key
        Unique in the page; letters, digits and dashes.
    label, under
        What the read-out calls it, and a smaller line below.
    colour
        Class of the style sheet.
    steps
        None for a classifier of which nothing is certified.
    clean
        Accuracy without perturbation; None where unknown or shown by another series.
    """

    key: str
    label: str
    under: str
    colour: str
    steps: Steps | None
    clean: float | None = None


@dataclass(frozen=True)
class Chart:
    """Lines over one axis; `lead` is the series with the band, and `start` the cursor's first place."""

    key: str
    title: str
    about: str
    axis: Axis
    series: tuple[Series, ...]
    lead: int | None
    start: int


def chart_figure(chart: Chart, caption: str) -> Markup:
    """Return the figure: plot, cursor, and the read-out that is its legend and its table."""
    label = f"{NORMS.get(chart.axis.norm, chart.axis.norm)} radius (units of the input)"
    plot = frame(
        [_lines(chart), _marks(chart)], chart.axis, PERCENTS, ("certified accuracy (%)", label), 100,
        f"{chart.title}. {chart.about} The figures are in the table below.",
    )  # fmt: skip
    return tag(
        "figure", plot, _cursor(chart), _readout(chart),
        tag("figcaption", caption) if caption else None,
        class_="chart", id=chart.key, data_chart=chart.key,
    )  # fmt: skip


def frame(
    layers: Sequence[Markup],
    axis: Axis,
    values: Sequence[int],
    labels: tuple[str, str],
    top: float,
    about: str,
) -> Markup:
    """Return layers of a plot between its axes; text keeps its size however wide the page is."""
    shares = [round(100 * (1 - value / top), 3) for value in values]
    upright = [
        tag("text", f"{value:,}", x="100%", y=f"{y}%", dy="0.32em", text_anchor="end")
        for value, y in zip(values, shares, strict=True)
    ]
    places = [round(100 * axis.at(tick), 3) for tick in axis.ticks]
    along = [
        tag("text", axis.label(tick), x=f"{x}%", y="1.1em", text_anchor="middle")
        for tick, x in zip(axis.ticks, places, strict=True)
    ]
    grid = [tag("line", x1="0", x2="100%", y1=f"{y}%", y2=f"{y}%") for y in shares]
    return tag(
        "div",
        tag("p", labels[0], class_="axis-title", aria_hidden="true"),
        tag(
            "div",
            tag("svg", upright, class_="axis upright", aria_hidden="true"),
            tag("div", tag("svg", grid, class_="grid"), list(layers), class_="layers", data_plot=True),
            tag("svg", along, class_="axis along", aria_hidden="true"),
            class_="plot", role="img", aria_label=about,
        ),
        tag("p", labels[1], class_="axis-title below", aria_hidden="true"),
    )  # fmt: skip


def _lines(chart: Chart) -> Markup:
    """Return the curves, in a picture that is stretched to the plot's size."""
    band = None
    if chart.lead is not None:
        lead = chart.series[chart.lead]
        assert lead.steps is not None
        band = tag(
            "path", d=_band(lead.steps, chart.axis), class_=f"band {lead.colour}", data_series=lead.key
        )
    paths = [
        tag("path", d=_path(one.steps, chart.axis), class_=f"line {one.colour}", data_series=one.key)
        for one in reversed(chart.series)
        if one.steps is not None and one.steps.units
    ]
    return tag("svg", band, paths, class_="lines", viewBox="0 0 1000 1000", preserveAspectRatio="none")


def _marks(chart: Chart) -> Markup:
    """Return clean accuracies as dots at radius 0, and the cursor, in a picture that is not stretched."""
    dots = [
        tag("circle", cx="0", cy=f"{100 - 100 * one.clean:.2f}%", r="5", class_=f"clean {one.colour}",
            data_series=one.key)
        for one in chart.series
        if known(one.clean)
    ]  # fmt: skip
    cursor = tag("line", x1="0", x2="0", y1="0", y2="100%", class_="cursor", data_cursor=True)
    points = [
        tag("circle", cx="0", cy="100%", r="4", class_=f"point {one.colour}", data_point=one.key)
        for one in chart.series
        if one.steps is not None
    ]
    return tag("svg", dots, tag("g", cursor, points, class_="live"), class_="marks")


def _x(units: int, axis: Axis) -> str:
    return f"{1000 * axis.at(units):.1f}".removesuffix(".0")


def _y(percent: float) -> str:
    return f"{1000 - 10 * percent:.1f}".removesuffix(".0")


def _path(curve: Steps, axis: Axis) -> str:
    levels = [100 * count / max(curve.images, 1) for count in (*curve.counts, 0)]
    parts = [f"M0 {_y(levels[0])}"]
    parts += [f"H{_x(units, axis)}V{_y(level)}" for units, level in zip(curve.units, levels[1:], strict=True)]
    return "".join(parts)


def _band(curve: Steps, axis: Axis) -> str:
    """Return the outline of the 95 % intervals, to the end of the axis."""
    ends = [share_text(count, curve.images)[1:] for count in (*curve.counts, 0)]
    places = [_x(units, axis) for units in (*curve.units, axis.end)]
    if "-" in ends[0]:
        return "M0 0"
    upper = [f"V{_y(float(high))}H{x}" for (_, high), x in zip(ends, places, strict=True)]
    lower = [
        f"V{_y(float(low))}H{x}"
        for (low, _), x in zip(reversed(ends), reversed(["0", *places[:-1]]), strict=True)
    ]
    return f"M0 1000{''.join(upper)}{''.join(lower)}Z"


def _cursor(chart: Chart) -> Markup:
    """Return the slider that moves the cursor; the script shows it."""
    a = chart.axis
    name = f"{chart.key}-radius"
    return tag(
        "div",
        tag("label", "Radius ", tag("output", a.label(chart.start), for_=name, data_radius=True), for_=name),
        tag("input", type="range", id=name, min="0", max=str(a.end // a.stride),
            value=str(chart.start // a.stride), step="1", data_slider=True),
        class_="cursor-control", hidden=True, data_live=True,
    )  # fmt: skip


def _readout(chart: Chart) -> Markup:
    heading = tag("span", chart.axis.label(chart.start), data_radius=True)
    head = tag(
        "tr",
        tag("th", "Series", scope="col"),
        tag("th", "Certified at radius ", heading, " (%)", scope="col", class_="number"),
        tag("th", "Clean (%)", scope="col", class_="number"),
    )
    rows = [_readout_row(chart, one) for one in chart.series]
    return tag("table", tag("thead", head), tag("tbody", rows), class_="readout")


def _readout_row(chart: Chart, one: Series) -> Markup:
    switch = tag(
        "input", type="checkbox", checked=True, hidden=True, data_live=True, data_switch=one.key,
        id=f"{one.key}-switch",
    )  # fmt: skip
    shape = (
        tag("circle", cx="14", cy="7", r="4.5", class_=f"clean {one.colour}")
        if one.steps is None
        else tag("line", x1="1", x2="27", y1="7", y2="7", class_=f"line {one.colour}")
    )
    key = tag("svg", shape, class_="key", width="28", height="14", aria_hidden="true")
    label = tag(
        "label",
        switch,
        key,
        tag("span", one.label, " ", tag("span", one.under, class_="under")),
        for_=f"{one.key}-switch",
    )
    value: Any = "none"
    if one.steps is not None:
        figure, low, high = share_text(count_at(one.steps, chart.start), one.steps.images)
        value = [figure, " ", tag("span", f"[{low}, {high}]", class_="interval")]
    return tag(
        "tr",
        tag("th", label, scope="row"),
        tag("td", value, class_="number", data_value=one.key if one.steps is not None else None),
        tag("td", accuracy(one.clean) if known(one.clean) else "", class_="number"),
    )


def count_at(curve: Steps, units: int) -> int:
    """Return how many images hold at a radius, in units."""
    return next((c for u, c in zip(curve.units, curve.counts, strict=True) if u >= units), 0)


def chart_data(chart: Chart) -> dict[str, Any]:
    """Return what the script needs: steps in units, and the printed figures of all counts."""
    curves = [one for one in chart.series if one.steps is not None]
    figures: dict[str, list[str]] = {}
    for one in curves:
        assert one.steps is not None
        for count in sorted({*one.steps.counts, 0}):
            figures[f"{one.steps.images}:{count}"] = list(share_text(count, one.steps.images))
    a = chart.axis
    return {
        "key": chart.key, "end": a.end, "stride": a.stride, "digits": a.digits, "scale": a.scale,
        "series": [
            {"key": s.key, "label": f"{s.label}, {s.under}", "images": s.steps.images, "units": s.steps.units,
             "counts": s.steps.counts}
            for s in curves if s.steps is not None
        ],
        "figures": figures,
    }  # fmt: skip
