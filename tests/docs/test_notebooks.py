"""The notebooks of the documentation: whole and clean as they are stored, and executed in the long suite."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path

import pytest
from doc_pages import DOCS

import certmix

FOLDER = DOCS / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(book: dict) -> list[dict]:
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def kinds(book: dict) -> list[list[tuple]]:
    """What each cell shows, without what it holds."""
    return [
        [
            (output["output_type"], output.get("name"), *sorted(output.get("data", ())))
            for output in cell["outputs"]
        ]
        for cell in cells(book)
    ]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_clean_outputs(path: Path) -> None:
    text = path.read_text()
    book = json.loads(text)
    assert re.search(r"(?<![\w/.])/(tmp|home|root|work|usr|Users)/", text) is None
    assert "python_version" not in text and '"version"' not in text
    assert [cell["execution_count"] for cell in cells(book)] == list(range(1, len(cells(book)) + 1))
    for cell, shown in zip(cells(book), kinds(book), strict=True):
        assert {kind for kind, *_ in shown} <= {"display_data", "execute_result"}, source(cell)
        if ".plot()" in source(cell):
            assert any("image/png" in of for of in shown), source(cell)
        last = ast.parse(source(cell)).body[-1]
        assert bool(shown) == isinstance(last, ast.Expr), source(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_calls_is_there(path: Path) -> None:
    stub = ast.parse((Path(certmix.__file__).parent / "__init__.pyi").read_text())
    known = {
        made.name: {a.arg for a in (*made.args.args, *made.args.kwonlyargs)}
        for made in stub.body
        if isinstance(made, ast.FunctionDef)
    }
    called = [
        (node.func.attr, {keyword.arg for keyword in node.keywords} - {None})
        for cell in cells(json.loads(path.read_text()))
        for node in ast.walk(ast.parse(source(cell)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("certmix.")
    ]
    assert called
    for name, keywords in called:
        assert keywords <= known[name], name


def test_every_notebook_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text()
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert f"\nnotebooks/{path.stem}\n" in index and f"(notebooks/{path.name})" in index


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # those of the client; what a cell warns of is an output
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path: Path) -> None:
    executed = runpy.run_path(str(FOLDER / "execute.py"))["executed"]
    assert kinds(executed(path)) == kinds(json.loads(path.read_text()))
