"""`certmix attack`, `mix-sweep`, `compare-trust`, `confidence`, `lipschitz`: the empirical studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from certmix.certification.request.sampled import CertifyRequest
from certmix.runs.attack_request import DEFAULT_EPS, AttackRequest, asked_attack
from certmix.runs.settings import Option
from certmix.runs.sources import OF_STANDARD, Sources
from certmix.studies import DEFAULTS
from certmix.tables.formats import FORMATS

from .options import (
    DEVICE,
    FRESH,
    MODEL_TIMEOUT,
    NUMBERS,
    PATH,
    F,
    Names,
    format_option,
    options,
    parameters,
    refuse_unused,
    sources_of,
)
from .progress import watched

TEMPERATURE = options(CertifyRequest, only=["standard_temperature"])
ROBUST = Option("The robust classifier h.", metavar="MODEL", shown="cifar10-adversarial-linf")
OF_NOISE = ("denoiser", "feature_scale")
NAMES = {
    "trusts": ("constant", "gradient", "max-gradient", "gradient-ratio"),
    "forms": ("probabilities", "logits"),
}


def study_options(*, steps: int | None, leave: tuple[str, ...] = (), **changed: Any) -> Callable[[F], F]:
    """Give a command the options of an attack, of data and models, of the run folder, and --format."""
    shown = str(steps) if steps else "the attack's own"
    made = [
        options(AttackRequest, Sources, leave=(*OF_NOISE, *leave), steps=shown, robust=ROBUST, **changed),
        DEVICE, MODEL_TIMEOUT,
        click.option("--output", metavar="FOLDER", help="Run folder.  [default: runs/<identity>]"),
        FRESH, format_option(*FORMATS),
    ]  # fmt: skip

    def decorate(function: F) -> F:
        for option in reversed(made):
            function = option(function)
        return function

    return decorate


def run_study(
    function: Callable[..., Any], given: dict[str, Any], usual: Mapping[str, Any], **more: Any
) -> int:
    """Run a study by attacks with what was written, and print its table.

    `function` takes ``request``, ``sources``, ``where``, and `more`; `usual` are its own defaults.
    """
    request = asked_attack(given, usual)
    if request.attack == "fgsm" and request.restarts == 1:
        refuse_unused(["seed"], "is for random starts, which --attack fgsm has only with --restarts")
    return made(function, request, given, **more)


def made(function: Callable[..., Any], request: Any, given: dict[str, Any], **more: Any) -> int:
    """Make a study of a request, with the data, models and surroundings that were written, and print it."""
    from certmix.studies.study import Surroundings

    sources, format_ = sources_of(given), given.pop("format_")
    around = {name: given.pop(name) for name in ("output", "fresh", "device")}

    def study(**told: Any) -> Any:
        where = Surroundings(**around, **told)
        return function(request=request, sources=sources, where=where, **more, **given)

    result = watched(study)
    print_study(result, format_)
    return 0 if result.complete else 130


def print_study(result: Any, format_: str) -> None:
    """Print a study's table on stdout, and where its products lie on stderr."""
    from certmix.tables import print_table

    print_table(result.table, format_)
    if result.folder is not None:
        click.echo(f"Run folder: {near(Path(result.folder))}", err=True)


def near(folder: Path) -> Path:
    """Return a path from here where it lies below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


ATTACK = """\b
Examples:
  certmix attack
  certmix attack --attack apgd-ce --steps 100 --robust nets.py:mine --inputs all
  certmix attack --alpha 0.76 --attack square --steps 1000
  certmix attack --alpha 0.76 --standard-temperature 0 --attack apgd-ce
  certmix attack --attack autoattack --inputs 20 --save adversarial.npz

autoattack takes a while and needs the package pyautoattack (pip install pyautoattack).
"""


@click.command("attack", epilog=ATTACK)
@click.option(
    "--alpha", type=float, default=None,
    help="Attack the mix of --standard and --robust at this weight.  [default: --robust alone]",
)  # fmt: skip
@TEMPERATURE
@click.option("--save", type=PATH, metavar="FILE.npz", help="Write the points found; --data reads them.")
@study_options(steps=None)
def attack(alpha: float | None, save: Path | None, **given: Any) -> int:
    """Attack the robust classifier, or a mix, and show accuracy clean and attacked.

    Attacked accuracy is an upper bound of robust accuracy. Points found lie in
    the ball and in the input range exactly.
    """
    if alpha is None:
        refuse_unused(parameters("standard"), "is of the mix: add --alpha, or")
        given["standard"] = None
    from certmix.studies.attack import attack

    return run_study(attack, given, DEFAULTS["attack"], alpha=alpha, save=save)


MIX_SWEEP = """\b
Examples:
  certmix mix-sweep
  certmix mix-sweep --alphas 0.5,0.6,0.7,0.8,0.9,1 --inputs all --attack apgd-ce --steps 50
  certmix mix-sweep --norm l2 --eps 0.5 --standard nets.py:accurate --robust nets.py:robust

Repeating the command resumes an interrupted sweep; other alphas and more
inputs reuse all points that were found.
"""


@click.command("mix-sweep", epilog=MIX_SWEEP)
@click.option("--alphas", type=NUMBERS, default=None, help="Mixing weights.  [default: 0 to 1 in 21 steps]")
@TEMPERATURE
@study_options(steps=20)
def mix_sweep(alphas: tuple[float, ...] | None, **given: Any) -> int:
    """Show how the mix does over alpha, clean and under three attacks.

    STD attacks the standard classifier, ROB the robust one, MIX the mix end to
    end at every alpha; the worst case is taken point by point. Attacked
    accuracies are upper bounds of robust accuracy. Figure 2 of the first paper.
    """
    from certmix.studies.mix_sweep import DEFAULT_ALPHAS, mix_sweep

    return run_study(mix_sweep, given, DEFAULTS["mix-sweep"], alphas=alphas or DEFAULT_ALPHAS)


COMPARE_TRUST = """\b
Examples:
  certmix compare-trust
  certmix compare-trust --trust all --norm linf --norm l2 --inputs all

Terms with gradients are attacked through second derivatives, which is dear:
the first command takes minutes on two cores, the second one hours.
"""


@click.command("compare-trust", epilog=COMPARE_TRUST)
@click.option(
    "--trust", "trusts", type=click.Choice(["all", *NAMES["trusts"]]), multiple=True,
    default=("constant", "max-gradient"), help="R in equation 3; repeatable.",
)  # fmt: skip
@click.option(
    "--form", "forms", type=click.Choice(["all", *NAMES["forms"]]), multiple=True, default=("all",),
    help="What is mixed: probabilities (softmax) or logits (no softmax).",
)  # fmt: skip
@click.option(
    "--weights", type=NUMBERS, default="0.25,0.5,0.6,0.75,0.9",
    help="Weights of the robust classifier at the median input.",
)  # fmt: skip
@click.option(
    "--norm", "norms", type=Names(DEFAULT_EPS), multiple=True, default=("linf",),
    help="Norm of the ball; repeatable.",
)  # fmt: skip
@study_options(steps=10, leave=("norm",))
def compare_trust(norms: tuple[str, ...], **given: Any) -> int:
    """Compare trust terms R_i: what each pays in robustness for clean accuracy.

    The mix is (g_i + gamma R_i h_i) / (1 + gamma R_i), of probabilities or of
    logits, and every one is attacked end to end with the same budget. Figures 1
    and 4 of the first paper.
    """
    if len(set(norms)) > 1:
        refuse_unused(["eps"], "is one radius, and there are several norms: give one --norm, or")
    from certmix.studies.compare_trust import compare_trust

    for name, known in NAMES.items():
        given[name] = known if "all" in given[name] else given[name]
    return run_study(compare_trust, {**given, "norm": norms[0]}, DEFAULTS["compare-trust"], norms=norms)


CONFIDENCE = """\b
Examples:
  certmix confidence
  certmix confidence --inputs all --robust robustbench:Gowal2020Uncovering_70_16_extra
"""


@click.command("confidence", epilog=CONFIDENCE)
@study_options(steps=20, inputs="200")
def confidence(**given: Any) -> int:
    """Show how sure both classifiers are when right or wrong, clean or attacked.

    Mixing gains where the robust classifier is surer when right under attack
    than when wrong on clean inputs: the verdict says whether it is. Table 1 of
    the first paper.
    """
    from certmix.studies.confidence import confidence

    return run_study(confidence, given, DEFAULTS["confidence"])


LIPSCHITZ = """\b
Examples:
  certmix lipschitz
  certmix lipschitz --norm l2 --steps 100 --restarts 5 --inputs all
  certmix lipschitz --of logits --ratio yang
  certmix lipschitz --check 1 --of logits --norm l2 --robust nets.py:mine

--check exits with 1 if the claim is contradicted. That it is not proves nothing.
"""


@click.command("lipschitz", epilog=LIPSCHITZ)
@click.option(
    "--of", type=click.Choice(("probabilities", "logits")), default="probabilities", help="Whose constants."
)
@click.option(
    "--ratio", type=click.Choice(("relaxed", "each", "together", "yang")), default=None,
    help="What counts as a slope: the paper's relaxed constants (over eps), or over ||d|| the change of each "
    "output, of all together (l2), or of all in l1 (Yang et al.).  [default: relaxed; with --check together "
    "for logits, each for probabilities]",
)  # fmt: skip
@click.option(
    "--alpha", type=float, default=0.76, help="Mixing weight of the estimated radius of Theorem 3.5."
)
@click.option(
    "--check", type=float, default=None, metavar="L",
    help="Look for points that contradict the global constant L.",
)  # fmt: skip
@study_options(steps=20, leave=("attack", *OF_STANDARD), inputs="20", restarts="2")
def lipschitz(of: str, ratio: str | None, check: float | None, **given: Any) -> int:
    """Estimate local Lipschitz constants of the robust classifier by search.

    The constants found are lower bounds of the true ones: what follows from
    them is estimated, never certified. --batch-size counts points, one a class
    of each input.
    """
    if check is not None or of != "probabilities" or ratio not in (None, "relaxed"):
        refuse_unused(["alpha"], "is for the radius that relaxed constants of probabilities give")
    from certmix.studies.lipschitz import local_lipschitz

    contradicted = []

    def study(**chosen: Any) -> Any:
        result = local_lipschitz(**chosen)
        contradicted.append(result.data.trial is not None and result.data.trial.contradicted)
        return result

    code = run_study(
        study, {**given, "standard": None}, DEFAULTS["lipschitz"], of=of, ratio=ratio, check=check,
    )  # fmt: skip
    return 1 if contradicted[0] else code
