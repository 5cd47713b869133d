"""Options that decide what is sampled, and how counts become a table."""

from __future__ import annotations

import click

from certmix.radii import CERTIFICATES
from certmix.report.tables import FORMATS
from certmix.studies.request import BOUNDS_OF, DEFAULT_RADII, GOALS

from .options import IMAGES, RADII, F

BOUND_NAMES = [name for table in BOUNDS_OF.values() for name in table]
DEFAULT_COLUMNS = ",".join(f"{r:g}" for r in DEFAULT_RADII)


def sampling_options(function: F) -> F:
    """Add --images, --samples, --selection-samples, --goal and --relative-precision."""
    goals = "; ".join(f"{name}: {meaning}" for name, meaning in GOALS.items())
    for option in reversed(
        [
            click.option(
                "--images", type=IMAGES, default="100", show_default=True,
                help="How many images, spread over the data.",
            ),
            click.option(
                "--samples", type=int, default=10_000, show_default=True,
                help="Most estimation samples of an image.",
            ),
            click.option(
                "--selection-samples", type=int, default=100, show_default=True,
                help="Samples that choose the class.",
            ),
            click.option(
                "--scores", type=click.Choice(list(BOUNDS_OF)), default="hard", show_default=True,
                help="Count the model's answers, or average its softmax.",
            ),
            click.option(
                "--temperature", type=float, default=1.0, show_default=True,
                help="Divides the logits of soft scores.",
            ),
            click.option(
                "--goal", type=click.Choice(list(GOALS)), default="radii", show_default=True,
                help=f"When an image has enough samples: {goals}.",
            ),
            click.option(
                "--relative-precision", type=float, default=0.1, show_default=True,
                help="How near --goal radius comes.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


def evaluation_options(function: F) -> F:
    """Add --failure-probability, --bound, --certificate and --radii."""
    for option in reversed(
        [
            click.option(
                "--failure-probability", type=float, default=0.001, show_default=True,
                help="Probability that one image's certificate is wrong.",
            ),
            click.option(
                "--bound", type=click.Choice(BOUND_NAMES), default=None,
                help="From samples to probabilities.  [default: clopper-pearson; betting for soft scores]",
            ),
            click.option(
                "--certificate", "certificates", type=click.Choice(list(CERTIFICATES)), multiple=True,
                default=list(CERTIFICATES),
                help="From probabilities to radii; repeatable, the first ends sampling.  [default: all]",
            ),
            click.option(
                "--radii", type=RADII, default=DEFAULT_COLUMNS, show_default=True,
                help="Columns of the table.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


format_option = click.option(
    "--format", "format_", type=click.Choice(["table", *FORMATS]), default="table", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
