"""Draw the picture of docs/gates.md from the shipped robust model: `python docs/images/make_gates.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt

from certmix.data import load, spread
from certmix.models.spec import load_model
from certmix.sampling import Draw, Sampler
from certmix.types import FloatArray

HERE = Path(__file__).parent
GREEN, ORANGE, GREY, INK = "#1b7f5c", "#d1781f", "#8a8f98", "#22262d"
SIGMA, IMAGES, COPIES, GATE, KEPT = 0.5, 100, 60, 0.75, 0.6
STYLE = {
    "svg.hashsalt": "certmix", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white",
}  # fmt: skip


def margins() -> tuple[list[FloatArray], FloatArray]:
    """Return each image's margin, without and with the gate, and whether its class without it is right."""
    data = load("cifar10-tuning")
    model = load_model("cifar10-gaussian-0.50", classes=data.classes)
    sampler = Sampler(model.module, data.classes, SIGMA, batch_size=60)
    places = spread(len(data), IMAGES)
    draws = [Draw(torch.from_numpy(data.read(k)), int(data.indices[k]), (COPIES,)) for k in places.tolist()]
    ballots = [one[0] for one in sampler.submit(draws).result()]
    found, chosen = [], [int(one.votes(data.classes).argmax()) for one in ballots]
    for gate in (0.0, GATE):
        votes = [one.votes(data.classes, gate)[: data.classes] / COPIES for one in ballots]
        own = np.array([share[y] for share, y in zip(votes, chosen, strict=True)])
        rival = np.array([np.delete(share, y).max() for share, y in zip(votes, chosen, strict=True)])
        found.append(own - rival)
    return found, np.array(chosen) == data.labels[places]


def draw() -> None:
    both, right = margins()
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    names = ("Every copy votes", f"Copies vote that are at least {GATE:g} sure")
    for axes, margin, name in zip(panels, both, names, strict=True):
        grid = np.linspace(0, 1, 401)
        threshold = np.quantile(margin[right], 1 - KEPT)
        for who, colour, word in ((right, GREEN, "right"), (~right, ORANGE, "wrong")):
            share = (margin[who][None, :] >= grid[:, None]).mean(1)
            axes.step(grid, 100 * share, color=colour, linewidth=2, where="post")
            left = 100 * (margin[who] >= threshold).mean()
            axes.plot([threshold], [left], "o", color=colour, markersize=5)
            side = {"xytext": (9, 6)} if threshold < 0.5 else {"xytext": (-9, -16), "ha": "right"}
            axes.annotate(
                f"{left:.0f} % of the {word}",
                (threshold, left),
                textcoords="offset points",
                color=colour,
                **side,
            )
        axes.axvline(threshold, color=GREY, linestyle=":", linewidth=1.2)
        axes.text(threshold, 103, f"threshold {threshold:.2f}", ha="center", color=INK, fontsize=9)
        axes.set(xlim=(0, 1), ylim=(0, 100), xlabel="margin of h")
        axes.set_title(name, fontsize=10, pad=18)
    panels[0].set_ylabel("% of the images beyond it")
    figure.tight_layout()
    figure.savefig(HERE / "gates-margins.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        draw()
