"""`certmix certify`: the certified-accuracy table of a mixed classifier."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from certmix.studies.request import CertifyRequest

from .certify_options import evaluation_options, format_option, sampling_options
from .options import data_options, device_options, model_options

EPILOG = """\b
Examples:
  certmix certify --sigma 0.5 --alpha 0.76
  certmix certify --sigma 0.25 --alpha 0.9 --images all --samples 10000
  certmix certify --sigma 0.5 --alpha 0.76 --data my.npz \\
      --standard nets.py:accurate --standard-weights accurate.safetensors \\
      --robust nets.py:noisy --robust-weights noisy.safetensors

An image counts as certified at radius r when the robust classifier's class is
right and proved not to change within l2 distance r. Repeating the command
resumes an interrupted run, or prints a finished one's table at once; another
--alpha, --certificate, --radii, --failure-probability or --standard reuses all
samples.
"""


@click.command("certify", epilog=EPILOG)
@click.option("--sigma", type=float, required=True, help="Noise level, in units of the input (0.25, 0.5, 1).")
@click.option("--alpha", type=float, required=True, help="Mixing weight of the robust classifier, 0.5 to 1.")
@data_options
@model_options
@sampling_options
@evaluation_options
@click.option("--seed", type=int, default=0, show_default=True, help="Key of all noise.")
@device_options
@click.option("--output", metavar="FOLDER", help="Run folder.  [default: runs/<identity of the run>]")
@click.option("--fresh", is_flag=True, help="Start over: delete the samples in the run folder.")
@format_option
def command(**options: Any) -> int:
    """Certify the mix log((1-alpha) g + alpha h) of two classifiers.

    g is an accurate classifier, h a noise-trained one smoothed by Gaussian
    noise of level --sigma. The table shows, for h alone and for the mix, the
    share of images that are right and proved not to change within each l2
    radius, whatever g does.
    """
    from certmix.studies.certify import run_certify
    from certmix.studies.sources import Sources

    from .progress import CertifyBar, say

    settings = {key: options.pop(key) for key in list(options) if key in CertifyRequest.__dataclass_fields__}
    request = CertifyRequest(**settings)
    named = {key: options.pop(key) for key in list(options) if key in Sources.__dataclass_fields__}
    named["standard"] = None if named["standard"] == "none" else named["standard"]
    format_ = options.pop("format_")
    with CertifyBar() as bar:
        result = run_certify(request, Sources(**named), progress=bar.update, say=say, **options)
    print_result(result, format_)
    return 0 if result.summary.complete else 130


def print_result(result: Any, format_: str) -> None:
    """Print the table on stdout, and where everything lies on stderr."""
    from certmix.report.tables import render
    from certmix.report.terminal import print_terminal

    if format_ == "table":
        print_terminal(result.summary, sys.stdout)
    else:
        click.echo(render(result.summary, format_), nl=not render(result.summary, format_).endswith("\n"))
    if result.folder is not None:
        folder = Path(result.folder)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        click.echo(f"Run folder: {shown} (tables, plots, records.tsv, run.json)", err=True)
