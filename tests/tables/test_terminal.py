"""Tables on terminals: whatever the width, no figure is lost and no line is cut off."""

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables.conftest import ATTACKED, CLEAN, SMALL, mix_sweep

from certmix.tables import Quantity, Table, print_table, render
from certmix.tables.terminal import text_table
from certmix.tables.words import summary_table
from certmix.text import floor_digits, floor_percent
from certmix.types import CertifiedShare, Summary

QUARTERS = tuple(i / 4 for i in range(21))


def shown(summary: Summary, width: int) -> str:
    return text_table(summary_table(summary), width)


def row_lines(text: str) -> list[list[str]]:
    """Return the figures of each line that starts with an indented name."""
    return [line.split() for line in text.splitlines() if re.match(r"  [a-z]", line)]


@pytest.mark.parametrize("count", [5, 7])
def test_every_figure_of_every_row_stands_on_one_line(run_with: Callable, count: int) -> None:
    summary = run_with(QUARTERS[:count]).summary
    for width in (76, 79, 80, 83, 89, 120, 121, 170):
        text = shown(summary, width)
        assert max(map(len, text.splitlines())) <= width
        for line, row in zip(row_lines(text), summary.rows, strict=True):
            assert line[0] == row.certificate
            figures = [word for word in line if re.fullmatch(r"\d+\.\d", word)]
            shares = [share for share in (row.clean_accuracy, *row.certified_accuracy) if share is not None]
            assert figures == [floor_percent(share) for share in shares]
            assert line[-1] == floor_digits(row.mean_certified_radius, 3)


@pytest.mark.parametrize("lines", [1, 5, 12])
def test_no_line_is_wider_than_asked_and_no_figure_is_lost(lines: int) -> None:
    table = mix_sweep(lines, alphas=3)
    wanted = sorted(floor_percent(cell.accuracy) for row in table.rows for cell in row[1:])
    for width in (20, 45, 80, 121, 300):
        text = text_table(table, width)
        assert max(map(len, text.splitlines())) <= width
        body = text.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
        figures = [word for word in body.split() if re.fullmatch(r"\d+\.\d", word)]
        assert sorted(word for word in figures if word not in {"0.1", "0"} or word in wanted) == wanted, width


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 90),
    st.text(max_size=60),
    st.lists(st.sampled_from([CLEAN, ATTACKED, None, 12345678901, "w" * 50, "a b " * 20, Quantity(1.5, 3, "ms")]),
             min_size=1, max_size=8),
)  # fmt: skip
def test_any_table_fits_any_width(width: int, title: str, cells: list) -> None:
    headings = tuple(f"heading {'x' * k}" for k in range(len(cells)))
    rows, groups = (tuple(cells),) * 2, ((title, 1), ("b", 1))
    table = Table("s", title, title, headings, rows, groups=groups, complete=False)
    lines = text_table(table, width).splitlines()
    notes = "Accuracies under attack and lower ends of their certificates."  # whose words are never broken
    assert max(map(len, lines)) <= max(width, max(map(len, notes.split())))
    if CLEAN in cells:
        assert re.sub(r"\s", "", "".join(lines)).count("57.0") >= 2 * cells.count(CLEAN)


def test_blocks_repeat_the_columns_that_name_a_row() -> None:
    blocks = text_table(mix_sweep(12, alphas=3), 60).split("\n\n")[1:-1]
    assert len(blocks) > 1
    for block in blocks:
        lines = block.splitlines()
        assert lines[0].lstrip().startswith("alpha")
        assert [line.split()[0] for line in lines if re.match(r" *0", line) and "." in line][-1] == "0.1"


def test_long_paths_in_notes_stay_whole_to_be_copied() -> None:
    path = "/" + "/".join(["a-long-folder"] * 9) + "/log.tsv"
    lines = shown(replace(SMALL, notes=(f"Source A: {path} (sigma 0.25).",)), 80).splitlines()
    assert path in lines
    assert all(line == line.rstrip() for line in lines)
    assert max(map(len, set(lines) - {path})) <= 80


def test_the_table_follows_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    assert render(mix_sweep(), "table") == text_table(mix_sweep(), 44)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_headings_bold_and_intervals_dim(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "121"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    print_table(replace(SMALL, complete=False), file=stream)
    text = stream.getvalue()
    assert "57.0 \x1b[2m[46.7, 66.9]\x1b[0m" in text
    assert re.search(r"\x1b\[1m *>= 0\.25\x1b\[0m|\x1b\[1m>= 0\.25\x1b\[0m", text)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert [line.rstrip() for line in plain.splitlines()] == shown(
        replace(SMALL, complete=False), 121
    ).splitlines()


def test_user_text_is_shown_as_it_is_in_the_streams_encoding() -> None:
    for format in ("table", "markdown"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
        print_table(replace(SMALL, notes=("(bold)caf\u00e9 :smile: \x1b2J",)), format, stream)
        found = raw.getvalue().decode("ascii").replace("\\\\", "\\")
        assert r"(bold)caf\xe9 :smile: \x1b2J" in found


def test_headings_of_radii_are_broken_alike() -> None:
    shares = tuple(CertifiedShare(n, 100, (0.2, 0.9)) for n in (58, 51, 40, 31, 24, 22)) + (
        CertifiedShare(0, 100, (0.0, 0.04)),
    )
    headings = ("certificate", "> 0", ">= 0.25", ">= 0.5", ">= 0.75", ">= 1", ">= 1.25", ">= 1.5")
    text = text_table(Table("radii", "Radii", "", headings, (("lipschitz-paper", *shares),)), 80)
    signs, numbers = [line.split() for line in text.splitlines() if ">" in line or "1.25" in line]
    assert signs == ["certificate", ">", *[">="] * 6]
    assert numbers == ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5"]
