import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from certmix.errors import RunError
from certmix.tables import render, write_products

NAMES = [f"certified-accuracy.{suffix}" for suffix in ("csv", "md", "tex", "json", "png", "svg")]


def test_writes_every_product_and_nothing_else(tmp_path: Path, run_with: Callable) -> None:
    run = run_with((0.0, 0.5))
    folder = tmp_path / "new" / "report"
    paths = write_products(folder, run.summary, run.curves)
    assert [path.name for path in paths] == NAMES
    assert sorted(os.listdir(folder)) == sorted(NAMES)
    for path, name in zip(paths, ("csv", "markdown", "latex", "json"), strict=False):
        assert path.read_text(encoding="utf-8") == render(run.summary, name)
    assert paths[4].read_bytes().startswith(b"\x89PNG")
    assert "Certified accuracy: cifar10" in paths[5].read_text(encoding="utf-8")


def test_a_second_run_replaces_the_first(tmp_path: Path, run_with: Callable) -> None:
    run = run_with((0.5,))
    write_products(tmp_path, replace(run.summary, complete=False), run.curves)
    assert "partial result" in (tmp_path / NAMES[5]).read_text(encoding="utf-8")
    write_products(str(tmp_path), run.summary, run.curves)
    assert json.loads((tmp_path / NAMES[3]).read_text())["complete"] is True
    assert "partial" not in (tmp_path / NAMES[5]).read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_old_file_and_no_scraps(
    tmp_path: Path, run_with: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with((0.5,))
    (tmp_path / NAMES[0]).write_text("old")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        write_products(tmp_path, run.summary, run.curves)
    assert "\n" not in str(caught.value)
    assert (tmp_path / NAMES[0]).read_text() == "old"
    assert os.listdir(tmp_path) == [NAMES[0]]


def test_a_file_in_place_of_the_folder_is_an_error_of_one_line(tmp_path: Path, run_with: Callable) -> None:
    run = run_with((0.5,))
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="choose a folder"):
        write_products(tmp_path / "taken", run.summary, run.curves)


def test_importing_the_station_loads_nothing_heavy() -> None:
    heavy = ["torch", "matplotlib", "rich", "click", "scipy", "PIL", "certmix.bounds", "certmix.radii"]
    code = f"import sys, certmix.tables; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
