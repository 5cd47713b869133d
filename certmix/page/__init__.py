"""`certmix report`: what run folders hold, as one self-contained HTML page.  No torch, no network."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from certmix import text
from certmix.errors import ParameterError, RunError, one_line
from certmix.files import open_file, write_atomically
from certmix.page.runs import Run, read_page_run
from certmix.page.views import NORMS, compared, letter, run_chart, run_histogram, table_view
from certmix.tables import words
from certmix.tables.table import printed

__all__ = ["PICTURES", "render", "report_page", "write_report"]

PICTURES = 6
"""Inputs of each group that a page shows."""
FILE = "report.html"
GENERATOR = "certmix report"
"""What the page's head says of its maker: a file without it is not overwritten."""

POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; "
    "base-uri 'none'; form-action 'none'"
)
FUNCTIONS = (
    text.accuracy, text.ceil_digits, text.floor_digits, text.plain_decimal, letter, printed,
    run_chart, run_histogram, table_view, words.certificate_label, words.mean_radius, words.radius_heading,
    words.share_of, words.summary_table, words.symbols,
)  # fmt: skip
"""What the template calls."""


@cache
def _template() -> jinja2.Template:
    def part(name: str) -> str:
        return (files("certmix.page") / name).read_text(encoding="utf-8")

    def printable(value: Any) -> Any:
        """Spell out unprintable characters of everything that the template writes."""
        return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=printable, trim_blocks=True,
        lstrip_blocks=True, extensions=["jinja2.ext.do"], loader=jinja2.FunctionLoader(part),
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["base64"] = lambda content: b64encode(content).decode("ascii")
    style, script = part("page.css"), part("page.js")
    allowed = (b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (style, script))
    environment.globals |= {
        "style": Markup(style), "script": Markup(script), "policy": POLICY.format(*allowed),
        "GENERATOR": GENERATOR, "NORMS": NORMS, "zip": zip,
        **{function.__name__: function for function in FUNCTIONS},
    }  # fmt: skip
    return environment.get_template("page.html.j2")


def render(runs: Sequence[Run], title: str | None = None) -> str:
    """Return one HTML document of one or several runs; the same runs give the same bytes."""
    return _template().render(runs=runs, title=title, side_by_side=compared(runs) if len(runs) > 1 else None)


def report_page(runs: Sequence[str | Path], *, title: str | None = None, inputs: int = PICTURES) -> str:
    """Return one self-contained HTML page about one or several run folders.

    Parameters
    ----------
    runs
        Folders of certification runs or of empirical studies; several are compared.  A CertmixError refuses
        what is not a readable run.
    title
        The page's heading; by default it says what the page is about.
    inputs
        Inputs shown of each group (largest radii, smallest, not certified); 0 for none.
    """
    if not runs:
        raise ParameterError("no run was given: name the folder of a certmix run")
    if inputs < 0:
        raise ParameterError(f"inputs = {inputs}: give a number of at least 0; 0 leaves pictures out")
    return render([read_page_run(Path(run), inputs) for run in runs], title)


def write_report(
    runs: Sequence[str | Path], output: str | Path | None = None, *, title: str | None = None,
    inputs: int = PICTURES,
) -> Path:  # fmt: skip
    """Write `report_page` to a file, by default ``report.html`` in the folder of the one run.

    A CertmixError refuses what `report_page` does, and a file that exists and is no page of certmix.
    """
    if output is None and len(runs) != 1:
        raise ParameterError(f"{len(runs)} runs: name the file of the page with --output")
    path = Path(runs[0]) / FILE if output is None else Path(output)
    if os.path.isdir(path):
        raise RunError(f"{path} is a folder: name a file such as {path / FILE}")
    try:  # replace nothing but an earlier page
        with open_file(path) as file:
            start = file.read(4096)
    except FileNotFoundError:
        start = None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): name another --output") from None
    if start is not None and f'name="generator" content="{GENERATOR}"'.encode() not in start:
        raise RunError(f"{path} exists and is no page of certmix report: name another --output, or remove it")
    write_atomically(path, report_page(runs, title=title, inputs=inputs).encode("utf-8"))
    return path
