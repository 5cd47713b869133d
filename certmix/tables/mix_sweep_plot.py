"""Accuracy of the mix over alpha, clean and attacked: Figure 2 of the first paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS, DARK, DASHES, MARKERS, head, image, legend, tidy
from certmix.text import plain_decimal
from certmix.types import EstimatedAccuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MixSweepCurves", "SweepLine", "mix_sweep_image"]

KINDS = {"estimate": "estimate", "attacked": "attacked (upper bound)"}
WORST = "worst case"
"""The name of the line that is drawn broad and pale, below those that make it up."""


@dataclass(frozen=True)
class SweepLine:
    """One line: its name, ``estimate`` or ``attacked``, and one accuracy an alpha."""

    name: str
    kind: str
    accuracies: tuple[EstimatedAccuracy, ...]


@dataclass(frozen=True)
class MixSweepCurves:
    """All lines over the same alphas, in increasing order."""

    alphas: tuple[float, ...]
    lines: tuple[SweepLine, ...]
    title: str
    subtitle: str = ""


def mix_sweep_image(found: MixSweepCurves, suffix: str) -> bytes:
    """Return the plot of accuracy (%) against alpha as the content of a png or svg file.

    Shades are the 95 % intervals over images; for a single alpha they are
    bars, and lines are marks side by side.  The thin line at alpha = 1/2 is
    where the robust classifier begins to overrule the standard one.

    Raises
    ------
    ParameterError
        The suffix or a line's kind is unknown, or a line has not one accuracy
        for each alpha.

    References
    ----------
    Figure 2 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off".
    """
    for line in found.lines:
        if line.kind not in KINDS:
            raise ParameterError(
                f"kind '{line.kind}' of line '{line.name}' is unknown: choose one of {', '.join(KINDS)}"
            )
        if len(line.accuracies) != len(found.alphas):
            raise ParameterError(
                f"line '{line.name}' has {len(line.accuracies)} accuracies for {len(found.alphas)} alphas: "
                "give one for each"
            )

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _halfway(axes)
        handles = []
        for k, (line, style) in enumerate(_styles(found)):
            if len(found.alphas) == 1:
                side = 9 * (k - (len(found.lines) - 1) / 2)
                style = {"marker": "o", **style, "markersize": 6, "transform": _beside(figure, axes, side)}
            handles.append(_line(axes, found.alphas, line, style))
        axes.set(xlim=(0, 1), ylim=(0, 100), xticks=np.linspace(0, 1, 11), yticks=range(0, 101, 20))
        axes.set_xlabel("\u03b1 (weight of the robust classifier)")
        axes.set_ylabel("accuracy (%)")
        tidy(axes)
        lone = f"all at \u03b1 = {plain_decimal(found.alphas[0])}" if len(found.alphas) == 1 else ""
        head(figure, found.title, "; ".join(part for part in (found.subtitle, lone) if part))
        if handles:
            legend(figure, handles)

    return image(suffix, (7.0, 5.2), draw)


def _styles(found: MixSweepCurves) -> list[tuple[SweepLine, dict[str, Any]]]:
    """Return each line with how it is drawn: clean dark, the worst case broad and pale, others in colours."""
    styles, number = [], 0
    for line in found.lines:
        if line.name == WORST:
            style: dict[str, Any] = {"color": "#B8B8B8", "linewidth": 6.0, "zorder": 2.5}
        elif line.kind == "estimate":
            style = {"color": DARK, "linestyle": "-", "marker": "o"}
        else:
            style = {
                "color": COLOURS[number % (len(COLOURS) - 1)],
                "linestyle": DASHES[number % len(DASHES)],
                "marker": MARKERS[1 + number % (len(MARKERS) - 1)],
            }
            number += 1
        styles.append((line, style))
    return styles


def _line(axes: Axes, alphas: tuple[float, ...], line: SweepLine, style: dict[str, Any]) -> Any:
    """Draw a line and its intervals; return what stands for it in the legend."""
    y = np.array([100 * one.accuracy for one in line.accuracies])
    low, high = 100 * np.array([one.interval for one in line.accuracies], float).reshape(-1, 2).T
    if len(alphas) > 1:
        axes.fill_between(alphas, low, high, color=style["color"], alpha=0.13, linewidth=0)
    elif len(alphas) == 1:
        axes.vlines(alphas, low, high, color=style["color"], alpha=0.5, transform=style.get("transform"))
    how = {"linewidth": 1.6, "markersize": 4, "zorder": 3, "clip_on": False, **style}
    return axes.plot(alphas, y, label=f"{line.name}: {KINDS[line.kind]}", **how)[0]


def _beside(figure: Figure, axes: Axes, side: float) -> Any:
    """Return a transform to so many points beside the data, so that no mark covers another."""
    from matplotlib.transforms import offset_copy

    return offset_copy(axes.transData, figure, x=side, units="points")


def _halfway(axes: Axes) -> None:
    axes.axvline(0.5, color="0.45", linewidth=0.8, zorder=1)
    axes.annotate(
        "\u03b1 = 1/2", (0.5, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="center", va="bottom", fontsize=8.5, color="0.35",
    )  # fmt: skip
