import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from certmix.tables import floor_digits, print_terminal, terminal_table
from certmix.text import floor_percent
from certmix.types import CertifiedAccuracy, Summary

QUARTERS = tuple(i / 4 for i in range(21))


def shown(summary: Summary, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, emoji=False, markup=False).print(
        terminal_table(summary)
    )
    return stream.getvalue()


def row_lines(text: str) -> list[list[str]]:
    """Return the figures of each line that starts with an indented name."""
    return [line.split() for line in text.splitlines() if re.match(r"  [a-z]", line)]


@pytest.mark.parametrize("count", [7, 9])
def test_every_figure_of_every_row_stands_on_one_line(run_with: Callable, count: int) -> None:
    summary = run_with(QUARTERS[:count]).summary
    for width in (*range(76, 90), 100, 120, 121, 140, 170, 200):
        text = shown(summary, width)
        assert "\u2026" not in text
        assert max(map(len, text.splitlines())) <= width
        for line, row in zip(row_lines(text), summary.rows, strict=True):
            assert line[0] == row.certificate
            figures = [word for word in line if re.fullmatch(r"\d+\.\d", word)]
            assert figures == [floor_percent(share) for share in row.certified_accuracy]
            assert line[-1] == floor_digits(row.mean_certified_radius, 3)


def test_long_paths_in_notes_stay_whole_and_all_else_fits(small: Summary) -> None:
    path = "/" + "/".join(["a-long-folder"] * 9) + "/log.tsv"
    stream = io.StringIO()
    print_terminal(replace(small, notes=(f"Source A: {path} (sigma 0.25).",)), stream)
    lines = stream.getvalue().splitlines()
    assert path in lines
    assert all(line == line.rstrip() for line in lines)
    assert max(map(len, set(lines) - {path})) <= 80


def test_80_columns_hold_the_interval_below_each_figure(run_with: Callable) -> None:
    summary = run_with(QUARTERS[:9]).summary
    lines = shown(summary, 80).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  exact"))
    ends = [tuple(map(int, word.split("-"))) for word in lines[start + 1].split()]
    for (low, high), interval in zip(ends, summary.rows[0].interval, strict=True):
        assert low <= 100 * interval[0] < low + 1
        assert high - 1 < 100 * interval[1] <= high


def test_a_wide_terminal_holds_the_interval_beside_each_figure(small: Summary) -> None:
    text = shown(small, 121)
    assert "57.0 [46.7, 66.9]  29.0 [20.3, 39.0]" in text
    assert "smoothing (Thm 3.7)" in text


def test_many_radii_continue_in_further_blocks(run_with: Callable) -> None:
    summary = run_with(QUARTERS).summary
    text = shown(summary, 80)
    assert max(map(len, text.splitlines())) <= 80
    figures = [
        word
        for line in row_lines(text)
        if line[0] == "smoothing"
        for word in line[1:]
        if re.fullmatch(r"\d+\.\d", word)
    ]
    assert figures == [floor_percent(share) for share in summary.rows[2].certified_accuracy]
    assert text.count("mean") == 2  # one heading, one note


def test_full_marks_still_fit(run_with: Callable) -> None:
    run = run_with(QUARTERS[:9])
    row = CertifiedAccuracy("mixed", "lipschitz-paper", (1.0,) * 9, ((0.9817, 1.0),) * 9, 12.3456)
    text = shown(replace(run.summary, rows=(*run.summary.rows, row)), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("98.1-100.0") == 9
    assert text.count("12.345") == 1


def test_narrow_terminals_lose_no_figure(run_with: Callable) -> None:
    summary = run_with(QUARTERS[:3]).summary
    squeezed = "".join(shown(summary, 12).split())
    for share in summary.rows[0].certified_accuracy:
        assert floor_percent(share) in squeezed


def test_says_partial_first_and_what_is_an_estimate(small: Summary) -> None:
    lines = shown(replace(small, complete=False, planned_images=400), 80).splitlines()
    assert lines[0] == "PARTIAL RESULT: 100 OF 400 PLANNED IMAGES"
    text = " ".join(lines)
    assert "standard (g) 95.0, robust (h) 57.0, mixed -" in text
    assert "Clean accuracies of the robust and the mixed classifier are plug-in estimates" in text
    assert "robust (alpha = 1)" in lines
    assert "mixed (alpha = 0.76)" in lines


def test_user_text_is_shown_as_it_is_in_the_streams_encoding(small: Summary) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    print_terminal(replace(small, notes=("[bold]caf\u00e9[/] :smile: \x1b[2J",)), stream)
    assert r"[bold]caf\xe9[/] :smile: \x1b[2J" in raw.getvalue().decode("ascii")


def test_nothing_to_show_is_shown(small: Summary) -> None:
    assert "Clean accuracy" in shown(replace(small, rows=(), radii=()), 80)
