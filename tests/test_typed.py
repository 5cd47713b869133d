"""Editors and mypy know the keywords of `certify` and `assert_certified`: they come from the settings' fields."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click
import pytest
from certmix_cli.main import cli
from stub import PATH, TYPED, text

import certmix
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError
from certmix.runs.sources import Sources
from certmix.studies import DEFAULTS as STUDIES

USER = """\
import certmix

certmix.certify(sigma=0.5, alpha=0.76, inputs=10, radii=[0.0, 0.25], certificates="exact", data="points.npz", norm=None)
certmix.certify(sigma=0.5, alpha=0.76, inptus=10)
certmix.certify(sigma=0.5, alpha=0.76, samples="many")
certmix.assert_certified("net.json", radius=0.1, at_least=0.5, certificate="margin", max_radius=1.0)
certmix.assert_certified("net.json", radius=0.1, at_least=0.5, certificates="exact")
certmix.certify(sigma=0.5, alpha=0.76, goal="population", at_radius=0.5).claim
certmix.certify(sigma=0.5, alpha=0.76, goal="population", at_radius=0.5, shard="1/2")
"""


def test_the_stub_is_what_the_script_writes():
    assert PATH.read_text() == text(), "run python tests/stub.py"


@pytest.mark.parametrize("name", TYPED)
def test_signatures_hold_the_fields_of_settings(name):
    known = inspect.signature(getattr(certmix, name)).parameters
    assert all(one.kind is not one.VAR_KEYWORD for one in known.values())
    if name in ("certify", "assert_certified"):
        left = {"certificates", "robust"} if name == "assert_certified" else set()
        assert {*CertifyRequest.__struct_fields__, *Sources.__struct_fields__} - left <= set(known)
        assert known["inputs"].default == (100 if name == "assert_certified" else None)


@pytest.mark.parametrize("study", STUDIES)
def test_defaults_are_those_of_the_command(study):
    """What the help of a command shows is what its function takes."""
    words = study.split("-", 1) if study.startswith("nuts") else [study]
    known = inspect.signature(getattr(certmix, study.replace("-", "_"))).parameters
    command: Any = cli
    for word in words:
        command = command.get_command(click.Context(command), word)
    shown = {one.name: one.get_help_record(click.Context(command)) for one in command.params}
    for name, value in STUDIES[study].items():
        assert known[name].default == value
        assert f"[default: {value}" in str(shown[name])


def test_what_a_signature_lacks_is_refused():
    with pytest.raises(ParameterError, match="did you mean inputs"):
        certmix.certify(sigma=0.5, alpha=0.76, inptus=10)


@pytest.mark.long
def test_mypy_refuses_a_wrong_keyword(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(USER)
    # only the stub is read: with torch and all modules behind it mypy takes a minute
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-certmix]\nfollow_imports = normal\n"
    )
    monkeypatch.setenv("MYPYPATH", str(Path(certmix.__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    told, _, code = api.run(["--config-file", "mypy.ini", "--no-incremental", "user.py"])
    lines = {int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line}
    assert (code, lines) == (1, {4, 5, 7, 9}), told
