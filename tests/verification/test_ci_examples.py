"""The examples for continuous integration: they parse, and their commands and options exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from certmix_cli.main import cli

from certmix.pytest_plugin import FOLDERS, OPTIONS
from certmix.selftests import SUITES

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
WORKFLOW, HOOKS, CALLER = (
    EXAMPLES / name for name in ("certmix-verify.yml", "pre-commit-config.yaml", "guarantee.yml")
)


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


GUARANTEE = """\
version = 1
requirements = ["certified_accuracy@0.25 >= 0.25 on value"]
data = { name = "points.npz", inputs = 4 }
robust = { model = "nets.py:linear" }
certificate = { alpha = 0.76, sigma = 0.25 }
sampling = { samples = 200 }
"""


@pytest.fixture
def workflow(tmp_path, problem, command, monkeypatch):
    """Return a function that does the workflow's steps and says how each ended: certmix in this process, or all as a runner."""
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(WORKFLOW.read_text())
    called = yaml.safe_load(CALLER.read_text())["jobs"]["guarantee"]
    assert (EXAMPLES / Path(called["uses"]).name) == WORKFLOW
    inputs = {name: one.get("default", "") for name, one in read[True]["workflow_call"]["inputs"].items()}
    assert set(called["with"]) <= set(inputs)
    given = {**inputs, **called["with"], "install": "true", "resample": "1"}
    given["selftest"] = "--suite margin-lemma --cases 2"

    def filled(text):
        return re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: str(given[found[1]]), str(text))

    (tmp_path / "certmix").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "from certmix_cli.main import main; main()" "$@"\n'
    )
    (tmp_path / "certmix").chmod(0o755)
    job = read["jobs"]["verify"]
    surroundings = {
        **os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        **{name: filled(value) for name, value in job["env"].items()},
    }  # fmt: skip

    def here(words):
        line = re.sub(r"\$([A-Z_]+)", lambda found: surroundings[found[1]], words.replace("\\\n", " "))
        return command(*(word for word in shlex.split(line)[1:] if word != "--isolated")).code

    def run(leave=(), runner=False):
        ends = {}
        for step in job["steps"]:
            words = filled(step.get("run", ""))
            if words and not any(part in words for part in leave):
                if words.startswith("certmix ") and not runner:
                    code = here(words)
                else:
                    shell = ["bash", "-e", "-c", words]
                    code = subprocess.run(shell, cwd=problem.folder, env=surroundings).returncode
                ends[step["name"]] = code
                if code and "if" not in step:
                    break
        return ends

    return run


@pytest.mark.parametrize("runner", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_workflow_s_steps_pass_and_demand_a_report_that_says_so(workflow, problem, runner):
    (problem.folder / "guarantee.toml").write_text(GUARANTEE)
    ends = workflow(runner=runner)
    assert set(ends.values()) == {0}
    assert len(ends) == 5
    report = problem.folder / "certmix-verify.json"
    found = json.loads(report.read_text())
    assert found["outcome"] == "holds"
    rest = ("selftest", "guarantee check", "certmix verify")
    report.write_text(json.dumps({**found, "outcome": "unchecked"}, indent=2))
    assert list(workflow(leave=rest).values()) == [0, 1]
    report.unlink()
    assert list(workflow(leave=rest).values()) == [0, 2]


@pytest.mark.long
def test_the_workflow_stops_at_a_model_that_leaves(workflow, problem):
    (problem.folder / "guarantee.toml").write_text(GUARANTEE)
    (problem.folder / "nets.py").write_text("import os\n\n\ndef linear():\n    os._exit(0)\n")
    assert list(workflow(leave=("selftest", "guarantee check"), runner=True).values()) == [0, 2]
    assert "os._exit" in (problem.folder / "certmix-verify.json").read_text()


def test_the_page_holds_both_files():
    page = (DOCS / "ci.md").read_text()
    assert all(f"```{{literalinclude}} examples/{path.name}" in page for path in (WORKFLOW, CALLER))
