"""The examples for continuous integration: they parse, and their commands and options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from certmix_cli.main import cli

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
PAGES = [DOCS / name for name in ("ci.md", "selftest.md", "testing-your-models.md")]
FILES = [*PAGES[:2], EXAMPLES / "certmix-verify.yml", EXAMPLES / "pre-commit-config.yaml"]


def commands(text):
    """Every `certmix ...` that stands alone: after a prompt, as a step, as a hook's entry, on a line of its own."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^\s*(?:\$ |run: |entry: |- run: )?(certmix [a-z].*)$", joined, re.MULTILINE)
    found += re.findall(r"`(certmix [a-z][^`]*)`", joined)
    return [line.split(" > ")[0].split("#")[0].strip() for line in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_and_options_exist(path):
    lines = commands(path.read_text())
    assert lines
    for line in lines:
        words = shlex.split(line)[1:]
        at, context = cli, click.Context(cli)
        while isinstance(at, click.Group):
            assert words, line
            name = words.pop(0)
            at = at.get_command(context, name)
            assert at is not None, f"{line}: no command {name}"
        known = {option for parameter in at.params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{line}: no option {word}"


def test_the_workflow_parses_and_uses_its_inputs():
    yaml = pytest.importorskip("yaml")
    text = (EXAMPLES / "certmix-verify.yml").read_text()
    workflow = yaml.safe_load(text)
    inputs = workflow[True]["workflow_call"]["inputs"]  # YAML 1.1 reads `on` as true
    for name in inputs:
        assert f"inputs.{name} " in text
        assert f"| `{name}` |" in (DOCS / "ci.md").read_text()
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(inputs)
    found = commands(text)
    assert [step.split()[1] for step in found] == ["selftest", "guarantee", "verify"]
    assert "--report" in found[-1]
    steps = workflow["jobs"]["verify"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    keys = {step["with"]["key"] for step in steps if "cache" in step.get("uses", "")}
    assert len(keys) == 1


def test_the_hooks_parse():
    yaml = pytest.importorskip("yaml")
    (repo,) = yaml.safe_load((EXAMPLES / "pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert hook["language"] == "system" and hook["pass_filenames"] is False


@pytest.mark.parametrize("path", [*PAGES, DOCS / "verify.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_the_pages_name_every_suite_and_setting():
    from certmix.pytest_plugin import FOLDERS, OPTIONS
    from certmix.selftests import SUITES

    page = (DOCS / "selftest.md").read_text()
    assert all(f"| `{name}` |" in page for name in SUITES)
    page = (DOCS / "testing-your-models.md").read_text()
    assert all(f"`certmix_{name}`" in page for name in {**OPTIONS, **FOLDERS})
