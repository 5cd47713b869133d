"""`certmix recertify`, `trade-off`, `compare`, `audit`, `report`, `show`: what is stored, and no sampling."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import CertmixError, ParameterError
from certmix.files import as_argument, write_atomically
from certmix.radii import CERTIFICATES
from certmix.radii.counted import EXACT, THEOREM
from certmix.runs.settings import Option
from certmix.tables.figure import PLOT_FORMATS
from certmix.tables.formats import FORMATS

from .options import DETAILS, NUMBER, NUMBERS, PATH, Names, format_option, options, refuse_unused
from .progress import out, say

sigma_option = click.option(
    "--sigma", "sigmas", type=NUMBERS, multiple=True, metavar="S[,S...]",
    help="Noise level of files, one for all or one a SOURCE; a run knows its own.",
)  # fmt: skip


def is_smoothed(run: Path) -> bool | None:
    """Whether a run folder certifies under noise; None of other studies, and where the command will tell."""
    from certmix.runs import read_run
    from certmix.runs.folder import CERTIFY

    try:
        study = str(read_run(run)["identity"].get("study", CERTIFY))
    except (AttributeError, CertmixError, KeyError, TypeError):
        return None
    return study == CERTIFY if study.startswith(CERTIFY) else None


def of_each(sources: Sequence[str], sigmas: Sequence[tuple[float, ...]]) -> list[tuple[str, float | None]]:
    """Return each source with its noise level, None where none is given."""
    from certmix.certification import stored

    return stored.of_each(sources, [value for given in sigmas for value in given], "--sigma")


RECERTIFY = """\b
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


@click.command("recertify", epilog=RECERTIFY)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@sigma_option
@options(
    CertifyRequest,
    only=(
        "alpha", "certificates", "bound", "failure_probability", "radii", "gate", "standard_temperature",
        "tuned", "noise", "scale",
    ),
    noise=Option("Logs of p_lower: which noise.", shown="gaussian"),
    scale=Option("Logs of p_lower: how much noise."),
    gate="the run's", standard_temperature="the run's", tuned="the run's",
    alpha="the run's; 1 for files", radii="the run's; up to the largest of files",
    certificates=Option("From probabilities to radii; repeatable.", shown="the run's; all for files"),
    bound="the run's; clopper-pearson for counts; not for logs",
    failure_probability="the run's; 0.001 for counts; not for logs",
)  # fmt: skip
@click.option("--as-printed", is_flag=True, help="Logs: take radii as printed, though rounded to nearest.")
@click.option(
    "--assume-selected", is_flag=True,
    help="Class counts: other samples chose each input's class, so spend nothing on the choice.",
)  # fmt: skip
@click.option("--rows", type=int, help="Files: how many rows there should be.  [default: from idx]")
@click.option("--best", is_flag=True, help="The best of several SOURCEs in each cell.")
@format_option(*FORMATS)
@DETAILS
def recertify(sources: tuple[str, ...], **options: Any) -> int:
    """Make the certified-accuracy table of what was sampled before.

    SOURCE is a run folder, a published log (idx label predict radius correct
    time) or a file of class counts (no header; counts, then the label).
    """
    from certmix.certification.analysis.best import of_all

    format_, details = options.pop("format_"), options.pop("details")
    read = of_each(sources, options.pop("sigmas"))
    summary = of_all(read, several=options.pop("best"), **options).summary
    _print(summary, summary.notes, format_, details)
    return 0


def _print(table: Any, notes: Sequence[str], format_: str, details: bool) -> None:
    """Print a table, after the notes that are warnings as well."""
    from certmix.certification.stored import Doubt
    from certmix.tables import print_table

    for note in notes:
        if isinstance(note, Doubt):
            say(note)
    print_table(table, format_, details=details)


TRADE_OFF = """\b
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


@click.command("trade-off", epilog=TRADE_OFF)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@sigma_option
@click.option(
    "--at-radius", type=NUMBER, default=0.25, help="Radius of the certified accuracy; 8/255 is one too."
)
@click.option(
    "--match-clean-accuracy", callback=_accuracy, metavar="A|baseline",
    help="For each SOURCE the largest alpha whose mix is this accurate; baseline: as accurate as the "
    "robust classifier of least sigma alone.",
)  # fmt: skip
@click.option(
    "--certificate", "certificates", type=click.Choice([*CERTIFICATES, EXACT, THEOREM]), multiple=True,
    callback=lambda context, option, given: given or None, help="Repeatable.  [default: all]",
)  # fmt: skip
@click.option(
    "--standard-accuracy", type=float,
    help="Files know nothing of g: assume it right with this probability where it decides.  [default: 1]",
)  # fmt: skip
@options(
    CertifyRequest, only=("gate", "standard_temperature"),
    gate="the run's", standard_temperature="the run's",
)  # fmt: skip
@click.option("--as-printed", is_flag=True, help="Logs: take radii as printed, though rounded to nearest.")
@click.option("--assume-selected", is_flag=True, help="Class counts: other samples chose each input's class.")
@click.option("--plot", default="trade-off.png", metavar="FILE", help="Figure: .png, .svg, .pdf or 'none'.")
@format_option(*FORMATS)
@DETAILS
def trade_off(sources: tuple[str, ...], plot: str, format_: str, details: bool, **options: Any) -> int:
    """Show what clean accuracy costs in certified accuracy, for all alpha at once.

    SOURCE is a run folder (which knows g's predictions), a published log or a
    file of class counts. Several, as a rule of several sigma, share one figure.
    """
    from certmix.certification.analysis.trade_off import read_mixable, trade_off

    sigmas = options.pop("sigmas")
    how = {name: options.pop(name) for name in ("at_radius", "certificates", "match_clean_accuracy")}
    read = [read_mixable(source, sigma=sigma, **options) for source, sigma in of_each(sources, sigmas)]
    found = trade_off(read, **how)
    if plot != "none":
        from certmix.tables.curves import plot_trade_off

        plot_trade_off(found, plot)
        click.echo(f"Plot: {plot}", err=True)
    _print(found.table, found.notes, format_, details)
    return 0


COMPARE = """\b
Examples:
  certmix compare runs/A runs/B
  certmix compare runs/A runs/B --certificate exact --radii 0.25,0.5 --format latex
"""


@click.command("compare", epilog=COMPARE)
@click.argument("first", metavar="FIRST", type=PATH)
@click.argument("second", metavar="SECOND", type=PATH)
@click.option(
    "--certificate", type=Names(CERTIFICATES),
    help="The one whose radii are compared.  [default: the first that both have]",
)  # fmt: skip
@click.option("--radii", type=NUMBERS, help="Thresholds.  [default: those that both tables have]")
@format_option(*FORMATS)
@DETAILS
def compare(
    first: Path, second: Path, certificate: str | None, radii: tuple[float, ...] | None, format_: str,
    details: bool,
) -> int:  # fmt: skip
    """Test whether two runs of certify differ by more than chance.

    FIRST and SECOND are folders of runs on the same data. Of each classifier
    that both have, their clean and certified accuracies and mean radii are
    compared on the inputs that both have, in pairs.
    """
    from certmix.certification.analysis.compare import compare
    from certmix.tables import print_table

    print_table(compare(first, second, certificate=certificate, radii=radii), format_, details=details)
    return 0


AUDIT = """\b
Examples:
  certmix audit cohen-0.25.tsv --sigma 0.25
  certmix audit a.tsv b.tsv --sigma 0.25,0.5 --format json
  certmix audit runs/RUN

Exit code 0: nothing that would change a table; 1: something would (marked !).
Of a run its counts, tables and log are looked at; certmix verify RUN
checks its plots as well.
"""


@click.command("audit", epilog=AUDIT)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@sigma_option
@options(
    CertifyRequest, only=("samples", "failure_probability", "radii"),
    samples=Option("Samples an input that a log rests on.", shown="100000"),
    failure_probability=Option("Failure probability that a log is said to have.", shown="0.001"),
    radii=Option("Thresholds of tables.", shown="0 to 1.5 in steps of 0.25"),
)  # fmt: skip
@click.option("--rows", type=int, help="How many rows there should be.  [default: from idx]")
@format_option("text", "json")
def audit(sources: tuple[str, ...], format_: str, **options: Any) -> int:
    """Check stored sources: missing and repeated rows, failure probability, ceilings, columns.

    SOURCE is a published log (idx label predict radius correct time), a file
    of class counts, or a run folder. Each finding ends with what to do.
    """
    from certmix.certification.analysis.audit import audit

    if all(os.path.isdir(source) for source in sources):
        of_files = ["sigmas", "samples", "failure_probability", "radii", "rows"]
        refuse_unused(of_files, "is for files: a run folder says so itself")
    sigmas = options.pop("sigmas")
    audits = [audit(one, sigma=sigma, **options) for one, sigma in of_each(sources, sigmas)]
    if format_ == "json":
        content = {"schema_version": 1, "sources": [one.as_dict() for one in audits]}
        out(json.dumps(content, indent=2, allow_nan=False))
    else:
        assumed = {"samples", "failure_probability"} - options.keys()  # of a published log
        out("\n".join(line for one in audits for line in _lines(one, assumed)))
    return int(any(one.changes_table for one in audits))


def _lines(one: Any, assumed: set[str]) -> list[str]:
    """Return a heading, the facts that are known, and one line a finding."""
    marked = assumed if one.facts.get("samples_known") is False else set()
    facts = [
        f"  {name.replace('_', ' ')}: {_shown(value)}{' (assumed)' if name in marked else ''}"
        for name, value in one.facts.items()
        if value is not None
    ]
    if one.kind == "run folder":
        facts.append(f"  plots: not looked at; certmix verify {as_argument(one.source)} checks them")
    findings = []
    for finding in one.findings:
        more = " ..." if finding.count > len(finding.inputs) else ""
        inputs = f" (idx {', '.join(map(str, finding.inputs))}{more})"
        findings.append(
            f"{'!' if finding.changes_table else '-'} {finding.check}: {finding.message}"
            f"{inputs if finding.inputs else ''}; {finding.remedy}"
        )
    return [f"{one.source}: {one.kind}", *facts, *(findings or ["  nothing found"])]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


REPORT = """\b
Examples:
  certmix report runs/RUN
  certmix report runs/RUN --output report.html --title "Sigma 0.5" --inputs 12
  certmix report runs/A runs/B --output comparison.html

The page is one file that needs no network: curves, tables, pictures and how
the run was made. It can be sent, printed, and opened on a phone.
"""


@click.command("report", epilog=REPORT)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option(
    "--output", type=PATH, metavar="FILE",
    help="The page. A file that certmix did not make is not replaced.  [default: RUN/report.html]",
)  # fmt: skip
@click.option("--title", help="Heading of the page.  [default: what it is about]")
@click.option(
    "--inputs", type=int, default=6, metavar="N",
    help="Inputs of each group: largest radii, smallest radii, not certified. 0 for none.",
)  # fmt: skip
def report(runs: tuple[Path, ...], output: Path | None, title: str | None, inputs: int) -> int:
    """Make one self-contained HTML page of a run, or of several to compare.

    RUN is the folder of a certification run or of an empirical study. Nothing
    is sampled and no model is loaded.
    """
    if all(is_smoothed(run) is None for run in runs):
        refuse_unused(["inputs"], "is for runs of certify")
    from certmix.page import write_report

    out(str(write_report(runs, output, title=title, inputs=inputs)))
    return 0


SHOW = """\b
Examples:
  certmix show runs/RUN
  certmix show runs/RUN --format latex:tab:mine
  certmix show runs/RUN --plot-format pdf
"""


@click.command("show", epilog=SHOW)
@click.argument("run", metavar="RUN", type=PATH)
@click.option(
    "--plot-format", type=click.Choice(PLOT_FORMATS),
    help="Write the run's plots beside it, as NAME.FORMAT; png and svg are there already.",
)  # fmt: skip
@format_option(*FORMATS)
@DETAILS
def show(run: Path, plot_format: str | None, format_: str, details: bool) -> int:
    """Print the table of a run again, in any format.

    RUN is the folder of a run of certmix certify or of a study. The table is
    made from the run's numbers: nothing is sampled or attacked, no model is
    loaded.
    """
    from certmix.runs import read_run
    from certmix.studies import STUDIES
    from certmix.tables import print_table

    if read_run(run)["identity"].get("study") in STUDIES:
        from certmix.studies.study import shown_study

        found = shown_study(run)
        table: Any = found.table
        plots = found.plots
    else:
        from certmix.certification import publish

        table, plots = (publish.show(run), {}) if plot_format is None else publish.shown(run)
    print_table(table, format_, details=details)
    for name, draw in plots.items() if plot_format is not None else ():
        path = run / f"{name}.{plot_format}"
        write_atomically(path, draw(str(plot_format)))
        click.echo(f"Plot: {path}", err=True)
    return 0
