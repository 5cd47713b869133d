"""`certmix nuts fit`: s, p, c and alpha from two models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from certmix.bounds import bounds_of
from certmix.errors import ParameterError

from .attack_options import attack_options, print_study, run_options, run_study
from .options import IMAGES, RADIUS, F, data_options, empirical_model_options, named_sources
from .unused import refuse_unused

CLAMPS = ("gelu", "relu", "elu", "softplus", "linear")
PRESETS = ("cifar10", "cifar100", "imagenet")
EPILOG = """\b
Examples:
  certmix nuts fit --output mix
  certmix nuts fit --output mix --beta 0.95            (a second: margins are kept)
  certmix nuts fit --data cifar-10-batches-bin --images 1000 --output mix
  certmix nuts fit --logits mix/logits.npz --clamp relu
  certmix nuts fit --certified --at-radius 0.5 --sigma 0.5 --output proved
  certmix nuts fit --published cifar100 --standard nets.py:g --robust nets.py:h --output mix

\b
The mix then answers to the name nuts:mix, for example
  certmix attack --robust nuts:mix#bypass --attack apgd-ce
  certmix certify --robust nuts:proved#robust --scores soft --sigma 0.5 --alpha A
"""

CERTIFIED_ONLY = (
    "at_radius", "sigma", "noisy_samples", "clean_accuracy_floor", "certify_images", "samples",
    "selection_samples", "failure_probability", "bound",
)  # fmt: skip
OF_PUBLISHED = {
    "published", "standard", "standard_weights", "standard_normalize", "standard_files", "robust",
    "robust_weights", "robust_normalize", "robust_files", "crop", "copy_weights", "output", "device",
    "format_",
}  # fmt: skip
EMPIRICAL_ONLY = (
    "beta", "quantile", "rival", "conditional", "temperature", "r_d", "gradient_free", "full_strength",
    "logits", "norm", "eps", "steps", "restarts",
)  # fmt: skip

OF_LOGITS = {
    "logits", "beta", "clamp", "preset", "grid", "quantile", "rival", "conditional", "temperature", "format_",
}  # fmt: skip


def _certified_options(function: F) -> F:
    """Add --certified and the options that go with it alone."""
    for option in reversed(
        [
            click.option(
                "--certified", is_flag=True,
                help="Choose for certified accuracy of a smoothed h instead, and certify on other images.",
            ),
            click.option("--at-radius", type=float, metavar="R", help="Certified: the l2 radius wanted."),
            click.option("--sigma", type=RADIUS, help="Certified: noise level; --robust is h's base."),
            click.option(
                "--noisy-samples", type=int, default=200, show_default=True,
                help="Certified: noisy copies of each tuning image.",
            ),
            click.option(
                "--clean-accuracy-floor", type=float, default=None,
                help="Certified: least clean accuracy of the mix on the tuning images.  "
                "[default: the middle between h's votes and g there]",
            ),
            click.option(
                "--certify-images", type=IMAGES, default="100", show_default=True,
                help="Certified: how many images are certified, spread over those not tuned on.",
            ),
            click.option(
                "--samples", type=int, default=2000, show_default=True,
                help="Certified: estimation samples of each of them.",
            ),
            click.option(
                "--selection-samples", type=int, default=100, show_default=True,
                help="Certified: samples that choose the class.",
            ),
            click.option(
                "--failure-probability", type=float, default=0.001, show_default=True,
                help="Certified: probability that one image's certificate is wrong.",
            ),
            click.option(
                "--bound", type=click.Choice(list(bounds_of("soft", distribution=False))),
                default="betting-fixed", show_default=True,
                help="Certified: from score samples to probabilities.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("fit", epilog=EPILOG)
@click.option(
    "--beta", type=float, default=None, show_default="the paper's: 0.985, or 0.99 of preset imagenet",
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
@click.option(
    "--published", type=click.Choice(PRESETS),
    help="No fit: mix these models with the optimum of the paper's Table 3 (10, 100 or 1,000 classes). "
    "--crop is then the side of their inputs.",
)  # fmt: skip
@_certified_options
@attack_options(steps=50, images="200", attack=False)
@data_options
@empirical_model_options
@run_options
@click.pass_context
def command(
    ctx: click.Context, certified: bool, logits: Path | None, full_strength: bool, **options: Any
) -> int:
    """Fit the nonlinear transform and the mixing weight of MixedNUTS.

    Searches every tuning image's point of smallest margin (APGD, then targeted
    APGD), then tries all of a grid on the cached logits (Algorithm 1). The run
    folder holds nuts.json, which any command loads as nuts:FOLDER, and the
    logits, so that another --beta, --clamp or --grid takes a second.

    With --published nothing is fitted: the paper's numbers are taken as they
    are, for models of your own.

    With --certified no attack is made: the transform goes inside the
    expectation of a smoothed h, (s, p, c, alpha) maximise certified accuracy at
    --at-radius under --clean-accuracy-floor on the tuning images, and the mix is
    certified on other images, beside hard votes.
    """
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if options.pop("published"):
        return _take_published(ctx.params, given)
    _check_together(certified, given)
    if certified:
        return _fit_certified(options, "batch_size" in given)
    options = {name: value for name, value in options.items() if name not in CERTIFIED_ONLY}
    from certmix.studies.nuts_fit import FitChoices, fit_file, nuts_fit

    names = FitChoices.__struct_fields__
    chosen = {name: options.pop(name) for name in list(options) if name in names}
    choices = FitChoices(**chosen, early_stop=not full_strength)
    if logits is not None:
        refuse_unused(given - OF_LOGITS, "is not for --logits, which fits on what the file holds")
        print_study(fit_file(logits, choices), options["format_"])
        return 0
    steps = None if choices.gradient_free else 50
    return run_study(nuts_fit, {**options, "attack": "apgd-ce"}, steps=steps, choices=choices)


def _take_published(options: dict[str, Any], given: set[str]) -> int:
    """Save a mix with published numbers; refuse options that look at data or fit."""
    refuse_unused(
        sorted(given - OF_PUBLISHED), "is not for --published, which fits nothing and reads no data"
    )
    if options["output"] is None:
        raise ParameterError("--published needs a folder for the mix: add it, for example --output mix")
    from certmix.runs.source_names import Sources
    from certmix.studies.nuts_fit import nuts_published

    from .progress import say

    result = nuts_published(
        options["published"], options["output"], Sources(**named_sources(options)),
        copy_weights=options["copy_weights"], device=options["device"], say=say,
    )  # fmt: skip
    print_study(result, options["format_"])
    return 0


def _check_together(certified: bool, given: set[str]) -> None:
    """Refuse options of the other kind of fit, and a certified fit without radius or noise level."""
    odd = [name for name in (EMPIRICAL_ONLY if certified else CERTIFIED_ONLY) if name in given]
    if odd and certified:
        raise ParameterError(f"{_flag(odd[0])} does not go with --certified: leave one of them out")
    if odd:
        raise ParameterError(f"{_flag(odd[0])} needs --certified: add it, or leave {_flag(odd[0])} out")
    for name in ("at_radius", "sigma"):
        if certified and name not in given:
            raise ParameterError(f"--certified needs {_flag(name)}: add it, for example {_flag(name)} 0.5")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _fit_certified(options: dict[str, Any], batch_given: bool) -> int:
    from certmix.runs.keywords import field_names
    from certmix.runs.source_names import Sources
    from certmix.studies.nuts_certified import nuts_certified
    from certmix.studies.nuts_certified_plan import CertifiedRequest
    from certmix.studies.study import Surroundings

    from .progress import StudyBar, say

    def take(kind: Any) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name in field_names(kind)}

    asked = take(CertifiedRequest)
    asked["batch_size"] = options["batch_size"] if batch_given else None
    named = named_sources(options)
    with StudyBar() as bar:
        where = Surroundings(**take(Surroundings), progress=bar.update, say=say)
        result = nuts_certified(CertifiedRequest(**asked), Sources(**named), where)
    print_study(result, options["format_"])
    return 0
