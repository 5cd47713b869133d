"""The package list, the lazy names, and the two commands of the README."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import certmix

ROOT = Path(__file__).parents[1]


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


def test_no_top_level_cli_tests_or_benchmarks_once_installed():
    code = "import importlib.util as u; print([n for n in ('cli', 'tests', 'benchmarks') if u.find_spec(n)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


def test_the_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert "pip install -c constraints.txt . && certmix certify --sigma 0.5 --alpha 0.76" in readme
    assert "pip install -c constraints.txt -e '.[test]' && pytest" in readme


def test_every_public_name_loads_after_every_submodule_and_none_is_hidden_by_a_package():
    code = """
import importlib, pkgutil, types, certmix
modules = [m.name for m in pkgutil.walk_packages(certmix.__path__, "certmix.") if ".selftests" not in m.name]
found = [importlib.import_module(name) for name in ["certmix", *modules]]
lost = [(m.__name__, n) for m in found for n in getattr(m, "__all__", ()) if not hasattr(m, n)]
hidden = [n for n in certmix.__all__ if isinstance(getattr(certmix, n), types.ModuleType)]
print(lost, hidden)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
