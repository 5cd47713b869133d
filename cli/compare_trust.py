"""`certmix compare-trust`: clean against attacked accuracy for every trust term."""

from __future__ import annotations

from typing import Any

import click

from .attack_options import NORMS, attack_options, run_options, run_study
from .options import RADII, data_options, empirical_model_options, norm_type
from .unused import refuse_unused

TRUST_NAMES = ("constant", "gradient", "max-gradient", "gradient-ratio")
FORM_NAMES = ("probabilities", "logits")
EPILOG = """\b
Examples:
  certmix compare-trust
  certmix compare-trust --trust all --norm linf --norm l2 --images all

Terms with gradients are attacked through second derivatives, which is dear:
the first command takes minutes on two cores, the second one hours.
"""


@click.command("compare-trust", epilog=EPILOG)
@click.option(
    "--trust", "trusts", type=click.Choice(["all", *TRUST_NAMES]), multiple=True,
    default=("constant", "max-gradient"), show_default=True, help="R in equation 3; repeatable.",
)  # fmt: skip
@click.option(
    "--form", "forms", type=click.Choice(["all", *FORM_NAMES]), multiple=True, default=("all",),
    show_default=True, help="What is mixed: probabilities (softmax) or logits (no softmax).",
)  # fmt: skip
@click.option(
    "--weights", type=RADII, default="0.25,0.5,0.6,0.75,0.9", show_default=True,
    help="Weights of the robust classifier at the median image.",
)  # fmt: skip
@click.option(
    "--norm", "norms", type=norm_type(*NORMS), multiple=True, default=("linf",), show_default=True,
    help="Norm of the ball; repeatable.",
)  # fmt: skip
@attack_options(steps=10, images="100", norm=False)
@data_options
@empirical_model_options
@run_options
def command(
    trusts: tuple[str, ...], forms: tuple[str, ...], norms: tuple[str, ...], weights: Any, **options: Any
) -> int:
    """Compare trust terms R_i: what each pays in robustness for clean accuracy.

    The mix is (g_i + gamma R_i h_i) / (1 + gamma R_i), of probabilities or of
    logits, and every one is attacked end to end with the same budget. Figures 1
    and 4 of the first paper.
    """
    if len(set(norms)) > 1:
        refuse_unused(["eps"], "is one radius, and there are several norms: give one --norm, or")
    from certmix.studies.compare_trust import compare_trust

    return run_study(
        compare_trust, {**options, "norm": norms[0]}, steps=10, norms=norms, weights=weights,
        trusts=TRUST_NAMES if "all" in trusts else trusts, forms=FORM_NAMES if "all" in forms else forms,
    )  # fmt: skip
