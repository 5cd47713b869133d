"""`certmix report`: runs as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from .sources import is_smoothed
from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix report runs/RUN
  certmix report runs/RUN --output report.html --title "Sigma 0.5" --images 12
  certmix report runs/A runs/B --output comparison.html

The page is one file that needs no network: curves, tables, pictures and how
the run was made. It can be sent, printed, and opened on a phone.
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="The page. A file that certmix did not make is not replaced.  [default: RUN/report.html]",
)  # fmt: skip
@click.option("--title", help="Heading of the page.  [default: what it is about]")
@click.option(
    "--images", type=int, default=6, show_default=True, metavar="N",
    help="Images of each group: largest radii, smallest radii, not certified. 0 for none.",
)  # fmt: skip
def command(runs: tuple[Path, ...], output: Path | None, title: str | None, images: int) -> int:
    """Make one self-contained HTML page of a run, or of several to compare.

    RUN is the folder of a certification run or of an empirical study. Nothing
    is sampled and no model is loaded.
    """
    if all(is_smoothed(run) is None for run in runs):
        refuse_unused(["images"], "is for runs of certify")
    from certmix.page import write_report

    click.echo(write_report(runs, output, title=title, images=images))
    return 0
