"""`certmix mix-sweep`: accuracy of the mix over alpha, clean and attacked."""

from __future__ import annotations

from typing import Any

import click

from .attack_options import attack_options, run_options, run_study
from .options import RADII, data_options, empirical_model_options

EPILOG = """\b
Examples:
  certmix mix-sweep
  certmix mix-sweep --alphas 0.5,0.6,0.7,0.8,0.9,1 --images all --attack apgd-ce --steps 50
  certmix mix-sweep --norm l2 --eps 0.5 --standard nets.py:accurate --robust nets.py:robust

Repeating the command resumes an interrupted sweep; other alphas and more
images reuse all points that were found.
"""


@click.command("mix-sweep", epilog=EPILOG)
@click.option("--alphas", type=RADII, default=None, help="Mixing weights.  [default: 0 to 1 in 21 steps]")
@attack_options(steps=20, images="100")
@data_options
@empirical_model_options
@run_options
def command(alphas: tuple[float, ...] | None, **options: Any) -> int:
    """Show how the mix does over alpha, clean and under three attacks.

    STD attacks the standard classifier, ROB the robust one, MIX the mix end to
    end at every alpha; the worst case is taken point by point. Attacked
    accuracies are upper bounds of robust accuracy. Figure 2 of the first paper.
    """
    from certmix.studies.mix_sweep import DEFAULT_ALPHAS, mix_sweep

    return run_study(mix_sweep, options, steps=20, alphas=alphas or DEFAULT_ALPHAS)
