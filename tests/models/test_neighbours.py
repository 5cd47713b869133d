"""Which files belong to a model: what its code imports of the user's own, wherever it does."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
import torch

from certmix.models.foreign import module_sources, sources_of
from certmix.models.spec import load_model

THRESHOLD = "import torch\nfrom {} import V\ndef make():\n    return torch.nn.Threshold(0, V)"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path = path.with_name("__init__.py") if path.stem == "init" else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a", {"a.py"}),
        ("import a as b, json, os.path", {"a.py"}),
        ("from a import thing", {"a.py"}),
        ("def f():\n    try:\n        import a\n    except ImportError:\n        pass", {"a.py"}),
        ("import p", {"p/__init__.py", "p/x.py", "p/y.py"}),
        ("import p.y", {"p/__init__.py", "p/x.py", "p/y.py"}),
        ("from p import y", {"p/__init__.py", "p/x.py", "p/y.py"}),
        ("from q import z", {"q/z.py"}),  # a namespace package
        ("import chain", {"chain.py", "a.py"}),
        ("import importlib\nimportlib.import_module('a')", {"a.py"}),
        ("import importlib\nimportlib.import_module('a' * 1)", {"a.py", "chain.py", "alone.py", "bad.py"}),
        ("__import__(name)", {"a.py", "chain.py", "alone.py", "bad.py"}),
        ("import bad", {"bad.py"}),
        ("import torch, certmix, no_such_module", set()),
    ],
)
def test_imports_are_followed(tmp_path: Path, text, expected):
    write(
        tmp_path, a="V = 1", chain="import a", alone="V = 2", bad="this is no Python", p__init="from . import x",
        p__x="from .y import V", p__y="V = 1\nimport p.x", p__unused="", q__z="from . import nothing",
    )  # fmt: skip
    own = tmp_path / "nets.py"
    own.write_text(text)
    found = sources_of(own, own.read_bytes(), tmp_path)
    assert set(found) == {"nets.py", *expected}
    assert all(found[name] == (tmp_path / name).read_bytes() for name in found)


def test_a_package_that_imports_by_computed_names_counts_whole(tmp_path: Path, monkeypatch):
    computed = "import importlib\nf = lambda name: importlib.import_module(name)"
    write(
        tmp_path, whole__init="from .a import f", whole__a=computed, whole__b="", whole__deep__init="",
        whole__deep__c="", beside="",
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    import whole  # noqa: F401

    names = {"__init__", "a", "b", "deep/__init__", "deep/c"}
    assert set(module_sources("whole")) == {f"whole/{name}.py" for name in names}


def test_a_factory_of_a_module_has_what_it_imports_of_its_package_in_the_checksum(
    tmp_path: Path, monkeypatch
):
    net = "import torch\nfrom .parts import V\nmake = torch.nn.Flatten"
    write(tmp_path, mine__init="", mine__nets=net, mine__parts="V = 1", mine__no="")
    monkeypatch.syspath_prepend(str(tmp_path))
    sums = []
    for changed in ("nothing", "no", "parts"):
        with (tmp_path / "mine" / f"{changed}.py").open("a") as file:
            file.write("\nmore = 1")
        for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
            del sys.modules[name]
        sums.append(load_model("mine.nets:make").checksum)
    assert sums[0] == sums[1] != sums[2]


def test_code_runs_as_its_file_is_now_though_bytecode_of_the_same_second_is_kept(tmp_path: Path):
    write(tmp_path, nets=THRESHOLD.format("late"))
    values = []
    for value in (1.5, 2.5, 3.5):
        write(tmp_path, late=f"V = {value}")
        values.append(load_model(f"{tmp_path / 'nets.py'}:make").module.value)
    assert values == [1.5, 2.5, 3.5]


def test_a_neighbour_that_was_imported_before_is_run_anew_and_left_as_it_was(tmp_path: Path, monkeypatch):
    write(tmp_path, nets=THRESHOLD.format("sideways"), sideways="V = 1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    import sideways

    write(tmp_path, sideways="V = 2.0")
    assert load_model(f"{tmp_path / 'nets.py'}:make").module.value == 2.0
    assert sys.modules["sideways"] is sideways
    assert sideways.V == 1.0
    del sys.modules["sideways"]


def test_buffers_that_a_state_dict_leaves_out_count(tmp_path: Path):
    text = (
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.register_buffer('t', torch.load('t.pt'), persistent=False)\n"
    )
    (tmp_path / "nets.py").write_text(text.replace("'t.pt'", repr(str(tmp_path / "t.pt"))))
    sums = set()
    for value in (0.0, 1.0):
        torch.save(torch.tensor(value), tmp_path / "t.pt")
        sums.add(load_model(f"{tmp_path / 'nets.py'}:Net").checksum)
    assert len(sums) == 2


def test_installed_packages_count_whole_and_torch_by_the_file():
    assert len(module_sources("click")) == len(list(Path(click.__file__).parent.rglob("*.py")))
    assert len(module_sources("torch.nn")) == 1
    assert module_sources("itertools") == {}
