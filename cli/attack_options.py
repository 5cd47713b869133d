"""Options of the empirical studies: the attack, the images, the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from certmix.sampling.devices import PRECISIONS
from certmix.tables.formats import FORMATS

from .options import IMAGES, RADIUS, F, named_sources, norm_type
from .unused import refuse_unused

NORMS = ("linf", "l2", "l1")


def attack_options(
    *, steps: int | None, images: str = "100", norm: bool = True, attack: bool = True
) -> Callable[[F], F]:
    """Add --attack, --norm, --eps, --steps, --restarts, --images, --seed and --attack-batch."""

    def decorate(function: F) -> F:
        left_out = {name for name, wanted in (("norm", norm), ("attack", attack)) if not wanted}
        for name, option in reversed(_attack_list(steps, images).items()):
            function = function if name in left_out else option(function)
        return function

    return decorate


def _attack_list(steps: int | None, images: str) -> dict[str, Callable[[Any], Any]]:
    return {
        "attack": click.option(
            "--attack", default="pgd", show_default=True,
            help="fgsm, pgd, apgd-ce, apgd-dlr, apgd-targeted, square (gradient-free) or autoattack.",
        ),
        "norm": click.option(
            "--norm", type=norm_type(*NORMS), default="linf", show_default=True, help="Norm of the ball."
        ),
        "eps": click.option(
            "--eps", type=RADIUS, default=None,
            help="Radius of the ball.  [default: 8/255 for linf, 0.5 for l2, 12 for l1]",
        ),
        "steps": click.option(
            "--steps", type=int, default=None, show_default=f"{steps}" if steps else "the attack's own",
            help="Steps of iterative attacks, queries of square.",
        ),
        "restarts": click.option(
            "--restarts", type=int, default=1, show_default=True, help="Random restarts."
        ),
        "images": click.option(
            "--images", type=IMAGES, default=images, show_default=True,
            help="How many images, spread over the data.",
        ),
        "seed": click.option(
            "--seed", type=int, default=0, show_default=True, help="Key of all random starts."
        ),
        "device": click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
        "precision": click.option(
            "--precision", type=click.Choice(list(PRECISIONS)), default="fp32", show_default=True,
            help="Arithmetic of the attack; what it finds is judged in fp32.",
        ),
        "batch": click.option(
            "--batch-size", type=int, default=100, show_default=True, help="Images attacked together."
        ),
    }  # fmt: skip


def run_options(function: F) -> F:
    """Add --output, --fresh and --format."""
    for option in reversed(
        [
            click.option("--output", metavar="FOLDER", help="Run folder.  [default: runs/<identity>]"),
            click.option("--fresh", is_flag=True, help="Start over: delete what the run folder holds."),
            click.option(
                "--format", "format_", type=click.Choice(list(FORMATS)), default="table", show_default=True,
                help="What to print on stdout.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


def run_study(
    function: Callable[..., Any], options: dict[str, Any], *, steps: int | None = None, **more: Any
) -> int:
    """Sort a command's options into request, sources and surroundings, run the study and print its table.

    `function` takes them as ``request``, ``sources`` and ``where``, and `more`.
    `steps` is the command's default for attacks that take steps.
    """
    from certmix.attacks import ATTACKS
    from certmix.runs.attack_request import AttackRequest
    from certmix.runs.keywords import field_names
    from certmix.runs.source_names import Sources
    from certmix.studies.study import Surroundings

    from .progress import StudyBar, say

    def take(kind: Any) -> dict[str, Any]:
        return {name: options.pop(name) for name in list(options) if name in field_names(kind)}

    taken = take(AttackRequest)
    own = ATTACKS.get(taken["attack"])
    if taken["steps"] is None and own is not None and "steps" in own.settings:
        taken["steps"] = steps
    request = AttackRequest(**taken)
    if request.attack == "fgsm" and request.restarts == 1:
        refuse_unused(["seed"], "is for random starts, which --attack fgsm has only with --restarts")
    named = named_sources(take(Sources))
    named.setdefault("standard", None)
    format_ = options.pop("format_")
    with StudyBar() as bar:
        where = Surroundings(**take(Surroundings), progress=bar.update, say=say)
        result = function(request=request, sources=Sources(**named), where=where, **more, **options)
    print_study(result, format_)
    return 0 if result.complete else 130


def print_study(result: Any, format_: str) -> None:
    """Print a study's table on stdout, and where its products lie on stderr."""
    from pathlib import Path

    from certmix.tables import print_table

    print_table(result.table, format_)
    if result.folder is not None:
        folder = Path(result.folder)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        click.echo(f"Run folder: {shown}", err=True)
