"""The trade-off as text: for a terminal, for papers and pages, and for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from certmix.errors import ParameterError
from certmix.tables.cells import accuracy, interval_ends
from certmix.tables.latex import _escape as latex_escape
from certmix.tables.markdown import _aligned as markdown_table
from certmix.tables.markdown import _escape as markdown_escape
from certmix.tables.trade_off import Match, Sweep, TradeOff, on_front
from certmix.tables.wording import one_line, radius_heading
from certmix.text import floor_percent, plain_decimal

__all__ = ["TRADE_OFF_FORMATS", "render_trade_off"]

_EVERY = 0.05
"""Spacing of the alphas that tables for readers show; JSON, CSV and the plot hold all."""


def _heading(sweep: Sweep) -> str:
    return f"{one_line(sweep.source)} (sigma = {plain_decimal(sweep.sigma)}, {sweep.images:,} images)"


def _grid(sweep: Sweep, matches: Sequence[Match]) -> list[list[str]]:
    """Return a heading and one line an alpha: every 0.05, and the matched one, marked with a star."""
    lines = {}
    for k, alpha in enumerate(sweep.alphas):
        if abs(alpha / _EVERY - round(alpha / _EVERY)) < 1e-9:
            figures = [rows[k] for rows in sweep.certified_accuracy], [rows[k] for rows in sweep.interval]
            lines[alpha] = [plain_decimal(alpha), accuracy(sweep.clean_accuracy[k]), *map(_cell, *figures)]
    for match in matches:
        if (match.source, match.sigma) == (sweep.source, sweep.sigma):
            cells = map(_cell, match.certified_accuracy, match.interval)
            lines[match.alpha] = [f"{plain_decimal(match.alpha)} *", accuracy(match.clean_accuracy), *cells]
    return [["alpha", "clean", *sweep.certificates], *(lines[alpha] for alpha in sorted(lines))]


def _cell(share: float, interval: tuple[float, float]) -> str:
    low, high = interval_ends(interval)
    return f"{accuracy(share)} [{low}, {high}]"


def _title(found: TradeOff) -> str:
    wanted = found.wanted_clean_accuracy
    starred = "" if wanted is None else f"; * has a clean accuracy of {floor_percent(wanted, 2)} or more"
    heading = radius_heading(found.at_radius)
    return f"Clean and certified accuracy (%) at l2 radius {heading} over alpha{starred}"


def _plain_table(found: TradeOff) -> str:
    blocks = [_title(found)]
    for sweep in found.sweeps:
        lines = _grid(sweep, found.matches)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        blocks.append("\n".join([_heading(sweep), *body, f"clean accuracy: {sweep.clean_is}"]))
    return "\n\n".join([*blocks, "\n".join(found.notes)]) + "\n"


def _markdown(found: TradeOff) -> str:
    blocks = ["# Trade-off", f"{markdown_escape(_title(found))}."]
    for sweep in found.sweeps:
        escaped = [[cell.replace("*", "\\*") for cell in line] for line in _grid(sweep, found.matches)]
        blocks += [f"## {markdown_escape(_heading(sweep))}", markdown_table(escaped, left=0)]
        blocks.append(f"Clean accuracy: {markdown_escape(sweep.clean_is)}.")
    return "\n\n".join([*blocks, "\n".join(f"- {markdown_escape(note)}" for note in found.notes)]) + "\n"


def _latex(found: TradeOff) -> str:
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", r"\footnotesize"]
    lines.append(f"\\caption{{{latex_escape(_title(found))}.}}")
    for sweep in found.sweeps:
        grid = _grid(sweep, found.matches)
        lines += [r"\par\medskip", f"{latex_escape(_heading(sweep))}\\par"]
        lines.append(f"\\begin{{tabular}}{{{'r' * len(grid[0])}}}")
        lines += [r"\toprule", " & ".join(map(latex_escape, grid[0])) + r" \\", r"\midrule"]
        lines += [" & ".join(map(latex_escape, line)) + r" \\" for line in grid[1:]]
        lines += [r"\bottomrule", r"\end{tabular}"]
    told = [*(f"{sweep.source}: {sweep.clean_is}." for sweep in found.sweeps), *found.notes]
    lines += [f"\\par {latex_escape(note)}" for note in told]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _csv(found: TradeOff) -> str:
    """One line a source, certificate and alpha: all alphas and the matched ones."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    figures = [
        f"{name}@{plain_decimal(found.at_radius)}" for name in ("certified_accuracy", "lower", "upper")
    ]
    writer.writerow(
        ["source", "sigma", "certificate", "alpha", "clean_accuracy", *figures, "on_front", "matched"]
    )
    for sweep in found.sweeps:
        for c, certificate in enumerate(sweep.certificates):
            front = on_front(sweep.clean_accuracy, sweep.certified_accuracy[c])
            for k, alpha in enumerate(sweep.alphas):
                low, high = sweep.interval[c][k]
                share = sweep.certified_accuracy[c][k]
                numbers = map(plain_decimal, (alpha, sweep.clean_accuracy[k], share, low, high))
                marks = ["true" if front[k] else "false", "false"]
                writer.writerow([sweep.source, plain_decimal(sweep.sigma), certificate, *numbers, *marks])
    for match in found.matches:
        for c, certificate in enumerate(match.certificates):
            low, high = match.interval[c]
            share = match.certified_accuracy[c]
            numbers = map(plain_decimal, (match.alpha, match.clean_accuracy, share, low, high))
            writer.writerow([match.source, plain_decimal(match.sigma), certificate, *numbers, "", "true"])
    return buffer.getvalue()


def _json(found: TradeOff) -> str:
    return json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n"


TRADE_OFF_FORMATS: dict[str, Callable[[TradeOff], str]] = {
    "table": _plain_table,
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
    "latex": _latex,
}
"""Tables of a trade-off by name."""


def render_trade_off(found: TradeOff, format: str) -> str:
    """Return the trade-off as text that ends with one line end.

    Raises
    ------
    ParameterError
        The format is unknown.
    """
    if format not in TRADE_OFF_FORMATS:
        raise ParameterError(f"format '{format}' is unknown: choose one of {', '.join(TRADE_OFF_FORMATS)}")
    return TRADE_OFF_FORMATS[format](found)
