"""`certmix falsify`: attacks inside the certified balls of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from certmix.errors import ParameterError

from .options import IMAGES
from .sources import is_smoothed
from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix falsify runs/RUN
  certmix falsify runs/RUN --images all --alpha 1 --samples 100000
  certmix falsify --replay runs/RUN/falsify/finding-40-exact-alpha0.76-seed0.json
  certmix falsify --replay FINDING.json --seed 7

Exit code 0: nothing, or no more than the failure probability allows; 1: the
run is falsified, or the replayed finding stands; 2: something to mend.
That nothing is found proves nothing: networks are mostly robust far beyond
what can be certified of them.
"""
SHOWN = 5
SEARCH = ("images", "alpha", "certificate", "steps", "copies", "restarts", "samples", "error_rate", "output")
"""Options that decide what is searched, and where findings go."""


@click.command("falsify", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option(
    "--images", type=IMAGES, default="25", show_default=True,
    help="Images of the run that are looked at, evenly spread; the certified ones are attacked.",
)  # fmt: skip
@click.option("--alpha", type=float, help="Mixing weight of the radii; 1 is h alone.  [default: the run's]")
@click.option("--certificate", help="Whose radii.  [default: the run's first]")
@click.option("--steps", type=int, default=20, show_default=True, help="Steps of the search.")
@click.option(
    "--copies", type=int, default=32, show_default=True,
    help="Noisy copies behind each gradient of a smoothed classifier.",
)  # fmt: skip
@click.option(
    "--restarts", type=int, default=4, show_default=True,
    help="Starts of each attack on a classifier without noise.",
)  # fmt: skip
@click.option(
    "--samples", type=int, default=10_000, show_default=True,
    help="Fresh samples that decide at a point; hopeless points are given up earlier.",
)  # fmt: skip
@click.option(
    "--error-rate", type=float, default=0.01, show_default=True,
    help="Probability that honest certificates are called falsified.",
)  # fmt: skip
@click.option("--seed", type=int, help="Key of all noise.  [default: 0; --replay draws one]")
@click.option("--replay", "finding", type=click.Path(path_type=Path), help="Judge one finding again.")
@click.option("--output", metavar="FOLDER", help="Folder for findings.  [default: RUN/falsify]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(run: Path | None, finding: Path | None, format_: str, device: str, **options: Any) -> int:
    """Attack the certificates of RUN, the folder of a run of certmix certify, inside their balls.

    A certificate says that the mix keeps its class within a radius, whatever
    the accurate classifier g is. Within that radius a point is searched where
    the margin of h is below (1-alpha)/alpha, so that some g flips the mix. A
    smoothed h is judged there on fresh noise, with a confidence bound. A
    finding is written as a file that --replay judges again.
    """
    if finding is not None:
        refuse_unused(SEARCH, "is for a search, not for --replay")
        return _replay(finding, run, options["seed"], device, format_)
    if run is None:
        raise ParameterError("no run to attack: name the folder of a run of certmix certify, or use --replay")
    if (smoothed := is_smoothed(run)) is not None:
        unused, kind = (["restarts"], "without") if smoothed else (["copies", "samples"], "under")
        refuse_unused(unused, f"is for classifiers {kind} noise")
    from certmix.verification.falsify.attack import FalsifyRequest
    from certmix.verification.falsify.falsify import falsify

    from .progress import StudyBar, say

    output = options.pop("output")
    request = FalsifyRequest(**{**options, "seed": options["seed"] or 0})
    with StudyBar() as bar:
        result = falsify(run, request, output=output, device=device, progress=bar.update, say=say)
    click.echo(_json(result) if format_ == "json" else "\n".join(_lines(result)))
    if result.falsified:
        return 1
    return 0 if result.complete else 130


def _json(result: Any) -> str:
    return json.dumps(result.as_dict(), indent=2, allow_nan=False)


def _lines(result: Any) -> list[str]:
    """Return the report: what was attacked, how near the attacks came, the verdict."""
    claims, attacked = result.claims, result.attacked
    noise = "without noise" if claims.sigma is None else f"sigma {claims.sigma:g}"
    lines = [
        f"{result.source}: certificate {claims.certificate}, alpha {claims.alpha:g}, {claims.norm}, {noise}",
        f"{claims.looked_at} images looked at, {len(claims.claims)} certified, {len(attacked)} attacked"
        + ("" if result.complete else " (interrupted)"),
    ]
    if attacked:
        mu = attacked[0].threshold
        lines.append(f"smallest margins found (some g flips the mix below {mu:.4f}):")
        lines += [f"  {_attack(one)}" for one in result.closest[:SHOWN]]
    lines += [f"finding: {path}" for path in result.files]
    lines.append(f"{'FALSIFIED' if result.falsified else 'Not falsified'}: {result.check.message}")
    if result.findings and claims.sigma is not None:
        lines.append(
            f"Honest certificates have {len(result.findings)} findings or more with probability "
            f"{result.chance:.2g}; from {result.needed} on the run is falsified."
        )
    return lines


def _attack(one: Any) -> str:
    samples = f"estimated from {one.samples:,} samples" if one.samples else "computed without noise"
    found = ", WRONG" if one.found else ""
    return (
        f"image {one.claim.index}: {one.margin:.4f} to class {one.rival} at distance {one.distance:.4f} of "
        f"{one.claim.radius:.4f} ({samples}){found}"
    )


def _replay(finding: Path, run: Path | None, seed: int | None, device: str, format_: str) -> int:
    from certmix.verification.falsify.falsify import replay

    from .progress import say

    result = replay(finding, run, seed=seed, device=device, say=say)
    if format_ == "json":
        click.echo(_json(result))
    else:
        for check in result.checks:
            click.echo(f"{check.check}: {check.outcome}: {check.message}")
        ending = "stands: this certificate is wrong" if result.stands else "does not stand"
        click.echo(f"The finding of image {result.attacked.claim.index} {ending}.")
    return int(result.stands)
