"""The package list, the lazy names, what is imported when, and the two commands of the README."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import certmix

ROOT = Path(__file__).parents[1]
LIGHT = """
import contextlib, importlib, importlib.util, io, sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

assert not [name for name in ("cli", "tests", "benchmarks") if importlib.util.find_spec(name)]
import certmix, certmix_cli.main
assert not loaded("torch", "numpy", "numba", "scipy")
import certmix.tables
assert not loaded("torch", "scipy", "matplotlib", "rich", "PIL", "certmix.bounds", "certmix.radii")
for name in ("types", "errors", "data", "bounds", "radii", "runs", "nuts", "margins", "margins.estimates",
             "certification.evaluate", "certification.shards", "certification.population"):
    importlib.import_module("certmix." + name)
certmix.data.load
certmix.margins.softmax_margin_lower([[1.0]])
import certmix.models.zoo
certmix.models.zoo.shipped_for()
from certmix_cli.stored import audit, recertify, trade_off
with contextlib.redirect_stdout(io.StringIO()):
    for command, more in ((recertify, []), (audit, []), (trade_off, ["--plot", "none"])):
        command.main([sys.argv[1], "--sigma", "0.25", "--format", "json", *more], standalone_mode=False)
print(loaded("torch", "matplotlib", "rich", "PIL", "scipy.stats", "scipy.signal"))
"""


def test_every_folder_is_in_the_package_list():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("certmix/**/__init__.py")
    } | {"certmix_cli"}
    assert set(listed) == folders


@pytest.mark.parametrize("name", certmix.__all__)
def test_public_names_load_and_are_documented(name):
    assert getattr(certmix, name).__doc__


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nonsense"):
        certmix.nonsense  # noqa: B018


def test_the_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "pip install -c constraints.txt . && certmix certify --sigma 0.5 --alpha 0.76" in readme
    assert "pip install -c constraints.txt -e '.[test]' && pytest" in readme


def test_every_public_name_loads_after_every_submodule_and_none_is_hidden_by_a_package():
    names = [
        m.name for m in pkgutil.walk_packages(certmix.__path__, "certmix.") if ".selftests" not in m.name
    ]
    for module in map(importlib.import_module, ["certmix", *names]):
        assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []
    assert not [name for name in certmix.__all__ if isinstance(getattr(certmix, name), types.ModuleType)]


def test_the_half_without_torch_and_nothing_beside_the_package_is_installed(tmp_path):
    (tmp_path / "log.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.25\t1\t1.0\n")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, tmp_path / "log.tsv"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
