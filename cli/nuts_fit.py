"""`certmix nuts fit`: s, p, c and alpha from two models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .attack_options import attack_options, print_study, run_options, run_study
from .options import data_options, empirical_model_options

CLAMPS = ("gelu", "relu", "elu", "softplus", "linear")
PRESETS = ("cifar10", "cifar100", "imagenet")
EPILOG = """\b
Examples:
  certmix nuts fit --output mix
  certmix nuts fit --output mix --beta 0.95            (a second: margins are kept)
  certmix nuts fit --data cifar-10-batches-bin --images 1000 --output mix
  certmix nuts fit --logits mix/logits.npz --clamp relu

The mix then answers to the name nuts:mix, for example
  certmix attack --robust nuts:mix#bypass --attack apgd-ce
"""


@click.command("fit", epilog=EPILOG)
@click.option(
    "--beta", type=float, default=0.95, show_default=True,
    help="Share of rightly classified attacked images that must stay right whatever g says.",
)  # fmt: skip
@click.option("--clamp", type=click.Choice(CLAMPS), default="gelu", show_default=True, help="Clamp of M.")
@click.option(
    "--preset", type=click.Choice(PRESETS), default="cifar10", show_default=True,
    help="Grid and normalisation of the paper's Table 3.",
)  # fmt: skip
@click.option("--grid", metavar="GRID", help="Other grid: s=0.05:5:8,p=1:4:8,c=-1.1:0:8.")
@click.option(
    "--quantile", type=click.Choice(["conservative", "linear"]), default="conservative", show_default=True,
    help="linear interpolates, as published code does, and can miss beta by part of an image.",
)  # fmt: skip
@click.option(
    "--rival", type=click.Choice(["label", "second"]), default="label", show_default=True,
    help="A wrong image's margin: over its label (what g can mend), or over the second class (the paper).",
)  # fmt: skip
@click.option("--conditional", is_flag=True, help="Objective over images that g gets right (D.8.3).")
@click.option(
    "--temperature", type=float, default=0.0, show_default=True,
    help="Of g in the mix: 0 takes its answer alone.",
)  # fmt: skip
@click.option("--r-d", "r_d", type=float, default=0.9, show_default=True, help="Of the auxiliary mix.")
@click.option("--gradient-free", is_flag=True, help="Search margins by Square: for a black-box h.")
@click.option(
    "--full-strength", is_flag=True, help="Go on lowering the margins of images that are already broken."
)
@click.option("--copy-weights", is_flag=True, help="Bundle the base models' weights with the mix.")
@click.option(
    "--logits", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="Fit on cached logits instead, such as a run folder's logits.npz; prints and saves nothing else.",
)  # fmt: skip
@attack_options(steps=50, images="200", attack=False)
@data_options
@empirical_model_options
@run_options
def command(logits: Path | None, full_strength: bool, **options: Any) -> int:
    """Fit the nonlinear transform and the mixing weight of MixedNUTS.

    Searches every tuning image's point of smallest margin (APGD, then targeted
    APGD), then tries all of a grid on the cached logits (Algorithm 1). The run
    folder holds nuts.json, which any command loads as nuts:FOLDER, and the
    logits, so that another --beta, --clamp or --grid takes a second.
    """
    from certmix.studies.nuts_fit import FitChoices, fit_file, nuts_fit

    names = FitChoices.__dataclass_fields__
    chosen = {name: options.pop(name) for name in list(options) if name in names}
    choices = FitChoices(**chosen, early_stop=not full_strength)
    if logits is not None:
        print_study(fit_file(logits, choices), options["format_"])
        return 0
    return run_study(nuts_fit, {**options, "attack": "apgd-ce"}, choices=choices)
