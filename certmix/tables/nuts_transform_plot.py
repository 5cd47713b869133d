"""The curve of the transform, and probabilities as the temperature falls: Figure 4 of MixedNUTS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError, one_line
from certmix.tables._drawing import COLOURS, DARK, DASHES, head, image, tidy
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Bend", "Trajectories", "transform_image"]

_CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])  # A, B and C
_HIGHEST = 12.0


@dataclass(frozen=True)
class Bend:
    """One transform: what it makes of each normalised logit."""

    name: str
    logits: FloatArray
    bent: FloatArray


@dataclass(frozen=True)
class Trajectories:
    """Paths over three classes' probabilities, float64 (n, 3) each, of one transform."""

    name: str
    paths: tuple[FloatArray, ...]


def transform_image(bends: Sequence[Bend], trajectories: Sequence[Trajectories], suffix: str) -> bytes:
    """Return M over a normalised logit, and paths on the simplex, as the content of a png or svg file.

    Raises
    ------
    ParameterError
        The suffix is unknown, there is nothing to draw, or a path is not over three classes.

    References
    ----------
    Equation 4 and Figure 4 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    if not bends or not trajectories:
        raise ParameterError("nothing to draw: give at least one transform and one trajectory")
    for one in trajectories:
        for path in one.paths:
            if path.ndim != 2 or path.shape[1] != 3:
                raise ParameterError(f"path of shape {path.shape}: a triangle takes three classes")

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 1.02]})
        _curves(left, bends)
        _triangle(right, trajectories)
        head(figure, "The nonlinear transform: its curve, and what it does where classes compete")

    return image(suffix, (10.6, 5.6), draw)


def _style(k: int, first: str) -> dict[str, Any]:
    """The first line is grey: what the others are compared with."""
    if k == 0:
        return {"color": first, "linestyle": "-", "linewidth": 1.4}
    return {
        "color": COLOURS[(k - 1) % len(COLOURS)],
        "linestyle": DASHES[(k - 1) % len(DASHES)],
        "linewidth": 1.9,
    }


def _curves(axes: Axes, bends: Sequence[Bend]) -> None:
    for k, one in enumerate(bends):
        axes.plot(one.logits, one.bent, label=one_line(one.name), **_style(k, "0.55"))
    ends = [float(value) for one in bends for value in (one.logits.min(), one.logits.max())]
    lowest = max(min(float(one.bent.min()) for one in bends), -3.0)
    axes.set(xlim=(min(ends), max(ends)), ylim=(lowest - 0.3, _HIGHEST))
    axes.set(xlabel="logit after LN", ylabel="logit after the transform")
    axes.axhline(0.0, color="0.6", linewidth=0.7, zorder=1)
    tidy(axes)
    _legend_below(axes)


def _triangle(axes: Axes, trajectories: Sequence[Trajectories]) -> None:
    edge = np.concatenate([_CORNERS, _CORNERS[:1]])
    axes.fill(*_CORNERS.T, color="0.97", zorder=0)
    axes.plot(*edge.T, color=DARK, linewidth=1.0, zorder=1)
    for corner, name, (dx, dy) in zip(_CORNERS, "ABC", ((0, 7), (-8, -3), (8, -3)), strict=True):
        axes.annotate(name, corner, (dx, dy), textcoords="offset points", ha="center", va="center")
    for k, one in enumerate(trajectories):
        for number, path in enumerate(one.paths):
            label = one_line(one.name) if number == 0 else None
            axes.plot(*(path @ _CORNERS).T, label=label, zorder=3 + k, **_style(k, "0.45"))
    axes.plot(*_CORNERS.mean(0), marker="o", color=DARK, markersize=4, zorder=9)
    axes.annotate(
        "T \u2192 \u221e", _CORNERS.mean(0), (-7, 3), textcoords="offset points", fontsize=8.5, ha="right"
    )
    axes.set(xlim=(-0.08, 1.08), ylim=(-0.07, 0.95), aspect="equal")
    axes.set_title(
        "probabilities as the temperature T falls:\none example is clearly A, in the other B competes with C",
        fontsize=9.5,
    )
    axes.axis("off")
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    placed = axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=1, frameon=False, handlelength=3.0
    )
    for text in placed.get_texts():
        text.set_parse_math(False)
