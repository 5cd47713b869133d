"""`certmix audit`: what to know before trusting a log, class counts or a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import RADII
from .sources import of_source, sigma_option
from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix audit cohen-0.25.tsv --sigma 0.25
  certmix audit a.tsv b.tsv --sigma 0.25,0.5 --format json
  certmix audit runs/RUN

Exit code 0: nothing that would change a table; 1: something would (marked !).
Of a run its counts and its log are looked at. Its published tables and plots
are checked by certmix verify RUN.
"""


@click.command("audit", epilog=EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@sigma_option
@click.option(
    "--samples", type=int, default=100_000, show_default=True, help="Samples an image that a log rests on."
)
@click.option(
    "--failure-probability", type=float, default=0.001, show_default=True,
    help="Failure probability that a log is said to have.",
)  # fmt: skip
@click.option("--radii", type=RADII, help="Thresholds of tables.  [default: 0 to 1.5 in steps of 0.25]")
@click.option("--rows", type=int, help="How many rows there should be.  [default: from idx]")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(sources: tuple[str, ...], format_: str, **options: Any) -> int:
    """Check stored sources: missing and repeated rows, failure probability, ceilings, columns.

    SOURCE is a published log (idx label predict radius correct time), a file
    of class counts, or a run folder. Each finding ends with what to do.
    """
    from certmix.certification.audit import audit

    if all(Path(source).is_dir() for source in sources):
        refuse_unused(
            ["sigmas", "samples", "failure_probability", "radii", "rows"],
            "is for files: a run folder says so itself",
        )
    sigmas = options.pop("sigmas")
    given = {name: value for name, value in options.items() if value is not None}
    audits = [audit(source, sigma=of_source(sigmas, sources, k), **given) for k, source in enumerate(sources)]
    if format_ == "json":
        content = {"schema_version": 1, "sources": [one.as_dict() for one in audits]}
        click.echo(json.dumps(content, indent=2, allow_nan=False))
    else:
        assumed = _assumed()
        click.echo("\n".join(line for one in audits for line in _lines(one, assumed)))
    return int(any(one.changes_table for one in audits))


def _assumed() -> set[str]:
    """Return which facts of a published log nobody stated."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name for name in ("samples", "failure_probability") if context.get_parameter_source(name) is default
    }


def _lines(one: Any, assumed: set[str]) -> list[str]:
    """Return a heading, the facts that are known, and one line a finding."""
    marked = assumed if one.facts.get("samples_known") is False else set()
    facts = [
        f"  {name.replace('_', ' ')}: {_shown(value)}{' (assumed)' if name in marked else ''}"
        for name, value in one.facts.items()
        if value is not None
    ]
    if one.kind == "run folder":
        facts.append(f"  published tables: not looked at; certmix verify {one.source} checks them")
    findings = []
    for finding in one.findings:
        more = " ..." if finding.count > len(finding.images) else ""
        images = f" (idx {', '.join(map(str, finding.images))}{more})"
        findings.append(
            f"{'!' if finding.changes_table else '-'} {finding.check}: {finding.message}"
            f"{images if finding.images else ''}; {finding.remedy}"
        )
    return [f"{one.source}: {one.kind}", *facts, *(findings or ["  nothing found"])]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
    )
