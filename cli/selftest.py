"""`certmix selftest`: do the guarantees hold for the installed package, on this machine?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from certmix.verification.checks import Outcome
from certmix.verification.selftests import CASES, SUITES, run_suites

if TYPE_CHECKING:
    from certmix.verification.selftests import SuiteResult

SCHEMA_VERSION = 1
EPILOG = (
    """\b
Examples:
  certmix selftest
  certmix selftest --suite exact --suite clopper-pearson --cases 1000 --seed 7
  certmix selftest --format json > selftest.json

\b
Suites:
"""
    + "\n".join(f"  {name:16} {title}" for name, title in SUITES.items())
    + """

Slack is by how much a property held in its worst case; below 0 it failed.
Exit code 0: every property of every suite holds; 1: one does not.
"""
)


@click.command("selftest", epilog=EPILOG)
@click.option(
    "--suite", "names", type=click.Choice(list(SUITES)), multiple=True, help="Only this suite; repeatable."
)
@click.option("--cases", type=int, default=CASES, show_default=True, help="Random cases of a suite.")
@click.option("--seed", type=int, default=0, show_default=True, help="Key of all random cases.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="What to print on stdout.",
)  # fmt: skip
def command(names: tuple[str, ...], cases: int, seed: int, format_: str) -> int:
    """Hold the papers' guarantees against this installation, in seconds.

    Random cases and edges of each theorem are computed with the installed
    package and compared with closed forms, enumeration and decimal arithmetic:
    broken math libraries, a processor that flushes small numbers to zero, or a
    faulty build show here before they show in a certificate. No network, no
    data, no GPU.
    """
    suites = run_suites(names, cases=cases, seed=seed)
    from certmix.verification.selftests.machine import machine_facts

    facts, results = machine_facts(), []
    if format_ == "text":
        click.echo("\n".join(f"{name}: {found}" for name, found in facts.items()))
        click.echo("\nSlack: by how much a property held in its worst case; below 0 it failed.")
    for result in suites:
        results.append(result)
        if format_ == "text":
            click.echo("\n".join(_lines(result)))
    passed = all(result.outcome == Outcome.HOLDS for result in results)
    if format_ == "json":
        content = {
            "schema_version": SCHEMA_VERSION, "machine": facts, "seed": seed, "cases": cases,
            "outcome": str(Outcome.HOLDS if passed else Outcome.FAILS),
            "suites": [result.as_dict() for result in results],
        }  # fmt: skip
        click.echo(json.dumps(content, indent=2, allow_nan=False))
    click.echo(_verdict(results), err=True)
    return 0 if passed else 1


def _lines(result: SuiteResult) -> list[str]:
    """Return a heading, one line a property, and the first failing cases."""
    lines = ["", f"{result.suite}: {result.title}"]
    for one in result.properties:
        mark = " " if one.outcome == Outcome.HOLDS else "!"
        slack = f"{one.worst_slack:.2g} {one.unit}".strip()
        lines.append(f"{mark} {one.outcome}  {one.name}  ({one.cases:,} cases, worst slack {slack})")
        if one.failures:
            lines.append(f"      {one.failures:,} fail, among them:")
            lines += [f"      {example}" for example in one.examples]
    if result.error is not None:
        lines.append(f"! broke off: {result.error}")
    return lines


def _verdict(results: list[SuiteResult]) -> str:
    bad = [result.suite for result in results if result.outcome != Outcome.HOLDS]
    cases = sum(result.cases for result in results)
    if not bad:
        return f"{len(results)} suites, {cases:,} cases: all hold"
    return (
        f"{', '.join(bad)}: a guarantee does not hold here. Do not trust certificates made by this "
        "installation; reinstall numpy, scipy, numba and torch, or report the failing cases"
    )
