"""Every table in every format: one checker; then what each format promises."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tables.conftest import ATTACKED, CLEAN, HOSTILE, SMALL, TABLES, TRADE_OFF, UNITS, mix_sweep, table_of

from certmix.errors import ParameterError, RunError
from certmix.tables import FORMATS, Quantity, Table, print_table, render, write_files, write_products
from certmix.tables.terminal import text_table
from certmix.text import ceil_percent, floor_percent
from certmix.types import CertifiedAccuracy

READERS = ("table", "markdown", "latex")
KINDS = tuple(TABLES)


def strict(text: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def shares(table: Table) -> list[tuple[float, tuple[float, float] | None]]:
    """Return each accuracy and its interval."""
    cells = [cell for row in table.rows for cell in row]
    found = [(getattr(c, "accuracy", None), c) for c in cells]
    alone = [(share, cell) for share, cell in found if getattr(cell, "most", None) is None]
    return [(share, cell.interval) for share, cell in alone if share is not None and math.isfinite(share)]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_table_in_every_format(kind: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    table = TABLES[kind]
    text = render(table, format)
    assert text.endswith("\n") and not text.endswith("\n\n")
    text.encode()
    assert "\x1b" not in text
    assert "None" not in text
    if kind not in ("no rows", "empty"):
        assert not re.search(r"\b(nan|inf)\b", text.lower())
    if format == "json":
        assert text.isascii()
        assert strict(text)["complete"] is table.complete if table.data is None else strict(text)
    elif format == "csv":
        lines = list(csv.reader(io.StringIO(text)))
        assert len({len(line) for line in lines}) == 1
        assert len(set(lines[0])) == len(lines[0])
        assert table.records is not None or len(lines) == 1 + len(table.rows)
    else:
        assert ("partial" in text.lower()) == (not table.complete)
        if not table.complete:
            assert text.lower().index("partial result") < text.index("57.0")
        assert ("11-16" in text and "[5.0, 25.0]" in text) or kind != "trade-off" or format == "latex"
        for share, interval in shares(table):
            assert floor_percent(share) in text
            if interval is not None and all(map(math.isfinite, interval)):
                low, high = floor_percent(interval[0]), ceil_percent(interval[1])
                ends = f"_{{{low}}}^{{{high}}}" if format == "latex" else f" [{low}, {high}]"
                assert f"{floor_percent(share)}{ends}" in text or f"{floor_percent(share)} %{ends}" in text
        attacked = any(cell is ATTACKED or type(cell) is type(ATTACKED) for row in table.rows for cell in row)
        assert ("upper bounds of robust accuracy" in " ".join(text.split())) == attacked
    if format == "latex":
        begun, ended = (len(re.findall(rf"\\{word}{{table\*?}}", text)) for word in ("begin", "end"))
        assert begun == ended == text.count(r"\caption{")
        assert text.count(r"\label{tab:") == 1
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")


# rounding


@pytest.mark.parametrize("name", READERS)
def test_quantities_round_as_they_say(name: str) -> None:
    row = tuple(Quantity(0.1251, 2, rounding=how) for how in ("nearest", "down", "up"))
    text = render(table_of((*row, Quantity(-0.004, 2)), headings=("a", "b", "c", "d")), name)
    assert re.findall(r"0\.\d\d", text) == ["0.13", "0.12", "0.13", "0.00"]
    assert "-0.00" not in text


def test_whole_percents_of_narrow_tables_are_rounded_outwards() -> None:
    table = mix_sweep(5, alphas=2)
    text = text_table(table, 50)
    for _, (low, high) in shares(table):
        assert f" {floor_percent(low, 0)}-{ceil_percent(high, 0)}" in text


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("norm", "printed"), [("l2", "0.123"), ("linf", "0.12367")])
def test_mean_radii_are_rounded_down(name: str, norm: str, printed: str) -> None:
    rows = (replace(SMALL.rows[0], mean_certified_radius=0.1236799),)
    text = render(replace(SMALL, norm=norm, rows=rows), name)
    assert re.search(rf"{re.escape(printed)}\b(?!\d)", text)


# programs


def test_json_contract_of_a_study_key_by_key() -> None:
    table = table_of(
        ("a", CLEAN, ATTACKED, Quantity(1.25, 1, "s"), 7, None, math.nan),
        headings=("model", "clean (%)", "MIX attack", "time", "queries", "unknown", "lost"),
        groups=(("first", 1),),
        notes=("one",),
        extra={"array": np.array([1.0, math.inf]), "scale": {"x": np.float64(0.5)}},
    )
    headings = ("group", "model", "clean (%)", "MIX attack", "time", "queries", "unknown", "lost")
    keys = ("group", "model", "clean", "mix_attack", "time", "queries", "unknown", "lost")
    clean = {
        "accuracy": 0.57, "correct": 57, "inputs": 100, "interval": [0.46713, 0.66861], "kind": "estimate",
    }  # fmt: skip
    attacked = {
        "accuracy": 2 / 3, "correct": 2, "inputs": 3, "interval": [0.09429, 0.99161],
        "kind": "attacked, an upper bound of robust accuracy",
    }  # fmt: skip
    time = {"value": 1.25, "unit": "s", "digits": 1, "rounding": "nearest"}
    cells = ("first", "a", clean, attacked, time, 7, None, None)
    assert strict(render(table, "json")) == {
        "schema_version": 1,
        "name": "demo",
        "title": "Accuracy",
        "settings": "pgd, 3 inputs",
        "complete": True,
        "columns": [{"key": k, "heading": h} for k, h in zip(keys, headings, strict=True)],
        "rows": [dict(zip(keys, cells, strict=True))],
        "notes": ["one"],
        "extra": {"array": [1.0, None], "scale": {"x": 0.5}},
    }


def test_json_is_null_where_not_finite_and_takes_numpy_scalars() -> None:
    ends = ((np.float64(0.0), math.inf), (-math.inf, 1.0))
    row = CertifiedAccuracy("mixed", "exact", (np.float64(0.1), math.nan), ends, math.inf)
    found = strict(
        render(replace(SMALL, rows=(row,), inputs=np.int64(100), complete=np.bool_(False)), "json")
    )
    assert found["rows"][0]["certified_accuracy"] == [0.1, None]
    assert found["rows"][0]["interval"] == [[0.0, None], [None, 1.0]]
    assert (found["rows"][0]["mean_certified_radius"], found["inputs"], found["complete"]) == (
        None, 100, False,
    )  # fmt: skip
    text = render(table_of((HOSTILE, None, True)), "json")
    assert strict(text)["rows"][0] == {"model": HOSTILE, "clean": None, "attacked": True}


def test_csv_reads_back_the_same_numbers(run_with: Callable) -> None:
    summary = run_with((0.0, 0.25, 1.0), inputs=170).summary
    lines = list(csv.DictReader(io.StringIO(render(summary, "csv"))))
    for line, row in zip(lines, summary.rows, strict=True):
        assert (line["classifier"], line["certificate"]) == (row.classifier, row.certificate)
        for i, radius in enumerate(("0", "0.25", "1")):
            assert float(line[f"certified_accuracy@{radius}"]) == row.certified_accuracy[i]
            assert (float(line[f"lower@{radius}"]), float(line[f"upper@{radius}"])) == row.interval[i]
            assert float(line[f"could_reach@{radius}"]) == row.could_reach[i]
        assert float(line["mean_certified_radius"]) == row.mean_certified_radius
    text = render(replace(SMALL, failure_probability=1e-7), "csv").splitlines()[1]
    assert text == (
        "robust,exact,0.5,0.76,0,1,100,0.0000001,,0.57,0.29,0.4671,0.2036,0.6687,0.38931,0.57,0.29,0.12367,"
        ",,0.12367,0.95,true"
    )
    assert render(replace(SMALL, rows=()), "csv").startswith("classifier,certificate,sigma")
    assert render(replace(SMALL, norm="linf"), "csv").splitlines()[1].endswith(",true,linf")
    table = mix_sweep(3)
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    for line, (alpha, clean, *attacked) in zip(lines, table.rows, strict=True):
        assert float(line["alpha"]) == alpha
        for name, cell in (("clean", clean), ("attack_number_2", attacked[1])):
            assert float(line[name]) == cell.accuracy
            assert (float(line[f"{name}_low"]), float(line[f"{name}_high"])) == cell.interval


def test_csv_of_a_trade_off_holds_each_alpha_and_the_matched_ones() -> None:
    lines = list(csv.DictReader(io.StringIO(render(TRADE_OFF.table, "csv"))))
    assert len(lines) == 2 * 2 * 3 + 2
    assert lines[1] == {
        "source": "log.tsv", "sigma": "0.5", "certificate": "exact", "alpha": "0.51", "clean_accuracy": "0.94",
        "certified_accuracy@0.25": "0.1", "lower@0.25": "0.05", "upper@0.25": "0.17",
        "could_reach@0.25": "0.1", "on_front": "true", "matched": "false",
    }  # fmt: skip
    assert [line["alpha"] for line in lines if line["matched"] == "true"] == ["0.512"] * 2


def test_csv_headings_hold_units_and_cells_hold_several() -> None:
    assert render(UNITS, "csv").splitlines() == [
        "group,model,speed_inputs_per_s,value,value_low,value_high,value_unit,complete",
        "x,a,2.5,1,,,s,false",
        "y,b,,0.57,0.46713,0.66861,share,false",
        "y,c,,3,,,,false",
    ]
    assert "| speed (inputs/s) |" in render(UNITS, "markdown")
    assert re.search(r"a +2 +1\.0 s\n", text_table(UNITS, 100))
    assert "57.0 % [46.7, 66.9]" in text_table(UNITS, 100)
    assert r"$57.0_{46.7}^{66.9}$ \%" in render(UNITS, "latex")


# readers


def test_a_partial_result_says_how_much_there_is() -> None:
    partial = replace(SMALL, complete=False, planned_inputs=5000)
    assert render(partial, "table").startswith("PARTIAL RESULT: 100 OF 5,000 PLANNED INPUTS\n")
    assert "\n**Partial result: 100 of 5,000 planned inputs.**\n" in render(partial, "markdown")
    assert r"\caption{\textbf{Partial result: 100 of 5,000 planned inputs.} " in render(partial, "latex")


@pytest.mark.parametrize("name", [*READERS, "csv"])
def test_user_text_cannot_break_out(name: str) -> None:
    for text in (render(TABLES["hostile"], name), render(replace(SMALL, notes=(HOSTILE,)), name)):
        if name == "latex":
            assert r"\textbackslash{}end\{table\} 50\% \$ \& \_\textasciicircum{}\textasciitilde{}" in text
        if name == "markdown":
            escaped = r"a\|b\\n\\n\# c \<x> \\x1b\[1m \\udc80 \\end{table} 50% \$ \& \_^\~"
            assert text.count(escaped) in (1, 6)
            assert all(
                re.match(r"(\| |# |- |Notes|Details|Clean|a|sigma)", line)
                for line in text.splitlines()
                if line
            )
    if name == "csv":
        assert len(render(TABLES["hostile"], name).splitlines()) == 2


def test_short_words_are_escaped_as_long_ones_are() -> None:
    table = table_of(("a_b|c%", Quantity(1.0, 0, "%_"), 3), headings=("x_y", "b", "c"))
    assert "a\\_b\\textbar{}c\\% & 1 & 3" in render(table, "latex")
    assert r"x\_y & b (\%\_) & c" in render(table, "latex")
    assert "| a\\_b\\|c% |" in render(table, "markdown")
    row = replace(SMALL.rows[0], certificate="new_one")
    assert r"| new\_one " in render(replace(SMALL, rows=(row,)), "markdown")
    assert r"\quad new\_one &" in render(replace(SMALL, rows=(row,)), "latex")


def test_groups_stand_above_their_rows() -> None:
    rows = (("a", CLEAN, None), ("b", CLEAN, None), ("c", CLEAN, None))
    table = table_of(*rows, groups=(("one_", 2), ("two", 1)))
    assert [line.split("  ")[0] or line.split()[0] for line in text_table(table, 80).splitlines()[4:9]] == [
        "one_", "a", "b", "two", "c",
    ]  # fmt: skip
    markdown = render(table, "markdown").splitlines()
    assert [line.split("|")[1].strip() for line in markdown if line.startswith("|")][2:] == [
        r"**one\_**", "a", "b", "**two**", "c",
    ]  # fmt: skip
    latex = render(table, "latex")
    first, second = latex.index(r"\multicolumn{3}{l}{one\_} \\"), latex.index("{l}{two}")
    assert first < latex.index("\n\\quad a &") < second


def test_percent_and_the_bound_of_attacks_are_said_once() -> None:
    assert "clean (%)" in text_table(table_of(("a", CLEAN, None)), 80)
    assert "(%)" not in text_table(table_of(("a", CLEAN, None), title="Acc (%)"), 80).split("\n\n", 1)[1]
    again = table_of(("a", CLEAN, None), headings=("model", "clean (%)", "x"))
    assert text_table(again, 80).count("(%)") == 1
    told = table_of(("a", CLEAN, ATTACKED), notes=("Attacked: an upper bound.",))
    assert "upper bounds of robust" not in text_table(told, 80)


def test_latex_splits_wide_tables_into_blocks_and_long_ones_into_pages() -> None:
    wide = render(mix_sweep(12, alphas=2), "latex")
    assert (wide.count(r"\begin{tabular}"), wide.count(r"\begin{table*}")) == (2, 1)
    long = render(TABLES["long"], "latex")
    assert (long.count(r"\begin{table}"), long.count("(continued)")) == (3, 2)
    assert len(re.findall(r"^[\d.]+ & \$", long, re.M)) == 60
    path = render(table_of(("folder/" * 12, CLEAN, None)), "latex")
    assert r"\linewidth}rr}" in path
    assert r"folder/\allowbreak{}folder/" in path


def test_latex_spans_two_columns_where_one_is_too_narrow_and_says_little() -> None:
    narrow, wide = table_of(("a", CLEAN, ATTACKED)), mix_sweep(12, alphas=2)
    for table, kind in ((narrow, "table"), (wide, "table*")):
        text = render(replace(table, notes=("one", "two", "three")), "latex")
        assert rf"\begin{{{kind}}}" in text and rf"\end{{{kind}}}" in text
        notes, comments = text.partition(r"\scriptsize")[2].split(r"\end{minipage}")
        assert "not certificates" in notes and notes.count(r"\par") == 2
        assert "% two" in comments and "% Accuracies and lower ends" in comments
    doubts = render(replace(SMALL, notes=("one", "two", "three")), "latex").partition(r"\end{minipage}")[0]
    assert all(f"{word}\\par" in doubts for word in ("one", "two", "three")), "none may be left out"
    labelled = [render(narrow, name) for name in ("latex", "latex:tab:a_b:2")]
    assert [
        rf"\label{{{name}}}" in text for name, text in zip(("tab:demo", "tab:a_b:2"), labelled, strict=True)
    ]


# mistakes, files


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: table_of(("a", CLEAN)), "row 0 has 2 cells and there are 3 headings"),
        (lambda: table_of(("a", None, None), groups=(("x", 2),)), r"groups of \[2\] rows do not make up 1 rows"),
        (lambda: Table("../x", "", "", (), ()), r"'\.\./x' is not fit for a file"),
        (lambda: Quantity(1.0, -1), r"digits = -1 is not in 0\.\.400"),
        (lambda: Quantity(1.0, 1, rounding="off"), "rounding 'off' is unknown: use one of nearest, down, up"),
        (lambda: render(mix_sweep(), "latex:a b"), "LaTeX label 'a b': use letters"),
        (lambda: render(mix_sweep(), "csv:a"), "format 'csv:a' is unknown: use one of table, json"),
        (lambda: render(mix_sweep(), "xml"), "format 'xml' is unknown: use one of table, json"),
        (lambda: print_table(SMALL, "xml"), "format 'xml' is unknown: use one of table, json"),
        *[
            (lambda other=other: render(other, "json"), r"is no table: give a result's \.summary or \.table")
            for other in ("text", None, [SMALL], {"rows": ()})
        ],
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_one_line(make: Callable, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_files_are_the_renderers_texts_and_the_plots_bytes(tmp_path: Path, run_with: Callable) -> None:
    table = mix_sweep(2, alphas=2)
    paths = write_files(tmp_path / "new", table, {"curve": lambda suffix: suffix.encode()})
    suffixes = {kind.suffix: name for name, kind in FORMATS.items() if kind.suffix}
    names = [*(f"mix-sweep.{s}" for s in suffixes), "curve.png", "curve.svg"]
    assert [path.name for path in paths] == names
    assert sorted(os.listdir(tmp_path / "new")) == sorted(names)
    for path, name in zip(paths, suffixes.values(), strict=False):
        assert path.read_text(encoding="utf-8") == render(table, name)
    assert paths[-2].read_bytes() == b"png"
    run = run_with((0.0, 0.5))
    for complete in (False, True):
        paths = write_products(tmp_path / "run", replace(run.summary, complete=complete), run.curves)
        svg = (tmp_path / "run" / "certified-accuracy.svg").read_text(encoding="utf-8")
        assert ("partial result" in svg, "Certified accuracy: cifar10" in svg) == (not complete, True)
    assert [path.suffix for path in paths] == [".json", ".csv", ".md", ".tex", ".png", ".svg"]
    assert paths[-2].read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_where_something_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(suffix: str) -> bytes:
        raise ParameterError(suffix)

    for name, draw in (("curve", fail), ("../curve", lambda suffix: b"")):
        with pytest.raises(ParameterError):
            write_files(tmp_path, mix_sweep(), {name: draw})
    assert os.listdir(tmp_path) == []
    (tmp_path / "mix-sweep.json").write_text("old")
    with pytest.raises(RunError, match="choose a folder"):
        write_files(tmp_path / "mix-sweep.json", mix_sweep())

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        write_files(tmp_path, mix_sweep())
    assert "\n" not in str(caught.value)
    assert (tmp_path / "mix-sweep.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["mix-sweep.json"]
