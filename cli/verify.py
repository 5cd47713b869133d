"""`certmix verify`: does a guarantee hold, is a run what it says?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .unused import refuse_unused

EPILOG = """\b
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


def _reports(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[Path, str]:
    found = {}
    for value in values:
        name, equals, file = value.partition("=")
        if name not in FORMATS or not equals or not file:
            raise click.BadParameter(f"{value!r}: write FORMAT=FILE, FORMAT one of {', '.join(FORMATS)}")
        found[Path(file)] = name
    return found


@click.command("verify", epilog=EPILOG)
@click.argument("target", metavar="GUARANTEE|RUN", type=click.Path(path_type=Path))
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
    help="Folder of run folders: where a guarantee's samples are kept.",
)  # fmt: skip
@click.option(
    "--resample", "images", type=click.IntRange(min=0), default=5, show_default=True,
    help="Images sampled again in depth, and 20 times as many in a few samples; 0 for none.",
)  # fmt: skip
@click.option(
    "--resample-samples", "samples", type=click.IntRange(min=1), default=1000, show_default=True,
    help="Samples drawn again for each image in depth, on average.",
)  # fmt: skip
@click.option(
    "--new-seed", type=click.IntRange(min=0),
    help="Chooses these images and their noise.  [default: drawn, and reported]",
)  # fmt: skip
@click.option(
    "--error-rate", type=float, default=0.001, show_default=True,
    help="Probability, at most, that sampling again rejects an honest run.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Guarantees: delete the run in --runs and sample anew.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--batch-size", type=int, show_default="automatic", help="Inputs in one forward pass.")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
@click.option("--details", is_flag=True, help="In the text, a line for each check that holds, too.")
@click.option(
    "--report", "reports", multiple=True, metavar="FORMAT=FILE", callback=_reports,
    help="Write a file besides; repeatable.",
)  # fmt: skip
def command(target: Path, format_: str, details: bool, reports: dict[Path, str], **options: Any) -> int:
    """Check that a guarantee holds, or that a run is what it says.

    GUARANTEE is a TOML file (see 'certmix guarantee'): missing samples are
    drawn into --runs, everything is derived again from the counts by a second
    implementation, some images are sampled again, and the requirements are
    judged on what was derived. RUN is the folder of a run of 'certmix
    certify', which is checked in the same way and not changed.
    """
    if target.is_dir():
        refuse_unused(["runs", "fresh", "batch_size"], "is for a guarantee, not for a run")
    if options["images"] == 0:
        models = ["device"] if target.is_dir() else []
        refuse_unused(["samples", "new_seed", "error_rate", *models], "is for --resample above 0")
    if format_ != "text":
        refuse_unused(["details"], "is for --format text")
    from certmix.errors import CertmixError, one_line
    from certmix.verification.outputs import append_summary
    from certmix.verification.verify import unchecked

    try:
        found = _verified(target, options)
    except (CertmixError, click.exceptions.Exit) as error:
        click.echo(one_line(f"Error: {error}"), err=True)
        found = unchecked(target, str(error))
    _write(found, reports)
    _print(found, format_, details)
    if "github" in (format_, *reports.values()):
        append_summary(found)
    return found.exit_code


def _verified(target: Path, options: dict[str, Any]) -> Any:
    from certmix.errors import one_line
    from certmix.verification.verify import Settings, verify

    from .progress import CertifyBar, StudyBar

    with CertifyBar() as bar, StudyBar() as second:
        settings = Settings(
            say=lambda sentence: click.echo(one_line(sentence), err=True),
            progress=lambda progress: _show(bar, progress),
            again=lambda done, total: second.show(done, total, "sampling again"),
            **options,
        )
        return verify(target, settings)


def _show(bar: Any, progress: Any) -> None:
    """Show the progress of sampling, or of a run without samples."""
    if hasattr(progress, "certified"):
        bar.update(progress)
    else:
        bar.show(progress.done, progress.total, progress.cell)


def _write(found: Any, reports: dict[Path, str]) -> None:
    from certmix.files import write_atomically
    from certmix.verification.outputs import FORMATS as WRITERS

    for path, name in reports.items():
        write_atomically(path, WRITERS[name](found).encode())


def _print(found: Any, format_: str, details: bool) -> None:
    """Print on stdout; marks that its encoding lacks are spelt in ASCII."""
    import sys

    from certmix.verification.outputs import FORMATS as WRITERS
    from certmix.verification.outputs import text

    shown = text(found, details) if format_ == "text" else WRITERS[format_](found)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        shown.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        shown = shown.replace("\u2713", "ok").replace("\u2717", "FAILS")
        shown = shown.encode("ascii", "backslashreplace").decode()
    click.echo(shown, nl=False)
