"""The commands of docs/scale.md and its examples exist, options and all."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from certmix_cli.main import cli

DOCS = Path(__file__).parents[2] / "docs"
ARRAY, RAYJOB = DOCS / "examples" / "certify-array.sh", DOCS / "examples" / "certify-rayjob.yaml"


def commands(text):
    """Yield the words of every certmix command, lines joined."""
    joined = text.replace("\\\n", " ")
    for found in re.finditer(r"^\s*\$?\s*(certmix [a-z-]+ .*)$", joined, re.MULTILINE):
        yield shlex.split(found[1].replace(" ...", ""))[1:]


def check(words):
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None, words
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = {word for word in words if word.startswith("--")} - known
    assert not unknown, words


@pytest.mark.parametrize("path", [DOCS / "scale.md", ARRAY], ids=lambda path: path.name)
def test_every_command_and_option_exists(path):
    found = list(commands(path.read_text()))
    assert found
    for words in found:
        check(words)


def test_the_array_job_is_valid_shell():
    assert subprocess.run(["bash", "-n", ARRAY], capture_output=True).returncode == 0


def test_the_ray_job_is_valid_and_asks_for_what_there_is():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    job = yaml.safe_load(RAYJOB.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[0] == "certmix"
    check(words[1:])
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = float(words[words.index("--gpus-per-worker") + 1]) * int(words[words.index("--workers") + 1])
    assert gpus == group["replicas"] * int(limits["nvidia.com/gpu"])
    volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]} <= volumes
