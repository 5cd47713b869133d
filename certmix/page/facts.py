"""Names and values as tables, commands as blocks."""

from __future__ import annotations

from collections.abc import Sequence

from certmix.page.certified import scroll
from certmix.page.markup import Markup, tag
from certmix.page.values import CertifiedRun, Command, Facts
from certmix.page.words import budget_facts
from certmix.text import floor_digits

__all__ = ["budget", "commands", "facts_table"]


def facts_table(facts: Facts, label: str) -> Markup:
    """Return names and values, one a row."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts]
    return tag("table", tag("caption", label, class_="hidden"), tag("tbody", rows), class_="facts")


def budget(run: CertifiedRun) -> list[Markup | None]:
    """Return the failure probability, how it is split, and over which looks it is spent."""
    summary = run.newest.summary
    if summary.failure_probability is None:
        return [tag("p", "Nothing is drawn at random: no statement on this page can fail by chance.")]
    blocks: list[Markup | None] = [facts_table((*budget_facts(summary), *run.split), "Failure budget")]
    if run.looks:
        blocks.append(
            tag(
                "p",
                "Sampling is looked at again and again. Each look may spend its share of the failure "
                "probability; all shares, of the looks that never came too, add up to 1 at most.",
            )
        )
        blocks.append(_looks(run.looks))
    return blocks


def _looks(looks: tuple[tuple[int, float], ...]) -> Markup:
    head = tag("tr", tag("th", "samples", scope="col"), tag("th", "share (%)", scope="col", class_="number"))
    rows = [
        tag("tr", tag("th", f"{samples:,}", scope="row"),
            tag("td", floor_digits(100 * share, 3), class_="number"))
        for samples, share in looks
    ]  # fmt: skip
    parts = tag("thead", head), tag("tbody", rows)
    table = scroll("Shares of the looks", *parts, kind="figures narrow", titled=False)
    summary = tag("summary", f"Shares of the {len(looks)} looks")
    return tag("details", summary, table, class_="as-table")


def commands(lines: Sequence[Command]) -> Markup:
    """Return commands, each under what it does."""
    blocks = [
        (tag("dt", one.what), tag("dd", tag("pre", tag("code", one.line), tabindex="0"))) for one in lines
    ]
    return tag("dl", [part for pair in blocks for part in pair], class_="commands")
