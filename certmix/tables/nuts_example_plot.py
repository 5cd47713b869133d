"""Logits and probabilities of two examples before and after the transform: Figure 3 of MixedNUTS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS, DARK, head, image, tidy
from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ExampleCase", "example_image"]


@dataclass(frozen=True)
class ExampleCase:
    """One row: logits and probabilities (classes,), and the margins of these probabilities."""

    name: str
    classes: tuple[str, ...]
    logits: FloatArray
    raw: FloatArray
    bent: FloatArray
    raw_margin: float
    bent_margin: float


def example_image(cases: Sequence[ExampleCase], suffix: str) -> bytes:
    """Return bars of logits, probabilities, and transformed probabilities, a row a case.

    Parameters
    ----------
    cases
        From above to below.
    suffix
        ``png`` or ``svg``.

    Raises
    ------
    ParameterError
        The suffix is unknown, or there is no case.

    References
    ----------
    Figure 3 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    if not cases:
        raise ParameterError("cases = (): nothing to draw, give at least one")

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(cases), 3, squeeze=False)
        for axes, case in zip(grid, cases, strict=True):
            _bars(axes[0], case, case.logits, "logits", DARK)
            _bars(axes[1], case, case.raw, f"softmax(h): margin {case.raw_margin:.3g}", COLOURS[1])
            _bars(axes[2], case, case.bent, f"softmax(M(h)): margin {case.bent_margin:.2g}", COLOURS[0])
            axes[0].set_ylabel(case.name)
            for one in axes[1:]:
                one.set(ylim=(0, 1.18), yticks=(0, 0.5, 1))
        head(figure, "Three classes: the transform widens a large margin and narrows a small one")

    return image(suffix, (8.6, 0.9 + 2.1 * len(cases)), draw)


def _bars(axes: Axes, case: ExampleCase, heights: FloatArray, title: str, colour: str) -> None:
    drawn = axes.bar(case.classes, heights, 0.62, color=colour, zorder=2)
    axes.bar_label(drawn, [f"{height:.2g}" for height in heights], padding=2, fontsize=8.5)
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=3)
    axes.margins(y=0.2)
    axes.set_title(title, fontsize=9.5, loc="left")
    tidy(axes)
    axes.grid(visible=False, axis="x")
