"""Curves of certified accuracy over the radius, the trade-off over alpha, and a certification's files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import one_line
from certmix.tables.figure import (
    COLOURS,
    DARK,
    DASHES,
    NORM_SIGNS,
    entry,
    image,
    legend,
    save,
    style,
    survival_steps,
    tidy,
    title_lines,
)
from certmix.tables.formats import write_files
from certmix.tables.words import (
    DETERMINISTIC,
    PATCH,
    certificate_label,
    classifier_label,
    deterministic,
    noise_words,
    radius_heading,
    settled,
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
_OTHER, _GATED = COLOURS[4], "#6A3D9A"
_LINE: dict[str, Any] = {"drawstyle": "steps-pre", "linewidth": 1.7, "zorder": 3}
_CIRCLE: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.6, "zorder": 5, "clip_on": False}
_MARKED = (0.6, 0.7, 0.8, 0.9)
_BAND = "band: could be with more samples (estimate)"


def coinciding(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Gather the curves of one classifier that would lie on top of one another."""

    def alike(one: Curve, other: Curve) -> bool:
        a, b = (np.sort(curve.radii[curve.radii > 0]) for curve in (one, other))
        same = (one.classifier, one.inputs, len(a)) == (other.classifier, other.inputs, len(b))
        return same and np.allclose(a, b, rtol=1e-9, atol=1e-12)

    groups: list[list[Curve]] = []
    for curve in curves:
        group = next((group for group in groups if alike(group[0], curve)), None)
        if group is None:
            groups.append([curve])
        else:
            group.append(curve)
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
    """Draw certified accuracy (%) against the radius into a .png (200 dpi), .svg or .pdf file.

    A curve is the exact share of inputs whose radius is at least r, a step at
    each radius; a hollow dot at 0 is the classifier's clean accuracy.  Curves
    of one classifier that coincide share a line and a legend entry.  The same
    curves give the same bytes, whatever the user's matplotlib settings.

    Parameters
    ----------
    curves
        Radii of rightly classified inputs, in units of the input; a radius of 0 counts as not certified.
    path
        Where to; ParameterError if it does not end in one of these, RunError if it cannot be written.
    title, sigma, alpha, complete, norm
        Of the heading: its first line, the noise level and mixing weight, False for "partial", and
        ``l1``, ``l2`` or ``linf``.
    """
    save(path, lambda suffix: curve_plot(curves, suffix, title, sigma, alpha, complete, norm))


def curve_plot(
    curves: Sequence[Curve],
    suffix: str,
    title: str,
    sigma: float | None,
    alpha: float,
    complete: bool = True,
    norm: str = "l2",
    noise: str = "",
) -> bytes:
    """Return the plot of `plot_certified_accuracy` as a file's content."""

    def colour(curve: Curve) -> str:
        if curve.classifier == "robust":
            return DARK
        found = _STYLES.get(curve.certificate, {}).get("color", _OTHER)
        return _GATED if curve.classifier == "gated" else found if curve.classifier == "mixed" else _OTHER

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        largest = max((float(c.radii[np.isfinite(c.radii)].max(initial=0.0)) for c in curves), default=0.0)
        end, banded = 1.03 * largest if largest > 0 else 1.0, False
        for group in coinciding(curves):
            first = group[0]
            certificates = ", ".join(certificate_label(curve.certificate) for curve in group)
            x, y = survival_steps(first.radii, first.inputs, end)
            how = {
                "color": colour(first), "clip_on": False, "zorder": 3,
                "linestyle": _STYLES.get(first.certificate, {}).get("linestyle", "-"),
            }  # fmt: skip
            if first.reach is not None:  # bold where it is settled, else thin with a band above
                places, upper = first.reach[:, 0], 100 * first.reach[:, 1]
                reached = len(first.radii) - np.searchsorted(np.sort(first.radii), places)
                lower = 100 * reached / first.inputs
                axes.fill_between(
                    places, lower, upper, color=colour(first), alpha=0.13, linewidth=0, zorder=2
                )
                axes.plot(x, y, linewidth=0.7, drawstyle="steps-pre", **how)
                most = np.interp(x, places, upper, right=0.0)
                pairs = zip((y / 100).tolist(), (most / 100).tolist(), strict=True)
                open_ = [not settled(*pair, first.inputs) for pair in pairs]
                y, banded = np.where(open_, np.nan, y), banded or any(open_)
            label = f"{symbols(classifier_label(first, alpha, short=True))}: {certificates}"
            axes.plot(x, y, linewidth=1.7, drawstyle="steps-pre", label=label, **how)
        marked: list[str] = []
        for curve in curves:  # each classifier's clean accuracy once, in the colour of its first curve
            if curve.classifier in marked or not known(curve.clean_accuracy):
                continue
            marked.append(curve.classifier)
            estimate = "" if curve.certificate in DETERMINISTIC else " (estimate)"
            axes.plot(
                [0], [100 * curve.clean_accuracy], "o", markersize=max(4, 13 - 3 * len(marked)),
                markeredgecolor=colour(curve), **_CIRCLE,
                label=f"{classifier_label(curve, alpha).partition(' (')[0]}: clean accuracy{estimate}",
            )  # fmt: skip
        _certified_axes(axes, end, NORM_SIGNS.get(norm, one_line(norm)))
        if banded:
            axes.plot([], [], linewidth=7, color=DARK, alpha=0.2, label=_BAND)
        handles, labels = axes.get_legend_handles_labels()
        legend(figure, handles, 2 if max(map(len, labels), default=0) <= 44 else 1)
        parts = [symbols(noise)] if noise else [] if sigma is None else [f"\u03c3 = {plain_decimal(sigma)}"]
        parts.append(f"\u03b1 = {plain_decimal(alpha)}")
        counts = sorted({curve.inputs for curve in curves})
        if counts:
            shown = " / ".join(f"{count:,}" for count in counts)
            parts.append(f"{shown} input{'' if counts == [1] else 's'}")
        parts += [] if complete else ["partial result"]
        axes.set_title("\n".join([*title_lines(title), ", ".join(parts)]), fontsize=10.5, parse_math=False)

    return image(suffix, (7.0, 5.0), draw)


def _certified_axes(axes: Axes, end: float, sign: str) -> None:
    axes.set(
        xlim=(0, end), ylim=(0, 102), yticks=range(0, 101, 20), ylabel="certified accuracy (%)",
        xlabel="side of a patch, in pixels" if sign == PATCH else f"{sign} radius (units of the input)",
    )  # fmt: skip
    tidy(axes)


def write_products(
    folder: str | Path, summary: Summary, curves: Sequence[Curve], fronts: Any = None, shares: Any = ()
) -> list[Path]:
    """Write ``certified-accuracy.{json,csv,md,tex,png,svg}`` into a folder, each file whole or not at all.

    The tables show the summary, the plots are those of `certified_plots`.  A RunError says that the folder
    cannot be made or written to.
    """
    return write_files(folder, summary_table(summary), certified_plots(summary, curves, fronts, shares))


def certified_plots(
    summary: Summary, curves: Sequence[Curve], fronts: Any = None, shares: Any = ()
) -> dict[str, Callable[[str], bytes]]:
    """Return what draws the plots of a certification, by the stems of their files.

    ``certified-accuracy`` are the curves, as a rule one for each row, ``front`` the `fronts`, if there are
    any, ``probabilities`` the distribution of lower bounds p: `shares` has for each h its name and the p of
    rightly classified inputs.  Wrong ones are given up early, with no p to speak of.
    """
    title = "Certified accuracy" + (f": {summary.data}" if summary.data else "")
    noise = noise_words(summary, not deterministic(summary))

    def draw(suffix: str) -> bytes:
        about = summary.alpha, bool(summary.complete), summary.norm, noise
        return curve_plot(curves, suffix, title, None, *about)

    plots: dict[str, Callable[[str], bytes]] = {"certified-accuracy": draw}
    about = symbols(f"{noise}, {summary.inputs:,} inputs")
    if fronts is not None:
        from certmix.tables.fronts import certified_fronts

        plots["front"] = partial(certified_fronts, fronts, about)
    if shares:
        plots["probabilities"] = partial(probability_plot, shares, about)
    return plots


def probability_plot(shares: Sequence[tuple[str, FloatArray]], about: str, suffix: str) -> bytes:
    """Draw the share of rightly classified inputs with a lower bound p of at most x, for each h."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for k, (name, p) in enumerate(shares):
            x, y = np.array([0.0, *np.sort(p), 1.0]), np.append(np.arange(len(p) + 1), len(p)) / len(p)
            axes.plot(
                x, 100 * y, drawstyle="steps-post", linewidth=1.7, clip_on=False, zorder=3,
                label=f"{name}: {len(p):,} rightly classified inputs", **style(k, marker=False),
            )  # fmt: skip
        axes.set(
            xlim=(0, 1), ylim=(0, 100), yticks=range(0, 101, 20), ylabel="inputs with at most this p (%)",
            xlabel="lower bound p of the probability of the class",
        )  # fmt: skip
        title = "\n".join(["How sure h is: the distribution of p", *title_lines(about)])
        axes.set_title(title, fontsize=10.5, parse_math=False)
        tidy(axes)
        legend(figure, axes.get_legend_handles_labels()[0])

    return image(suffix, (6.6, 4.6), draw)


def plot_trade_off(found: Any, path: str | Path) -> None:
    """Draw a trade-off into a .png (200 dpi), .svg or .pdf file."""
    save(path, lambda suffix: trade_off_image(found, suffix))


def trade_off_image(found: Any, suffix: str) -> bytes:
    """Draw certified against clean accuracy, a front a source and certificate; right, the matches' radii."""
    panels = 1 if found.wanted_clean_accuracy is None else 2

    def colour(source: int) -> str:
        return COLOURS[source % len(COLOURS)]

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_fronts(all_axes[0], found, colour)
        if panels == 2:
            _draw_matches(all_axes[1], found, colour)
        handles = []  # one entry a source, in its colour, and one a certificate, with its dashes
        for number, sweep in enumerate(found.sweeps):
            label = sweep.noise if sweep.sigma is None else f"\u03c3 = {plain_decimal(sweep.sigma)}"
            if sweep.match is not None:
                label += f", \u03b1 = {plain_decimal(sweep.match.alpha)}"
            handles.append(entry(label, color=colour(number), linewidth=3))
        for k, name in enumerate(found.certificates):
            dashes = DASHES[k % len(DASHES)]
            handles.append(entry(certificate_label(name), color="0.3", linestyle=dashes, linewidth=1.7))
        if any(cell.most is not None for one in found.sweeps for mix in one.mixes for cell in mix.certified):
            handles.append(entry(_BAND, color=DARK, alpha=0.2, linewidth=7))
        legend(figure, handles)

    return image(suffix, (5.6 * panels + 0.6, 4.9), draw)


def _draw_fronts(axes: Axes, found: Any, colour: Callable[[int], str]) -> None:
    for number, sweep in enumerate(found.sweeps):
        clean = 100 * np.array([mix.clean_accuracy for mix in sweep.mixes])
        dots = np.isin(np.round([mix.alpha for mix in sweep.mixes], 6), _MARKED)
        for k, (shares, on_front) in enumerate(sweep.lines()):
            certified, front = 100 * np.array([share.accuracy for share in shares], float), np.array(on_front)
            order = np.argsort(clean[front])  # on (x[i-1], x[i]] the point i is the best there is
            how = {"color": colour(number), "linestyle": DASHES[k % len(DASHES)]}
            axes.plot(clean[front][order], certified[front][order], **_LINE, **how)
            most = 100 * np.array([mix.could_reach[k] for mix in sweep.mixes])
            axes.fill_between(
                clean[front][order], certified[front][order], most[front][order], step="pre",
                color=colour(number), alpha=0.13, linewidth=0, zorder=2,
            )  # fmt: skip
            marked = dots & (certified > 0)
            axes.plot(clean[marked], certified[marked], "o", markersize=3.5, color=colour(number), zorder=4)
    for number, sweep in enumerate(found.sweeps):
        if (match := sweep.match) is not None:
            stars = 100 * np.array([share.accuracy for share in match.certified], float)
            axes.plot(
                np.full(len(stars), 100 * match.clean_accuracy), stars, "*", markerfacecolor="white",
                markersize=11, zorder=5, markeredgecolor=colour(number), clip_on=False,
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("clean accuracy of the mix (%, estimate)")
    axes.set_ylabel(f"certified accuracy at radius {symbols(radius_heading(found.at_radius))} (%)")
    axes.set_title("Fronts over \u03b1 (dots: 0.6, 0.7, 0.8, 0.9)", fontsize=10.5)
    tidy(axes)


def _draw_matches(axes: Axes, found: Any, colour: Callable[[int], str]) -> None:
    radii = [r for sweep in found.sweeps for curve in sweep.curves for r in curve.radii if np.isfinite(r)]
    end = 1.03 * max(radii, default=1.0)
    for number, sweep in enumerate(found.sweeps):
        for k, curve in enumerate(sweep.curves):
            steps = survival_steps(curve.radii, curve.inputs, end)
            how = {"color": colour(number), "linestyle": DASHES[k % len(DASHES)]}
            axes.plot(*steps, clip_on=False, **_LINE, **how)
        if (match := sweep.match) is not None:
            circle = {**_CIRCLE, "markersize": max(5, 12 - 3 * number), "markeredgecolor": colour(number)}
            axes.plot([0], [100 * match.clean_accuracy], "o", **circle)
    _certified_axes(axes, end, NORM_SIGNS.get(found.norm, found.norm))
    wanted = floor_percent(found.wanted_clean_accuracy or 0.0, 2)
    axes.set_title(f"At equal clean accuracy, {wanted} % or more (circles)", fontsize=10.5)
