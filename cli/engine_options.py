"""Options that spread a run: workers, engines, shards."""

from __future__ import annotations

import click

from certmix.certification.request import Shard
from certmix.runs.engine import ENGINES

from .options import F, Parsed

__all__ = ["ENGINE", "engine_options", "shard_option"]

ENGINE = ("engine", "workers", "gpus_per_worker", "ray_address")
"""Names of the engine's options."""


def engine_options(function: F) -> F:
    """Add --engine, --workers, --gpus-per-worker and --ray-address."""
    kinds = "; ".join(f"{name}: {meaning}" for name, meaning in ENGINES.items())
    for option in reversed(
        [
            click.option(
                "--workers", type=int, default=None,
                help="Processes that share the work, one CPU thread each; with --device cuda they take "
                "the GPUs in turn. Samples are the same for any number.  [default: on a CPU one a core, once "
                "a run has lasted some seconds and many are left; else 1]",
            ),
            click.option(
                "--engine", type=click.Choice(list(ENGINES)), default="local", show_default=True,
                help=f"What workers are. {kinds}.",
            ),
            click.option(
                "--gpus-per-worker", type=float, default=None,
                help="ray: GPUs that a worker takes, 1 or 0.5.  [default: 1 with --device cuda, else 0]",
            ),
            click.option(
                "--ray-address", metavar="ADDRESS", default=None,
                help="ray: the cluster.  [default: RAY_ADDRESS, or else a local Ray]",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


shard_option = click.option(
    "--shard", type=Parsed("I/N", Shard.parse), default=None,
    help="Do only the I-th of N shares of the images, I from 1 to N, in a folder of its own, to be merged.",
)  # fmt: skip
