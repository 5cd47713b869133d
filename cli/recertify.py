"""`certmix recertify`: tables from stored counts or published logs, without sampling."""

from __future__ import annotations

from typing import Any

import click

from certmix.bounds import BOUNDS
from certmix.radii import CERTIFICATES
from certmix.tables.formats import FORMATS

from .options import RADII
from .progress import say
from .sources import of_source, sigma_option
from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix recertify runs/RUN --alpha 0.9
  certmix recertify cohen-0.50.tsv --sigma 0.5 --alpha 0.76
  certmix recertify counts.txt --sigma 0.25 --alpha 0.76 --failure-probability 0.01
  certmix recertify a.tsv b.tsv --sigma 0.25,0.5 --as-printed --best

A log prints radii rounded to nearest. Each is taken for the lowest number that
prints so, with the digits that its column shows, unless --as-printed asks for
the figures of published tables. A log that does not name its bound is taken to
be one-sided (q = 1 - p); one that names another has no tables at alpha < 1:
name the run folder.
"""


@click.command("recertify", epilog=EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@sigma_option
@click.option("--alpha", type=float, help="Mixing weight, 0.5 to 1.  [default: the run's; 1 for files]")
@click.option(
    "--certificate", "certificates", type=click.Choice(list(CERTIFICATES)), multiple=True,
    help="From probabilities to radii; repeatable.  [default: the run's; all for files]",
)  # fmt: skip
@click.option(
    "--bound", type=click.Choice([name for name, bound in BOUNDS.items() if not bound.distribution]),
    help="From counts or scores to probabilities; not for published logs.",
)  # fmt: skip
@click.option(
    "--failure-probability", type=float,
    help="Probability that one image's certificate is wrong; not for published logs.",
)  # fmt: skip
@click.option("--radii", type=RADII, help="Columns of the table.  [default: the run's; 0 to 1.5 for files]")
@click.option("--as-printed", is_flag=True, help="Logs: take radii as printed, though rounded to nearest.")
@click.option(
    "--assume-selected", is_flag=True,
    help="Class counts: other samples chose each image's class, so spend nothing on the choice.",
)  # fmt: skip
@click.option("--rows", type=int, help="Files: how many rows there should be.  [default: from idx]")
@click.option("--best", is_flag=True, help="The best of several SOURCEs in each cell.")
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(sources: tuple[str, ...], **options: Any) -> int:
    """Make the certified-accuracy table of what was sampled before.

    SOURCE is a run folder, a published log (idx label predict radius correct
    time) or a file of class counts (no header; counts, then the label).
    """
    from certmix.certification.stored import Doubt, best, recertify
    from certmix.errors import ParameterError
    from certmix.tables import print_table

    several, format_, sigmas = options.pop("best"), options.pop("format_"), options.pop("sigmas")
    options["certificates"] = options["certificates"] or None
    if len(sources) == 1:
        refuse_unused(["best"], "is for several sources")
    if len(sources) > 1 and not several:
        raise ParameterError(f"{len(sources)} sources were given: name one, or add --best")
    summaries = [
        recertify(source, sigma=of_source(sigmas, sources, k), **options) for k, source in enumerate(sources)
    ]
    summary = best(summaries) if several else summaries[0]
    for note in summary.notes:
        if isinstance(note, Doubt):
            say(note)
    print_table(summary, format_)
    return 0
