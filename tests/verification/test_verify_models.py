"""Verification of models: pins, runs that are only read, and models that end the program."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from certmix.errors import ModelError
from certmix.models.spec import load_model, wrap_model
from certmix.verification.checks import Outcome
from certmix.verification.guarantee import guarantee_text, read_guarantee
from certmix.verification.judge import propose
from certmix.verification.rederive import rederive
from certmix.verification.request import VerifyRequest
from certmix.verification.verify import verify

G = """
import json
from pathlib import Path
import torch

class G(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = json.loads((Path(__file__).parent / "g.json").read_text())

    def forward(self, x):
        return x @ torch.tensor(self.w).T

def make():
    return G()
"""
GOOD, CONSTANT = "[[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]", "[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]"
SMALL = ("--sigma", "0.25", "--alpha", "0.76", "--images", "6", "--samples", "300", "--certificate", "exact")


@pytest.fixture
def folder(problem, monkeypatch) -> Path:
    """A folder with points, two models, and a run of them in cache/accepted."""
    monkeypatch.chdir(problem.folder)
    monkeypatch.setattr("certmix.tables.curves.curve_plot", lambda *a, **k: b"a plot")
    (problem.folder / "g.py").write_text(G)
    (problem.folder / "g.json").write_text(GOOD)
    return problem.folder


def certify(command, *more: str):
    models = ("--standard", "g.py:make", "--robust", "nets.py:linear")
    return command("certify", "--data", "points.npz", *models, *SMALL, *more)


def guaranteed(folder: Path, run: str, name: str = "guarantee.toml", pin: bool = True) -> Path:
    guarantee, _ = propose(folder / run, folder / name, pin=pin)
    (folder / name).write_text(guarantee_text(guarantee))
    return folder / name


def held(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def outcomes(found, start: str) -> list[str]:
    return [str(check.outcome) for check in found.checks if check.check.startswith(start)]


def test_a_pinned_standard_model_whose_data_file_was_swapped_does_not_verify(command, folder):
    assert certify(command, "--output", "cache/accepted").code == 0
    guarantee = guaranteed(folder, "cache/accepted")
    assert command("verify", guarantee, "--runs", "cache", "--resample", "0").code == 0
    before = held(folder / "cache")
    (folder / "g.json").write_text(CONSTANT)
    for more in ((), ("--resample", "2")):
        found = command("verify", guarantee, "--runs", "cache", *more)
        assert found.code == 1
        assert "standard model logits" in found.out
        assert "not judged: a model is not the one that the stored run was made with" in found.out
        assert "contradicts itself" not in found.out
    assert held(folder / "cache") == before


def test_a_pin_names_the_declared_file_that_changed(command, folder):
    assert certify(command, "--standard-file", "g.json", "--output", "cache/accepted").code == 0
    guarantee = guaranteed(folder, "cache/accepted")
    assert 'files = ["g.json"]' in guarantee.read_text()
    assert read_guarantee(guarantee).standard.files == ("g.json",)
    assert command("verify", guarantee, "--runs", "cache", "--resample", "0").code == 0
    (folder / "g.json").write_text(CONSTANT)
    found = command("verify", guarantee, "--runs", "cache", "--resample", "0")
    assert found.code == 1
    assert "file g.json changed" in found.out
    (folder / "g.json").unlink()
    found = command("verify", guarantee, "--runs", "cache", "--resample", "0")
    assert found.code == 2
    assert "g.json cannot be read" in found.err


def test_the_run_of_the_same_standard_model_is_taken_and_none_is_written_to(command, folder):
    """Two runs of one h: with g of the guarantee, and with another; by name the other comes first."""
    assert certify(command, "--output", "cache/b").code == 0
    guarantee = guaranteed(folder, "cache/b")
    (folder / "other.py").write_text(G.replace("x @", "-x @"))
    assert certify(command, "--standard", "other.py:make", "--output", "cache/a").code == 0
    before = held(folder / "cache")
    found = verify(guarantee, VerifyRequest(runs=folder / "cache", images=0))
    assert (found.outcome, found.run.name) == (Outcome.HOLDS, "b")
    shutil.rmtree(folder / "cache" / "b")
    before = held(folder / "cache")
    found = verify(guarantee, VerifyRequest(runs=folder / "cache", images=2))
    assert found.outcome is Outcome.HOLDS
    assert (found.sampling.drawn_samples, found.sampling.reused_images) == (0, 6)
    assert found.run.name not in ("a", "b")
    assert before.items() <= held(folder / "cache").items()
    own = held(found.run)
    again = verify(guarantee, VerifyRequest(runs=folder / "cache", images=0))
    assert (again.run, held(found.run)) == (found.run, own)


@pytest.mark.parametrize("more", [("alpha = 0.76", "alpha = 0.55"), ("images = 6", "images = 9")])
def test_other_settings_are_drawn_for_in_a_folder_of_their_own(command, folder, more):
    assert certify(command, "--output", "cache/run").code == 0
    guarantee = guaranteed(folder, "cache/run", pin=False)
    text = guarantee.read_text()
    assert more[0] in text
    guarantee.write_text(text.replace(*more))
    before = held(folder / "cache")
    found = verify(guarantee, VerifyRequest(runs=folder / "cache", images=0))
    assert outcomes(found, "") == ["holds"] * len(found.checks)
    assert found.sampling.reused_samples > 0
    assert before.items() <= held(folder / "cache").items()
    drawn = found.sampling.drawn_samples
    again = verify(guarantee, VerifyRequest(runs=folder / "cache", images=0))
    assert (again.run, again.sampling.drawn_samples) == (found.run, 0)
    assert drawn == 0 or again.sampling.reused_samples > found.sampling.reused_samples


@pytest.mark.parametrize("place", ["forward", "factory", "import", "click"])
@pytest.mark.parametrize("what", ["run", "guarantee"])
def test_a_model_that_ends_the_program_is_not_verified(command, folder, place, what):
    assert certify(command, "--output", "cache/run").code == 0
    target = folder / "cache" / "run" if what == "run" else guaranteed(folder, "cache/run", pin=False)
    leave = "import sys; sys.exit(0)"
    spoilt = {
        "forward": G.replace("        return x", f"        {leave}\n        return x"),
        "factory": G.replace("    return G()", f"    {leave}"),
        "import": f"{leave}\n{G}",
        "click": G.replace("        return x", "        import click; raise click.exceptions.Exit(0)"),
    }[place]
    (folder / "g.py").write_text(spoilt)
    runs = () if what == "run" else ("--runs", "cache")
    found = command("verify", target, *runs, "--report", "json=found.json")
    assert found.code != 0
    assert json.loads((folder / "found.json").read_text())["exit_code"] == found.code
    if what == "guarantee":
        assert found.code == 2
    again = certify(command, "--output", "new")
    assert (again.code, again.out) == (2, "") or place == "click"


def test_verify_from_a_program_raises_an_error_that_is_not_an_exit(command, folder):
    assert certify(command, "--output", "cache/run").code == 0
    guarantee = guaranteed(folder, "cache/run", pin=False)
    (folder / "g.py").write_text(G.replace("        return x", "        raise SystemExit\n        return x"))
    with pytest.raises(ModelError):
        verify(guarantee, VerifyRequest(runs=folder / "cache"))


class Plane(torch.nn.Module):
    """A module of this test."""

    def forward(self, x):
        return torch.stack([x[:, 0], -x[:, 0], -x[:, 1]], 1)


def test_what_cannot_be_vouched_for_is_never_a_tick(command, folder, monkeypatch, tmp_path):
    assert wrap_model(Plane()).doubt
    assert not load_model("nets.py:linear").doubt
    module = ModuleType("made_up")
    module.make = lambda: Plane()
    module.make.__module__ = "made_up"
    monkeypatch.setitem(sys.modules, "made_up", module)
    assert "source of its factory cannot be had" in load_model("made_up:make").doubt
    assert certify(command, "--robust", "made_up:make", "--output", "cache/run").code == 0
    guarantee = guaranteed(folder, "cache/run")
    found = verify(guarantee, VerifyRequest(runs=folder / "cache", images=0))
    assert outcomes(found, "pinned robust") == ["unchecked"]
    assert outcomes(found, "pinned standard") == ["holds"]
    assert outcomes(found, "robust model checksum") == ["unchecked"]
    assert found.exit_code == 2
    assert command("verify", guarantee, "--runs", "cache", "--resample", "0").code == 2


def test_a_module_handed_over_is_compared_and_not_vouched_for(folder):
    import certmix

    certmix.certify(
        0.25, 0.76, robust=Plane(), standard=None, data="points.npz", images=4, samples=200, output="run"
    )
    for model, logits in ((Plane(), "holds"), (torch.nn.Sequential(Plane()), "unchecked")):
        checks = {one.check: str(one.outcome) for one in rederive(folder / "run", models={"robust": model})}
        assert checks["robust model checksum"] == ("unchecked" if logits == "holds" else "fails")
        assert checks["robust model logits"] == logits
