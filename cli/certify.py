"""`certmix certify`: the certified-accuracy table of a mixed classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from certmix.certification.deterministic_request import GivenConstant, Margin, draws_no_samples
from certmix.certification.request import DEFAULT_RADII, OPTION_OF, CertifyRequest, check_batch_size
from certmix.runs.keywords import field_names
from certmix.runs.source_names import Sources

from .certify_options import deterministic_options, evaluation_options, format_option, sampling_options
from .engine_options import chosen_engine, engine_options, shard_option
from .options import RADIUS, data_options, device_options, model_options, named_sources
from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix certify --sigma 0.5 --alpha 0.76
  certmix certify --sigma 0.25 --alpha 0.9 --images all --samples 10000
  certmix certify --sigma 0.5 --alpha 0.76 --data my.npz \\
      --standard nets.py:accurate --standard-weights accurate.safetensors \\
      --robust nets.py:noisy --robust-weights noisy.safetensors
  certmix certify --certificate margin --norm linf --alpha 0.76 --robust NET.json
  certmix certify --certificate lipschitz-constant --lipschitz-constant 1 \\
      --alpha 0.76 --robust nets.py:one_lipschitz
  certmix certify --sigma 0.5 --alpha 0.76 --images all --workers 8
  certmix certify --sigma 0.5 --alpha 0.76 --images all --shard 2/16

An image counts as certified at radius r when the robust classifier's class is
right and proved not to change within distance r. Repeating the command
resumes an interrupted run, or prints a finished one's table at once; another
--alpha, --certificate, --radii, --failure-probability or --standard reuses all
samples.
"""

SAMPLING = (
    "samples", "selection_samples", "scores", "temperature", "goal", "relative_precision",
    "failure_probability", "bound", "seed", "precision", "compile", "shard",
)  # fmt: skip
"""Options that only certificates by sampling take."""
PLAIN = ("bound_method", "max_radius", "lipschitz_constant", "constant_of")
"""Options that only certificates without samples take."""


@click.command("certify", epilog=EPILOG)
@click.option(
    "--sigma", type=RADIUS, default=None,
    help="Noise level, in units of the input (0.25, 0.5, 32/255); not for margin and lipschitz-constant.",
)  # fmt: skip
@click.option("--alpha", type=float, required=True, help="Mixing weight of the robust classifier, 0.5 to 1.")
@data_options
@model_options
@sampling_options
@evaluation_options
@deterministic_options
@click.option("--seed", type=int, default=0, show_default=True, help="Key of all noise.")
@device_options
@engine_options
@shard_option
@click.option("--output", metavar="FOLDER", help="Run folder.  [default: runs/<identity of the run>]")
@click.option("--fresh", is_flag=True, help="Start over: delete the samples in the run folder.")
@format_option
def command(**options: Any) -> int:
    """Certify the mix log((1-alpha) g + alpha h) of two classifiers.

    g is an accurate classifier, h a noise-trained one smoothed by Gaussian
    noise of level --sigma; or, with --certificate margin or lipschitz-constant,
    a network taken as it is. The table shows, for h alone and for the mix, the
    share of images that are right and proved not to change within each
    radius, whatever g does.
    """
    plain = draws_no_samples(options["certificates"], options["norm"], options["sigma"])
    refuse_unused(SAMPLING if plain else PLAIN, f"is not for certificate {options['certificates'][0]}")
    for name, (other, value) in OPTION_OF.items():
        if options[other] != value:
            refuse_unused([name], f"is for --{other} {value}")
    check_batch_size(options["batch_size"])
    settings, sources, rest = _divided(options, _plain_kind(options) if plain else CertifyRequest)
    rest["engine"] = chosen_engine(options)
    if plain:
        result = _without_samples(settings, sources, rest)
    else:
        rest.update(shard=options["shard"], compiled=options["compile"])
        result = _sampled(settings, sources, rest)
    print_result(result, options["format_"])
    finished = not result.interrupted if options["shard"] else result.summary.complete
    return 0 if finished else 130


def _plain_kind(options: dict[str, Any]) -> Any:
    return Margin if options["certificates"][0] == "margin" else GivenConstant


def _divided(
    options: dict[str, Any], kind: type[Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Divide options into those of the request, those of the sources, and where to run."""
    given = {**options, "certificate": options["certificates"][0]}
    settings = {key: given[key] for key in given if key in field_names(kind)}
    named = named_sources(options)
    rest = {key: given[key] for key in ("output", "fresh", "device", "batch_size")}
    return settings, named, rest


def _sampled(settings: dict[str, Any], named: dict[str, Any], rest: dict[str, Any]) -> Any:
    settings["radii"] = DEFAULT_RADII if settings["radii"] is None else settings["radii"]
    request = CertifyRequest(**settings)  # refused before torch is imported

    from certmix.certification.certify import run_certify

    from .progress import CertifyBar, say

    with CertifyBar() as bar:
        return run_certify(request, Sources(**named), progress=bar.update, say=say, **rest)


def _without_samples(settings: dict[str, Any], named: dict[str, Any], rest: dict[str, Any]) -> Any:
    kind = _plain_kind({"certificates": (settings["certificate"],)})
    given = {name: value for name, value in settings.items() if value is not None}
    request = kind(**given)  # refused before torch is imported

    from certmix.certification.deterministic import run_deterministic

    from .progress import StudyBar, say

    with StudyBar() as bar:
        return run_deterministic(request, Sources(**named), progress=bar.update, say=say, **rest)


def print_result(result: Any, format_: str) -> None:
    """Print the table on stdout, and where everything lies on stderr."""
    from certmix.tables import print_table

    print_table(result.summary, format_)
    if result.folder is not None:
        folder = Path(result.folder)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        rows = "radii.tsv" if (folder / "radii.tsv").exists() else "records.tsv"
        click.echo(f"Run folder: {shown} (tables, plots, {rows}, run.json)", err=True)
