"""Plots of certified against clean accuracy: fronts of families of mixes, g and h as points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.tables.figure import COLOURS, DARK, DASHES, image, legend, tidy, title_lines
from certmix.tables.words import radius_heading, symbols
from certmix.text import as_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def front_plot(plan: Any, at_radius: float, sigma: float, suffix: str) -> bytes:
    """Return the plot of a `TunePlan`, as the content of a png or svg file."""
    points = {
        "h alone (votes)": tuple(one.accuracy for one in plan.robust),
        "g alone": (plan.standard.accuracy, 0.0),
    }
    lines = [(one.family, one.clean, one.certified) for one in plan.fronts]
    chosen = (plan.best.clean.accuracy, plan.best.certified.accuracy)
    about = f"tuning inputs, planned; \u03c3 = {as_given(sigma)}, {plan.standard.inputs:,} inputs"
    return draw_fronts(lines, points, chosen, at_radius, about, suffix)


def certified_fronts(fronts: Any, about: str, suffix: str) -> bytes:
    """Return the plot of a run's `Fronts`, as the content of a png or svg file."""
    lines = []
    for name, clean, certified in fronts.lines:
        order = np.lexsort((-certified, clean))
        best = np.maximum.accumulate(certified[order][::-1])[::-1]  # at that clean accuracy or more
        lines.append((name, clean[order], best))
    return draw_fronts(lines, dict(fronts.points), None, fronts.at_radius, f"over \u03b1; {about}", suffix)


def draw_fronts(
    lines: Sequence[tuple[str, Any, Any]],
    points: dict[str, tuple[float, float]],
    chosen: tuple[float, float] | None,
    at_radius: float,
    about: str,
    suffix: str,
) -> bytes:
    """Draw (name, clean, certified) lines, points, and a star: shares of 1, along rising clean accuracy."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.add_subplot()
        for k, (name, clean, certified) in enumerate(lines):
            x, y = 100 * np.asarray(clean), 100 * np.asarray(certified)
            axes.plot(
                x, y, drawstyle="steps-pre", linewidth=1.7, zorder=3, label=name,
                color=COLOURS[k % len(COLOURS)], linestyle=DASHES[k % len(DASHES)],
            )  # fmt: skip
        for marker, (name, (x_of, y_of)) in zip("os^Dv", points.items(), strict=False):
            axes.plot(
                [100 * x_of], [100 * y_of], marker, color=DARK, markersize=7, label=name, zorder=5,
                linestyle="none", clip_on=False,
            )  # fmt: skip
        if chosen is not None:
            axes.plot(
                [100 * chosen[0]], [100 * chosen[1]], "*", markersize=15, markerfacecolor="white",
                markeredgecolor=DARK, label="chosen", zorder=6, linestyle="none",
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlabel("clean accuracy of the mix (%)")
        axes.set_ylabel(f"certified accuracy at radius {symbols(radius_heading(at_radius))} (%)")
        title = "\n".join(["Certified against clean accuracy", *title_lines(about)])
        axes.set_title(title, fontsize=10.5, parse_math=False)
        tidy(axes)
        legend(figure, axes.get_legend_handles_labels()[0])

    return image(suffix, (6.6, 5.0), draw)
