import csv
import io
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.errors import ParameterError, RunError
from certmix.tables.formats import FORMATS, identifiers, render, write_files
from certmix.tables.table import Quantity, Table
from certmix.tables.table_text import text_table
from certmix.text import ceil_percent, floor_percent
from certmix.types import AttackedAccuracy, EstimatedAccuracy

CLEAN = EstimatedAccuracy(57, 100, (0.46713, 0.66861))
ATTACKED = AttackedAccuracy(2, 3, (0.09429, 0.99161))
READERS = ("table", "markdown", "latex")


def table_of(*rows: tuple, headings: tuple[str, ...] = ("model", "clean", "attacked"), **changes) -> Table:
    fields = {"title": "Accuracy", "settings": "pgd, 3 images", **changes}
    return Table("demo", headings=headings, rows=rows, **fields)


def mix_sweep(lines: int = 5, alphas: int = 21) -> Table:
    """A table like that of the mix over alpha, every accuracy another figure."""
    rows = []
    for a in range(alphas):
        cells = []
        for k in range(lines):
            right = 7 * a + 150 * k + 3
            kind = AttackedAccuracy if k else EstimatedAccuracy
            cells.append(kind(right, 999, (right / 1100, (right + 80) / 1100)))
        rows.append((a / 20, *cells))
    names = tuple(f"attack number {k}" for k in range(1, lines))
    return Table("mix-sweep", "Accuracy (%)", "pgd", ("alpha", "clean", *names), tuple(rows))


def strict(text: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_accuracies_are_rounded_down_and_intervals_outwards() -> None:
    table = table_of(("a", CLEAN, ATTACKED))
    assert "57.0 [46.7, 66.9]" in text_table(table, 120)
    assert "66.6 [9.4, 99.2]" in text_table(table, 120)
    assert "| 57.0 [46.7, 66.9] | 66.6 [9.4, 99.2] |" in render(table, "markdown")
    assert "$57.0_{46.7}^{66.9}$ & $66.6_{9.4}^{99.2}$" in render(table, "latex")


def test_quantities_round_as_they_say() -> None:
    row = tuple(Quantity(0.1251, 2, rounding=how) for how in ("nearest", "down", "up"))
    table = table_of((*row, Quantity(-0.004, 2)), headings=("a", "b", "c", "d"))
    for name in READERS:
        assert re.findall(r"0\.\d\d", render(table, name)) == ["0.13", "0.12", "0.13", "0.00"]
        assert "-0.00" not in render(table, name)
    values = next(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert list(values.values()) == ["0.1251", "0.1251", "0.1251", "-0.004", "true"]


def test_json_contract_key_by_key() -> None:
    table = table_of(
        ("a", CLEAN, ATTACKED, Quantity(1.25, 1, "s"), 7, None, math.nan),
        headings=("model", "clean (%)", "MIX attack", "time", "queries", "unknown", "lost"),
        groups=(("first", 1),),
        notes=("one",),
        extra={"array": np.array([1.0, math.inf]), "scale": {"x": np.float64(0.5)}},
    )
    assert strict(render(table, "json")) == {
        "schema_version": 1,
        "name": "demo",
        "title": "Accuracy",
        "settings": "pgd, 3 images",
        "complete": True,
        "columns": [
            {"key": "group", "heading": "group"},
            {"key": "model", "heading": "model"},
            {"key": "clean", "heading": "clean (%)"},
            {"key": "mix_attack", "heading": "MIX attack"},
            {"key": "time", "heading": "time"},
            {"key": "queries", "heading": "queries"},
            {"key": "unknown", "heading": "unknown"},
            {"key": "lost", "heading": "lost"},
        ],
        "rows": [
            {
                "group": "first",
                "model": "a",
                "clean": {
                    "accuracy": 0.57,
                    "correct": 57,
                    "images": 100,
                    "interval": [0.46713, 0.66861],
                    "kind": "estimate",
                },
                "mix_attack": {
                    "accuracy": 2 / 3,
                    "correct": 2,
                    "images": 3,
                    "interval": [0.09429, 0.99161],
                    "kind": "attacked, an upper bound of robust accuracy",
                },
                "time": {"value": 1.25, "unit": "s"},
                "queries": 7,
                "unknown": None,
                "lost": None,
            }
        ],
        "notes": ["one"],
        "extra": {"array": [1.0, None], "scale": {"x": 0.5}},
    }


def test_csv_reads_back_the_same_numbers() -> None:
    table = mix_sweep(3)
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert list(lines[0])[:7] == [
        "alpha", "clean", "clean_low", "clean_high", "attack_number_1", "attack_number_1_low", "attack_number_1_high",
    ]  # fmt: skip
    for line, (alpha, clean, *attacked) in zip(lines, table.rows, strict=True):
        assert float(line["alpha"]) == alpha
        for name, cell in (("clean", clean), ("attack_number_2", attacked[1])):
            assert float(line[name]) == cell.accuracy
            assert (float(line[f"{name}_low"]), float(line[f"{name}_high"])) == cell.interval


def test_csv_headings_hold_units_and_cells_hold_several() -> None:
    table = table_of(
        ("a", Quantity(2.5, 0, "images/s"), Quantity(1.0, 1, "s")),
        ("b", Quantity(None, 0, "images/s"), CLEAN),
        ("c", None, 3),
        headings=("model", "speed", "value"),
        groups=(("x", 1), ("y", 2)),
        complete=False,
    )
    assert render(table, "csv").splitlines() == [
        "group,model,speed_images_per_s,value,value_low,value_high,value_unit,complete",
        "x,a,2.5,1,,,s,false",
        "y,b,,0.57,0.46713,0.66861,share,false",
        "y,c,,3,,,,false",
    ]
    text = text_table(table, 100)
    assert "| speed (images/s) |" in render(table, "markdown")
    assert re.search(r"a +2 +1\.0 s\n", text)
    assert "57.0 % [46.7, 66.9]" in text
    assert r"$57.0_{46.7}^{66.9}$ \%" in render(table, "latex")


def test_headings_become_identifiers_that_differ() -> None:
    assert identifiers(["\u03b1", "a b", "a-b", "A_B", "", "2nd", "(%)"]) == [
        "alpha", "a_b", "a_b_2", "a_b_3", "column", "_2nd", "column_2",
    ]  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_every_format_for_readers_holds_every_figure(name: str) -> None:
    table = mix_sweep(9)
    text = text_table(table, 300) if name == "table" else render(table, name)
    for row in table.rows:
        for cell in row[1:]:
            low, high = floor_percent(cell.interval[0]), ceil_percent(cell.interval[1])
            ends = f"_{{{low}}}^{{{high}}}" if name == "latex" else f" [{low}, {high}]"
            assert f"{floor_percent(cell.accuracy)}{ends}" in text


def test_whole_percents_of_narrow_tables_are_rounded_outwards() -> None:
    table = mix_sweep(5, alphas=2)
    text = text_table(table, 50)
    for cell in (cell for row in table.rows for cell in row[1:]):
        assert f" {floor_percent(cell.interval[0], 0)}-{ceil_percent(cell.interval[1], 0)}" in text


@pytest.mark.parametrize("lines", [1, 5, 12])
def test_no_line_is_wider_than_asked_and_no_figure_is_lost(lines: int) -> None:
    table = mix_sweep(lines, alphas=3)
    wanted = sorted(floor_percent(cell.accuracy) for row in table.rows for cell in row[1:])
    for width in (20, 30, 45, 79, 80, 100, 121, 200, 300):
        text = text_table(table, width)
        assert max(map(len, text.splitlines())) <= width
        body = text.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
        shown = [word for word in re.split(r"[\s]+", body) if re.fullmatch(r"\d+\.\d", word)]
        alphas = {"0.1", "0"}
        assert sorted(word for word in shown if word not in alphas or word in wanted) == wanted, width


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 90),
    st.text(max_size=60),
    st.lists(st.sampled_from([CLEAN, ATTACKED, None, 12345678901, "w" * 50, "a b " * 20, Quantity(1.5, 3, "ms")]),
             min_size=1, max_size=8),
)  # fmt: skip
def test_any_table_fits_any_width(width: int, title: str, cells: list) -> None:
    headings = tuple(f"heading {'x' * k}" for k in range(len(cells)))
    table = Table(
        "s", title, title, headings, (tuple(cells),) * 2, groups=((title, 1), ("b", 1)), complete=False
    )
    text = text_table(table, width)
    assert max(map(len, text.splitlines())) <= width
    squeezed = re.sub(r"\s", "", text)
    if CLEAN in cells:
        assert squeezed.count("57.0") >= 2 * cells.count(CLEAN)


def test_blocks_repeat_the_columns_that_name_a_row() -> None:
    table = mix_sweep(12, alphas=3)
    blocks = text_table(table, 60).split("\n\n")[1:-1]
    assert len(blocks) > 1
    for block in blocks:
        lines = block.splitlines()
        assert lines[0].lstrip().startswith("alpha")
        assert [line.split()[0] for line in lines if re.match(r" *0", line) and "." in line][-1] == "0.1"


def test_80_columns_fold_intervals_below_and_121_hold_them_beside() -> None:
    narrow, wide = text_table(mix_sweep(), 80), text_table(mix_sweep(), 121)
    assert narrow.count("\n\n") == wide.count("\n\n") == 2
    assert "[" not in narrow
    assert re.search(r"\n +0 +0\.3 +15\.3 .*\n +0\.2-7\.6 +", narrow)
    assert re.search(r"\n +0 +0\.3 \[0\.2, 7\.6\] +15\.3 \[", wide)


def test_the_table_follows_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    assert render(mix_sweep(), "table") == text_table(mix_sweep(), 44)
    assert max(map(len, text_table(mix_sweep(), None).splitlines())) <= 44


def test_groups_stand_above_their_rows_in_every_format_for_readers() -> None:
    table = table_of(
        ("a", CLEAN, None), ("b", CLEAN, None), ("c", CLEAN, None), groups=(("one_", 2), ("two", 1))
    )
    lines = text_table(table, 80).splitlines()
    assert [line.split()[0] for line in lines[4:9]] == ["one_", "a", "b", "two", "c"]
    markdown = render(table, "markdown").splitlines()
    assert [line.split("|")[1].strip() for line in markdown if line.startswith("|")][2:] == [
        r"**one\_**", "a", "b", "**two**", "c",
    ]  # fmt: skip
    latex = render(table, "latex")
    assert latex.index(r"\multicolumn{3}{l}{one\_} \\") < latex.index("\na &") < latex.index("{l}{two}")


@pytest.mark.parametrize("name", READERS)
def test_the_unknown_is_a_dash_and_nothing_is_nan(name: str) -> None:
    empty = EstimatedAccuracy(0, 0, (0.0, 1.0))
    text = render(table_of(("x", empty, None), ("y", math.nan, Quantity(math.inf, 2))), name)
    assert "nan" not in text.lower()
    assert "inf" not in text.lower()
    dash = {
        "table": r"x +- +-\ny +- +-\n",
        "markdown": r"\| x +\| +- \| +- \|\n\| y +\| +- \| +- \|",
        "latex": "x & -- & --",
    }[name]
    assert re.search(dash, text)


@pytest.mark.parametrize("name", [*READERS, "csv"])
def test_user_text_cannot_break_out(name: str) -> None:
    hostile = "a|b\n\n# c <x> \x1b[1m \udc80 \\end{table} 50% $ & _^~"
    table = table_of(
        (hostile, CLEAN, hostile), groups=((hostile, 1),), title=hostile, settings=hostile, notes=(hostile,)
    )
    text = render(table, name)
    text.encode()
    assert "\x1b" not in text
    if name == "csv":
        assert len(text.splitlines()) == 2
    if name == "latex":
        assert text.count(r"\end{table}") == 1
        assert r"50\% \$ \& \_\textasciicircum{}\textasciitilde{}" in text
    if name == "markdown":
        escaped = r"a\|b\\n\\n\# c \<x\> \\x1b\[1m \\udc80 \\end{table} 50% \$ \& \_^\~"
        assert text.count(escaped) == 6
        assert all(line.startswith(("| ", "# ", "- ", "Notes", "a")) for line in text.splitlines() if line)


def test_short_words_are_escaped_as_long_ones_are() -> None:
    table = table_of(("a_b|c%", Quantity(1.0, 0, "%_"), 3), headings=("x_y", "b", "c"))
    assert "a\\_b\\textbar{}c\\% & 1 & 3" in render(table, "latex")
    assert r"x\_y & b (\%\_) & c" in render(table, "latex")
    assert "| a\\_b\\|c% |" in render(table, "markdown")


def test_json_is_ascii_and_keeps_user_text_as_it_is() -> None:
    hostile = "caf\u00e9 \x1b \udc80"
    text = render(table_of((hostile, None, True)), "json")
    assert text.isascii()
    assert strict(text)["rows"][0] == {"model": hostile, "clean": None, "attacked": True}


def test_a_partial_result_says_so_before_its_figures() -> None:
    whole, part = (table_of(("a", CLEAN, ATTACKED), complete=done) for done in (True, False))
    for name in READERS:
        text = render(part, name).lower()
        assert "partial" not in render(whole, name).lower()
        assert text.index("partial result") < text.index("57.0")
    assert strict(render(part, "json"))["complete"] is False
    assert render(part, "csv").splitlines()[1].endswith(",false")


@pytest.mark.parametrize("name", READERS)
def test_attacked_accuracy_is_never_shown_without_saying_what_it_is(name: str) -> None:
    words = "upper bounds of robust accuracy"
    assert words in " ".join(render(table_of(("a", CLEAN, ATTACKED)), name).split())
    assert words not in " ".join(render(table_of(("a", CLEAN, CLEAN)), name).split())
    told = table_of(("a", CLEAN, ATTACKED), notes=("Attacked: an upper bound.",))
    assert words not in " ".join(render(told, name).split())


def test_percent_is_said_once() -> None:
    assert "clean (%)" in text_table(table_of(("a", CLEAN, None)), 80)
    assert "(%)" not in text_table(table_of(("a", CLEAN, None), title="Acc (%)"), 80).split("\n\n", 1)[1]
    again = table_of(("a", CLEAN, None), headings=("model", "clean (%)", "x"))
    assert text_table(again, 80).count("(%)") == 1


def test_latex_splits_wide_tables_into_blocks_and_long_ones_into_pages() -> None:
    wide = render(mix_sweep(12, alphas=2), "latex")
    assert wide.count(r"\begin{tabular}") == 2
    assert wide.count(r"\begin{table}") == wide.count(r"\caption{") == 1
    long = render(mix_sweep(2, alphas=60), "latex")
    assert long.count(r"\begin{table}") == 3
    assert long.count(r"\label{tab:mix-sweep}") == 1
    assert long.count("(continued)") == 2
    assert len(re.findall(r"^[\d.]+ & \$", long, re.M)) == 60
    path = render(table_of(("folder/" * 12, CLEAN, None)), "latex")
    assert r"\linewidth}rr}" in path
    assert r"folder/\allowbreak{}folder/" in path


@pytest.mark.parametrize("name", FORMATS)
def test_text_ends_with_one_line_end_even_where_there_is_nothing(name: str) -> None:
    for table in (mix_sweep(), mix_sweep(2, alphas=0), Table("none", "", "", (), ())):
        text = render(table, name)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert text == render(table, name)


def test_numbers_of_numpy_print_as_pythons() -> None:
    plain = table_of((3, 0.25, True), ("x", -2, None))
    numpy = table_of((np.int64(3), np.float64(0.25), True), ("x", np.int64(-2), None))
    for name in FORMATS:
        assert render(plain, name) == render(numpy, name)
    assert re.search(r"3 +0\.25 +yes", text_table(plain, 80))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: table_of(("a", CLEAN)), "row 0 has 2 cells and there are 3 headings"),
        (
            lambda: table_of(("a", None, None), groups=(("x", 2),)),
            r"groups of \[2\] rows do not make up 1 rows",
        ),
        (lambda: Table("../x", "", "", (), ()), r"'\.\./x' is not fit for a file"),
        (lambda: Quantity(1.0, -1), r"digits = -1 is not in 0\.\.400"),
        (
            lambda: Quantity(1.0, 1, rounding="off"),
            "rounding 'off' is unknown: choose one of nearest, down, up",
        ),
        (lambda: render(mix_sweep(), "xml"), "format 'xml' is unknown: choose one of table, json"),
    ],
)
def test_mistakes_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_files_are_the_renderers_texts_and_the_plots_bytes(tmp_path: Path) -> None:
    table = mix_sweep(2, alphas=2)
    paths = write_files(tmp_path / "new", table, {"curve": lambda suffix: suffix.encode()})
    names = [*(f"mix-sweep.{s}" for s in ("csv", "md", "tex", "json")), "curve.png", "curve.svg"]
    assert [path.name for path in paths] == names
    assert sorted(os.listdir(tmp_path / "new")) == sorted(names)
    for path, name in zip(paths, ("csv", "markdown", "latex", "json"), strict=False):
        assert path.read_text(encoding="utf-8") == render(table, name)
    assert paths[4].read_bytes() == b"png"
    assert [path.name for path in write_files(tmp_path, table)] == names[:4]


def test_nothing_is_written_where_a_plot_fails(tmp_path: Path) -> None:
    def fail(suffix: str) -> bytes:
        raise ParameterError(suffix)

    for name, draw in (("curve", fail), ("../curve", lambda suffix: b"")):
        with pytest.raises(ParameterError):
            write_files(tmp_path, mix_sweep(), {name: draw})
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose a folder"):
        write_files(tmp_path / "file", mix_sweep())
