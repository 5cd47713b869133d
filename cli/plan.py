"""`certmix plan`: hours, cost and size of a run before it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from certmix.certification.request import DEFAULT_RADII
from certmix.errors import ParameterError

from .options import RADII, RADIUS

EPILOG = """\b
Examples:
  certmix plan --images 50000 --samples 100000 --throughput 5000
  certmix plan --scenario imagenet --sigma 0.5 --images 50000 --samples 100000 \\
      --throughput 5000 --workers 8 --price-per-hour 2
  certmix plan --like runs/small --images 10000 --workers 16

Throughput is noisy samples (forward passes) a second of one worker. --like RUN
takes it from the run's records, with the images' difficulty and --samples, and
prints it: make a small run first.
"""


@click.command("plan", epilog=EPILOG)
@click.option("--images", type=int, default=10_000, show_default=True, help="Images of the run.")
@click.option(
    "--samples", type=int, help="Most samples of an image.  [default: those of --like RUN, or 100,000]"
)
@click.option("--throughput", type=float, help="Samples a second of one worker.  [default: that of --like]")
@click.option("--workers", type=int, default=1, show_default=True, help="How many share the work.")
@click.option("--price-per-hour", type=float, help="What one worker costs in an hour, in any currency.")
@click.option(
    "--like", type=click.Path(path_type=Path), metavar="RUN|LOG",
    help="Images are like those of this run folder, published log or file of class counts.",
)  # fmt: skip
@click.option(
    "--scenario", type=click.Choice(["cifar10", "imagenet"]), default=None,
    help="Images are as published of Gaussian-trained networks.  [default: imagenet, unless --like]",
)  # fmt: skip
@click.option("--sigma", type=RADIUS, help="Noise level.  [default: that of --like, or 0.5]")
@click.option("--alpha", type=float, help="Mixing weight, 0.5 to 1.  [default: that of --like, or 0.76]")
@click.option("--radii", type=RADII, help="Radii of the table.  [default: those of --like, or 0 to 1.5]")
@click.option("--selection-samples", type=int, help="Samples that choose the class.  [default: 100]")
@click.option("--classes", type=int, help="Classes of the data.  [default: those of --like or --scenario]")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(like: Path | None, scenario: str | None, format_: str, **options: Any) -> int:
    """Estimate hours, cost, disk and memory of a certification.

    Three goals are compared: a fixed number of samples, and the two sequential
    ones, simulated with the stopping rule on images like those of a run, of a
    published log, or of a scenario. All assumptions are printed.
    """
    from certmix.certification.plan import plan, truth_of
    from certmix.certification.plan import scenario as images_of

    from .progress import say

    if like is not None and scenario is not None:
        raise ParameterError("--like and --scenario both say what the images are like: give one of them")
    sigma = options.pop("sigma")
    truth, own = truth_of(like, sigma) if like else (images_of(scenario or "imagenet", sigma or 0.5), None)
    for doubt in truth.doubts:
        say(doubt)
    if options["samples"] is None:
        options["samples"], truth = _most_samples(own, truth)
    request = _request(own, sigma, options)
    found = plan(
        request, truth, **{name: options[name] for name in ("images", "throughput", "workers", "classes")},
        price_per_hour=options["price_per_hour"],
    )  # fmt: skip
    click.echo(json.dumps(found.as_dict(), indent=2) if format_ == "json" else _text(found))
    return 0


def _most_samples(own: Any, truth: Any) -> tuple[int, Any]:
    """Return the most samples of an image where none are given, and the images, with a word on it."""
    from dataclasses import replace

    if own is None:
        return 100_000, truth
    told = f"At most {own.samples:,} samples each, as there: --samples plans others."
    return own.samples, replace(truth, source=f"{truth.source} {told}")


def _request(own: Any, sigma: float | None, options: dict[str, Any]) -> Any:
    """Return the request that is planned: the run's own, changed by what was given."""

    from certmix.certification.request import CertifyRequest

    names = ("alpha", "radii", "selection_samples")
    given = {name: options[name] for name in names if options[name] is not None}
    if own is None:
        settings = {"alpha": 0.76, "radii": DEFAULT_RADII, **given}
        return CertifyRequest(sigma or 0.5, samples=options["samples"], **settings)
    if sigma not in (None, own.sigma):
        raise ParameterError(f"sigma = {sigma}: that run was sampled with {own.sigma}: drop --sigma")
    hard = {"scores": "hard", "bound": "clopper-pearson"} if own.scores != "hard" else {}
    return own.replace(samples=options["samples"], goal="radii", **{**given, **hard})


def _text(found: Any) -> str:
    """Return the plan as a table with its assumptions."""
    lines = [
        f"{found.images:,} images, at most {found.samples:,} samples each, sigma {found.sigma:g}, "
        f"alpha {found.alpha:g}, {found.classes:,} classes",
        f"{found.workers:,} x {found.throughput:,.0f} samples a second",
        "",
        f"{'--goal':8}{'samples an image':>18}{'in total':>11}{'hours':>11}{'cost':>11}{'disk':>10}"
        f"{'memory':>10}",
    ]
    for goal in found.goals:
        cost = "-" if goal.cost is None else f"{goal.cost:,.2f}"
        lines.append(
            f"{goal.goal:8}{goal.mean_samples:>18,.0f}{goal.total_samples:>11.2e}{goal.hours:>11,.2f}{cost:>11}"
            f"{_bytes(goal.disk_bytes):>10}{_bytes(goal.memory_bytes):>10}"
        )
    fixed, radii = found.goals[0].total_samples, found.goals[1].total_samples
    lines += ["", f"Sequential sampling (--goal radii) draws {fixed / radii:.1f} times fewer samples.", ""]
    return "\n".join([*lines, *found.assumptions])


def _bytes(value: float) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"
