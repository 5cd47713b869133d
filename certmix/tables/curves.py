"""Curves of certified accuracy over the radius, the trade-off over alpha, and a certification's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import one_line
from certmix.files import write_atomically
from certmix.tables.figure import COLOURS, DARK, DASHES, NORM_SIGNS, image, legend, style, tidy, title_lines
from certmix.tables.formats import write_files
from certmix.tables.trade_off import Match, TradeOff, on_front
from certmix.tables.words import (
    DETERMINISTIC,
    certificate_label,
    classifier_label,
    radius_heading,
    summary_table,
    symbols,
)
from certmix.text import floor_percent, known, plain_decimal
from certmix.types import Curve, FloatArray, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SAMPLED = ("exact", "smoothing", "lipschitz", "lipschitz-paper")
_STYLES: dict[str, dict[str, Any]] = {
    **{name: style(k, marker=False) for k, name in enumerate(_SAMPLED)},
    "margin": {"color": COLOURS[0]},
    "lipschitz-constant": {"color": COLOURS[2]},
}  # fmt: skip
_OTHER = COLOURS[4]
_LINE: dict[str, Any] = {"drawstyle": "steps-pre", "linewidth": 1.7, "zorder": 3}
_CIRCLE: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.6, "zorder": 5, "clip_on": False}
_MARKED = (0.6, 0.7, 0.8, 0.9)


def survival_steps(radii: FloatArray, images: int, end: float) -> tuple[FloatArray, FloatArray]:
    """Return the corners (x, y in %) of the share of images with radius >= r.

    To be drawn with ``drawstyle="steps-pre"``: y[i] holds on (x[i-1], x[i]],
    so that an image still counts at its own radius.  The curve stops where it
    reaches 0, or at `end` (beyond every finite radius) where it never does or
    nothing is certified.

    Examples
    --------
    >>> survival_steps(np.array([0.0, 0.5, 1.0]), 4, 2.0)
    (array([0. , 0.5, 1. , 1. ]), array([50., 50., 25.,  0.]))
    """
    values, counts = np.unique(radii[radii > 0], return_counts=True)
    finite = values[np.isfinite(values)]
    unbounded = int(counts[len(finite) :].sum())
    surviving = unbounded + counts[: len(finite)][::-1].cumsum()[::-1]
    stop = finite[-1] if len(finite) and not unbounded else end
    y = np.array([*surviving[:1], *surviving, unbounded] if len(finite) else [unbounded, unbounded])
    return np.array([0.0, *finite, stop]), 100.0 * y / max(images, 1)


def coinciding(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Gather the curves of one classifier that would lie on top of one another."""
    groups: list[list[Curve]] = []
    for curve in curves:
        own = np.sort(curve.radii[curve.radii > 0])
        for group in groups:
            first = group[0]
            other = np.sort(first.radii[first.radii > 0])
            if (
                (first.classifier, first.images, len(other)) == (curve.classifier, curve.images, len(own))
                and np.allclose(other, own, rtol=1e-9, atol=1e-12)
            ):  # fmt: skip
                group.append(curve)
                break
        else:
            groups.append([curve])
    return groups


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

    def colour(curve: Curve) -> str:
        if curve.classifier == "robust":
            return DARK
        found = _STYLES.get(curve.certificate, {}).get("color", _OTHER)
        return found if curve.classifier == "mixed" else _OTHER

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        largest = max((float(r) for c in curves for r in c.radii if np.isfinite(r)), default=0.0)
        end = 1.03 * largest if largest > 0 else 1.0
        for group in coinciding(curves):
            first = group[0]
            certificates = ", ".join(certificate_label(curve.certificate) for curve in group)
            axes.plot(
                *survival_steps(first.radii, first.images, end), color=colour(first), clip_on=False, **_LINE,
                linestyle=_STYLES.get(first.certificate, {}).get("linestyle", "-"),
                label=f"{symbols(classifier_label(first.classifier, alpha))}: {certificates}",
            )  # fmt: skip
        marked: list[str] = []
        for curve in curves:  # each classifier's clean accuracy once, in the colour of its first curve
            if curve.classifier in marked or not known(curve.clean_accuracy):
                continue
            marked.append(curve.classifier)
            estimate = "" if curve.certificate in DETERMINISTIC else " (estimate)"
            axes.plot(
                [0], [100 * curve.clean_accuracy], "o", markersize=max(4, 13 - 3 * len(marked)),
                markeredgecolor=colour(curve), **_CIRCLE,
                label=f"{one_line(curve.classifier)}: clean accuracy{estimate}",
            )  # fmt: skip
        axes.set(xlim=(0, end), ylim=(0, 102), yticks=range(0, 101, 20))
        axes.set_xlabel(f"{NORM_SIGNS.get(norm, one_line(norm))} radius (units of the input)")
        axes.set_ylabel("certified accuracy (%)")
        tidy(axes)
        handles, labels = axes.get_legend_handles_labels()
        legend(figure, handles, 2 if max(map(len, labels), default=0) <= 44 else 1)
        parts = [] if sigma is None else [f"\u03c3 = {plain_decimal(sigma)}"]
        parts.append(f"\u03b1 = {plain_decimal(alpha)}")
        counts = sorted({curve.images for curve in curves})
        if counts:
            shown = " / ".join(f"{count:,}" for count in counts)
            parts.append(f"{shown} image{'' if counts == [1] else 's'}")
        parts += [] if complete else ["partial result"]
        axes.set_title("\n".join([*title_lines(title), ", ".join(parts)]), fontsize=10.5, parse_math=False)

    return image(suffix, (7.0, 5.0), draw)


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
            _draw_matches(axes[1], found)
        _legend_of_sources(figure, found)

    return image(suffix, (5.6 * panels + 0.6, 4.9), draw)


def _style(source: int, certificate: int) -> dict[str, Any]:
    return {"color": COLOURS[source % len(COLOURS)], "linestyle": DASHES[certificate % len(DASHES)]}


def _draw_fronts(axes: Axes, found: TradeOff) -> None:
    for number, sweep in enumerate(found.sweeps):
        clean, alphas = np.array(sweep.clean_accuracy), np.array(sweep.alphas)
        for k, shares in enumerate(sweep.certified_accuracy):
            certified = np.array(shares)
            front = np.array(on_front(sweep.clean_accuracy, shares), bool)
            x, y = 100 * clean[front], 100 * certified[front]
            order = np.argsort(x)  # on (x[i-1], x[i]] the point i is the best there is
            axes.plot(x[order], y[order], **_LINE, **_style(number, k))
            marked = np.isin(alphas.round(6), _MARKED) & (certified > 0)
            points = 100 * clean[marked], 100 * certified[marked]
            axes.plot(*points, "o", markersize=3.5, color=COLOURS[number % len(COLOURS)], zorder=4)
    for number, match in enumerate(found.matches):
        stars = (
            np.full(len(match.certified_accuracy), match.clean_accuracy),
            np.array(match.certified_accuracy),
        )
        axes.plot(
            *(100 * values for values in stars), "*", markerfacecolor="white", markersize=11, zorder=5,
            markeredgecolor=COLOURS[number % len(COLOURS)], clip_on=False,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clean accuracy of the mix (%, estimate)")
    axes.set_ylabel(f"certified accuracy at radius {symbols(radius_heading(found.at_radius))} (%)")
    axes.set_title("Fronts over \u03b1 (dots: 0.6, 0.7, 0.8, 0.9)", fontsize=10.5)
    tidy(axes)


def _draw_matches(axes: Axes, found: TradeOff) -> None:
    radii = [r for match in found.matches for curve in match.curves for r in curve.radii if np.isfinite(r)]
    end = 1.03 * max(radii, default=1.0)
    for number, match in enumerate(found.matches):
        for k, curve in enumerate(match.curves):
            steps = survival_steps(curve.radii, curve.images, end)
            axes.plot(*steps, clip_on=False, **_LINE, **_style(number, k))
        edge, size = COLOURS[number % len(COLOURS)], max(5, 12 - 3 * number)
        axes.plot([0], [100 * match.clean_accuracy], "o", markersize=size, markeredgecolor=edge, **_CIRCLE)
    axes.set(xlim=(0, end), ylim=(0, 102), yticks=range(0, 101, 20))
    axes.set_xlabel(f"{NORM_SIGNS['l2']} radius (units of the input)")
    axes.set_ylabel("certified accuracy (%)")
    wanted = floor_percent(found.wanted_clean_accuracy or 0.0, 2)
    axes.set_title(f"At equal clean accuracy, {wanted} % or more (circles)", fontsize=10.5)
    tidy(axes)


def _legend_of_sources(figure: Figure, found: TradeOff) -> None:
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
        label, dashes = certificate_label(name), DASHES[k % len(DASHES)]
        handles.append(Line2D([], [], color="0.3", linestyle=dashes, linewidth=1.7, label=label))
    legend(figure, handles)
