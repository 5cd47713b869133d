"""`certmix guarantee`: write a guarantee file from a run, or check one."""

from __future__ import annotations

from pathlib import Path

import click

from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix guarantee init runs/RUN
  certmix guarantee init runs/RUN --slack 0.05 --pin --output ci/guarantee.toml
  certmix guarantee check ci/guarantee.toml

'certmix verify FILE' then checks it.
"""

HEADING = """A guarantee, checked by: certmix verify FILE
Requirements without "on value" are judged on a one-sided 95 % lower bound over images."""


@click.group("guarantee", epilog=EPILOG)
def command() -> None:
    """Write or check a guarantee file: what a mix of two models must keep to."""


@command.command("init")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path, allow_dash=True), default=Path("guarantee.toml"),
    show_default=True, help="The file to write; '-' prints it.",
)  # fmt: skip
@click.option(
    "--slack", type=float, default=0.02, show_default=True,
    help="How far requirements lie below the lower bounds of RUN.",
)  # fmt: skip
@click.option("--pin", is_flag=True, help="Pin both models: any change of one is a failure.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(run: Path, output: Path, slack: float, pin: bool, force: bool) -> int:
    """Write a guarantee that RUN meets with some room.

    Thresholds are the lower bounds that RUN shows, less --slack (of mean radii,
    this share of themselves), rounded down; edit them at will. Paths become
    relative to the file.
    """
    from certmix.errors import ParameterError
    from certmix.files import write_atomically
    from certmix.verification.guarantee import guarantee_text, parse_guarantee
    from certmix.verification.propose import propose

    printed = str(output) == "-"
    if printed:
        refuse_unused(["force"], "is for a file")
    if not printed and output.exists() and not force:
        raise ParameterError(f"{output} exists: name another --output, or add --force to replace it")
    guarantee, remarks = propose(run, Path("guarantee.toml") if printed else output, slack=slack, pin=pin)
    content = guarantee_text(guarantee, remarks=remarks, heading=HEADING)
    parse_guarantee(content, guarantee.path)  # names of models and data may be such as no file can hold
    if printed:
        click.echo(content, nl=False)
        return 0
    write_atomically(output, content.encode())
    parent = Path(run).parent
    where = "" if parent == Path("runs") else f" --runs {parent}"
    click.echo(f"{output}: {len(remarks)} requirements; check with: certmix verify {output}{where}", err=True)
    return 0


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> int:
    """Check FILE without loading or sampling anything.

    Exit code 0: it can be verified; 2: it cannot, with the line and the remedy.
    """
    from certmix.verification.guarantee import read_guarantee
    from certmix.verification.judge import most_that_can_be_shown

    guarantee = read_guarantee(file)
    images = guarantee.request.images
    for requirement in guarantee.requirements:
        click.echo(str(requirement))
        if requirement.is_share and requirement.side != "value" and isinstance(images, int):
            most = most_that_can_be_shown(images)
            if requirement.threshold > most:
                click.echo(
                    f"Warning: {requirement}: with {images} images no lower bound exceeds {most:.4f}: "
                    "take more images, or judge it on value",
                    err=True,
                )
    return 0
