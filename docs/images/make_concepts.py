"""Draw the pictures of docs/concepts.md from certmix's numbers: `python docs/images/make_concepts.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from scipy.stats import norm

from certmix import exact_radius
from certmix.bounds import bound_counts
from certmix.tables import floor_digits

HERE = Path(__file__).parent
GREEN, ORANGE, GREY, INK = "#1b7f5c", "#d1781f", "#8a8f98", "#22262d"
ALPHA, SIGMA = 0.76, 0.5
LABEL = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1}
STYLE = {
    "svg.hashsalt": "certmix", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white",
}  # fmt: skip


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def bars(axes: Axes, values: np.ndarray, title: str) -> None:
    axes.bar(range(3), values, color=[GREEN, ORANGE, GREY], width=0.6)
    for place, value in enumerate(values):
        axes.text(place, value + 0.02, f"{value:.2f}", ha="center")
    axes.set(xticks=range(3), xticklabels=["y", "i", "other"], ylim=(0, 1.12), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.set_title(title, fontsize=10)


def margin() -> None:
    """h with a margin above and below (1 - alpha) / alpha, and the mix with the worst g."""
    figure, grid = plt.subplots(2, 3, figsize=(8, 4.6), sharey=True)
    worst = np.array([0.0, 1.0, 0.0])
    for row, robust in zip(grid, (np.array([0.72, 0.22, 0.06]), np.array([0.58, 0.32, 0.10])), strict=True):
        found = robust[0] - robust[1]
        mixed = (1 - ALPHA) * worst + ALPHA * robust
        bars(row[0], robust, f"h: margin {found:.2f}")
        bars(row[1], worst, "g: the worst there is")
        kept = mixed[0] > mixed[1]
        bars(row[2], mixed, f"0.24 g + 0.76 h: {'y stands' if kept else 'i wins'}")
    figure.suptitle(f"alpha = 0.76: the margin has to exceed (1 - alpha) / alpha = {(1 - ALPHA) / ALPHA:.3f}")
    figure.tight_layout()
    save(figure, "concept-margin")


def disc(axes: Axes, place: tuple[float, float], color: str) -> None:
    """Show N(place, sigma^2) by circles at 1, 2 and 3 sigma."""
    for times, shade in ((3, 0.06), (2, 0.10), (1, 0.16)):
        axes.add_patch(Circle(place, times * SIGMA, color=color, alpha=shade, lw=0))
    axes.plot(*place, "o", color=color, ms=5)


def half_spaces() -> None:
    """The base classifier that attains p and q, and what a move of the radius does to both."""
    p, q = 0.95, 0.03
    radius = float(exact_radius(p, q, SIGMA, ALPHA))
    figure, grid = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
    left, right = SIGMA * norm.ppf(p), -SIGMA * norm.ppf(q)
    for axes, moved in zip(grid, (0.0, radius), strict=True):
        axes.axvspan(-2.2, left, color=GREEN, alpha=0.12, lw=0)
        axes.axvspan(right, 3.2, color=ORANGE, alpha=0.18, lw=0)
        disc(axes, (moved, 0.0), INK)
        chance_y, chance_i = norm.cdf((left - moved) / SIGMA), norm.sf((right - moved) / SIGMA)
        axes.set_title(
            f"h_y = {chance_y:.3f}, h_i = {chance_i:.3f}: margin {chance_y - chance_i:.3f}", fontsize=10
        )
        axes.text(-2.1, 1.35, "answers y", color=GREEN)
        axes.text(3.1, 1.35, "answers i", color=ORANGE, ha="right")
        axes.set(xlim=(-2.2, 3.2), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    grid[0].text(0, -0.3, "x", ha="center")
    grid[1].plot(0, 0, "o", color=INK, ms=5, mfc="none")
    grid[1].annotate("", (radius, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": INK})
    grid[1].text(radius / 2, 0.12, f"r = {floor_digits(radius, 3)}", ha="center")
    figure.tight_layout()
    save(figure, "concept-half-spaces")


def answers_y(points: np.ndarray) -> np.ndarray:
    """A base classifier with a bent border."""
    return points[:, 0] < 0.75 + 0.35 * np.sin(2.2 * points[:, 1])


def smoothing() -> None:
    """Noisy copies of an input, their votes, and the ball that follows from the votes."""
    count, shown = 1000, 250
    points = SIGMA * np.random.default_rng(0).standard_normal((count, 2))
    votes = int(answers_y(points).sum())
    bounds = bound_counts(np.array([[votes, count - votes]]), np.array([0]), 0.001)
    p = float(bounds.p_lower[0])
    axis = np.linspace(-2.2, 2.2, 301)
    plane = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    figure, axes = plt.subplots(figsize=(5.6, 4.6))
    axes.contourf(
        axis, axis, answers_y(plane).reshape(301, 301), [-0.5, 0.5, 1.5], colors=["#f6e3cd", "#dceee7"]
    )
    right = answers_y(points[:shown])
    axes.scatter(*points[:shown][right].T, s=7, color=GREEN, lw=0)
    axes.scatter(*points[:shown][~right].T, s=7, color=ORANGE, lw=0)
    for alpha, line in ((1.0, "--"), (ALPHA, "-")):
        radius = float(exact_radius(p, 1 - p, SIGMA, alpha))
        axes.add_patch(Circle((0, 0), radius, fill=False, ls=line, lw=1.6, color=INK))
        label = f"alpha = {alpha:g}: {floor_digits(radius, 2)}"
        axes.text(0, radius + 0.06, label, ha="center", fontsize=9, bbox=LABEL)
    axes.plot(0, 0, "o", color=INK, ms=5)
    axes.set_title(
        f"{votes} of {count} noisy copies answer y: p >= {np.floor(p * 1e3) / 1e3:.3f}", fontsize=10
    )
    axes.set(xlim=(-2.2, 2.2), ylim=(-1.8, 1.8), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    figure.tight_layout()
    save(figure, "concept-smoothing")


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        margin()
        half_spaces()
        smoothing()
