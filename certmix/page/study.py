"""An empirical study: its tables with what each figure is, and its plots."""

from __future__ import annotations

from base64 import b64encode

from certmix.page.certified import scroll
from certmix.page.facts import commands, facts_table
from certmix.page.markup import Markup, tag
from certmix.page.values import StudyRun, Table

__all__ = ["KINDS", "study_sections"]

KINDS = {
    "estimate": "estimated over these images, with a 95 % interval over images",
    "attacked": "under attack: an upper bound of robust accuracy, never a certificate",
    "certified": "certified: images that are right and proved, each with its own failure probability",
}
"""What a figure may be, and what that means."""


def study_sections(run: StudyRun, level: int) -> list[Markup | None]:
    """Return the sections of one study's page."""
    blocks: list[Markup | None] = []
    for table in run.tables:
        blocks += _table(table, level)
    for name, svg in run.plots:
        source = f"data:image/svg+xml;base64,{b64encode(svg).decode('ascii')}"
        picture = tag("img", src=source, alt=f"Plot {name} of the figures in the table", class_="plot-file")
        blocks.append(tag("figure", picture, tag("figcaption", name)))
    blocks += [tag(f"h{level}", "Parameters"), facts_table(run.parameters, "Parameters")]
    blocks += [tag(f"h{level}", "Provenance"), facts_table(run.provenance, "Provenance")]
    return [*blocks, tag(f"h{level}", "Make it again"), commands(run.commands)]


def _table(table: Table, level: int) -> list[Markup | None]:
    kinds = sorted({kind for row in table.rows for _, kind in row if kind})
    heading = tag(f"h{level}", table.title)
    settings = tag("p", table.settings, class_="note") if table.settings else None
    partial = None if table.complete else tag("p", "Partial result.", class_="warning", role="note")
    if not table.headings:
        return [heading, partial, settings, _notes(table)]
    columns = [{row[k][1] for row in table.rows if row[k][1]} for k in range(len(table.headings))]
    same = [found.copy().pop() if len(found) == 1 else None for found in columns]
    head = tag("tr", [
        tag("th", heading, _badge(kind) if kind else None, scope="col", class_="number" if flush else None)
        for heading, kind, flush in zip(table.headings, same, table.numeric, strict=True)
    ])  # fmt: skip
    inner = scroll(table.title, tag("thead", head), *_bodies(table, same), titled=False)
    meanings = [tag("li", _badge(kind), " ", KINDS[kind]) for kind in kinds]
    key = tag("ul", meanings, class_="kinds") if meanings else None
    return [heading, partial, settings, *inner, key, _notes(table)]


def _bodies(table: Table, same: list[str | None]) -> list[Markup]:
    bodies, start = [], 0
    for name, count in table.groups:
        rows = [_row(row, same, table.numeric) for row in table.rows[start : start + count]]
        if name is not None:
            title = tag("th", name, scope="rowgroup", colspan=str(len(same)), class_="group")
            rows.insert(0, tag("tr", title))
        bodies.append(tag("tbody", rows))
        start += count
    return bodies


def _row(row: tuple[tuple[str, str], ...], same: list[str | None], numeric: tuple[bool, ...]) -> Markup:
    cells = []
    for k, ((shown, kind), column) in enumerate(zip(row, same, strict=True)):
        figure, _, interval = shown.partition(" [") if kind else (shown, "", "")
        below = [" ", tag("span", f"[{interval}", class_="under interval")] if interval else []
        badge = _badge(kind) if kind and column is None else None
        name, scope = ("th", "row") if k == 0 else ("td", None)
        cells.append(tag(name, figure, below, badge, scope=scope, class_="number" if numeric[k] else None))
    return tag("tr", cells)


def _badge(kind: str) -> Markup:
    return tag("span", kind, class_=f"badge {kind}")


def _notes(table: Table) -> Markup | None:
    return tag("ul", [tag("li", note) for note in table.notes], class_="notes") if table.notes else None
