"""What all plots share: fixed settings, colours, files, headings, legends, and words beside points."""

from __future__ import annotations

import io
import math
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError, brief, one_line
from certmix.files import open_file, write_atomically
from certmix.types import AccuracyShare, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#404040")
"""Told apart by colour-blind readers as well."""
DARK = "#404040"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
NORM_SIGNS = {"l1": "\u2113\u2081", "l2": "\u2113\u2082", "linf": "\u2113\u221e"}

_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None},
}  # fmt: skip
PLOT_FORMATS = tuple(_METADATA)
_DOTS_PER_INCH = 200
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "certmix", "pdf.fonttype": 42, "font.size": 10,
    "legend.fontsize": 9,
}  # fmt: skip
_SETTINGS = 1 << 20  # bytes of them, at most
_LETTER = 0.075  # inches, of a legend's text
_HANDLE = 0.62  # inches, of a legend's line and the blanks around it
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def _matplotlib() -> Any:
    """Return matplotlib, which reads a ``matplotlibrc`` in the current folder when it is imported."""
    settings = Path("matplotlibrc")
    try:
        if "matplotlib" not in sys.modules and settings.exists() and not settings.is_dir():
            open_file(settings, _SETTINGS).close()
        import matplotlib
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"matplotlib cannot read its settings, such as ./{settings} ({brief(error)}): mend or remove them"
        ) from None
    return matplotlib


def image(suffix: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> bytes:
    """Return what `draw` puts on a figure of so many inches as a png (200 dpi), svg or pdf file's content.

    The same drawing gives the same bytes, whatever the user's matplotlib settings.
    """
    kept = _KEPT.get()
    if suffix not in _METADATA and kept is None:
        raise ParameterError(f"cannot draw a '{suffix}' file: let the plot's name end in .png, .svg or .pdf")
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        if kept is not None:
            from matplotlib import pyplot

            kept.append(pyplot.figure(figsize=size, layout="constrained"))
            draw(kept[0])
            return b""
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(buffer, format=suffix, dpi=_DOTS_PER_INCH, metadata=_METADATA[suffix])
    return buffer.getvalue()


_KEPT: ContextVar[list[Figure] | None] = ContextVar("_KEPT", default=None)
"""Where `figure_of` has figures put, which are not to become files."""


def figure_of(draw: Callable[[str], bytes]) -> Figure:
    """Return the figure itself of what draws a file, one of pyplot's, so that notebooks show it."""
    from matplotlib import pyplot

    pyplot.draw_if_interactive()  # loads the backend, whose settings `rc_context` would undo
    kept: list[Figure] = []
    before = _KEPT.set(kept)
    try:
        draw("axes")
    finally:
        _KEPT.reset(before)
    return kept[0]


def save(path: str | Path, draw: Callable[[str], bytes]) -> None:
    """Write what `draw` makes of a path's suffix there, whole or not at all."""
    target = Path(path)
    write_atomically(target, draw(target.suffix.lower().removeprefix(".")))


def tidy(axes: Axes, *, upright: bool = True) -> None:
    """Draw a light grid behind the data, with `upright` lines or without, and no box around it."""
    axes.grid(color="0.9", linewidth=0.7)
    axes.grid(visible=upright, axis="x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def entry(label: str, **how: Any) -> Line2D:
    """Return a line for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **how)


def style(k: int, *, marker: bool = True) -> dict[str, Any]:
    """Return how the k-th line is drawn: its colour, dashes and marker."""
    plain = {"color": COLOURS[k % len(COLOURS)], "linestyle": DASHES[k % len(DASHES)]}
    return {**plain, "marker": MARKERS[k % len(MARKERS)]} if marker else plain


def percent(shares: Sequence[AccuracyShare]) -> FloatArray:
    """Return accuracies in percent; NaN without inputs."""
    return np.array([100 * one.accuracy for one in shares], np.float64)


def survival_steps(values: FloatArray, inputs: int, end: float) -> tuple[FloatArray, FloatArray]:
    """Return the corners (x, y in %) of the share of inputs with a value >= x, over positive x.

    To be drawn with ``drawstyle="steps-pre"``: y[i] holds on (x[i-1], x[i]], so that an input still counts at
    its own value.  The curve stops where it reaches 0, or at `end`, beyond every finite value, where it never
    does or no value is positive.

    Examples
    --------
    >>> survival_steps(np.array([0.0, 0.5, 1.0]), 4, 2.0)
    (array([0. , 0.5, 1. , 1. ]), array([50., 50., 25.,  0.]))
    """
    distinct, counts = np.unique(values[values > 0], return_counts=True)
    finite = distinct[np.isfinite(distinct)]
    unbounded = int(counts[len(finite) :].sum())
    surviving = unbounded + counts[: len(finite)][::-1].cumsum()[::-1]
    stop = finite[-1] if len(finite) and not unbounded else end
    y = np.array([*surviving[:1], *surviving, unbounded] if len(finite) else [unbounded, unbounded])
    return np.array([0.0, *finite, stop]), 100.0 * y / max(inputs, 1)


def title_lines(text: str, letters: int = 60, most: int = 2) -> list[str]:
    """Return a title in at most so many lines, the last cut short with an ellipsis where it must."""
    lines = textwrap.wrap(one_line(text), letters)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1][: letters - 1] + "\u2026"]


def head(figure: Figure, title: str, subtitle: str = "") -> None:
    """Write a figure's title, and below it what it was made from."""
    width = figure.get_figwidth()
    lines = [*title_lines(title, int(width * 10.5), 4), *title_lines(subtitle, int(width * 10.5), 6)]
    figure.suptitle("\n".join(lines), fontsize=10.5).set_parse_math(False)


def legend(figure: Figure, handles: Sequence[Any], columns: int | None = None) -> None:
    """Put a legend below the axes, by default in as many columns as the figure is wide for."""
    if not handles:
        return
    most = int((figure.get_figwidth() - 2 * _HANDLE) / _LETTER)
    for handle in handles:
        handle.set_label("\n".join(textwrap.wrap(one_line(str(handle.get_label())), most)))
    longest = max(len(line) for handle in handles for line in handle.get_label().split("\n"))
    room = int(figure.get_figwidth() / (longest * _LETTER + _HANDLE))
    columns = columns or max(1, min(len(handles), room))
    rows = math.ceil(len(handles) / columns)
    placed = figure.legend(
        handles=list(handles), loc="outside lower center", ncols=math.ceil(len(handles) / rows),
        frameon=False, handlelength=2.6,
    )  # fmt: skip
    for text in placed.get_texts():
        text.set_parse_math(False)


def place_labels(
    axes: Axes, curves: Sequence[FloatArray], texts: Sequence[Sequence[str]], colours: Sequence[str]
) -> None:
    """Write words beside points of curves, on the first side where they cover nothing, or not at all.

    The figure must have been laid out.  The ends of curves come first, then points halfway between those
    that were considered, at most six a curve.  Curves are float64 (n, 2) in data coordinates, with a text a
    point and a colour each; points that are not finite are skipped, words at points of several curves grey.
    """
    pixels = [np.asarray(axes.transData.transform(curve)).reshape(-1, 2) for curve in curves]
    pixels = [np.where(np.isfinite(points).all(1, keepdims=True), points, np.nan) for points in pixels]
    steps = np.linspace(0.0, 1.0, 40)[:, None, None]  # points close together stand for the lines between
    taken = [(points[:-1] + steps * np.diff(points, axis=0)).reshape(-1, 2) for points in pixels]
    covered = np.concatenate([np.zeros((0, 2)), *pixels, *taken])
    orders = []
    for points in pixels:
        order, parts = [0, len(points) - 1] if len(points) else [], 1
        while parts < len(points):
            parts *= 2
            order += [round(k * (len(points) - 1) / parts) for k in range(1, parts, 2)]
        orders.append(list(dict.fromkeys(order))[:6])
    written: list[tuple[str, FloatArray, FloatArray]] = []  # words, where, their box
    for turn in range(6):
        for curve, order in enumerate(orders):
            if turn >= len(order) or not np.isfinite(pixels[curve][order[turn]]).all():
                continue
            at, text = pixels[curve][order[turn]], texts[curve][order[turn]]
            if any(t == text and np.hypot(*(p - at)) < 25 for t, p, _ in written):  # the ends of many curves
                continue
            near = sum(bool((np.abs(points - at).max(1) < 3).any()) for points in pixels)
            colour = "0.3" if near > 1 else colours[curve]
            for right, up in _SIDES:
                away = 5.0 if 0 in (right, up) else 3.5  # points
                drawn = axes.annotate(
                    text, tuple(axes.transData.inverted().transform(at)), (away * right, away * up),
                    textcoords="offset points", fontsize=7.5, color=colour, parse_math=False, zorder=4,
                    ha=("right", "center", "left")[right + 1],
                    va=("top", "center_baseline", "bottom")[up + 1],
                )  # fmt: skip
                drawn.set_in_layout(False)
                box = drawn.get_window_extent()
                ends = np.array(box.extents).reshape(2, 2)
                inside = (ends[0] >= axes.bbox.min).all() and (ends[1] <= axes.bbox.max).all()
                on_line = ((covered > ends[0] - 2.5) & (covered < ends[1] + 2.5)).all(1).any()
                on_words = any(
                    (ends[0] < b[1] + 1).all() and (b[0] < ends[1] + 1).all() for _, _, b in written
                )
                if inside and not on_line and not on_words:
                    written.append((text, at, ends))
                    break
                drawn.remove()
