"""Distribution over images of estimated local Lipschitz constants, and of the radius they suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS, DARK, DASHES, head, image, legend, tidy
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EstimatedConstants", "lipschitz_image"]

_SHOWN = 4.0
"""The radius axis ends at so many eps: beyond eps nothing more follows."""


@dataclass(frozen=True)
class EstimatedConstants:
    """What the figure shows.

    Parameters
    ----------
    curves
        Name and estimated constants (m,) of each curve; NaN where there is none.
    unit
        What a constant is measured in, for the axis.
    quotient, eps
        Estimated r (m,) of Theorem 3.5 and the radius it is compared with; no panel without it.
    claimed
        A claimed constant, drawn as a line.
    title
        The figure's title.
    """

    curves: tuple[tuple[str, FloatArray], ...]
    unit: str
    title: str
    eps: float
    quotient: FloatArray | None = None
    claimed: float | None = None


def lipschitz_image(found: EstimatedConstants, suffix: str) -> bytes:
    """Return shares of images above each constant and radius as the content of a png or svg file.

    Raises
    ------
    ParameterError
        The suffix is unknown, or there is no curve.
    """
    if not found.curves:
        raise ParameterError("curves = (): nothing to draw, give at least one")

    def draw(figure: Figure) -> None:
        panels = 1 if found.quotient is None else 2
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _constants(axes[0], found)
        if found.quotient is not None:
            _radii(axes[1], found.quotient, found.eps)
        head(figure, found.title, "estimated by search, not certified: true constants may be larger")
        handles = [line for each in axes for line in each.get_lines() if line.get_label()[0] != "_"]
        legend(figure, handles)

    return image(suffix, (5.6 if found.quotient is None else 9.2, 4.4), draw)


def _constants(axes: Axes, found: EstimatedConstants) -> None:
    ends = [found.claimed] if found.claimed is not None else []
    known = [(name, values[np.isfinite(values)]) for name, values in found.curves]
    end = 1.05 * max([float(v.max(initial=0.0)) for _, v in known] + ends) or 1.0
    for k, (name, values) in enumerate(known):
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k % len(DASHES)], "linewidth": 1.8}
        axes.plot(*_at_least(values, end), drawstyle="steps-pre", label=name, **style)
    if found.claimed is not None:
        axes.axvline(found.claimed, color=DARK, linewidth=1.2, label="claimed constant")
    axes.set(xlim=(0, end))
    _frame(axes, f"estimated constant L ({found.unit})", "images with an estimate of at least L (%)")


def _radii(axes: Axes, quotient: FloatArray, eps: float) -> None:
    end = _SHOWN * eps
    axes.plot(*_at_least(quotient, end), drawstyle="steps-pre", color=COLOURS[2], label="estimated r")
    axes.axvline(eps, color=DARK, linewidth=1.2, label="eps: r below it establishes nothing")
    axes.set(xlim=(0, end))
    _frame(axes, "estimated r of Theorem 3.5", "images with estimated r of at least this (%)")


def _at_least(values: FloatArray, end: float) -> tuple[FloatArray, FloatArray]:
    """Return the corners (x, y in %) of the share of values >= x, for ``steps-pre``, on [0, end].

    Examples
    --------
    >>> _at_least(np.array([1.0, 3.0]), 2.0)
    (array([0., 1., 2.]), array([100., 100.,  50.]))
    """
    inside = np.unique(values[(values > 0) & (values < end)])
    x = np.array([0.0, *inside, end])
    shares: Sequence[float] = [100.0 * float((values >= at).mean()) if len(values) else 0.0 for at in x[1:]]
    return x, np.array([shares[0], *shares])


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(0, 103)
    tidy(axes)
