"""Draw the picture of docs/denoised.md from the shipped denoisers: `python docs/images/make_denoised.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt

from certmix.data import load, spread, stack
from certmix.models.zoo import load_zoo

HERE = Path(__file__).parent
SIGMAS, IMAGES = (0.25, 0.5), 8
STYLE = {"font.size": 9, "font.family": "sans-serif", "figure.facecolor": "white"}


@torch.no_grad()
def main() -> None:
    """Show images, noisy ones and what the denoisers make of them, with the class that is found in each."""
    data, classifier = load("cifar10-sample"), load_zoo("cifar10-standard")
    places = spread(len(data), IMAGES)
    images = torch.from_numpy(stack(data, places.tolist()))
    rows = {"clean": images}
    for sigma in SIGMAS:
        noise = torch.empty_like(images).normal_(0, sigma, generator=torch.Generator().manual_seed(0))
        rows[f"noise {sigma:g}"] = images + noise
        rows[f"denoised, {sigma:g}"] = load_zoo(f"cifar10-denoiser-{sigma:.2f}")(images + noise)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(len(rows), IMAGES, figsize=(1.05 * IMAGES + 0.9, 1.25 * len(rows)))
        for axis_row, (name, shown) in zip(axes, rows.items(), strict=True):
            found = classifier(shown).argmax(1)
            for axis, pixels, label, place in zip(axis_row, shown, found, places, strict=True):
                axis.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy())
                right = int(label) == int(data.labels[place])
                axis.set_title(
                    data.class_names[int(label)], color="#1b7f5c" if right else "#b3261e", fontsize=8, pad=2
                )
                axis.set_xticks([])
                axis.set_yticks([])
            axis_row[0].set_ylabel(name)
        figure.tight_layout(pad=0.3, h_pad=0.6)
        figure.savefig(HERE / "denoised.png", dpi=130)


if __name__ == "__main__":
    main()
