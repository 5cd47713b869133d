"""Options that decide what is sampled, and how counts become a table."""

from __future__ import annotations

import click

from certmix.bounds import BOUNDS
from certmix.certification.deterministic_request import BOUND_METHODS, MAX_RADIUS, NORMS, NORMS_OF
from certmix.certification.request import DEFAULT_RADII, GOALS, SCORES
from certmix.radii import CERTIFICATES
from certmix.radii.constant import CONSTANTS_OF
from certmix.tables.formats import FORMATS

from .options import IMAGES, RADII, RADIUS, F, norm_type

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
                "--scores", type=click.Choice(list(SCORES)), default="hard", show_default=True,
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
    """Add --failure-probability, --bound, --certificate, --norm and --radii."""
    for option in reversed(
        [
            click.option(
                "--failure-probability", type=float, default=0.001, show_default=True,
                help="Probability that one image's certificate is wrong.",
            ),
            click.option(
                "--bound", type=click.Choice(list(BOUNDS)), default=None,
                help="From samples to probabilities.  [default: clopper-pearson; betting for soft scores]",
            ),
            click.option(
                "--certificate", "certificates", type=click.Choice(list(NORMS_OF)), multiple=True,
                default=list(CERTIFICATES),
                help="From probabilities to radii; repeatable, the first ends sampling. margin and "
                "lipschitz-constant draw no samples.  [default: all that sample]",
            ),
            click.option(
                "--norm", type=norm_type(*NORMS), default=None,
                help="Norm of the radii.  [default: l2; linf for margin]",
            ),
            click.option(
                "--radii", type=RADII, default=None,
                help=f"Columns of the table.  [default: {DEFAULT_COLUMNS}; 0 to 8/255 in linf]",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


def deterministic_options(function: F) -> F:
    """Add what the certificates that draw no samples take besides."""
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in CONSTANTS_OF.items())
    for option in reversed(
        [
            click.option(
                "--bound-method", type=click.Choice(BOUND_METHODS), default=None,
                help="margin: how bounds are propagated, from cheap to dear.  [default: crown-ibp]",
            ),
            click.option(
                "--max-radius", type=RADIUS, default=None,
                help="margin: largest radius that is tried.  "
                f"[default: {MAX_RADIUS['linf'] * 255:g}/255 in linf, {MAX_RADIUS['l2']:g} in l2]",
            ),
            click.option(
                "--lipschitz-constant", type=float, default=None,
                help="lipschitz-constant: an upper bound of h's, which you vouch for.",
            ),
            click.option(
                "--constant-of", type=click.Choice(list(CONSTANTS_OF)), default=None,
                help=f"lipschitz-constant: what it is a constant of. {meanings}.  [default: logits]",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


format_option = click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
