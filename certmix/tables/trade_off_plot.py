"""The trade-off as a picture: the fronts, and certified accuracy against radius at equal clean accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.atomic import write_atomically
from certmix.tables._drawing import COLOURS, DASHES, image, tidy
from certmix.tables.survival import survival_steps
from certmix.tables.trade_off import Match, TradeOff, on_front
from certmix.tables.words import LETTERS, certificate_label, radius_heading
from certmix.text import floor_percent, plain_decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_trade_off", "trade_off_image"]

_MARKED = (0.6, 0.7, 0.8, 0.9)
_LINE: dict[str, Any] = {"drawstyle": "steps-pre", "linewidth": 1.7, "zorder": 3}
_STAR: dict[str, Any] = {"markersize": 11, "zorder": 5, "clip_on": False}
_CIRCLE: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.6, "zorder": 5, "clip_on": False}


def plot_trade_off(found: TradeOff, path: str | Path) -> None:
    """Draw a trade-off into a .png (200 dpi) or .svg file.

    On the left the front of each source and certificate: certified accuracy at
    the radius against clean accuracy, alpha running along it.  With matches, on
    the right certified accuracy against radius at the matched alphas, whose
    clean accuracies are hollow dots at 0.

    Raises
    ------
    ParameterError
        The suffix is neither .png nor .svg.
    RunError
        The file cannot be written.
    """
    target = Path(path)
    write_atomically(target, trade_off_image(found, target.suffix.lower().removeprefix(".")))


def trade_off_image(found: TradeOff, suffix: str) -> bytes:
    """Return the plot of `plot_trade_off` as the content of a png or svg file."""
    panels = 2 if found.matches else 1

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_fronts(axes[0], found)
        if found.matches:
            _draw_curves(axes[1], found)
        _legend(figure, found)

    return image(suffix, (5.6 * panels + 0.6, 4.9), draw)


def _style(source: int, certificate: int) -> dict[str, Any]:
    return {"color": COLOURS[source % len(COLOURS)], "linestyle": DASHES[certificate % len(DASHES)]}


def _draw_fronts(axes: Axes, found: TradeOff) -> None:
    for number, sweep in enumerate(found.sweeps):
        clean, alphas = np.array(sweep.clean_accuracy), np.array(sweep.alphas)
        for k, certified in enumerate(sweep.certified_accuracy):
            front = np.array(on_front(sweep.clean_accuracy, certified), bool)
            x, y = 100 * clean[front], 100 * np.array(certified)[front]
            order = np.argsort(x)  # on (x[i-1], x[i]] the point i is the best there is
            axes.plot(x[order], y[order], **_LINE, **_style(number, k))
            marked = np.isin(alphas.round(6), _MARKED) & (np.array(certified) > 0)
            points = 100 * clean[marked], 100 * np.array(certified)[marked]
            axes.plot(*points, "o", markersize=3.5, color=COLOURS[number % len(COLOURS)], zorder=4)
    for number, match in enumerate(found.matches):
        x, y = (
            np.full(len(match.certified_accuracy), match.clean_accuracy),
            np.array(match.certified_accuracy),
        )
        edge = COLOURS[number % len(COLOURS)]
        axes.plot(100 * x, 100 * y, "*", markerfacecolor="white", markeredgecolor=edge, **_STAR)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clean accuracy of the mix (%, estimate)")
    axes.set_ylabel(f"certified accuracy at radius {radius_heading(found.at_radius, LETTERS)} (%)")
    axes.set_title("Fronts over \u03b1 (dots: 0.6, 0.7, 0.8, 0.9)", fontsize=10.5)
    tidy(axes)


def _draw_curves(axes: Axes, found: TradeOff) -> None:
    radii = [r for match in found.matches for curve in match.curves for r in curve.radii if np.isfinite(r)]
    end = 1.03 * max(radii, default=1.0)
    for number, match in enumerate(found.matches):
        for k, curve in enumerate(match.curves):
            x, y = survival_steps(curve.radii, curve.images, end)
            axes.plot(x, y, clip_on=False, **_LINE, **_style(number, k))
        edge, size = COLOURS[number % len(COLOURS)], max(5, 12 - 3 * number)
        axes.plot([0], [100 * match.clean_accuracy], "o", markersize=size, markeredgecolor=edge, **_CIRCLE)
    axes.set(xlim=(0, end), ylim=(0, 102), yticks=range(0, 101, 20))
    axes.set_xlabel("\u2113\u2082 radius (units of the input)")
    axes.set_ylabel("certified accuracy (%)")
    wanted = floor_percent(found.wanted_clean_accuracy or 0.0, 2)
    axes.set_title(f"At equal clean accuracy, {wanted} % or more (circles)", fontsize=10.5)
    tidy(axes)


def _legend(figure: Figure, found: TradeOff) -> None:
    """One entry a source, in its colour, and one a certificate, with its dashes."""
    from matplotlib.lines import Line2D

    matches: Sequence[Match | None] = found.matches or [None] * len(found.sweeps)
    handles = []
    for number, (sweep, match) in enumerate(zip(found.sweeps, matches, strict=True)):
        label = f"\u03c3 = {plain_decimal(sweep.sigma)}"
        if match is not None:
            label += f", \u03b1 = {plain_decimal(match.alpha)}"
        handles.append(Line2D([], [], color=COLOURS[number % len(COLOURS)], linewidth=3, label=label))
    for k, name in enumerate(found.sweeps[0].certificates):
        label, dashes = certificate_label(name, LETTERS), DASHES[k % len(DASHES)]
        handles.append(Line2D([], [], color="0.3", linestyle=dashes, linewidth=1.7, label=label))
    columns = 4 if found.matches else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
