"""What all plots share: fixed settings, colours, files, headings and legends."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from certmix.errors import ParameterError, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "DARK", "DASHES", "MARKERS", "head", "image", "legend", "tidy", "title_lines"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#404040")
"""Told apart by colour-blind readers as well."""
DARK = "#404040"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P")

_METADATA: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}
_DOTS_PER_INCH = 200
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "certmix",
    "font.size": 10,
    "legend.fontsize": 9,
}
_LETTER = 0.075  # inches, of a legend's text
_HANDLE = 0.62  # inches, of a legend's line and the blanks around it


def image(suffix: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> bytes:
    """Return what `draw` puts on a figure as the content of a png (200 dpi) or svg file.

    The same drawing gives the same bytes, whatever the user's matplotlib settings.

    Parameters
    ----------
    suffix
        ``png`` or ``svg``.
    size
        Width and height in inches.
    draw
        Draws on the empty figure, whose layout is constrained.

    Raises
    ------
    ParameterError
        The suffix is neither.
    """
    if suffix not in _METADATA:
        raise ParameterError(f"cannot draw a '{suffix}' file: let the plot's name end in .png or .svg")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(buffer, format=suffix, dpi=_DOTS_PER_INCH, metadata=_METADATA[suffix])
    return buffer.getvalue()


def tidy(axes: Axes) -> None:
    """Draw a light grid behind the data and no box around it."""
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def title_lines(text: str, letters: int = 60, most: int = 2) -> list[str]:
    """Return a title in at most so many lines, the last cut short with an ellipsis where it must.

    Examples
    --------
    >>> title_lines("accuracy of the mix", 12)
    ['accuracy of', 'the mix']
    """
    lines = textwrap.wrap(one_line(text), letters)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][: letters - 1] + "\u2026"]


def head(figure: Figure, title: str, subtitle: str = "") -> None:
    """Write a figure's title, and below it what it was made from."""
    width = figure.get_figwidth()
    lines = [*title_lines(title, int(width * 10.5), 4), *title_lines(subtitle, int(width * 10.5), 6)]
    text = figure.suptitle("\n".join(lines), fontsize=10.5)
    text.set_parse_math(False)


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend below the axes, in as many columns as the figure is wide for."""
    most = int((figure.get_figwidth() - 2 * _HANDLE) / _LETTER)
    for handle in handles:
        handle.set_label("\n".join(textwrap.wrap(one_line(str(handle.get_label())), most)))
    longest = max(len(line) for handle in handles for line in handle.get_label().split("\n"))
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (longest * _LETTER + _HANDLE))))
    rows = math.ceil(len(handles) / columns)
    placed = figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=math.ceil(len(handles) / rows),
        frameon=False,
        handlelength=2.6,
    )
    for text in placed.get_texts():
        text.set_parse_math(False)
