"""Certified accuracy against radius, drawn from the radii themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.atomic import write_atomically
from certmix.errors import one_line
from certmix.tables._drawing import image, tidy, title_lines
from certmix.tables.formats import write_files
from certmix.tables.survival import coinciding, survival_steps
from certmix.tables.words import DETERMINISTIC, LETTERS, certificate_label, classifier_label, summary_table
from certmix.text import known, plain_decimal
from certmix.types import Curve, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curve_plot", "plot_certified_accuracy", "write_products"]

_ROBUST = "#404040"
_COLOURS = {
    "exact": "#0072B2",
    "smoothing": "#D55E00",
    "lipschitz": "#009E73",
    "lipschitz-paper": "#CC79A7",
    "margin": "#0072B2",
    "lipschitz-constant": "#009E73",
}
_NORMS = {"l1": "\u2113\u2081", "l2": "\u2113\u2082", "linf": "\u2113\u221e"}
_OTHER = "#8C6D1F"
_DASHES: dict[str, Any] = {
    "exact": "-",
    "smoothing": (0, (5, 2)),
    "lipschitz": (0, (5, 1.5, 1, 1.5)),
    "lipschitz-paper": (0, (1, 1.2)),
}


def plot_certified_accuracy(
    curves: Sequence[Curve],
    path: str | Path,
    *,
    title: str,
    sigma: float | None,
    alpha: float,
    complete: bool = True,
    norm: str = "l2",
) -> None:
    """Draw certified accuracy (%) against the radius into a .png (200 dpi) or .svg file.

    A curve is the exact share of images whose radius is at least r, a step at
    each radius; a hollow dot at 0 is the classifier's clean accuracy.  Curves
    of one classifier that coincide share a line and a legend entry.  The same
    curves give the same bytes, whatever the user's matplotlib settings.

    Parameters
    ----------
    curves
        Radii of rightly classified images, in units of the input; a radius of
        0 counts as not certified.
    path
        Where to, ending in .png or .svg.
    title
        First line of the heading.
    sigma, alpha
        Noise level and mixing weight, for the heading and the legend.
    complete
        False writes "partial" into the heading.
    norm
        Of the radii: ``l1``, ``l2`` or ``linf``.

    Raises
    ------
    ParameterError
        The suffix is neither .png nor .svg.
    RunError
        The file cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower().removeprefix(".")
    content = curve_plot(curves, suffix, title=title, sigma=sigma, alpha=alpha, complete=complete, norm=norm)
    write_atomically(target, content)


def curve_plot(
    curves: Sequence[Curve],
    suffix: str,
    *,
    title: str,
    sigma: float | None,
    alpha: float,
    complete: bool = True,
    norm: str = "l2",
) -> bytes:
    """Return the plot of `plot_certified_accuracy` as the content of a png or svg file."""

    def draw(figure: Figure) -> None:
        _draw(figure, curves, alpha, norm)
        _head(figure.axes[0], curves, title, sigma, alpha, complete)

    return image(suffix, (7.0, 5.0), draw)


def _draw(figure: Figure, curves: Sequence[Curve], alpha: float, norm: str) -> None:
    axes = figure.add_subplot()
    largest = max((float(r) for c in curves for r in c.radii if np.isfinite(r)), default=0.0)
    end = 1.03 * largest if largest > 0 else 1.0
    for group in coinciding(curves):
        first = group[0]
        x, y = survival_steps(first.radii, first.images, end)
        certificates = ", ".join(certificate_label(curve.certificate, LETTERS) for curve in group)
        axes.plot(
            x,
            y,
            drawstyle="steps-pre",
            color=_colour(first),
            linestyle=_DASHES.get(first.certificate, "-"),
            linewidth=1.7,
            zorder=3,
            clip_on=False,
            label=f"{classifier_label(first.classifier, alpha, LETTERS)}: {certificates}",
        )
    _clean_dots(axes, curves)
    axes.set(xlim=(0, end), ylim=(0, 102), yticks=range(0, 101, 20))
    axes.set_xlabel(f"{_NORMS.get(norm, one_line(norm))} radius (units of the input)")
    axes.set_ylabel("certified accuracy (%)")
    tidy(axes)
    if curves:
        legend = figure.legend(
            loc="outside lower center", ncols=_legend_columns(axes), frameon=False, handlelength=2.6
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _clean_dots(axes: Axes, curves: Sequence[Curve]) -> None:
    """Mark each classifier's clean accuracy at 0 once, in the colour of its first curve."""
    marked: set[str] = set()
    for curve in curves:
        if curve.classifier in marked or not known(curve.clean_accuracy):
            continue
        marked.add(curve.classifier)
        axes.plot(
            [0],
            [100 * curve.clean_accuracy],
            "o",
            markersize=max(4, 13 - 3 * len(marked)),
            markerfacecolor="white",
            markeredgecolor=_colour(curve),
            markeredgewidth=1.6,
            clip_on=False,
            zorder=5,
            label=f"{one_line(curve.classifier)}: clean accuracy"
            + ("" if curve.certificate in DETERMINISTIC else " (estimate)"),
        )


def _colour(curve: Curve) -> str:
    if curve.classifier == "robust":
        return _ROBUST
    return _COLOURS.get(curve.certificate, _OTHER) if curve.classifier == "mixed" else _OTHER


def _legend_columns(axes: Axes) -> int:
    longest = max(len(label) for label in axes.get_legend_handles_labels()[1])
    return 2 if longest <= 44 else 1


def _head(
    axes: Axes, curves: Sequence[Curve], title: str, sigma: float | None, alpha: float, complete: bool
) -> None:
    """Write the title, then sigma, alpha, the images and whether the run is partial."""
    level = [] if sigma is None else [f"\u03c3 = {plain_decimal(sigma)}"]
    parts = [*level, f"\u03b1 = {plain_decimal(alpha)}"]
    counts = sorted({curve.images for curve in curves})
    if counts:
        parts.append(f"{' / '.join(f'{count:,}' for count in counts)} image{'' if counts == [1] else 's'}")
    if not complete:
        parts.append("partial result")
    axes.set_title("\n".join([*title_lines(title), ", ".join(parts)]), fontsize=10.5, parse_math=False)


def write_products(folder: str | Path, summary: Summary, curves: Sequence[Curve]) -> list[Path]:
    """Write ``certified-accuracy.{json,csv,md,tex,png,svg}`` into a folder, each file whole or not at all.

    Parameters
    ----------
    folder
        Where to; made if missing.
    summary
        The figures of the tables.
    curves
        The radii of the plot, as a rule one curve for each row.

    Raises
    ------
    RunError
        The folder cannot be made or written to.
    """

    def draw(suffix: str) -> bytes:
        return curve_plot(
            curves, suffix, title="Certified accuracy" + (f": {summary.data}" if summary.data else ""),
            sigma=summary.sigma, alpha=summary.alpha, complete=summary.complete, norm=summary.norm,
        )  # fmt: skip

    return write_files(folder, summary_table(summary), {"certified-accuracy": draw})
