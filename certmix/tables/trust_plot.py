"""Clean against attacked accuracy for every trust term and form: Figures 1 and 4 of the first paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError, one_line
from certmix.tables._drawing import COLOURS, DASHES, MARKERS, head, image, legend, tidy, title_lines
from certmix.tables._labels import place_labels
from certmix.text import as_given, plain_decimal
from certmix.types import AttackedAccuracy, EstimatedAccuracy, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["TrustCurve", "TrustCurves", "trust_image"]

_NORMS = {"linf": "\u2113\u221e", "l2": "\u2113\u2082", "l1": "\u2113\u2081"}
_LEAST = 4.0  # percent that an axis spans at least


@dataclass(frozen=True)
class TrustCurve:
    """One trust term in one form: an accuracy on clean and one on attacked images for each alpha.

    ``alphas`` are the robust classifier's weights, in increasing order.
    """

    trust: str
    form: str
    alphas: tuple[float, ...]
    clean: tuple[EstimatedAccuracy, ...]
    attacked: tuple[AttackedAccuracy, ...]


@dataclass(frozen=True)
class TrustCurves:
    """The curves of one panel: attacks of one norm and radius eps, in units of the input."""

    curves: tuple[TrustCurve, ...]
    norm: str
    eps: float
    title: str


def trust_image(
    found: TrustCurves | Sequence[TrustCurves], suffix: str, *, error_bars: bool = False
) -> bytes:
    """Return attacked against clean accuracy (%) as the content of a png or svg file.

    Colour is the trust term, the line's style its form; points are joined in
    order of alpha, and numbers beside some of them are the alphas.

    Parameters
    ----------
    found
        One panel, or several side by side, as a rule one a norm.
    suffix
        ``png`` or ``svg``.
    error_bars
        Draw each point's 95 % intervals over images, lightly.

    Raises
    ------
    ParameterError
        The suffix is unknown, there is no panel, or a curve has not one
        accuracy of each kind for each alpha.

    References
    ----------
    Figures 1 and 4 of Bai, Anderson, Sojoudi, "Mixing classifiers to
    alleviate the accuracy-robustness trade-off".
    """
    panels = (found,) if isinstance(found, TrustCurves) else tuple(found)
    if not panels:
        raise ParameterError("trust curves = (): nothing to draw, give at least one panel")
    for curve in (curve for panel in panels for curve in panel.curves):
        counts = len(curve.clean), len(curve.attacked)
        if counts != (len(curve.alphas),) * 2:
            raise ParameterError(
                f"curve '{curve.trust}, {curve.form}' has {counts[0]} clean and {counts[1]} attacked "
                f"accuracies for {len(curve.alphas)} alphas: give one of each for each"
            )
    trusts = tuple(dict.fromkeys(curve.trust for panel in panels for curve in panel.curves))
    forms = tuple(dict.fromkeys(curve.form for panel in panels for curve in panel.curves))

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            for curve in panel.curves:
                _curve(axes, curve, _style(curve, trusts, forms), error_bars)
            _frame(axes, panel, alone=len(panels) == 1)
        subtitle = "numbers at the curves: weight of the robust classifier"
        head(figure, panels[0].title if len(panels) == 1 else "Clean against attacked accuracy", subtitle)
        if trusts:
            legend(figure, _handles(trusts, forms))
        _label(figure, all_axes, panels, trusts)

    return image(suffix, (6.4 if len(panels) == 1 else 5.2 * len(panels), 5.6), draw)


def _percent(accuracies: Sequence[EstimatedAccuracy]) -> FloatArray:
    return np.array([100 * one.accuracy for one in accuracies], np.float64)


def _style(curve: TrustCurve, trusts: Sequence[str], forms: Sequence[str]) -> dict[str, Any]:
    trust = trusts.index(curve.trust)
    return {
        "color": COLOURS[trust % len(COLOURS)],
        "marker": MARKERS[trust % len(MARKERS)],
        **_form(forms.index(curve.form)),
    }


def _form(number: int) -> dict[str, Any]:
    hollow = {"markerfacecolor": "white"} if number % 2 else {}
    return {"linestyle": DASHES[number % len(DASHES)], **hollow}


def _curve(axes: Axes, curve: TrustCurve, style: dict[str, Any], error_bars: bool) -> None:
    x, y = _percent(curve.clean), _percent(curve.attacked)
    axes.plot(x, y, linewidth=1.4, markersize=3.6, clip_on=False, zorder=3, **style)
    if error_bars:
        pale: dict[str, Any] = {"color": style["color"], "alpha": 0.28, "linewidth": 1, "zorder": 2}
        for horizontal, points, at in ((True, curve.clean, y), (False, curve.attacked, x)):
            ends = 100 * np.array([one.interval for one in points], float).reshape(-1, 2)
            (axes.hlines if horizontal else axes.vlines)(at, ends[:, 0], ends[:, 1], **pale)


def _frame(axes: Axes, panel: TrustCurves, alone: bool) -> None:
    axes.margins(0.07)
    axes.autoscale_view()
    axes.set(xlim=_limits(axes.get_xlim(), panel), ylim=_limits(axes.get_ylim(), panel))
    ball = f"{_NORMS.get(panel.norm, one_line(panel.norm))}, \u03b5 = {as_given(panel.eps)}"
    axes.set_xlabel("clean accuracy (%, estimate)")
    axes.set_ylabel(f"attacked accuracy (%, upper bound)\n{ball}", parse_math=False)
    axes.set_title("" if alone else "\n".join(title_lines(panel.title, 52)), fontsize=9.5, parse_math=False)
    tidy(axes)


def _limits(ends: tuple[float, float], panel: TrustCurves) -> tuple[float, float]:
    """Return an axis' ends: never narrower than a few percent, never far outside 0 to 100."""
    if not any(np.isfinite(_percent(c.clean) + _percent(c.attacked)).any() for c in panel.curves):
        return 0.0, 100.0
    middle, span = sum(ends) / 2, max(ends[1] - ends[0], _LEAST)
    beyond = 0.05 * span
    low = min(max(middle - span / 2, -beyond), 100 + beyond - min(span, _LEAST))
    high = max(min(middle + span / 2, 100 + beyond), -beyond + min(span, _LEAST))
    return low, high


def _handles(trusts: Sequence[str], forms: Sequence[str]) -> list[Any]:
    """One entry a trust term, in its colour, and one a form, with its dashes."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=COLOURS[k % len(COLOURS)], marker=MARKERS[k % len(MARKERS)], linewidth=2,
            markersize=5, label=f"trust: {name}",
        )
        for k, name in enumerate(trusts)
    ]  # fmt: skip
    return handles + [
        Line2D(
            [], [], color="0.3", marker="o", markersize=4.5, linewidth=1.6, label=f"form: {name}", **_form(k)
        )
        for k, name in enumerate(forms)
    ]


def _label(
    figure: Figure, all_axes: Sequence[Axes], panels: Sequence[TrustCurves], trusts: Sequence[str]
) -> None:
    """Write alphas beside points, where the finished layout has room."""
    figure.draw_without_rendering()
    for axes, panel in zip(all_axes, panels, strict=True):
        curves = [np.stack([_percent(curve.clean), _percent(curve.attacked)], 1) for curve in panel.curves]
        texts = [[plain_decimal(round(a, 4)) for a in curve.alphas] for curve in panel.curves]
        colours = [COLOURS[trusts.index(curve.trust) % len(COLOURS)] for curve in panel.curves]
        place_labels(axes, curves, texts, colours)
