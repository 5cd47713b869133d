"""`certmix selftest`: do the guarantees hold for the installed package, on this machine?"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

import certmix.selftests
from certmix.errors import CertmixError
from certmix.selftests import SUITES

from .options import format_option
from .progress import out

SCHEMA_VERSION = 2
EPILOG = (
    """\b
Examples:
  certmix selftest
  certmix selftest --suite radii --suite votes --cases 1000 --seed 7
  certmix selftest --format json > selftest.json

\b
Suites:
"""
    + "\n".join(f"  {name:16} {title}" for name, title in SUITES.items())
    + """

Exit code 0: every test of every suite passes; 1: one does not. The tests are the
package's own: pytest --pyargs certmix.selftests runs them, too.
"""
)


@click.command("selftest", epilog=EPILOG)
@click.option(
    "--suite", "names", type=click.Choice(list(SUITES)), multiple=True, help="Only this suite; repeatable."
)
@click.option("--cases", type=click.IntRange(1), default=50, help="Random cases of a property.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Key of all random cases.")
@format_option("text", "json")
def command(names: tuple[str, ...], cases: int, seed: int, format_: str) -> int:
    """Hold the papers' guarantees against this installation.

    Random cases and edges of each theorem are computed with the installed
    package and compared with closed forms, enumeration and exact arithmetic:
    broken math libraries, a processor that flushes small numbers to zero, or a
    faulty build show here before they show in a certificate. No network, no
    data, no GPU.
    """
    suites = {name: Suite(name, title) for name, title in SUITES.items() if not names or name in names}
    facts = {}
    for package in ("certmix", "torch", "numpy", "scipy", "numba", "llvmlite", "mpmath"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed as a package"
    import torch

    facts["Python"] = f"{platform.python_implementation()} {platform.python_version()}"
    facts["machine"] = f"{platform.system()} {platform.machine()}"
    facts["torch on CPU"] = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    if format_ == "text":
        out("\n".join(f"{name}: {found}" for name, found in facts.items()) + "\n")
    _run(suites, cases, seed, show=format_ == "text")
    passed = all(suite.holds for suite in suites.values())
    if format_ == "json":
        content = {
            "schema_version": SCHEMA_VERSION, "machine": facts, "seed": seed, "cases": cases,
            "outcome": "holds" if passed else "fails",
            "suites": [suite.as_dict() for suite in suites.values()],
        }  # fmt: skip
        out(json.dumps(content, indent=2, allow_nan=False))
    bad = [suite.name for suite in suites.values() if not suite.holds]
    if not bad:
        tests = sum(suite.tests for suite in suites.values())
        click.echo(f"{len(suites)} suites, {tests} tests: all hold", err=True)
        return 0
    click.echo(
        f"{', '.join(bad)}: a guarantee does not hold here. Do not trust certificates made by this "
        "installation; reinstall numpy, scipy, numba and torch, or report the failing cases",
        err=True,
    )
    return 1


@dataclass
class Suite:
    """How the tests of one suite went; `failures` holds the end of each failing test's report."""

    name: str
    title: str
    tests: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether there were tests and none failed."""
        return self.tests > 0 and not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        outcome = "holds" if self.holds else "fails"
        return {**asdict(self), "seconds": round(self.seconds, 3), "outcome": outcome}


class Reporter:
    """A plugin of pytest that counts instead of printing: one line a suite."""

    def __init__(self, suites: dict[str, Suite], show: bool) -> None:
        self.suites, self.show, self.begun = suites, show, time.perf_counter()

    def pytest_collectreport(self, report: Any) -> None:
        """Take a module that cannot be imported as a failure of its suite."""
        if report.failed:
            self._of(report.nodeid).failures["import"] = _end(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test, or take its failure at any stage."""
        suite = self._of(report.nodeid)
        suite.seconds += report.duration
        suite.tests += report.when == "call"
        if report.failed:
            suite.failures[report.nodeid.split("::", 1)[1]] = _end(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Show how far it is, on a terminal."""
        if self.show and sys.stderr.isatty():
            suite = self._of(nodeid)
            click.echo(f"\r{suite.name}: {suite.tests} tests \r", err=True, nl=False)

    def _of(self, nodeid: str) -> Suite:
        name = Path(nodeid.split("::", 1)[0]).stem.removeprefix("test_").replace("_", "-")
        return self.suites[name]


def _run(suites: dict[str, Suite], cases: int, seed: int, *, show: bool) -> None:
    """Run pytest, apart from the user's own configuration, options (such as -k), plugins and caches."""
    import pytest

    folder = Path(certmix.selftests.__file__).parent
    os.environ["CERTMIX_SELFTEST_CASES"] = str(cases)
    common = [
        "-c", os.devnull, "--rootdir", str(folder), "--import-mode=importlib", "-p", "no:terminal",
        "-p", "no:cacheprovider", "-p", "hypothesispytest", "--hypothesis-seed", str(seed),
    ]  # fmt: skip
    own = {name: os.environ.pop(name, None) for name in ("PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        for suite in suites.values():
            module = folder / f"test_{suite.name.replace('-', '_')}.py"
            code = pytest.main([*common, str(module)], plugins=[Reporter(suites, show)])
            if code == pytest.ExitCode.INTERRUPTED and "import" not in suite.failures:
                raise KeyboardInterrupt
            if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
                found = f"pytest cannot run suite {suite.name} ({code!r})"
                raise CertmixError(f"{found}: reinstall pytest and hypothesis")
            if show:
                word = "holds" if suite.holds else "FAILS"
                took = f"{suite.tests:3} tests {suite.seconds:6.1f} s"
                out(f"{word}  {suite.name:14} {took}  {suite.title}")
                for name, end in suite.failures.items():
                    lines = "".join(f"      {line}\n" for line in end.splitlines())
                    out(f"\n  {name}\n{lines}")
    finally:
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        os.environ.update({name: value for name, value in own.items() if value is not None})


def _end(report: Any) -> str:
    """Return what pytest marks as the error, which names the failing case; at most 20 lines."""
    text = report.longreprtext.splitlines()
    marked = [line[1:].strip() for line in text if line.startswith("E ")]
    return "\n".join((marked or text)[:20])
