"""Folders with odd names: a run in one is no damaged run, and commands that are printed can be pasted."""

from __future__ import annotations

import html
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from certmix_cli.main import cli
from click.testing import CliRunner
from forged import certified, edit_json, sources

from certmix.data import load
from certmix.errors import CertmixError
from certmix.page import report_page

LINES = ["new\nline", "a\u2028b", "a\x0bb"]
COMMANDS = {
    "show": "show",
    "verify": "verify --run-code --resample 0",
    "evidence": "evidence --run-code --resample 0 --output ev",
    "guarantee init": "guarantee init --output g.toml",
    "reproduce": "reproduce --run-code",
    "falsify": "falsify --run-code --device cpu --inputs 1",
    "audit": "audit",
    "report": "report --output page.html",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a run in it."""
    certified(tmp_path / "run", sources(tmp_path), inputs=2, samples=200)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(*command: str) -> tuple[Any, str]:
    result = CliRunner().invoke(cli, command)
    assert result.exception is None or isinstance(result.exception, CertmixError), result.exception
    return result.exception, result.output + str(result.exception)


def test_the_name_is_refused_not_the_run(place: Path) -> None:
    for name in LINES:
        shutil.copytree("run", name)
        for command in COMMANDS.values():
            _, told = done(*command.split(), name)
            assert "has a line end in its name: rename the folder" in told, command
            assert "damaged" not in told and "restore" not in told
        with pytest.raises(CertmixError, match="has a line end in its name"):
            certified(Path(f"{name}2"), sources(Path()), inputs=2, samples=200)
        assert not os.path.exists(f"{name}2")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_keeps_only_evidence(place: Path) -> None:
    name = os.fsdecode(b"n\xffon")
    shutil.copytree("run", name)
    for what in ("verify", "evidence", "guarantee init"):  # the stream of this test takes no such name
        error, told = done(*COMMANDS[what].split(), name)
        assert "damaged" not in told and "restore" not in told, told
        assert (error is not None) == (what == "evidence")
        if what == "evidence":
            assert "is part of a name that is no text in UTF-8: rename that file or folder" in told


@pytest.mark.parametrize("name", ["sp ace", "-dash", "quo'te", "$HOME", "a;b", "plain"])
def test_printed_commands_can_be_pasted(place: Path, name: str) -> None:
    folder = place / name / name
    shutil.copytree("run", folder)
    _, told = done("guarantee", "init", f"./{name}/{name}", "--output", f"{name}.toml")
    words = shlex.split(told.partition("check with: ")[2].splitlines()[0])
    assert words[:2] == ["certmix", "verify"] and not words[2].startswith("-")
    assert os.path.samefile(words[2], f"{name}.toml") and os.path.samefile(words[4], name)
    _, told = done("audit", f"./{name}/{name}")
    words = shlex.split(told.partition("not looked at; certmix verify ")[2].splitlines()[0])
    assert os.path.samefile(words[0], folder)
    wanted = shlex.quote(f"./{name}" if name.startswith("-") else name)
    assert f"certmix reproduce {wanted}" in html.unescape(report_page([folder], inputs=0))


def test_options_that_are_proposed_can_be_pasted(place: Path) -> None:
    edit_json(place / "run" / "run.json", lambda told: told["sources"].update(data="../sp ace.py:make"))
    _, told = done("guarantee", "init", "run", "--output", "g.toml")
    assert told.rstrip().endswith("name it yourself, with --data './sp ace.py:make'")
    Path("table.csv").write_text("a,my label,label\n1,x,0\n2,3,1\n")
    with pytest.raises(CertmixError, match="if it is the label, --label-column 'my label'"):
        load("table.csv")
