"""Margins before and after the transform, and how many reach the threshold: Figure 6 of MixedNUTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS, DASHES, head, image, legend, tidy
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MarginBars", "MarginGroup", "margin_bars_image"]

_LEAST = 1e-6
_WIDTH = 0.82


@dataclass(frozen=True)
class MarginGroup:
    """Margins in [0, 1] of the images that some logits get right and wrong, under one condition."""

    logits: str
    condition: str
    right: FloatArray
    wrong: FloatArray


@dataclass(frozen=True)
class MarginBars:
    """Groups, the logits whose distribution is drawn beside the bars, and the threshold q for them."""

    groups: tuple[MarginGroup, ...]
    bent: str
    threshold: float
    title: str
    subtitle: str = ""


def margin_bars_image(found: MarginBars, suffix: str) -> bytes:
    """Return medians as bars, and the share of margins above any value, as a png or svg file's content.

    Whiskers are the quartiles.  On the right, a curve's height at q is the
    share of its images that no standard classifier can overturn.

    Raises
    ------
    ParameterError
        The suffix is unknown, or there is no group.

    References
    ----------
    Figures 6 and 7 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    if not found.groups:
        raise ParameterError("groups = (): nothing to draw, give at least one")
    conditions = tuple(dict.fromkeys(one.condition for one in found.groups))
    kinds = [(condition, answer) for condition in conditions for answer in ("right", "wrong")]
    styles = {kind: _style(k) for k, kind in enumerate(kinds)}

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
        _bars(left, found.groups, styles)
        _survival(right, found, styles)
        head(figure, found.title, found.subtitle)
        legend(figure, _handles(styles))

    return image(suffix, (10.0, 4.9), draw)


def _style(k: int) -> dict[str, Any]:
    """A colour for each condition and answer; right answers are full, wrong ones hatched."""
    return {"color": COLOURS[k % len(COLOURS)], "hatched": bool(k % 2), "dash": DASHES[k % len(DASHES)]}


def _values(group: MarginGroup, answer: str) -> FloatArray:
    return group.right if answer == "right" else group.wrong


def _bars(axes: Axes, groups: tuple[MarginGroup, ...], styles: dict[tuple[str, str], dict[str, Any]]) -> None:
    names = tuple(dict.fromkeys(one.logits for one in groups))
    for x, name in enumerate(names):
        own = [
            (key, _values(one, key[1]))
            for one in groups if one.logits == name
            for key in ((one.condition, "right"), (one.condition, "wrong"))
        ]  # fmt: skip
        width = _WIDTH / max(len(own), 4)
        for k, (key, values) in enumerate(own):
            at = x + (k - (len(own) - 1) / 2) * width
            if not len(values):
                axes.text(at, 0.01, "none", rotation=90, ha="center", va="bottom", fontsize=7, color="0.35")
                continue
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            face = "white" if styles[key]["hatched"] else styles[key]["color"]
            axes.bar(
                at, middle, 0.9 * width, facecolor=face, edgecolor=styles[key]["color"], linewidth=1.2,
                hatch="////" if styles[key]["hatched"] else None, zorder=2,
            )  # fmt: skip
            axes.vlines(at, low, high, color="0.25", linewidth=1.0, zorder=3)
            axes.annotate(
                _short(float(middle)), (at, high), (0, 2), textcoords="offset points", ha="center",
                va="bottom", fontsize=7, color="0.25",
            )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1.06), yticks=np.linspace(0, 1, 6), ylabel="median margin; lines: quartiles")
    tidy(axes)
    axes.grid(visible=False, axis="x")


def _short(value: float) -> str:
    """Return a median in the width of a bar.

    Examples
    --------
    >>> _short(0.384), _short(0.0004), _short(1.0)
    ('.38', '<.01', '1.0')
    """
    if 0 < value < 0.005:
        return "<.01"
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"


def _survival(axes: Axes, found: MarginBars, styles: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Draw the share of margins of at least m, over m; margins below the axis' begin lie on it."""
    for group in found.groups:
        if group.logits != found.bent:
            continue
        for answer in ("right", "wrong"):
            values = np.sort(np.clip(_values(group, answer), _LEAST, 1.0))
            if not len(values):
                continue
            style = styles[group.condition, answer]
            steps = np.concatenate([[_LEAST], values])
            heights = 100 * (1 - np.concatenate([[0.0], np.arange(len(values)) / len(values)]))
            axes.plot(
                steps, heights, color=style["color"], linestyle=style["dash"], linewidth=1.6,
                drawstyle="steps-pre",
            )  # fmt: skip
    axes.axvline(max(found.threshold, _LEAST), color="0.2", linewidth=1.0)
    axes.annotate(
        f"q = {found.threshold:.3g}", (max(found.threshold, _LEAST), 1), (0, 2), ha="center", va="bottom",
        xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8.5, color="0.2",
    )  # fmt: skip
    axes.set(xscale="log", xlim=(_LEAST, 1), ylim=(0, 102), xlabel=f"m, margin of softmax({found.bent})")
    axes.set_ylabel("share of images with margin \u2265 m (%)")
    tidy(axes)


def _handles(styles: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(
            facecolor="white" if style["hatched"] else style["color"], edgecolor=style["color"],
            hatch="////" if style["hatched"] else None, label=f"{condition}, {answer}",
        )
        for (condition, answer), style in styles.items()
    ]  # fmt: skip
