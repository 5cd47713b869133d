"""`certmix nuts evaluate`: a fitted mix under its strongest attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .attack_options import attack_options, run_options, run_study
from .options import RADII, data_options

EPILOG = """\b
Examples:
  certmix nuts evaluate mix
  certmix nuts evaluate mix --images all --queries 5000 --plain-alphas 0.6,0.7,0.8,0.9
"""


@click.command("evaluate", epilog=EPILOG)
@click.argument("mix", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option(
    "--plain-alphas", type=RADII, default="0.6,0.75,0.9", show_default=True,
    help="Weights of the plain mix to compare with.",
)  # fmt: skip
@click.option("--targets", type=int, default=9, show_default=True, help="Target classes of targeted APGD.")
@click.option("--queries", type=int, default=500, show_default=True, help="Queries of Square.")
@click.option(
    "--r-d-sweep", "r_d_sweep", type=RADII, default="0,0.3,0.6,0.9", show_default=True,
    help="Obfuscation check: transfer attacks with these r_d.",
)  # fmt: skip
@click.option("--sweep-images", type=int, default=50, show_default=True, help="On so many of the images.")
@click.option("--autoattack", is_flag=True, help="Run pyautoattack's standard suite through the bypass too.")
@attack_options(steps=20, images="100", attack=False)
@data_options
@run_options
def command(mix: Path, **options: Any) -> int:
    """Attack the mix in FOLDER by transfer, bypass, Square, and points made for others.

    Only images that the mix was not tuned on are used. Every classifier is
    judged on every point found for any; error changes are paired.
    """
    from certmix.studies.nuts_evaluate import nuts_evaluate

    names = ("plain_alphas", "targets", "queries", "r_d_sweep", "sweep_images", "autoattack")
    more = {name: options.pop(name) for name in names}
    return run_study(nuts_evaluate, {**options, "attack": "apgd-ce"}, steps=20, folder=mix, **more)
