"""Heat maps of Algorithm 1's objective over s and p, one for each c: Figure 9 of MixedNUTS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError
from certmix.tables._drawing import head, image
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SensitivityMaps", "sensitivity_image"]

MOST = 12
"""Panels at most; of more candidates of c, these are spread over them and hold the chosen one."""
_TICKS = 8
_FLOOR = 1e-12


@dataclass(frozen=True)
class SensitivityMaps:
    """A quantity at every point of a grid.

    Parameters
    ----------
    s, p, c
        Candidates, increasing.
    values
        float64 (s, p, c); NaN where the point cannot be chosen.
    chosen
        Indices of the chosen point, which is ringed.
    name
        Of the quantity, at the colour bar.
    title, subtitle
        Heading.
    logarithmic
        Colours by the logarithm.
    """

    s: tuple[float, ...]
    p: tuple[float, ...]
    c: tuple[float, ...]
    values: FloatArray
    chosen: tuple[int, int, int]
    name: str
    title: str
    subtitle: str = ""
    logarithmic: bool = False


def sensitivity_image(found: SensitivityMaps, suffix: str) -> bytes:
    """Return the heat maps as the content of a png or svg file; grey points cannot be chosen.

    Raises
    ------
    ParameterError
        The suffix is unknown, or the values are not one for each point of the grid.

    References
    ----------
    Appendix D.1 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024, which
    has a panel for each p instead.
    """
    shape = (len(found.s), len(found.p), len(found.c))
    if found.values.shape != shape or min(shape) == 0:
        raise ParameterError(f"values of shape {found.values.shape} for a grid of {shape}: give one a point")
    shown = _panels(len(found.c), found.chosen[2])
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        colours = _colours(found)
        for place, axes in enumerate(grid.flat):
            if place >= len(shown):
                axes.set_visible(False)
                continue
            mesh = _panel(axes, found, shown[place], colours)
            axes.tick_params(labelbottom=place + columns >= len(shown), labelleft=place % columns == 0)
        for axes in grid[:, 0]:
            axes.set_ylabel("s")
        for place in range(max(0, len(shown) - columns), len(shown)):
            grid.flat[place].set_xlabel("p")
        bar = figure.colorbar(mesh, ax=grid.ravel().tolist(), shrink=0.85, pad=0.02)
        bar.set_label(found.name)
        head(figure, found.title, _subtitle(found))

    return image(suffix, (1.4 + 2.1 * columns + (1.2 if columns < 3 else 0.0), 1.5 + 2.2 * rows), draw)


def _panels(count: int, chosen: int) -> list[int]:
    """Return which candidates of c are shown.

    Examples
    --------
    >>> _panels(3, 0), len(_panels(50, 17)), 17 in _panels(50, 17)
    ([0, 1, 2], 12, True)
    """
    if count <= MOST:
        return list(range(count))
    spread = [round(k * (count - 1) / (MOST - 1)) for k in range(MOST)]
    if chosen not in spread:
        spread[min(range(MOST), key=lambda k: abs(spread[k] - chosen))] = chosen
    return sorted(spread)


def _colours(found: SensitivityMaps) -> Any:
    """Return the scale of colours that all panels share."""
    from matplotlib.colors import LogNorm, Normalize

    values = found.values[np.isfinite(found.values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if found.logarithmic:
        low, high = max(low, _FLOOR), max(high, 10 * _FLOOR)
        return LogNorm(low if low < high else high / 10, high)
    return Normalize(low, high if high > low else low + 1e-3)


def _panel(axes: Axes, found: SensitivityMaps, k: int, colours: Any) -> Any:
    values = found.values[:, :, k]
    if found.logarithmic:
        values = np.maximum(values, _FLOOR)
    axes.set_facecolor("0.8")
    mesh = axes.imshow(
        np.ma.masked_invalid(values), origin="lower", aspect="auto", cmap="viridis", norm=colours,
        interpolation="nearest",
    )  # fmt: skip
    for which, candidates in ((axes.xaxis, found.p), (axes.yaxis, found.s)):
        at = sorted({round(t) for t in np.linspace(0, len(candidates) - 1, min(_TICKS, len(candidates)))})
        which.set_ticks(at, [f"{candidates[i]:.2g}" for i in at], fontsize=8)
    axes.set_title(f"c = {found.c[k]:.3g}", fontsize=9.5)
    if k == found.chosen[2]:
        i, j = found.chosen[:2]
        for colour, width in (("black", 3.6), ("white", 1.8)):
            axes.plot(
                j, i, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=colour,
                markeredgewidth=width, clip_on=False, zorder=3,
            )  # fmt: skip
    return mesh


def _subtitle(found: SensitivityMaps) -> str:
    words = [found.subtitle] if found.subtitle else []
    i, j, k = found.chosen
    words.append(f"ring: chosen, s {found.s[i]:.3g}, p {found.p[j]:.3g}, c {found.c[k]:.3g}")
    if not np.isfinite(found.values).all():
        words.append("grey: cannot meet beta")
    return "; ".join(words)
