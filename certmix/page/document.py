"""The whole page: head with its security policy, sections, style and script in one file."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from certmix.page.chart import chart_data, chart_figure
from certmix.page.compare import (
    comparability,
    comparison_chart,
    figures_table,
    letter,
    parameters_table,
)
from certmix.page.markup import Markup, json_block, tag
from certmix.page.sections import Blocks, certified_sections, section, summary_blocks
from certmix.page.study import study_sections
from certmix.page.values import CertifiedRun, StudyRun

__all__ = ["GENERATOR", "page"]

GENERATOR = "certmix report"
"""What the page's head says of its maker: a file without it is not overwritten."""


@cache
def _asset(name: str) -> str:
    return (files("certmix.page") / name).read_text(encoding="utf-8")


def page(runs: Sequence[CertifiedRun | StudyRun], title: str | None = None) -> str:
    """Return one HTML document of one or several runs; the same runs give the same bytes.

    Parameters
    ----------
    runs
        At least one.  Several certification runs are compared first.
    title
        Heading of the page; by default it names the data and the models.
    """
    heading = title or _title(runs)
    charts: list[dict[str, Any]] = []
    body = _single(runs[0], charts) if len(runs) == 1 else _several(runs, charts)
    kind = f"{len(runs)} runs compared" if len(runs) > 1 else f"Run folder {runs[0].name}"
    main = tag("main", tag("header", tag("p", kind, class_="kind"), tag("h1", heading)), body)
    script = _asset("page.js")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            _head(heading, script),
            tag("body", main, _foot()).removesuffix("</body>"),
            json_block({"charts": charts}, "certmix-data"),
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _title(runs: Sequence[CertifiedRun | StudyRun]) -> str:
    first = runs[0]
    if len(runs) > 1:
        return "Comparison of " + " and ".join([", ".join(r.name for r in runs[:-1]), runs[-1].name])
    if isinstance(first, StudyRun):
        return f"certmix {first.study}"
    summary = first.newest.summary
    return f"Certified accuracy of a mixed classifier on {summary.data or 'unnamed data'}"


def _head(title: str, script: str) -> Markup:
    style = _asset("page.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name_="generator", content=GENERATOR),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        Markup(f"<style>{style}</style>"),
    )


def _digest(content: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"


def _foot() -> Markup:
    return tag(
        "footer",
        tag(
            "p",
            "Made by certmix report from stored records. Nothing was sampled for it, and it loads nothing.",
        ),
    )


def _single(run: CertifiedRun | StudyRun, charts: list[dict[str, Any]]) -> Blocks:
    if isinstance(run, StudyRun):
        return study_sections(run, 2)
    return [*summary_blocks(run), *certified_sections(run, "r", 2, charts)]


def _several(runs: Sequence[CertifiedRun | StudyRun], charts: list[dict[str, Any]]) -> Blocks:
    named = [(letter(k), run) for k, run in enumerate(runs)]
    certified = [(name, run) for name, run in named if isinstance(run, CertifiedRun)]
    pairs = [(tag("dt", name), tag("dd", run.name)) for name, run in named]
    names = tag("dl", [part for pair in pairs for part in pair], class_="names")
    blocks: Blocks = [names]
    if len(certified) > 1:
        blocks.append(_side_by_side(certified, charts))
    if len(certified) < len(named):
        words = "Empirical studies are estimates: their figures and certified ones mean different things."
        blocks.append(tag("p", words, class_="warning", role="note"))
    blocks.append(section(2, "Parameters", parameters_table(named)))
    for k, (name, run) in enumerate(named):
        content = (
            study_sections(run, 3)
            if isinstance(run, StudyRun)
            else [*summary_blocks(run), *certified_sections(run, f"r{k}", 3, charts)]
        )
        blocks.append(tag("section", tag("h2", f"{name}: {run.name}"), content, class_="run"))
    return blocks


def _side_by_side(certified: Sequence[tuple[str, CertifiedRun]], charts: list[dict[str, Any]]) -> Markup:
    said = [
        tag("p", words, class_="warning" if bad else "note", role="note")
        for bad, words in comparability(certified)
    ]
    chart = comparison_chart(certified)
    if chart is not None:
        charts.append(chart_data(chart))
    figure = chart_figure(chart, "The mix of each run's newest result.") if chart is not None else None
    one_norm = len({run.newest.summary.norm for _, run in certified}) == 1
    return section(2, "Side by side", said, figure, figures_table(certified) if one_norm else None)
