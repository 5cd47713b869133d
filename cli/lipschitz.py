"""`certmix lipschitz`: estimated local Lipschitz constants, and the trial of a claimed one."""

from __future__ import annotations

from typing import Any

import click

from .attack_options import attack_options, run_options, run_study
from .options import data_options, robust_options
from .unused import refuse_unused

RATIOS = ("relaxed", "each", "together", "yang")
RESTARTS = 2
EPILOG = """\b
Examples:
  certmix lipschitz
  certmix lipschitz --norm l2 --steps 100 --restarts 5 --images all
  certmix lipschitz --of logits --ratio yang
  certmix lipschitz --check 1 --of logits --norm l2 --robust nets.py:mine

--check exits with 1 if the claim is contradicted. That it is not proves nothing.
"""


@click.command("lipschitz", epilog=EPILOG)
@click.option(
    "--of", type=click.Choice(("probabilities", "logits")), default="probabilities", show_default=True,
    help="Whose constants.",
)  # fmt: skip
@click.option(
    "--ratio", type=click.Choice(RATIOS), default=None,
    help="What counts as a slope: the paper's relaxed constants (over eps), or over ||d|| the change of each "
    "output, of all together (l2), or of all in l1 (Yang et al.).  [default: relaxed; with --check together "
    "for logits, each for probabilities]",
)  # fmt: skip
@click.option(
    "--alpha", type=float, default=0.76, show_default=True,
    help="Mixing weight of the estimated radius of Theorem 3.5.",
)  # fmt: skip
@click.option(
    "--check", type=float, default=None, metavar="L",
    help="Look for points that contradict the global constant L.",
)  # fmt: skip
@attack_options(steps=20, images="20", attack=False)
@data_options
@robust_options
@run_options
def command(of: str, ratio: str | None, check: float | None, **options: Any) -> int:
    """Estimate local Lipschitz constants of the robust classifier by search.

    The constants found are lower bounds of the true ones: what follows from
    them is estimated, never certified. --batch-size counts points, one a class
    of each image.
    """
    if check is not None or of != "probabilities" or ratio not in (None, "relaxed"):
        refuse_unused(["alpha"], "is for the radius that relaxed constants of probabilities give")
    from certmix.studies.lipschitz import local_lipschitz

    contradicted = []

    def study(**chosen: Any) -> Any:
        result = local_lipschitz(**chosen)
        contradicted.append(result.data.trial is not None and result.data.trial.contradicted)
        return result

    code = run_study(study, {**options, "attack": "pgd"}, steps=20, of=of, ratio=ratio, check=check)
    return 1 if contradicted[0] else code


for _option in command.params:
    if _option.name == "restarts":
        _option.default = RESTARTS  # one restart shows no spread
