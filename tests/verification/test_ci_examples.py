"""The examples for continuous integration: they parse, and their commands and options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from certmix_cli.main import cli

from certmix.pytest_plugin import FOLDERS, OPTIONS
from certmix.selftests import SUITES

DOCS = Path(__file__).parents[2] / "docs"
WORKFLOW, HOOKS = (DOCS / "examples" / name for name in ("certmix-verify.yml", "pre-commit-config.yaml"))


def commands(path: Path) -> list[str]:
    """Every `certmix ...`: as a step, or as a hook's entry."""
    joined = path.read_text().replace("\\\n", " ")
    found = re.findall(r"^\s*(?:run: |entry: |- run: )?(certmix [a-z].*)$", joined, re.MULTILINE)
    return [line.split(" > ")[0].split("#")[0].strip() for line in found]


@pytest.mark.parametrize("path", [WORKFLOW, HOOKS], ids=lambda path: path.name)
def test_commands_and_options_exist(path):
    assert commands(path)
    for line in commands(path):
        words, at, context = shlex.split(line)[1:], cli, click.Context(cli)
        while isinstance(at, click.Group):
            at = at.get_command(context, words.pop(0))
            assert at is not None, line
        known = {option for parameter in at.params for option in parameter.opts}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line


def test_the_workflow_parses_and_uses_its_inputs():
    yaml = pytest.importorskip("yaml")
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    inputs = workflow[True]["workflow_call"]["inputs"]  # YAML 1.1 reads `on` as true
    assert all(f"| `{name}` |" in (DOCS / "ci.md").read_text() for name in inputs)
    assert set(re.findall(r"inputs\.([a-z-]+) ", text)) == set(inputs)
    assert [step.split()[1] for step in commands(WORKFLOW)] == ["selftest", "guarantee", "verify"]
    steps = workflow["jobs"]["verify"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert len({step["with"]["key"] for step in steps if "cache" in step.get("uses", "")}) == 1
    (repo,) = yaml.safe_load(HOOKS.read_text())["repos"]
    for hook in repo["hooks"]:
        assert hook["language"] == "system" and hook["pass_filenames"] is False
        assert {"id", "name", "entry"} <= set(hook)


def test_the_pages_name_every_suite_and_setting():
    page = (DOCS / "selftest.md").read_text()
    assert all(f"| `{name}` |" in page for name in SUITES)
    page = (DOCS / "testing-your-models.md").read_text()
    assert all(f"`certmix_{name}`" in page for name in {**OPTIONS, **FOLDERS})
