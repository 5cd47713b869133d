"""How sure classifiers are when right and when wrong: the histograms behind Table 1 of the first paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS, head, image, legend, tidy, title_lines
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ConfidenceGaps", "GapPanel", "confidence_image"]

_BINS = np.linspace(0.0, 1.0, 21)
_NAMES = {"g": "standard (g)", "h": "robust (h)"}
_MEAN, _MEDIAN = (0, (5, 2)), (0, (1, 1.4))


@dataclass(frozen=True)
class GapPanel:
    """Gaps between the two largest probabilities of one classifier under one condition.

    Parameters
    ----------
    classifier
        ``g``, ``h`` or another name.
    condition
        ``clean``, or the attack's name.
    right, wrong
        float64 (m,) in [0, 1]: gaps of the images classified right, and wrong.
    """

    classifier: str
    condition: str
    right: FloatArray
    wrong: FloatArray


@dataclass(frozen=True)
class ConfidenceGaps:
    """All panels: a row for each classifier, a column for each condition."""

    panels: tuple[GapPanel, ...]
    title: str


def confidence_image(found: ConfidenceGaps, suffix: str) -> bytes:
    """Return histograms of the gaps as the content of a png or svg file.

    Heights are shares (%) of the images that are right, and of those that are
    wrong; dashed lines are means, dotted ones medians.

    Raises
    ------
    ParameterError
        The suffix is unknown, there is no panel, two are alike, or a gap is outside [0, 1].

    References
    ----------
    Table 1 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off".
    """
    _check(found.panels)
    rows = tuple(dict.fromkeys(panel.classifier for panel in found.panels))
    columns = tuple(dict.fromkeys(panel.condition for panel in found.panels))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
        placed = {(panel.classifier, panel.condition): panel for panel in found.panels}
        for r, classifier in enumerate(rows):
            for c, condition in enumerate(columns):
                if (classifier, condition) in placed:
                    _panel(grid[r][c], placed[classifier, condition])
                else:
                    grid[r][c].set_visible(False)
            grid[r][0].set_ylabel("share of right or\nof wrong images (%)")
            highest = max(_highest(panel) for panel in found.panels if panel.classifier == classifier)
            grid[r][0].set_ylim(0, 1.05 * highest)
        for c, condition in enumerate(columns):
            lowest = max(r for r, name in enumerate(rows) if (name, condition) in placed)
            grid[lowest][c].set_xlabel("gap between the two largest probabilities")
        head(figure, found.title)
        legend(figure, _handles())

    return image(suffix, (4.3 * max(len(columns), 1.4), 3.1 * len(rows) + 1.0), draw)


def _check(panels: Sequence[GapPanel]) -> None:
    if not panels:
        raise ParameterError("panels = (): nothing to draw, give at least one")
    keys = [(panel.classifier, panel.condition) for panel in panels]
    if len(set(keys)) < len(keys):
        raise ParameterError(f"panels {keys}: two have the same classifier and condition, give each once")
    for panel in panels:
        gaps = np.concatenate([panel.right, panel.wrong])
        if not ((gaps >= -1e-9) & (gaps <= 1 + 1e-9)).all():
            worst = gaps[~((gaps >= -1e-9) & (gaps <= 1 + 1e-9))][0]
            raise ParameterError(f"gap = {worst} is not in [0, 1]: give differences of probabilities")


def _panel(axes: Axes, panel: GapPanel) -> None:
    lines = []
    for name, gaps, colour in (("right", panel.right, COLOURS[0]), ("wrong", panel.wrong, COLOURS[1])):
        values = np.clip(np.asarray(gaps, np.float64), 0.0, 1.0)
        lines.append(_words(name, values))
        if not len(values):
            continue
        axes.stairs(_shares(values), _BINS, fill=True, color=colour, alpha=0.16)
        axes.stairs(_shares(values), _BINS, color=colour, linewidth=1.5, zorder=3, clip_on=False)
        for at, dashes in ((values.mean(), _MEAN), (np.median(values), _MEDIAN)):
            axes.axvline(at, color=colour, linestyle=dashes, linewidth=1.4, zorder=4, clip_on=False)
    name = _NAMES.get(panel.classifier, panel.classifier)
    heading = title_lines(f"{name}, {panel.condition}", 52)
    axes.set_title("\n".join([*heading, *lines]), fontsize=9, parse_math=False, loc="left")
    axes.set(xlim=(0, 1))
    axes.tick_params(labelbottom=True, labelleft=True)
    tidy(axes)


def _shares(gaps: FloatArray) -> FloatArray:
    """Return the share (%) of the gaps in each bin."""
    return np.asarray(100 * np.histogram(gaps, _BINS)[0] / max(len(gaps), 1), np.float64)


def _highest(panel: GapPanel) -> float:
    shares = np.concatenate([_shares(np.clip(gaps, 0.0, 1.0)) for gaps in (panel.right, panel.wrong)])
    return float(shares.max()) or 100.0


def _words(name: str, gaps: FloatArray) -> str:
    if not len(gaps):
        return f"{name}: none"
    plural = "" if len(gaps) == 1 else "s"
    return f"{name}: {len(gaps):,} image{plural}, mean {gaps.mean():.3f}, median {np.median(gaps):.3f}"


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=(*_rgb(colour), 0.16), edgecolor=colour, linewidth=1.5, label=f"{name} images")
        for name, colour in (("right", COLOURS[0]), ("wrong", COLOURS[1]))
    ]
    return patches + [
        Line2D([], [], color="0.3", linestyle=dashes, linewidth=1.4, label=name)
        for name, dashes in (("mean", _MEAN), ("median", _MEDIAN))
    ]


def _rgb(colour: str) -> tuple[float, float, float]:
    return int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255
