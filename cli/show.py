"""`certmix show`: the table of a run, from its numbers."""

from __future__ import annotations

from pathlib import Path

import click

from certmix.tables.formats import FORMATS

EPILOG = """\b
Examples:
  certmix show runs/RUN
  certmix show runs/RUN --format latex
"""


@click.command("show", epilog=EPILOG)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(run: Path, format_: str) -> int:
    """Print the table of a certification run again, in any format.

    RUN is the folder of a run of certmix certify. The table is made from the
    run's numbers: nothing is sampled, no model is loaded.
    """
    from certmix.certification.show import show
    from certmix.tables import print_table

    print_table(show(run), format_)
    return 0
