"""`certmix verify`, `guarantee`, `falsify`: does a run hold what it says?"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from certmix import guard
from certmix.data.scales import about_scale
from certmix.errors import CertmixError, ParameterError, one_line
from certmix.progress import bar
from certmix.runs.isolated import isolated
from certmix.verification.guarantees.claim import JOINT, Terms
from certmix.verification.request import FalsifyRequest, VerifyRequest

from .options import (
    DEVICE,
    ISOLATED,
    MODEL_TIMEOUT,
    PATH,
    format_option,
    named_objects,
    objects_of,
    options,
    refuse_unused,
)
from .progress import out, say, watched
from .stored import is_smoothed

VERIFY = """\b
Examples:
  certmix guarantee init runs/RUN --output guarantee.toml
  certmix verify guarantee.toml
  certmix verify guarantee.toml --format github --report junit=verify.xml
  certmix verify guarantee.toml --runs /cache/runs --report json=verify.json
  certmix verify runs/RUN --resample 20

A guarantee names data, models, a certificate and what must hold. Only samples
that are missing are drawn: none where nothing but the accurate classifier
changed. Exit code 0: holds; 1: falls short, or was tampered with; 2: could not
be checked.
"""

FORMATS = ("text", "json", "junit", "github", "markdown")
UNFINISHED = "it has not come to its end: the process was ended, or still runs"
"""What reports say until there is a result."""


def _reports(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[Path, str]:
    found = {}
    for value in values:
        name, equals, file = value.partition("=")
        if name not in FORMATS or not equals or not file:
            raise click.BadParameter(f"{value!r}: write FORMAT=FILE, FORMAT one of {', '.join(FORMATS)}")
        found[Path(file)] = name
    return found


@click.command("verify", epilog=VERIFY)
@click.argument("target", metavar="GUARANTEE|RUN", type=PATH)
@options(VerifyRequest)
@named_objects
@DEVICE
@MODEL_TIMEOUT
@ISOLATED
@format_option(*FORMATS)
@click.option("--details", is_flag=True, help="In the text, a line for each check that holds, too.")
@click.option(
    "--report", "reports", multiple=True, metavar="FORMAT=FILE", callback=_reports,
    help="Write a file besides; repeatable.",
)  # fmt: skip
def verify(
    target: Path, apart: bool, format_: str, details: bool, reports: dict[Path, str], **asked: Any
) -> int:
    """Check that a guarantee holds, or that a run is what it says.

    GUARANTEE is a TOML file (see 'certmix guarantee'): missing samples are
    drawn into --runs, everything is derived again from the counts by a second
    implementation, some inputs are sampled again, and the requirements are
    judged on what was derived. RUN is the folder of a run of 'certmix
    certify', which is checked in the same way and not changed.
    """
    refuse_idle(target, asked)
    if format_ != "text":
        refuse_unused(["details"], "is for --format text")
    from certmix.verification.verify import unchecked

    def report(reason: str) -> None:
        """Report that nothing could be checked."""
        _show(unchecked(target, reason), format_, details, reports)

    _write(unchecked(target, UNFINISHED), reports)  # what lies there of an earlier time says nothing of now
    try:
        with guard.last_words(report), guard.failing_closed():
            found = isolated(verified, target, asked) if apart else verified(target, asked)
    except KeyboardInterrupt as error:
        _write(unchecked(target, f"interrupted: {error}".rstrip(": ")), reports)
        raise
    except Exception as error:
        known = isinstance(error, CertmixError)
        if not known:
            traceback.print_exception(error)
        told = str(error) if known else guard.fault(error)
        click.echo(one_line(f"Error: {told}"), err=True)
        report(told)
        return 2
    _show(found, format_, details, reports)
    return int(found.exit_code)


def refuse_idle(target: Path, asked: dict[str, Any]) -> None:
    """Refuse what has no effect on the verification of a run, or where nothing is drawn again."""
    if not os.path.isdir(target):
        refuse_unused(
            ["data", "standard", "robust"], "is for a run of Python objects: the guarantee names its own"
        )
    if os.path.isdir(target):
        refuse_unused(["runs", "fresh", "batch_size", "budget"], "is for a guarantee, not for a run")
    if asked.get("resample") == 0:
        models = ["device"] if os.path.isdir(target) else []
        refuse_unused(["resample_samples", "new_seed", "error_rate", *models], "is for --resample above 0")


def verified(target: Path, asked: dict[str, Any]) -> Any:
    """Verify, with remarks and bars on stderr."""
    from certmix.verification.verify import verify

    sources = objects_of(asked)
    with bar() as again:
        return watched(
            verify, target, VerifyRequest(**asked), sources=sources,
            say=lambda sentence: click.echo(one_line(sentence), err=True),
            again=lambda done, total: again(done, total, "sampling again"),
        )  # fmt: skip


def _write(found: Any, reports: dict[Path, str]) -> None:
    from certmix.files import write_atomically
    from certmix.verification.outputs import FORMATS as WRITERS

    for path, name in reports.items():
        write_atomically(path, WRITERS[name](found).encode())


def _show(found: Any, format_: str, details: bool, reports: dict[Path, str]) -> None:
    """Write files and print on stdout, where marks that its encoding lacks are spelt in ASCII."""
    from certmix.verification.outputs import FORMATS as WRITERS
    from certmix.verification.outputs import append_summary, text

    _write(found, reports)
    shown = text(found, details) if format_ == "text" else WRITERS[format_](found)
    try:
        shown.encode(getattr(guard.stdout(), "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        shown = shown.replace("\u2713", "ok").replace("\u2717", "FAILS")
        shown = shown.encode("ascii", "backslashreplace").decode()
    out(shown, nl=False)
    if "github" in (format_, *reports.values()):
        append_summary(found)


GUARANTEE = """\b
Examples:
  certmix guarantee init runs/RUN
  certmix guarantee init runs/RUN --slack 0.05 --pin --output ci/guarantee.toml
  certmix guarantee check ci/guarantee.toml

'certmix verify FILE' then checks it.
"""


@click.group("guarantee", epilog=GUARANTEE)
def guarantee() -> None:
    """Write or check a guarantee file: what a mix of two models must keep to."""


@guarantee.command("init")
@click.argument("run", type=PATH)
@click.option(
    "--output", type=click.Path(path_type=Path, allow_dash=True, readable=False),
    default=Path("guarantee.toml"), help="The file to write; '-' prints it.",
)  # fmt: skip
@click.option(
    "--slack", type=float, default=0.02, help="How far requirements lie below the lower bounds of RUN."
)
@click.option("--pin", is_flag=True, help="Pin both models: any change of one is a failure.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME=FILE[#COLUMN]",
    help="Name slices of the inputs: a file with a name a line, or a column of a table, by default the "
    "data's; repeatable.",
)  # fmt: skip
@click.option(
    "--per", multiple=True, metavar="class|NAME",
    help="Ask for accuracies of each class, or of each slice of a --group, as well; repeatable.",
)  # fmt: skip
@options(Terms)
@named_objects
@click.option("--budget", type=int, help="The most samples that a verification may draw.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(
    run: Path, output: Path, slack: float, pin: bool, groups: tuple[str, ...], per: tuple[str, ...],
    budget: int | None, force: bool, **terms: Any,
) -> int:  # fmt: skip
    """Write a guarantee that RUN meets with some room.

    Thresholds are the lower bounds that RUN shows, less --slack (of mean radii,
    this share of themselves), rounded down; edit them at will. Paths become
    relative to the file.
    """
    from certmix.files import as_argument
    from certmix.models.composed import is_code
    from certmix.models.kinds import is_factory
    from certmix.verification.proposing import proposed

    printed = str(output) == "-"
    if printed:
        refuse_unused(["force"], "is for a file")
    sources = objects_of(terms)
    made, content = proposed(
        run, None if printed else output, groups=groups, force=force, sources=sources,
        slack=slack, pin=pin, terms=Terms(**terms), per=per, budget=budget,
    )  # fmt: skip
    if printed:
        out(content, nl=False)
        return 0
    parent = Path(run).parent
    where = "" if parent == Path("runs") else f" --runs {as_argument(parent)}"
    models = [one.model for one in (made.standard, made.robust) if one is not None]
    if is_factory(made.data.name) or any(map(is_code, models)):
        where += " --run-code"
    many = len(made.requirements)
    command = f"certmix verify {as_argument(output)}{where}"
    click.echo(f"{output}: {many} requirements; check with: {command}", err=True)
    return 0


@guarantee.command("check")
@click.argument("file", type=PATH)
def check(file: Path) -> int:
    """Check FILE without loading or sampling anything.

    Exit code 0: it can be verified; 2: it cannot, with the line and the remedy.
    """
    from certmix.verification.guarantees.guarantee import read_guarantee
    from certmix.verification.judge import most_that_can_be_shown

    read = read_guarantee(file)
    inputs, terms = read.request.inputs, read.terms
    bounds = terms.sharing(read.requirements)
    missed = terms.missed(bounds)
    each = any(one.member == "" for one in read.requirements)
    parts = ", each member of a group counted once more" if each else ""
    many = (
        f"{bounds} bounds, each wrong with probability {missed:.3g}{parts}" if bounds > 1 or each else "one"
    )
    click.echo(f"Confidence {terms.confidence:g}: {JOINT[terms.joint]}: {many}.", err=True)
    if read.most_samples is not None:
        spend = "" if read.budget is None else f"; the budget is {read.budget:,}"
        click.echo(f"Samples: a first verification draws at most {read.most_samples:,}{spend}.", err=True)
    for requirement in read.requirements:
        out(str(requirement))
        if requirement.is_share and requirement.side != "value" and isinstance(inputs, int):
            certified = requirement.quantity != "clean_accuracy"
            delta = getattr(read.request, "failure_probability", 0.0) if certified else 0.0
            most = most_that_can_be_shown(inputs, missed, delta)
            if requirement.threshold > most:
                click.echo(
                    f"Warning: {requirement}: with {inputs} inputs no lower bound exceeds {most:.4f}: "
                    "take more inputs, or judge it on value",
                    err=True,
                )
    return 0


FALSIFY = """\b
Examples:
  certmix falsify runs/RUN
  certmix falsify runs/RUN --inputs all --alpha 1 --samples 100000
  certmix falsify --replay runs/RUN/falsify/finding-40-exact-alpha0.76-seed0.json
  certmix falsify --replay FINDING.json --seed 7

Exit code 0: nothing, or no more than the failure probability allows; 1: the
run is falsified, or the replayed finding stands; 2: something to mend.
That nothing is found proves nothing: networks are mostly robust far beyond
what can be certified of them.
"""
SHOWN = 5
SEARCH = {*FalsifyRequest.__struct_fields__, "output"} - {"seed", "run_code"}
"""Options that decide what is searched, and where findings go."""


@click.command("falsify", epilog=FALSIFY)
@click.argument("run", type=PATH, required=False)
@options(FalsifyRequest)
@click.option("--replay", "finding", type=PATH, help="Judge one finding again.")
@click.option("--output", metavar="FOLDER", help="Folder for findings.  [default: RUN/falsify]")
@DEVICE
@MODEL_TIMEOUT
@format_option("text", "json")
def falsify(
    run: Path | None, finding: Path | None, format_: str, device: str, output: str | None, **asked: Any
) -> int:
    """Attack the certificates of RUN, the folder of a run of certmix certify, inside their balls.

    A certificate says that the mix keeps its class within a radius, whatever
    the accurate classifier g is. Within that radius a point is searched where
    the margin of h is below (1-alpha)/alpha, so that some g flips the mix. A
    smoothed h is judged there on fresh noise, with a confidence bound. A
    finding is written as a file that --replay judges again.
    """
    if finding is not None:
        refuse_unused(SEARCH, "is for a search, not for --replay")
        from certmix.verification.falsify.falsify import replay

        judged = replay(finding, run, **asked, device=device, say=say)
        _print(judged, format_, _judged)
        return int(judged.stands)
    if run is None:
        raise ParameterError("no run to attack: name the folder of a run of certmix certify, or use --replay")
    if (smoothed := is_smoothed(run)) is not None:
        unused, kind = (["restarts"], "without") if smoothed else (["copies", "samples", "gate"], "under")
        refuse_unused(unused, f"is for classifiers {kind} noise")
    from certmix.verification.falsify.falsify import falsify

    result = watched(falsify, run, FalsifyRequest(**asked), output=output, device=device)
    _print(result, format_, _lines)
    if result.falsified:
        return 1
    return 0 if result.complete else 130


def _print(result: Any, format_: str, lines: Callable[[Any], list[str]]) -> None:
    if format_ == "json":
        out(json.dumps(result.as_dict(), indent=2, allow_nan=False))
    else:
        out("\n".join(lines(result)))


def _judged(result: Any) -> list[str]:
    """Return the checks of a finding, and what they come to."""
    ending = "stands: this certificate is wrong" if result.stands else "does not stand"
    lines = [f"{check.check}: {check.outcome}: {check.message}" for check in result.checks]
    return [*lines, f"The finding of input {result.attacked.claim.index} {ending}."]


def _lines(result: Any) -> list[str]:
    """Return the report: what was attacked, how near the attacks came, the verdict."""
    claims, attacked = result.claims, result.attacked
    noise = "without noise" if claims.smoothing is None else claims.smoothing.told
    norm = about_scale((claims.run or {}).get("data", {}).get("settings"), ()).get("norm", claims.norm)
    lines = [
        f"{result.source}: certificate {claims.certificate}, alpha {claims.alpha:g}, {norm}, {noise}",
        f"{claims.looked_at} inputs looked at, {len(claims.claims)} certified, {len(attacked)} attacked"
        + ("" if result.complete else " (interrupted)"),
    ]
    if attacked:
        mu = attacked[0].threshold
        lines.append(f"smallest margins found (some g flips the mix below {mu:.4f}):")
        for one in result.closest[:SHOWN]:
            samples = f"estimated from {one.samples:,} samples" if one.samples else "computed without noise"
            lines.append(
                f"  input {one.claim.index}: {one.margin:.4f} to class {one.rival} at distance "
                f"{one.distance:.4f} of {one.claim.radius:.4f} ({samples}){', WRONG' if one.found else ''}"
            )
    lines += [f"finding: {path}" for path in result.files]
    lines.append(f"{'FALSIFIED' if result.falsified else 'Not falsified'}: {result.check.message}")
    if result.findings and claims.smoothing is not None:
        lines.append(
            f"Honest certificates have {len(result.findings)} findings or more with probability "
            f"{result.chance:.2g}; from {result.needed} on the run is falsified."
        )
    return lines
