"""`certmix nuts fit`, `evaluate`, `study`: nonlinearly mixed classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from certmix.errors import ParameterError
from certmix.nuts.grid import GRIDS
from certmix.runs.sources import OF_ROBUST, OF_STANDARD, Sources
from certmix.studies import DEFAULTS
from certmix.studies.nuts_choices import STUDIES, CertifiedRequest, FitChoices, asked_fit
from certmix.tables.formats import FORMATS

from .options import MODEL_TIMEOUT, NUMBERS, PATH, format_option, options, refuse_unused, sources_of
from .progress import say
from .studies import OF_NOISE, made, print_study, run_study, study_options


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("nuts", cls=_InOrder, epilog="Start here: certmix nuts fit --output mix")
def nuts() -> None:
    """Mix nonlinearly (MixedNUTS): more accurate at almost the same robustness.

    The robust classifier's logits are normalised, clamped, raised to a power
    and scaled before they are mixed, so that it is sure where it should be.
    Nothing is trained: four numbers are fitted on cached logits. The result is
    a folder that --robust nuts:FOLDER, or any attack library, can use.
    """


FIT = """\b
Examples:
  certmix nuts fit --output mix
  certmix nuts fit --output mix --beta 0.95            (a second: margins are kept)
  certmix nuts fit --data cifar-10-batches-bin --inputs 1000 --output mix
  certmix nuts fit --logits mix/logits.npz --clamp relu
  certmix nuts fit --certified --at-radius 0.5 --sigma 0.5 --output proved
  certmix nuts fit --published cifar100 --standard nets.py:g --robust nets.py:h --output mix

\b
The mix then answers to the name nuts:mix, for example
  certmix attack --robust nuts:mix#bypass --attack apgd-ce
  certmix certify --robust nuts:proved#robust --scores soft --sigma 0.5 --alpha A
"""
SHARED = ("clamp", "preset", "grid", "copy_weights", "inputs", "seed", "precision", "batch_size")
"""What a certified fit takes as any fit does."""


@nuts.command(
    "fit", epilog=FIT, short_help="Fit s, p, c and alpha of a nonlinear mix from two models and data."
)
@options(FitChoices, leave=("early_stop",))
@click.option(
    "--full-strength", is_flag=True, help="Go on lowering the margins of inputs that are already broken."
)
@click.option(
    "--logits", type=PATH, metavar="FILE.npz",
    help="Fit on cached logits instead, such as a run folder's logits.npz; prints and saves nothing else.",
)  # fmt: skip
@click.option(
    "--published", type=click.Choice(list(GRIDS)),
    help="No fit: mix these models with the optimum of the paper's Table 3 (10, 100 or 1,000 classes). "
    "--crop is then the side of their inputs.",
)  # fmt: skip
@click.option(
    "--certified", is_flag=True,
    help="Choose for certified accuracy of a smoothed h instead, and certify on other inputs.",
)  # fmt: skip
@options(CertifiedRequest, leave=SHARED)
@options(Sources, only=OF_NOISE)
@study_options(steps=50, leave=("attack",), inputs="200")
def fit(
    published: str | None, certified: bool, logits: Path | None, full_strength: bool, **given: Any
) -> int:
    """Fit the nonlinear transform and the mixing weight of MixedNUTS.

    Searches every tuning input's point of smallest margin (APGD, then targeted
    APGD), then tries all of a grid on the cached logits (Algorithm 1). The run
    folder holds nuts.json, which any command loads as nuts:FOLDER, and the
    logits, so that another --beta, --clamp or --grid takes a second.

    With --published nothing is fitted: the paper's numbers are taken as they
    are, for models of your own.

    With --certified no attack is made: the transform goes inside the
    expectation of a smoothed h, (s, p, c, alpha) maximise certified accuracy at
    --at-radius under --clean-accuracy-floor on the tuning inputs, and the mix is
    certified on other inputs, beside hard votes.
    """
    choices = asked_fit(
        given, refuse_unused, published=published is not None, certified=certified, logits=logits is not None
    )
    from certmix.studies import nuts_fit as fitting

    if choices is None:
        result = fitting.nuts_published(
            str(published), given["output"], sources_of(given), copy_weights=given.get("copy_weights", False),
            device=given["device"], say=say,
        )  # fmt: skip
        print_study(result, given["format_"])
        return 0
    if isinstance(choices, CertifiedRequest):
        from certmix.studies.nuts_certified import nuts_certified

        return made(nuts_certified, choices, given)
    choices = choices.replace(early_stop=not full_strength)
    if logits is not None:
        print_study(fitting.fit_file(logits, choices), given["format_"])
        return 0
    usual = {k: v for k, v in DEFAULTS["nuts-fit"].items() if k != "steps" or not choices.gradient_free}
    return run_study(fitting.nuts_fit, {**given, "attack": "apgd-ce"}, usual, choices=choices)


EVALUATE = """\b
Examples:
  certmix nuts evaluate mix
  certmix nuts evaluate mix --inputs all --queries 5000 --plain-alphas 0.6,0.7,0.8,0.9
"""


@nuts.command(
    "evaluate", epilog=EVALUATE,
    short_help="Attack a fitted mix every way there is, beside its base models and the plain mix.",
)  # fmt: skip
@click.argument("mix", type=PATH, metavar="FOLDER")
@click.option(
    "--plain-alphas", type=NUMBERS, default="0.6,0.75,0.9", help="Weights of the plain mix to compare with."
)
@click.option("--targets", type=int, default=9, help="Target classes of targeted APGD.")
@click.option("--queries", type=int, default=500, help="Queries of Square.")
@click.option(
    "--r-d-sweep", "r_d_sweep", type=NUMBERS, default="0,0.3,0.6,0.9",
    help="Obfuscation check: transfer attacks with these r_d.",
)  # fmt: skip
@click.option("--sweep-inputs", type=int, default=50, help="On so many of the inputs.")
@click.option("--autoattack", is_flag=True, help="Run pyautoattack's standard suite through the bypass too.")
@study_options(steps=20, leave=("attack", *OF_STANDARD, *OF_ROBUST))
def evaluate(mix: Path, **given: Any) -> int:
    """Attack the mix in FOLDER by transfer, bypass, Square, and points made for others.

    Only inputs that the mix was not tuned on are used. Every classifier is
    judged on every point found for any; error changes are paired.
    """
    from certmix.studies.nuts_evaluate import nuts_evaluate

    return run_study(
        nuts_evaluate, {**given, "attack": "apgd-ce", "standard": None}, DEFAULTS["nuts-evaluate"], folder=mix
    )


STUDY = "\n".join(f"  {name:<20} {study.summary}" for name, study in STUDIES.items())
STUDY = f"""\b
Studies:
{STUDY}

\b
Examples:
  certmix nuts study sensitivity mix --plot maps.png
  certmix nuts study beta mix eval --output trade-off
  certmix nuts study transfer mix other-mix
"""


@nuts.command(
    "study", epilog=STUDY,
    short_help="Tables and figures from cached results: sensitivity, margins, beta, ablations, cost.",
)  # fmt: skip
@click.argument("name")
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="FOLDER...")
@click.option("--plot", type=PATH, metavar="FILE", help="Draw its figure: .png, .svg or .pdf.")
@click.option(
    "--output", type=PATH, metavar="FOLDER", help="Write the table in all formats and all figures there."
)
@options(Sources, only=["run_code"])
@MODEL_TIMEOUT
@format_option(*FORMATS)
def study(
    name: str,
    folders: tuple[Path, ...],
    plot: Path | None,
    output: Path | None,
    format_: str,
    **allowed: bool,
) -> int:
    """Show how a fitted mix came about, and what else it could have been.

    FOLDER is a run folder of certmix nuts fit. Where a study judges mixes, a
    run folder of certmix nuts evaluate may follow: its attacked points count
    as well. No attack is run: everything comes from cached logits in seconds.
    """
    from certmix.files import write_atomically
    from certmix.studies.nuts_ablations import nuts_study
    from certmix.tables.formats import write_files

    if name != "cost":
        refuse_unused(["run_code", "model_timeout"], "is for study cost, which alone loads models")
    product = nuts_study(name, folders, **allowed)
    if plot is not None:
        if not product.plots:
            drawn = "sensitivity, margins, transform or beta"
            raise ParameterError(f"study {name} has no figure: leave --plot out, or choose {drawn}")
        draw = next(iter(product.plots.values()))
        write_atomically(plot, draw(plot.suffix.lower().removeprefix(".")))
        click.echo(f"Plot: {plot}", err=True)
    if output is not None:
        write_files(output, product.table, product.plots)
        click.echo(f"Output: {output}", err=True)
    print_study(product, format_)
    return 0
