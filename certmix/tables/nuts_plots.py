"""Figures of MixedNUTS, numbered as in Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import one_line
from certmix.tables.figure import (
    COLOURS,
    DARK,
    entry,
    head,
    image,
    legend,
    percent,
    place_labels,
    style,
    survival_steps,
    tidy,
)
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 12
"""Panels of a map at most; of more candidates of c, these are spread over them and hold the chosen one."""
_LEAST_MARGIN, _LEAST_VALUE = 1e-6, 1e-12  # where logarithmic axes and colours begin
_CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])  # of the simplex: A, B and C


def beta_image(
    curves: Mapping[str, Sequence[tuple[Any, ...]]],
    panels: Sequence[str],
    suffix: str,
    *,
    title: str,
    subtitle: str = "",
) -> bytes:
    """Draw other shares, a panel each, against clean accuracy (Figure 8).

    A curve is a kind of mix: labels (betas), each with its clean accuracy and a share for every panel.
    """

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for column, (axes, what) in enumerate(zip(all_axes, panels, strict=True), 2):
            for k, points in enumerate(curves.values()):
                how, size = style(k), 9 if len(points) == 1 else 4.5
                clean, second = ([point[at] for point in points] for at in (1, column))
                x, y = percent(clean), percent(second)
                pale: dict[str, Any] = {"color": how["color"], "alpha": 0.16, "linewidth": 1, "zorder": 2}
                # 95 % intervals over inputs, both ways
                ends = [
                    100 * np.array([one.interval for one in own]).reshape(-1, 2).T for own in (clean, second)
                ]
                axes.hlines(y, *ends[0], **pale)
                axes.vlines(x, *ends[1], **pale)
                axes.plot(x, y, linewidth=1.6, markersize=size, clip_on=False, zorder=3, **how)
            axes.set(xlabel="clean accuracy (%, estimate)", ylabel=what)
            axes.margins(0.08)
            tidy(axes)
        head(figure, title, subtitle)
        handles = [entry(name, linewidth=1.8, markersize=5.5, **style(k)) for k, name in enumerate(curves)]
        legend(figure, handles)
        figure.draw_without_rendering()
        several = {k: own for k, own in enumerate(curves.values()) if len(own) > 1}  # the legend names others
        labels = [[point[0] for point in points] for points in several.values()]
        for column, axes in enumerate(all_axes, 2):
            places = [
                np.array([(point[1].accuracy, point[column].accuracy) for point in points]) * 100
                for points in several.values()
            ]
            place_labels(axes, places, labels, [style(k)["color"] for k in several])

    return image(suffix, (7.0 if len(panels) == 1 else 5.2 * len(panels), 5.2), draw)


def example_image(
    cases: Mapping[str, tuple[FloatArray, FloatArray, FloatArray]], suffix: str, *, classes: Sequence[str]
) -> bytes:
    """Draw bars of logits, probabilities, and transformed probabilities, a row a case (Figure 3)."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(cases), 3, squeeze=False)
        for row, (name, (logits, raw, bent)) in zip(grid, cases.items(), strict=True):
            before, after = (float(np.subtract(*np.sort(shares)[:-3:-1])) for shares in (raw, bent))
            titles = "logits", f"softmax(h): margin {before:.3g}", f"softmax(M(h)): margin {after:.2g}"
            bars = zip(row, (logits, raw, bent), titles, (DARK, COLOURS[1], COLOURS[0]), strict=True)
            for axes, heights, title, colour in bars:
                drawn = axes.bar(list(classes), heights, 0.62, color=colour, zorder=2)
                axes.bar_label(drawn, [f"{height:.2g}" for height in heights], padding=2, fontsize=8.5)
                axes.axhline(0, color="0.4", linewidth=0.8, zorder=3)
                axes.margins(y=0.2)
                axes.set_title(title, fontsize=9.5, loc="left")
                tidy(axes, upright=False)
            row[0].set_ylabel(name)
            for axes in row[1:]:
                axes.set(ylim=(0, 1.18), yticks=(0, 0.5, 1))
        head(figure, "Three classes: the transform widens a large margin and narrows a small one")

    return image(suffix, (8.6, 0.9 + 2.1 * len(cases)), draw)


def margin_bars_image(
    groups: Mapping[tuple[str, str], tuple[FloatArray, FloatArray]],
    suffix: str,
    *,
    bent: str,
    threshold: float,
    title: str,
    subtitle: str = "",
) -> bytes:
    """Draw medians of margins of right and wrong inputs as bars, and shares above a margin (Figures 6, 7).

    Whiskers are the quartiles.  On the right, for the logits `bent`, a curve's height at the threshold q is
    the share of its inputs that no standard classifier can overturn.
    """
    conditions = dict.fromkeys(condition for _, condition in groups)
    kinds = [(condition, answer) for condition in conditions for answer in ("right", "wrong")]
    margins = {  # (logits, condition, answer): right answers are full bars, wrong ones hatched
        (name, condition, answer): values
        for (name, condition), both in groups.items()
        for answer, values in zip(("right", "wrong"), both, strict=True)
    }

    def patch(kind: tuple[str, str]) -> dict[str, Any]:
        colour = style(kinds.index(kind))["color"]
        hatched = kind[1] == "wrong"
        face = "white" if hatched else colour
        return {"facecolor": face, "edgecolor": colour, "hatch": "////" if hatched else None}

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Patch

        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
        names = list(dict.fromkeys(name for name, _ in groups))
        for x, name in enumerate(names):
            own = [(key[1:], values) for key, values in margins.items() if key[0] == name]
            width = 0.82 / max(len(own), 4)
            for k, (kind, values) in enumerate(own):
                at = x + (k - (len(own) - 1) / 2) * width
                words: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 7}
                if not len(values):
                    left.text(at, 0.01, "none", rotation=90, color="0.35", **words)
                    continue
                low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
                left.bar(at, middle, 0.9 * width, linewidth=1.2, zorder=2, **patch(kind))
                left.vlines(at, low, high, color="0.25", linewidth=1.0, zorder=3)
                where: dict[str, Any] = {"textcoords": "offset points", "color": "0.25", **words}
                short = f"{middle:.2f}".removeprefix("0") if middle < 0.995 else "1.0"
                left.annotate("<.01" if 0 < middle < 0.005 else short, (at, high), (0, 2), **where)
        left.set_xticks(range(len(names)), names)
        left.set(ylim=(0, 1.06), yticks=np.linspace(0, 1, 6), ylabel="median margin; lines: quartiles")
        for (name, condition, answer), values in margins.items():
            if name == bent and len(values):
                steps, heights = survival_steps(np.clip(values, _LEAST_MARGIN, 1.0), len(values), 1.0)
                how = style(kinds.index((condition, answer)), marker=False)
                right.plot([_LEAST_MARGIN, *steps[1:]], heights, linewidth=1.6, drawstyle="steps-pre", **how)
        right.axvline(max(threshold, _LEAST_MARGIN), color="0.2", linewidth=1.0)
        right.annotate(
            f"q = {threshold:.3g}", (max(threshold, _LEAST_MARGIN), 1), (0, 2), ha="center", va="bottom",
            xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8.5, color="0.2",
        )  # fmt: skip
        right.set(
            xscale="log", xlim=(_LEAST_MARGIN, 1), ylim=(0, 102), xlabel=f"m, margin of softmax({bent})"
        )
        right.set_ylabel("share of inputs with margin \u2265 m (%)")
        tidy(left, upright=False)
        tidy(right)
        head(figure, title, subtitle)
        legend(figure, [Patch(label=f"{kind[0]}, {kind[1]}", **patch(kind)) for kind in kinds])

    return image(suffix, (10.0, 4.9), draw)


def sensitivity_image(
    candidates: Sequence[Sequence[float]],
    values: FloatArray,
    chosen: Sequence[int],
    suffix: str,
    *,
    name: str,
    title: str,
    subtitle: str = "",
    logarithmic: bool = False,
) -> bytes:
    """Draw heat maps over s and p, one for each c, of values (s, p, c) (Appendix D.1, where a panel is a p).

    NaN, shown grey, is where the point cannot be chosen; `chosen` are the indices of the point that is
    ringed.
    """
    s, p, c = candidates
    shown = list(range(len(c)))
    if len(c) > MOST:
        shown = [round(k * (len(c) - 1) / (MOST - 1)) for k in range(MOST)]
        if chosen[2] not in shown:
            shown[min(range(MOST), key=lambda k: abs(shown[k] - chosen[2]))] = chosen[2]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)

    def draw(figure: Figure) -> None:
        from matplotlib.colors import LogNorm, Normalize

        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        colours: Any = Normalize(low, high if high > low else low + 1e-3)
        if logarithmic:
            low, high = max(low, _LEAST_VALUE), max(high, 10 * _LEAST_VALUE)
            colours = LogNorm(low if low < high else high / 10, high)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(grid.flat):
            if place >= len(shown):
                axes.set_visible(False)
                continue
            k = shown[place]
            panel = np.maximum(values[:, :, k], _LEAST_VALUE) if logarithmic else values[:, :, k]
            axes.set_facecolor("0.8")
            mesh = axes.imshow(
                np.ma.masked_invalid(panel), origin="lower", aspect="auto", cmap="viridis", norm=colours,
                interpolation="nearest",
            )  # fmt: skip
            for which, ticks in ((axes.xaxis, p), (axes.yaxis, s)):
                at = sorted({round(t) for t in np.linspace(0, len(ticks) - 1, min(8, len(ticks)))})
                which.set_ticks(at, [f"{ticks[i]:.2g}" for i in at], fontsize=8)
            axes.set_title(f"c = {c[k]:.3g}", fontsize=9.5)
            if k == chosen[2]:
                for colour, width in (("black", 3.6), ("white", 1.8)):
                    axes.plot(
                        chosen[1], chosen[0], marker="o", markersize=9, markerfacecolor="none",
                        markeredgecolor=colour, markeredgewidth=width, clip_on=False, zorder=3,
                    )  # fmt: skip
            below = place + columns >= len(shown)
            axes.tick_params(labelbottom=below, labelleft=place % columns == 0)
            axes.set(xlabel="p" if below else "", ylabel="" if place % columns else "s")
        bar = figure.colorbar(mesh, ax=grid.ravel().tolist(), shrink=0.85, pad=0.02)
        bar.set_label(name)
        i, j, k = chosen
        words = [*([subtitle] if subtitle else []), f"ring: chosen, s {s[i]:.3g}, p {p[j]:.3g}, c {c[k]:.3g}"]
        words += [] if np.isfinite(values).all() else ["grey: cannot meet beta"]
        head(figure, title, "; ".join(words))

    return image(suffix, (1.4 + 2.1 * columns + (1.2 if columns < 3 else 0.0), 1.5 + 2.2 * rows), draw)


def transform_image(
    bends: Mapping[str, FloatArray], paths: Mapping[str, Sequence[FloatArray]], suffix: str
) -> bytes:
    """Draw M over a normalised logit, and paths on the simplex, (n, 3) each (Equation 4 and Figure 4).

    `bends` are what transforms make of increasing logits; the first leaves them as they are.
    """

    def how(k: int, first: str) -> dict[str, Any]:
        plain = {"color": first, "linestyle": "-", "linewidth": 1.4}
        return plain if k == 0 else {**style(k - 1, marker=False), "linewidth": 1.9}

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 1.02]})
        logits = next(iter(bends.values()))
        for k, (name, bent) in enumerate(bends.items()):
            left.plot(logits, bent, label=one_line(name), **how(k, "0.55"))
        lowest = max(min(float(bent.min()) for bent in bends.values()), -3.0)
        left.set(xlim=(logits.min(), logits.max()), ylim=(lowest - 0.3, 12.0))
        left.set(xlabel="logit after LN", ylabel="logit after the transform")
        left.axhline(0.0, color="0.6", linewidth=0.7, zorder=1)
        tidy(left)
        middle = _CORNERS.mean(0)
        right.fill(*_CORNERS.T, color="0.97", zorder=0)
        right.plot(*np.concatenate([_CORNERS, _CORNERS[:1]]).T, color=DARK, linewidth=1.0, zorder=1)
        for corner, name, away in zip(_CORNERS, "ABC", ((0, 7), (-8, -3), (8, -3)), strict=True):
            right.annotate(name, corner, away, textcoords="offset points", ha="center", va="center")
        for k, (name, own) in enumerate(paths.items()):
            for number, path in enumerate(own):
                label = one_line(name) if number == 0 else None
                right.plot(*(path @ _CORNERS).T, label=label, zorder=3 + k, **how(k, "0.45"))
        right.plot(*middle, marker="o", color=DARK, markersize=4, zorder=9)
        words = "T \u2192 \u221e"
        right.annotate(words, middle, (-7, 3), textcoords="offset points", fontsize=8.5, ha="right")
        right.set(xlim=(-0.08, 1.08), ylim=(-0.07, 0.95), aspect="equal")
        right.set_title(
            "probabilities as the temperature T falls:\n"
            "one example is clearly A, in the other B competes with C",
            fontsize=9.5,
        )
        right.axis("off")
        for axes in (left, right):
            below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 1}
            for text in axes.legend(frameon=False, handlelength=3.0, **below).get_texts():
                text.set_parse_math(False)
        head(figure, "The nonlinear transform: its curve, and what it does where classes compete")

    return image(suffix, (10.6, 5.6), draw)
