"""Nothing that is written tells who ran it: no home folder, no user, no environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from forged import sources

from certmix.nuts.description import MixSettings
from certmix.nuts.folder import BaseModel, load_model, save_nuts
from certmix.nuts.grid import TransformSettings

HOME, USER, SECRET = "home-of-3f9c", "user-7d21", "token-b6e8"
MODELS = ("--data", "points.npz", "--standard", "nets.py:linear", "--robust", "nets.py:linear", "--inputs", 4)
SAMPLED = ("--sigma", 0.25, "--alpha", 0.76, "--samples", 200)
ATTACKED = ("--inputs", 2, "--steps", 1, "--eps", 0.01)
COMMANDS: list[tuple[object, ...]] = [
    ("certify", *MODELS, *SAMPLED, "--output", "run", "--standard-file", "c.json", "--robust-weights", "w.pt"),
    ("certify", *MODELS, *SAMPLED, "--seed", 3),
    ("certify", *MODELS, "--certificate", "margin", "--alpha", 0.8, "--output", "margin"),
    ("certify", *MODELS, *SAMPLED, "--shard", "1/2", "--output", "one"),
    ("certify", *MODELS, *SAMPLED, "--shard", "2/2", "--output", "two"),
    ("merge", "one", "two", "--output", "merged"),
    ("reproduce", "run", "--output", "again", "--run-code"),
    ("attack", *MODELS[:2], *MODELS[4:6], *ATTACKED, "--output", "attacked"),
    ("certify", *MODELS[:2], *SAMPLED, "--inputs", 2, "--standard", "none", "--robust", "nuts:fit#base", "--run-code", "--output", "mixed"),
    ("report", "run", "--output", "page.html"),
    ("report", "merged", "attacked", "--output", "pages.html"),
    ("guarantee", "init", "run", "--output", "guarantee.toml"),
    ("verify", "guarantee.toml", "--run-code", "--resample", 1, "--runs", "kept", "--report", "junit=j.xml", "--report", "json=j.json"),
    ("evidence", "guarantee.toml", "--run-code", "--resample", 1, "--runs", "kept", "--output", "evidence"),
    ("verify", "run", "--resample", 1, "--report", "markdown=j.md", "--report", "junit=r.xml", "--report", "github=r.txt"),
    ("falsify", "run", "--run-code", "--steps", 1, "--samples", 200),
]  # fmt: skip


@pytest.fixture
def work(command, tmp_path: Path, monkeypatch) -> Path:
    """A working folder in a home folder of that name, where points and models lie."""
    import torch

    folder = tmp_path / HOME / "work"
    sources(folder)
    (folder / "c.json").write_text("{}")
    torch.save(
        {"weight": torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]), "bias": torch.zeros(3)},
        folder / "w.pt",
    )
    for name, value in (("HOME", folder.parent), ("USER", USER), ("LOGNAME", USER), ("HOSTNAME", SECRET),
                        ("API_TOKEN", SECRET), ("CI_JOB_TOKEN", SECRET)):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(folder)
    pair = [BaseModel(load_model("nets.py:linear"))] * 2
    save_nuts(Path("fit"), MixSettings(TransformSettings(1.0, 1.0, 0.0), 0.8), *pair)
    return folder


def telling(folder: Path) -> list[tuple[str, str]]:
    """Return which files tell what."""
    return [
        (str(path.relative_to(folder)), word)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for word in (HOME, USER, SECRET)
        if word.encode() in path.read_bytes()
    ]


def test_no_product_tells_who_made_it(command, work):
    for words in COMMANDS:
        done = command(*words)
        assert done.code in (0, 1) or words[:2] == ("verify", "run"), (words, done.err)
    assert len([path for path in work.rglob("*") if path.is_file()]) > 80
    assert telling(work) == []
    (work / "told").write_text(f"/{HOME}/work")
    assert telling(work) == [("told", HOME)]


def test_a_run_is_opened_from_any_folder_and_moves_with_what_it_names(command, work, monkeypatch):
    assert command(*COMMANDS[0]).code == 0
    described = json.loads((work / "run" / "run.json").read_text())["sources"]
    assert described["data"] == "../points.npz"
    assert described["robust"] == "../nets.py:linear"
    assert (described["robust_weights"], described["standard_files"]) == ("../w.pt", ["../c.json"])
    moved = work.rename(work.parent / "moved")
    for where, run in (
        (moved, "run"),
        (moved / "run", "."),
        (moved.parent, "moved/run"),
        (Path("/"), moved / "run"),
    ):
        monkeypatch.chdir(where)
        assert command("verify", run, "--resample", 1, "--run-code").code == 0
    os.symlink(moved / "run", moved.parent / "link")
    assert command("verify", moved.parent / "link", "--resample", 0, "--run-code").code == 0


def test_what_was_given_as_absolute_or_from_home_stays_so(command, work):
    given = {"--data": str(work / "points.npz"), "--robust": "~/work/nets.py:linear", "--standard": "none"}
    words = [word for pair in given.items() for word in pair]
    assert command("certify", *SAMPLED, *words, "--inputs", 2, "--output", "run").code == 0
    described = json.loads((work / "run" / "run.json").read_text())["sources"]
    assert (described["data"], described["robust"]) == (given["--data"], given["--robust"])
    assert command("verify", "run", "--resample", 1, "--run-code").code == 0


def test_evidence_leaves_out_what_the_run_was_given(command, work):
    (work / USER).mkdir()
    arrays = dict(np.load(work / "points.npz")) | {"class_names": [f"of {USER}", SECRET, "c"]}
    np.savez(work / USER / f"{SECRET}.npz", **arrays)
    (work / "nets.py").rename(work / USER / f"{SECRET}.py")
    nets = work / USER / f"{SECRET}.py:linear"
    run = work / f"{USER}-run"
    words = ("--data", work / USER / f"{SECRET}.npz", "--standard", nets, "--robust", nets, "--inputs", 4)
    assert command("certify", *SAMPLED, *words, "--output", run).code == 0
    assert command("guarantee", "init", run, "--output", work / USER / f"{SECRET}.toml").code == 0
    for number, target in enumerate((run, work / USER / f"{SECRET}.toml")):
        done = command("evidence", target, "--run-code", "--resample", 1, "--output", f"told{number}")
        assert done.code == 0, done.err
        assert len(list((work / f"told{number}").iterdir())) == 8
        assert telling(work / f"told{number}") == []
    assert {word for _, word in telling(run)} == {HOME, USER, SECRET}
