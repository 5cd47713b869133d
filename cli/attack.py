"""`certmix attack`: attack a classifier or a mix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .attack_options import attack_options, run_options, run_study
from .options import data_options, empirical_model_options
from .unused import parameters, refuse_unused

EPILOG = """\b
Examples:
  certmix attack
  certmix attack --attack apgd-ce --steps 100 --robust nets.py:mine --images all
  certmix attack --alpha 0.76 --attack square --steps 1000
  certmix attack --attack autoattack --images 20 --save adversarial.npz

autoattack needs pip install 'certmix[attacks]' and takes a while.
"""


@click.command("attack", epilog=EPILOG)
@click.option(
    "--alpha", type=float, default=None,
    help="Attack the mix of --standard and --robust at this weight.  [default: --robust alone]",
)  # fmt: skip
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Write the points found; --data reads them.",
)
@attack_options(steps=None)
@data_options
@empirical_model_options
@run_options
def command(alpha: float | None, save: Path | None, **options: Any) -> int:
    """Attack the robust classifier, or a mix, and show accuracy clean and attacked.

    Attacked accuracy is an upper bound of robust accuracy. Points found lie in
    the ball and in the input range exactly.
    """
    if alpha is None:
        refuse_unused(parameters("standard"), "is of the mix: add --alpha, or")
    from certmix.studies.attack import attack

    return run_study(attack, options, alpha=alpha, save=save)
