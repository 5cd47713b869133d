"""Draw the pictures of docs/bands.md and docs/splitting.md: `python docs/images/make_enumerated.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

HERE = Path(__file__).parent
GREEN, ORANGE, GREY, INK = "#1b7f5c", "#d1781f", "#b9bec6", "#22262d"
COLUMNS, WIDTH, PATCH, AT = 16, 4, 3, 5
STYLE = {
    "svg.hashsalt": "certmix", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif",
    "figure.facecolor": "white",
}  # fmt: skip


def bands() -> None:
    """An image with a patch, and its bands below: those that meet the patch, and the others."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    axes.add_patch(Rectangle((0, 0), COLUMNS, 5, fill=False, edgecolor=INK))
    for column in range(1, COLUMNS):
        axes.plot([column, column], [0, 5], color=GREY, linewidth=0.5)
    axes.add_patch(Rectangle((AT, 1), PATCH, PATCH, color=ORANGE, alpha=0.8, linewidth=0))
    axes.text(AT + PATCH / 2, 2.5, f"patch\n{PATCH} x {PATCH}", ha="center", va="center", color="white")
    patch = set(range(AT, AT + PATCH))
    for first in range(COLUMNS):
        shown = [(first + k) % COLUMNS for k in range(WIDTH)]
        colour = ORANGE if patch & set(shown) else GREEN
        for column in shown:
            axes.add_patch(Rectangle((column, -0.8 - 0.42 * first), 1, 0.3, color=colour, linewidth=0))
    met = PATCH + WIDTH - 1
    for height, colour, words in (
        (-2.9, ORANGE, f"{met} bands meet it:\nthey may all vote\nfor another class"),
        (-6.0, GREEN, f"{COLUMNS - met} do not: they keep\ntheir votes"),
    ):
        axes.text(COLUMNS + 0.5, height, words, color=colour, va="center")
    axes.set_xlim(-0.1, COLUMNS + 6.5)
    axes.set_ylim(-8, 5.2)
    axes.axis("off")
    figure.savefig(HERE / "bands.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def splitting() -> None:
    """One coordinate at five of the offsets: where its threshold lies, and at which a change crosses it."""
    figure, axes = plt.subplots(figsize=(8, 2.9))
    before, after, steps = 104, 150, 8
    for row in range(steps):
        threshold, height = (255 * (row + 0.5) / steps + 48) % 255, -row
        axes.plot([0, 255], [height, height], color=GREY, linewidth=1)
        axes.plot([threshold] * 2, [height - 0.32, height + 0.32], color=INK, linewidth=2)
        crossed = before < threshold < after
        for value in (before, after):
            middle = threshold / 2 if value < threshold else (threshold + 255) / 2
            axes.plot(middle, height, "o", color=ORANGE if crossed else GREEN, markersize=6)
        axes.text(262, height, "changes" if crossed else "", color=ORANGE, va="center")
    for value, word in ((before, "X"), (after, "X'")):
        axes.plot([value] * 2, [0.6, 0.4 - steps], color=INK, linewidth=1, linestyle=":")
        axes.text(value, 0.9, word, ha="center")
    axes.text(262, 1.0, "what is seen", color=INK, va="center")
    axes.text(-6, -(steps - 1) / 2, "offsets", rotation=90, ha="right", va="center")
    axes.text(0, 0.3 - steps, "0", ha="center", va="top")
    axes.text(255, 0.3 - steps, "255", ha="center", va="top")
    axes.set_xlim(-18, 320)
    axes.axis("off")
    figure.savefig(HERE / "splitting.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        bands()
        splitting()
