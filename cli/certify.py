"""`certmix certify`, `merge`, `reproduce`, `plan`: certified-accuracy tables, and what they cost."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from certmix.certification.request.noisy import ENUMERATED
from certmix.certification.request.parts import check_batch_size
from certmix.certification.request.population import Population
from certmix.certification.request.proved import Enumerated, GivenConstant, Margin
from certmix.certification.request.reading import request_of
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.request.shard import Shard
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES, Smoothing
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs.engine import EngineChoice
from certmix.runs.settings import Option, divide
from certmix.runs.sources import Sources
from certmix.tables.formats import FORMATS

from .options import (
    DETAILS,
    DEVICE,
    FRESH,
    MODEL_TIMEOUT,
    PATH,
    Parsed,
    format_option,
    named_objects,
    objects_of,
    options,
    refuse_unused,
    sources_of,
)
from .progress import out, say, watched
from .studies import near

CERTIFY = """\b
Examples:
  certmix certify --sigma 0.5 --alpha 0.76
  certmix certify --sigma 0.25 --alpha 0.9 --inputs all --samples 10000
  certmix certify --sigma 0.5 --alpha 0.76 --data my.npz \\
      --standard nets.py:accurate --standard-weights accurate.safetensors \\
      --robust nets.py:noisy --robust-weights noisy.safetensors
  certmix certify --certificate margin --norm linf --alpha 0.76 --robust NET.json
  certmix certify --certificate lipschitz-constant --lipschitz-constant 1 \\
      --alpha 0.76 --robust nets.py:one_lipschitz
  certmix certify --noise bands --patch 5 --alpha 0.76
  certmix certify --noise splitting --scale 0.5 --alpha 0.76
  certmix certify --sigma 0.5 --alpha 0.76 --inputs all --workers 8
  certmix certify --sigma 0.5 --alpha 0.76 --inputs all --shard 2/16

An input counts as certified at radius r when the robust classifier's class is
right and proved not to change within distance r. Repeating the command
resumes an interrupted run, or prints a finished one's table at once; another
--alpha, --certificate, --radii, --failure-probability or --standard reuses all
samples.
"""
OF_CERTIFICATES = Option(
    "From probabilities to radii; repeatable. margin and "
    "lipschitz-constant draw no samples.",
    choices=(*CERTIFICATES, "margin", "lipschitz-constant"), shown="all that sample",
)  # fmt: skip
INPUTS = Option(
    "How many inputs, spread over the data; of a population, the most draws.", metavar="N|all",
    shown="100; of a population as many as there are",
)  # fmt: skip
COMPILE = {"auto": None, "on": True, "off": False}


@click.command("certify", epilog=CERTIFY)
@options(
    CertifyRequest, Margin, GivenConstant, Enumerated, Population, Sources, required=("alpha",),
    certificates=OF_CERTIFICATES, inputs=INPUTS, samples="10,000; 1,000 of a population",
)  # fmt: skip
@DEVICE
@MODEL_TIMEOUT
@click.option("--batch-size", type=int, show_default="automatic", help="Inputs in one forward pass.")
@click.option(
    "--compile", "compiled", type=click.Choice(list(COMPILE)), default="auto",
    is_flag=False, flag_value="on",
    help="Compile the robust model first (torch.compile). auto: if the samples still to draw repay it.",
)  # fmt: skip
@options(EngineChoice)
@click.option(
    "--shard", type=Parsed("I/N", Shard.parse),
    help="Do only the I-th of N shares of the inputs, I from 1 to N, in a folder of its own, to be merged.",
)  # fmt: skip
@click.option("--output", metavar="FOLDER", help="Run folder.  [default: runs/<identity of the run>]")
@FRESH
@format_option(*FORMATS)
@DETAILS
def certify(format_: str, details: bool, **given: Any) -> int:
    """Certify the mix log((1-alpha) g + alpha h) of two classifiers.

    g is an accurate classifier, h a noise-trained one smoothed by Gaussian
    noise of level --sigma; or, with --certificate margin or lipschitz-constant,
    a network taken as it is. The table shows, for h alone and for the mix, the
    share of inputs that are right and proved not to change within each
    radius, whatever g does.
    """
    given["compiled"] = COMPILE[given["compiled"]]
    check_batch_size(given["batch_size"])
    request = request_of(given, refuse_unused)  # refused before torch is imported
    (spread,), sources = divide(given, EngineChoice), sources_of(given)
    choice = EngineChoice(**{"workers": None, **spread})
    from certmix.certification.run import run_certify

    result = watched(run_certify, request, sources, engine=choice, **given)
    print_result(result, format_, details)
    finished = not result.interrupted if given.get("shard") else result.summary.complete
    if finished and getattr(result, "claim", None) is not None and result.claim.reached is False:
        return 1  # not shown
    return 0 if finished else 130


def print_result(result: Any, format_: str, details: bool) -> None:
    """Print the table on stdout, and where everything lies on stderr."""
    from certmix.tables import print_table

    print_table(result.summary, format_, details=details)
    if result.folder is not None:
        folder = Path(result.folder)
        rows = "radii.tsv" if os.path.exists(folder / "radii.tsv") else "records.tsv"
        holds = f"tables, plots, {rows}" if os.path.exists(folder / rows) else "tables"
        click.echo(f"Run folder: {near(folder)} ({holds}, run.json)", err=True)


MERGE = """\b
Examples:
  certmix certify --sigma 0.5 --alpha 0.76 --shard 1/2 --output shard-1
  certmix certify --sigma 0.5 --alpha 0.76 --shard 2/2 --output shard-2
  certmix merge shard-1 shard-2 --output run

The merged folder is an ordinary run: certify, recertify, reproduce and verify
take it. It holds the same samples as a run that was never divided.
"""


@click.command("merge", epilog=MERGE)
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="FOLDER...")
@click.option(
    "--output", type=PATH, metavar="RUN",
    help="Folder of the merged run.  [default: runs/<identity of the run>]",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Delete an earlier run in that folder.")
@format_option(*FORMATS)
@DETAILS
def merge(folders: tuple[Path, ...], output: Path | None, fresh: bool, format_: str, details: bool) -> int:
    """Merge the run folders of all shards of one request into one run.

    Every FOLDER comes from certmix certify --shard I/N with the same data,
    models and options. Missing or unfinished inputs are named, as are shards
    that differ in what was asked; nothing is written then.
    """
    from certmix.certification.shards import merge

    print_result(merge(folders, output, fresh=fresh, say=say), format_, details)
    click.echo("Models not checked: the shards keep equal logits of them, none is loaded here.", err=True)
    return 0


@click.command("reproduce")
@click.argument("run", type=PATH)
@click.option("--output", type=PATH, help="Folder of the new run.  [default: a temporary one]")
@DEVICE
@named_objects
@options(Sources, only=["run_code"])
@MODEL_TIMEOUT
def reproduce(run: Path, output: Path | None, device: str, **given: Any) -> int:
    """Run again what RUN's run.json says, and show what differs.

    Data, models, seed and all settings come from RUN, which is only read. On
    the same device type all counts should be equal; other hardware or versions
    may round differently and flip a few votes. Exit code 0: equal, 1: not.
    """
    from certmix.certification.reproduce import reproduce

    sources = objects_of(given)
    with tempfile.TemporaryDirectory() as temporary:
        where = output or Path(temporary) / "run"
        found = watched(reproduce, run, where, sources=sources, device=device, **given)
    for change in found.changed:
        out(f"differs: {change}")
    for difference in found.differences:
        out(
            f"input {difference.index}: {difference.selection} selection and "
            f"{difference.estimation} estimation votes differ"
        )
    differing = {change.partition(":")[0] for change in found.changed if change.startswith("input ")}
    same = found.compared - len(found.differences) - len(differing)
    out(f"{same} of {found.compared} inputs have equal {found.compares}")
    return 0 if found.equal else 1


PLAN = """\b
Examples:
  certmix plan --inputs 50000 --samples 100000 --throughput 5000
  certmix plan --scenario imagenet --sigma 0.5 --inputs 50000 --samples 100000 \\
      --throughput 5000 --workers 8 --price-per-hour 2
  certmix plan --like runs/small --inputs 10000 --workers 16
  certmix plan --noise splitting --inputs 10000 --throughput 5000

Throughput is noisy samples (forward passes) a second of one worker. --like RUN
takes it from the run's records, with the inputs' difficulty and --samples, and
prints it: make a small run first.
"""


@click.command("plan", epilog=PLAN)
@click.option("--inputs", type=int, default=10_000, help="Inputs of the run.")
@options(
    CertifyRequest,
    only=("sigma", "noise", "scale", "alpha", "samples", "radii", "selection_samples"),
    samples="those of --like RUN, or 100,000", sigma="that of --like, or 0.5",
    noise="that of --like, or gaussian", scale="that of --like, or of the shipped models",
    alpha="that of --like, or 0.76", radii="those of --like, or as of certify",
)  # fmt: skip
@click.option("--throughput", type=float, help="Samples a second of one worker.  [default: that of --like]")
@click.option(
    "--columns", type=click.IntRange(1), metavar="N",
    help="--noise bands: columns of the inputs, each of which begins a band.  [default: those of --like]",
)  # fmt: skip
@click.option("--workers", type=int, default=1, help="How many share the work.")
@click.option("--price-per-hour", type=float, help="What one worker costs in an hour, in any currency.")
@click.option(
    "--like", type=PATH, metavar="RUN|LOG",
    help="Inputs are like those of this run folder, published log or file of class counts.",
)  # fmt: skip
@click.option(
    "--scenario", type=click.Choice(["cifar10", "imagenet"]), default=None,
    help="Inputs are as published of Gaussian-trained networks.  [default: imagenet, unless --like]",
)  # fmt: skip
@click.option("--classes", type=int, help="Classes of the data.  [default: those of --like or --scenario]")
@format_option("table", "json")
def plan(
    like: Path | None, scenario: str | None, format_: str, inputs: int, throughput: float | None,
    workers: int, price_per_hour: float | None, classes: int | None, columns: int | None, **asked: Any,
) -> int:  # fmt: skip
    """Estimate hours, cost, disk and memory of a certification.

    Three goals are compared: a fixed number of samples, and the two sequential
    ones, simulated with the stopping rule on inputs like those of a run, of a
    published log, or of a scenario. All assumptions are printed.
    """
    from certmix.certification.analysis.plan import plan, plan_cases, truth_of
    from certmix.certification.analysis.plan import scenario as inputs_of
    from certmix.certification.stored import Reading, is_enumerated

    work: dict[str, Any] = {"inputs": inputs, "throughput": throughput, "workers": workers}
    work["price_per_hour"] = price_per_hour
    sigma, noise, scale = (asked.pop(name, None) for name in ("sigma", "noise", "scale"))
    if noise in ENUMERATED or (like is not None and os.path.isdir(like) and is_enumerated(like)):
        idle = ["sigma", "samples", "radii", "selection_samples", "scenario", "alpha"]
        refuse_unused(idle, "is for runs that sample; all cases of an input are gone through here, so")
        found = plan_cases(like, noise, scale, columns, **work, classes=classes)
        out(json.dumps(found.as_dict(), indent=2) if format_ == "json" else _text(found))
        return 0
    refuse_unused(["columns"], "is for --noise bands")
    if like is not None and scenario is not None:
        raise ParameterError("--like and --scenario both say what the inputs are like: give one of them")
    if like is not None:
        truth, smoothing, own = truth_of(like, Reading(sigma, noise=noise, scale=scale))
    elif noise in (None, GAUSSIAN):
        smoothing, own = Smoothing.of(sigma or scale or 0.5), None
        truth = inputs_of(scenario or "imagenet", smoothing.scale)
    else:
        raise ParameterError(
            f"noise = {noise}: published inputs are of gaussian noise: give --like RUN or LOG"
        )
    for doubt in truth.doubts:
        say(doubt)
    if own is None:
        named = {"sigma": None, "noise": smoothing.kind, "scale": smoothing.scale}
        request = CertifyRequest(**{**named, "alpha": 0.76, "samples": 100_000, **asked})
    else:
        there = own.sigma, own.noise, smoothing.scale
        if any(one not in (None, its) for one, its in zip((sigma, noise, scale), there, strict=True)):
            raise ParameterError(
                f"that run was sampled with {smoothing.told}: drop --sigma, --noise and --scale"
            )
        if "samples" not in asked:
            told = f"At most {own.samples:,} samples each, as there: --samples plans others."
            truth = replace(truth, source=f"{truth.source} {told}")
        hard = {"scores": "hard", "bound": "clopper-pearson"} if own.scores != "hard" else {}
        request = own.replace(**{"goal": "radii", **asked, **hard})
    found = plan(
        request, truth, **work, classes=classes,
    )  # fmt: skip
    out(json.dumps(found.as_dict(), indent=2) if format_ == "json" else _text(found))
    return 0


def _text(found: Any) -> str:
    """Return the plan as a table with its assumptions."""
    what = f"{found.samples:,} cases each, {found.noise} of scale {found.scale:g}"
    if found.alpha is not None:
        told = Smoothing(found.noise, found.scale).told
        what = f"at most {found.samples:,} samples each, {told}, alpha {found.alpha:g}"
    lines = [
        f"{found.inputs:,} inputs, {what}, {found.classes:,} classes",
        f"{found.workers:,} x {found.throughput:,.0f} samples a second",
        "",
        f"{'--goal':8}{'samples an input':>18}{'in total':>11}{'hours':>11}{'cost':>11}{'disk':>10}"
        f"{'memory':>10}",
    ]
    for goal in found.goals:
        cost = "-" if goal.cost is None else f"{goal.cost:,.2f}"
        lines.append(
            f"{goal.goal:8}{goal.mean_samples:>18,.0f}{goal.total_samples:>11.2e}{goal.hours:>11,.2f}{cost:>11}"
            f"{_bytes(goal.disk_bytes):>10}{_bytes(goal.memory_bytes):>10}"
        )
    if found.alpha is not None:
        fixed, radii = found.goals[0].total_samples, found.goals[1].total_samples
        lines += ["", f"Sequential sampling (--goal radii) draws {fixed / radii:.1f} times fewer samples."]
    lines += [""]
    return "\n".join([*lines, *found.assumptions])


def _bytes(value: float) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB"
