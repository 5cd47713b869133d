"""`certmix confidence`: is the robust classifier suited to mixing?"""

from __future__ import annotations

from typing import Any

import click

from .attack_options import attack_options, run_options, run_study
from .options import data_options, empirical_model_options

EPILOG = """\b
Examples:
  certmix confidence
  certmix confidence --images all --robust robustbench:Gowal2020Uncovering_70_16_extra
"""


@click.command("confidence", epilog=EPILOG)
@attack_options(steps=20, images="200")
@data_options
@empirical_model_options
@run_options
def command(**options: Any) -> int:
    """Show how sure both classifiers are when right or wrong, clean or attacked.

    Mixing gains where the robust classifier is surer when right under attack
    than when wrong on clean images: the verdict says whether it is. Table 1 of
    the first paper.
    """
    from certmix.studies.confidence import confidence

    return run_study(confidence, options, steps=20)
