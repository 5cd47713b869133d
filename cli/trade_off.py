"""`certmix trade-off`: clean against certified accuracy over alpha, and Figure 3 of the paper."""

from __future__ import annotations

from typing import Any

import click

from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES
from certmix.tables import FORMATS

from .options import RADIUS
from .progress import say
from .sources import of_source, sigma_option

EPILOG = """\b
Examples:
  certmix trade-off runs/RUN --at-radius 0.5
  certmix trade-off runs/A runs/B --match-clean-accuracy 0.67
  certmix trade-off a.tsv b.tsv --sigma 0.5,1 --match-clean-accuracy baseline \\
      --certificate smoothing --certificate lipschitz-paper

The last one draws Figure 3 of the first paper: a baseline, and the mix of
larger sigma that has the baseline's clean accuracy.
"""


def _accuracy(_context: click.Context, _option: click.Parameter, text: str | None) -> float | str | None:
    if text is None or text == "baseline":
        return text
    try:
        return float(text)
    except ValueError:
        raise ParameterError(f"clean accuracy {text!r}: give a number such as 0.67, or 'baseline'") from None


@click.command("trade-off", epilog=EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@sigma_option
@click.option(
    "--at-radius", type=RADIUS, default=0.25, show_default=True,
    help="Radius of the certified accuracy; 8/255 is one too.",
)  # fmt: skip
@click.option(
    "--match-clean-accuracy", callback=_accuracy, metavar="A|baseline",
    help="For each SOURCE the largest alpha whose mix is this accurate; baseline: as accurate as the "
    "robust classifier of least sigma alone.",
)  # fmt: skip
@click.option(
    "--certificate", "certificates", type=click.Choice(list(CERTIFICATES)), multiple=True,
    default=list(CERTIFICATES), help="Repeatable.  [default: all]",
)  # fmt: skip
@click.option(
    "--standard-accuracy", type=float,
    help="Files know nothing of g: assume it right with this probability where it decides.  [default: 1]",
)  # fmt: skip
@click.option("--as-printed", is_flag=True, help="Logs: take radii as printed, though rounded to nearest.")
@click.option("--assume-selected", is_flag=True, help="Class counts: other samples chose each image's class.")
@click.option(
    "--plot", default="trade-off.png", show_default=True, metavar="FILE", help="Figure: .png, .svg or 'none'."
)
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="table", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(sources: tuple[str, ...], plot: str, format_: str, **options: Any) -> int:
    """Show what clean accuracy costs in certified accuracy, for all alpha at once.

    SOURCE is a run folder (which knows g's predictions), a published log or a
    file of class counts. Several, as a rule of several sigma, share one figure.
    """
    from certmix.certification.stored import Doubt
    from certmix.certification.trade_off import read_mixable, trade_off
    from certmix.tables import print_table

    sigmas = options.pop("sigmas")
    how = {name: options.pop(name) for name in ("at_radius", "certificates", "match_clean_accuracy")}
    read = [
        read_mixable(source, sigma=of_source(sigmas, sources, k), **options)
        for k, source in enumerate(sources)
    ]
    found = trade_off(read, **how)
    for note in found.notes:
        if isinstance(note, Doubt):
            say(note)
    if plot != "none":
        from certmix.tables.curves import plot_trade_off

        plot_trade_off(found, plot)
        click.echo(f"Plot: {plot}", err=True)
    print_table(found.table, format_)
    return 0
