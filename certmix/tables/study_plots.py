"""Figures of the first paper's studies: the mix over alpha, trust terms, confidence, local constants.

Numbered as in Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import one_line
from certmix.tables.figure import (
    COLOURS,
    DARK,
    MARKERS,
    NORM_SIGNS,
    entry,
    head,
    image,
    legend,
    percent,
    place_labels,
    style,
    survival_steps,
    tidy,
    title_lines,
)
from certmix.text import as_given, plain_decimal
from certmix.types import AttackedAccuracy, EstimatedAccuracy, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST = "worst case"
"""The name of the line that is drawn broad and pale, below those that make it up."""

_BINS = np.linspace(0.0, 1.0, 21)
CLASSIFIERS = {"g": "standard (g)", "h": "robust (h)"}
_MEAN, _MEDIAN = (0, (5, 2)), (0, (1, 1.4))
_LEAST = 4.0  # percent that an axis of accuracies spans at least
_SHOWN = 4.0  # the axis of estimated radii ends at so many eps: beyond eps nothing more follows


def sweep_image(
    alphas: Sequence[float],
    lines: Mapping[str, Sequence[EstimatedAccuracy]],
    suffix: str,
    *,
    title: str,
    subtitle: str = "",
) -> bytes:
    """Draw accuracy of the mix over alpha, clean and attacked (Figure 2).

    Shades are the 95 % intervals over inputs; for a single alpha they are bars, and lines are marks side by
    side.
    """

    def draw(figure: Figure) -> None:
        from matplotlib.transforms import offset_copy

        axes = figure.add_subplot()
        axes.axvline(0.5, color="0.45", linewidth=0.8, zorder=1)
        axes.annotate(
            "\u03b1 = 1/2", (0.5, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", fontsize=8.5, color="0.35",
        )  # fmt: skip
        handles, number = [], 0
        for k, (name, shares) in enumerate(lines.items()):
            attacked = any(isinstance(one, AttackedAccuracy) for one in shares)
            how: dict[str, Any] = {"color": DARK, "linestyle": "-", "marker": "o"}
            if name == WORST:
                how = {"color": "#B8B8B8", "linewidth": 6.0, "zorder": 2.5}
            elif attacked:
                how = {**style(number), "marker": MARKERS[1 + number % (len(MARKERS) - 1)]}
                number += 1
            if len(alphas) == 1:  # marks side by side, so that none covers another
                beside = 9 * (k - (len(lines) - 1) / 2)
                moved = offset_copy(axes.transData, figure, x=beside, units="points")
                how = {"marker": "o", **how, "markersize": 6, "transform": moved}
            low, high = 100 * np.array([one.interval for one in shares], float).reshape(-1, 2).T
            if len(alphas) > 1:
                axes.fill_between(alphas, low, high, color=how["color"], alpha=0.13, linewidth=0)
            elif len(alphas) == 1:
                axes.vlines(alphas, low, high, color=how["color"], alpha=0.5, transform=how["transform"])
            how = {"linewidth": 1.6, "markersize": 4, "zorder": 3, "clip_on": False, **how}
            label = f"{name}: {'attacked (upper bound)' if attacked else 'estimate'}"
            handles += axes.plot(alphas, percent(shares), label=label, **how)
        axes.set(xlim=(0, 1), ylim=(0, 100), xticks=np.linspace(0, 1, 11), yticks=range(0, 101, 20))
        axes.set_xlabel("\u03b1 (weight of the robust classifier)")
        axes.set_ylabel("accuracy (%)")
        tidy(axes)
        lone = f"all at \u03b1 = {plain_decimal(alphas[0])}" if len(alphas) == 1 else ""
        head(figure, title, "; ".join(part for part in (subtitle, lone) if part))
        legend(figure, handles)

    return image(suffix, (7.0, 5.2), draw)


Shares = Sequence[EstimatedAccuracy]
Curve = tuple[Shares, Shares]
"""Clean and attacked accuracies of one trust term in one form, in the order of the weights."""
Panel = tuple[str, float, Mapping[tuple[str, str], Curve]]
"""Norm and radius of the attacks, in units of the input, and curves by trust term and form."""


def trust_image(weights: Sequence[float], panels: Mapping[str, Panel], suffix: str) -> bytes:
    """Draw attacked against clean accuracy, a panel a norm, by its title (Figures 1 and 4).

    Colour is the trust term, the line's style its form; points are joined in the order of the weights.
    """
    names = [name for *_, curves in panels.values() for name in curves]
    trusts, forms = (list(dict.fromkeys(each)) for each in zip(*names, strict=True))

    def of_form(number: int) -> dict[str, Any]:
        hollow = {"markerfacecolor": "white"} if number % 2 else {}
        return {"linestyle": style(number)["linestyle"], **hollow}

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (norm, eps, curves)) in zip(all_axes, panels.items(), strict=True):
            for (trust, form), curve in curves.items():
                how = {**style(trusts.index(trust)), **of_form(forms.index(form))}
                points = map(percent, curve)
                axes.plot(*points, linewidth=1.4, markersize=3.6, clip_on=False, zorder=3, **how)
            axes.margins(0.07)
            axes.autoscale_view()
            known = any(np.isfinite(np.add(*map(percent, curve))).any() for curve in curves.values())
            axes.set(xlim=_limits(axes.get_xlim(), known), ylim=_limits(axes.get_ylim(), known))
            ball = f"{NORM_SIGNS.get(norm, one_line(norm))}, \u03b5 = {as_given(eps)}"
            axes.set_xlabel("clean accuracy (%, estimate)")
            axes.set_ylabel(f"attacked accuracy (%, upper bound)\n{ball}", parse_math=False)
            own = "" if len(panels) == 1 else "\n".join(title_lines(title, 52))
            axes.set_title(own, fontsize=9.5, parse_math=False)
            tidy(axes)
        title = next(iter(panels)) if len(panels) == 1 else "Clean against attacked accuracy"
        head(figure, title, "numbers at the curves: weight of the robust classifier")
        grey: dict[str, Any] = {"color": "0.3", "marker": "o", "markersize": 4.5, "linewidth": 1.6}
        handles = [
            entry(f"trust: {name}", linewidth=2, markersize=5, **{**style(k), "linestyle": "-"})
            for k, name in enumerate(trusts)
        ]
        handles += [entry(f"form: {name}", **grey, **of_form(k)) for k, name in enumerate(forms)]
        legend(figure, handles)
        figure.draw_without_rendering()
        texts = [plain_decimal(round(weight, 4)) for weight in weights]
        for axes, (_, _, curves) in zip(all_axes, panels.values(), strict=True):
            places = [np.stack([*map(percent, curve)], 1) for curve in curves.values()]
            colours = [style(trusts.index(trust))["color"] for trust, _ in curves]
            place_labels(axes, places, [texts] * len(places), colours)

    return image(suffix, (6.4 if len(panels) == 1 else 5.2 * len(panels), 5.6), draw)


def _limits(ends: tuple[float, float], known: bool) -> tuple[float, float]:
    """Return an axis' ends: never narrower than a few percent, never far outside 0 to 100."""
    if not known:
        return 0.0, 100.0
    middle, span = sum(ends) / 2, max(ends[1] - ends[0], _LEAST)
    beyond = 0.05 * span
    low = min(max(middle - span / 2, -beyond), 100 + beyond - min(span, _LEAST))
    high = max(min(middle + span / 2, 100 + beyond), -beyond + min(span, _LEAST))
    return low, high


def gaps_image(
    panels: Mapping[tuple[str, str], tuple[FloatArray, FloatArray]], suffix: str, *, title: str
) -> bytes:
    """Draw histograms of the confidence gaps, in [0, 1], of right and of wrong inputs (Table 1).

    Rows are classifiers, columns conditions.  Heights are shares (%) of each; dashed lines are means, dotted
    ones medians.
    """
    rows = list(dict.fromkeys(classifier for classifier, _ in panels))
    columns = list(dict.fromkeys(condition for _, condition in panels))

    def draw(figure: Figure) -> None:
        from matplotlib.colors import to_rgba
        from matplotlib.patches import Patch

        grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
        for r, classifier in enumerate(rows):
            highest = [0.0]
            for c, condition in enumerate(columns):
                if (classifier, condition) not in panels:
                    grid[r][c].set_visible(False)
                    continue
                name = f"{CLASSIFIERS.get(classifier, classifier)}, {condition}"
                highest.append(_histograms(grid[r][c], name, panels[classifier, condition]))
                if not any((below, condition) in panels for below in rows[r + 1 :]):
                    grid[r][c].set_xlabel("gap between the two largest probabilities")
            grid[r][0].set_ylabel("share of right or\nof wrong inputs (%)")
            grid[r][0].set_ylim(0, 1.05 * (max(highest) or 100.0))
        head(figure, title)
        patches = [
            Patch(facecolor=to_rgba(colour, 0.16), edgecolor=colour, linewidth=1.5, label=f"{name} inputs")
            for name, colour in zip(("right", "wrong"), COLOURS, strict=False)
        ]
        means, medians = (
            entry(name, color="0.3", linestyle=dashes, linewidth=1.4)
            for name, dashes in (("mean", _MEAN), ("median", _MEDIAN))
        )
        legend(figure, [*patches, means, medians])

    return image(suffix, (4.3 * max(len(columns), 1.4), 3.1 * len(rows) + 1.0), draw)


def _histograms(axes: Axes, name: str, gaps: tuple[FloatArray, FloatArray]) -> float:
    """Draw the gaps of right and of wrong inputs; return the greatest height."""
    words, highest = title_lines(name, 52), 0.0
    for answer, own, colour in zip(("right", "wrong"), gaps, COLOURS, strict=False):
        if not len(own):
            words.append(f"{answer}: none")
            continue
        values = np.clip(np.asarray(own, np.float64), 0.0, 1.0)
        shares = 100 * np.histogram(values, _BINS)[0] / len(values)
        highest = max(highest, float(shares.max()))
        axes.stairs(shares, _BINS, fill=True, color=colour, alpha=0.16)
        axes.stairs(shares, _BINS, color=colour, linewidth=1.5, zorder=3, clip_on=False)
        for at, dashes in ((values.mean(), _MEAN), (np.median(values), _MEDIAN)):
            axes.axvline(at, color=colour, linestyle=dashes, linewidth=1.4, zorder=4, clip_on=False)
        plural = "" if len(values) == 1 else "s"
        middles = f"mean {values.mean():.3f}, median {np.median(values):.3f}"
        words.append(f"{answer}: {len(values):,} input{plural}, {middles}")
    axes.set_title("\n".join(words), fontsize=9, parse_math=False, loc="left")
    axes.set(xlim=(0, 1))
    axes.tick_params(labelbottom=True, labelleft=True)
    tidy(axes)
    return highest


def lipschitz_image(
    curves: Mapping[str, FloatArray],
    suffix: str,
    *,
    unit: str,
    title: str,
    eps: float,
    quotient: FloatArray | None = None,
    claimed: float | None = None,
) -> bytes:
    """Draw shares of inputs above each estimated constant, (m,) or NaN, in `unit`, and above each radius.

    `quotient` is the estimated r (m,) of Theorem 3.5, compared with `eps`; there is no panel without it.
    """

    def share_above(axes: Axes, values: FloatArray, end: float, **how: Any) -> None:
        beyond = np.where(values >= end, np.inf, values)
        axes.plot(*survival_steps(beyond, len(values), end), drawstyle="steps-pre", **how)
        axes.set_xlim(0, end)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 1 if quotient is None else 2, squeeze=False)[0]
        found = {name: values[np.isfinite(values)] for name, values in curves.items()}
        ends = [float(values.max(initial=0.0)) for values in found.values()]
        end = 1.05 * max([*ends, *([] if claimed is None else [claimed])]) or 1.0
        for k, (name, values) in enumerate(found.items()):
            share_above(panels[0], values, end, label=name, linewidth=1.8, **style(k, marker=False))
        if claimed is not None:
            panels[0].axvline(claimed, color=DARK, linewidth=1.2, label="claimed constant")
        panels[0].set_xlabel(f"estimated constant L ({unit})")
        panels[0].set_ylabel("inputs with an estimate of at least L (%)")
        if quotient is not None:
            share_above(panels[1], quotient, _SHOWN * eps, color=COLOURS[2], label="estimated r")
            label = "eps: r below it establishes nothing"
            panels[1].axvline(eps, color=DARK, linewidth=1.2, label=label)
            panels[1].set_xlabel("estimated r of Theorem 3.5")
            panels[1].set_ylabel("inputs with estimated r of at least this (%)")
        for axes in panels:
            axes.set_ylim(0, 103)
            tidy(axes)
        head(figure, title, "estimated by search, not certified: true constants may be larger")
        legend(figure, [line for axes in panels for line in axes.get_lines() if line.get_label()[0] != "_"])

    return image(suffix, (5.6 if quotient is None else 9.2, 4.4), draw)
