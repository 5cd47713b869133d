"""`certmix nuts study`: tables and figures of a nonlinear mix from cached results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from certmix.errors import ParameterError
from certmix.studies.nuts_ablations import STUDIES
from certmix.tables.formats import FORMATS

from .attack_options import print_study
from .options import _Parsed

_LISTED = "\n".join(f"  {name:<12} {study.summary}" for name, study in STUDIES.items())
EPILOG = f"""\b
Studies:
{_LISTED}

\b
Examples:
  certmix nuts study sensitivity mix --plot maps.png
  certmix nuts study beta mix eval --output trade-off
  certmix nuts study transfer mix other-mix
"""


def _known(name: str) -> str:
    if name not in STUDIES:
        raise ParameterError(f"study '{name}' is unknown: choose one of {', '.join(STUDIES)}")
    return name


@click.command("study", epilog=EPILOG)
@click.argument("name", type=_Parsed("NAME", _known), metavar="NAME")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw its figure: .png or .svg."
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Write the table in all formats and all figures there.",
)  # fmt: skip
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(
    name: str, folders: tuple[Path, ...], plot: Path | None, output: Path | None, **options: Any
) -> int:
    """Show how a fitted mix came about, and what else it could have been.

    FOLDER is a run folder of certmix nuts fit. Where a study judges mixes, a
    run folder of certmix nuts evaluate may follow: its attacked points count
    as well. No attack is run: everything comes from cached logits in seconds.
    """
    from certmix.studies.nuts_ablations import nuts_study
    from certmix.studies.study import StudyResult
    from certmix.tables.formats import write_files

    product = nuts_study(name, folders)
    if plot is not None:
        _draw(name, product, plot)
    if output is not None:
        write_files(output, product.table, product.plots)
        click.echo(f"Output: {output}", err=True)
    print_study(StudyResult(product.table, None), options["format_"])
    return 0


def _draw(name: str, product: Any, path: Path) -> None:
    """Write the study's first figure."""
    from certmix.files import write_atomically

    if not product.plots:
        drawn = "sensitivity, margins, transform or beta"
        raise ParameterError(f"study {name} has no figure: leave --plot out, or choose {drawn}")
    draw = next(iter(product.plots.values()))
    write_atomically(path, draw(path.suffix.lower().removeprefix(".")))
    click.echo(f"Plot: {path}", err=True)
