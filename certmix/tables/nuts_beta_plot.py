"""Clean accuracy against robustness over beta, nonlinear and plain mixes: Figure 8 of MixedNUTS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS, DASHES, MARKERS, head, image, legend, tidy
from certmix.tables._labels import place_labels
from certmix.types import EstimatedAccuracy, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BetaCurve", "BetaCurves", "beta_image"]


@dataclass(frozen=True)
class BetaCurve:
    """One kind of mix: a label (beta), a clean accuracy and a second share for each of its mixes."""

    name: str
    labels: tuple[str, ...]
    clean: tuple[EstimatedAccuracy, ...]
    second: tuple[EstimatedAccuracy, ...]


@dataclass(frozen=True)
class BetaCurves:
    """Panels: what the second share is -> curves."""

    panels: Mapping[str, tuple[BetaCurve, ...]]
    title: str
    subtitle: str = ""


def beta_image(found: BetaCurves, suffix: str) -> bytes:
    """Return one panel a second share against clean accuracy, as the content of a png or svg file.

    Pale bars are 95 % intervals over images; numbers at points are betas.

    Raises
    ------
    ParameterError
        The suffix is unknown, there is no panel, or a curve's parts differ in length.

    References
    ----------
    Figure 8 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    if not found.panels:
        raise ParameterError("panels = {}: nothing to draw, give at least one")
    for curve in (curve for curves in found.panels.values() for curve in curves):
        counts = {len(curve.labels), len(curve.clean), len(curve.second)}
        if len(counts) > 1:
            raise ParameterError(f"curve '{curve.name}' has {sorted(counts)} labels and shares: give as many")
    names = tuple(dict.fromkeys(curve.name for curves in found.panels.values() for curve in curves))

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(1, len(found.panels), squeeze=False)[0]
        for axes, (what, curves) in zip(all_axes, found.panels.items(), strict=True):
            for curve in curves:
                _curve(axes, curve, _style(names.index(curve.name)))
            axes.set(xlabel="clean accuracy (%, estimate)", ylabel=what)
            axes.margins(0.08)
            tidy(axes)
        head(figure, found.title, found.subtitle)
        legend(figure, [_handle(name, k) for k, name in enumerate(names)])
        figure.draw_without_rendering()
        for axes, curves in zip(all_axes, found.panels.values(), strict=True):
            _label(axes, curves, names)

    return image(suffix, (7.0 if len(found.panels) == 1 else 5.2 * len(found.panels), 5.2), draw)


def _style(k: int) -> dict[str, Any]:
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k % len(DASHES)],
        "marker": MARKERS[k % len(MARKERS)],
    }


def _percent(shares: Sequence[EstimatedAccuracy]) -> FloatArray:
    return np.array([100 * one.accuracy for one in shares], np.float64)


def _curve(axes: Axes, curve: BetaCurve, style: dict[str, Any]) -> None:
    x, y = _percent(curve.clean), _percent(curve.second)
    pale: dict[str, Any] = {"color": style["color"], "alpha": 0.16, "linewidth": 1, "zorder": 2}
    for horizontal, shares, at in ((True, curve.clean, y), (False, curve.second, x)):
        ends = 100 * np.array([one.interval for one in shares], float).reshape(-1, 2)
        (axes.hlines if horizontal else axes.vlines)(at, ends[:, 0], ends[:, 1], **pale)
    size = 9 if len(x) == 1 else 4.5
    axes.plot(x, y, linewidth=1.6, markersize=size, clip_on=False, zorder=3, **style)


def _handle(name: str, k: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linewidth=1.8, markersize=5.5, label=name, **_style(k))


def _label(axes: Axes, curves: Sequence[BetaCurve], names: Sequence[str]) -> None:
    """Write betas beside points of curves, where there is room; a lone point is named by the legend."""
    several = [curve for curve in curves if len(curve.labels) > 1]
    points = [np.stack([_percent(curve.clean), _percent(curve.second)], 1) for curve in several]
    colours = [COLOURS[names.index(curve.name) % len(COLOURS)] for curve in several]
    place_labels(axes, points, [curve.labels for curve in several], colours)
