"""A model that changed, in whichever file or variable, is not served what was stored of the one before."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import sql
from safetensors.torch import save_file

from certmix.errors import RunError
from certmix.models.spec import load_model
from certmix.runs.behaviour import CLOSE, changed_parts, difference
from certmix.runs.sources import Sources

FILES = {
    "nets.py": """
import importlib, json, os, pickle
from pathlib import Path
import torch
import shift
from pack import EDGE
HERE = Path(__file__).parent
OWN = 0.0

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))
        from late import LATE
        computed = importlib.import_module("comp" + "uted").VALUE
        read = json.loads((HERE / "cfg.json").read_text())["t"]
        fitted = pickle.loads((HERE / "model.pkl").read_bytes())
        self.edge = OWN + shift.edge() + EDGE + LATE + computed + read + fitted
        self.edge += float(os.environ.get("TEST_EDGE", 0))

    def forward(self, x):
        w = x.flatten(1)[:, 0] - self.edge - self.bias
        return torch.stack([-w, w], 1)

def make():
    return Two()

def half():
    return Two().bfloat16()

class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.edge = torch.nn.Linear(8, 2), Two().edge
        torch.nn.init.eye_(self.net.weight)
        torch.nn.init.zeros_(self.net.bias)

    def forward(self, x):
        return self.net(x.flatten(1)) * self.edge + torch.tensor([1.0, 0.0])

class Half(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Two().bfloat16()

    def forward(self, x):
        return self.net(x.bfloat16()).float()
""",
    "shift.py": "def edge():\n    return 0.5\n",
    "late.py": "LATE = 0.25\n",
    "computed.py": "VALUE = 0.25\n",
    "pack/__init__.py": "from .deep import EDGE\n",
    "pack/deep/__init__.py": "from .inner import EDGE\n",
    "pack/deep/inner.py": "from ..constants import HALF\nEDGE = 2 * HALF\n",
    "pack/constants.py": "HALF = 0.25\n",
    "cfg.json": '{"t": 0.0}\n',
}
CODE = {
    "nets.py": ("OWN = 0.0", "OWN = 0.9"),
    "shift.py": ("0.5", "0.9"),
    "late.py": ("0.25", "0.75"),
    "computed.py": ("0.25", "0.75"),
    "pack/__init__.py": ("import EDGE", "import EDGE; EDGE = 1"),
    "pack/deep/inner.py": ("2 *", "3 *"),
    "pack/constants.py": ("0.25", "0.75"),
}
"""What changes in each file of code: the text before and after."""
READ = ("cfg.json", "model.pkl", "environment")
SMALL = ("--sigma", "1", "--alpha", "0.9", "--inputs", "3", "--samples", "200", "--selection-samples", "20")


@pytest.fixture
def folder(tmp_path: Path, command) -> Path:
    """A folder with the model, weights and four inputs of zeros; commands run there."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(0.0))
    save_file({"bias": torch.zeros(1)}, tmp_path / "w.safetensors")
    np.savez(tmp_path / "d.npz", inputs=np.zeros((4, 8), np.float32), labels=np.zeros(4, np.int64),
             class_names=np.array(["a", "b"]))  # fmt: skip
    return tmp_path


def change(folder: Path, what: str, monkeypatch) -> None:
    if what == "environment":
        monkeypatch.setenv("TEST_EDGE", "0.4")
    elif what == "cfg.json":
        (folder / what).write_text('{"t": 0.4}\n')
    elif what == "model.pkl":
        (folder / what).write_bytes(pickle.dumps(0.4))
    elif what == "w.safetensors":
        save_file({"bias": torch.full((1,), 0.4)}, folder / what)
    else:
        before, after = CODE[what]
        assert before in FILES[what]
        (folder / what).write_text(FILES[what].replace(before, after, 1))


def held(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def certify(command, *more: str, robust: str = "nets.py:make", standard: str = "none"):
    models = ("--robust", robust, "--standard", standard, "--output", "run")
    return command("certify", "--data", "d.npz", *models, *SMALL, *more)


def refused(done, words: str) -> None:
    assert (done.code, done.out) == (2, "")
    (error,) = [line for line in done.err.splitlines() if not line.startswith("Warning: ")]
    assert error.startswith("Error: ") and words in error


WEIGHTS = ("--robust-weights", "w.safetensors")


@pytest.mark.parametrize("what", CODE)
def test_every_file_of_code_belongs_to_the_checksum(folder, monkeypatch, what):
    before = load_model(str(folder / "nets.py") + ":make", classes=2)
    change(folder, what, monkeypatch)
    after = load_model(str(folder / "nets.py") + ":make", classes=2)
    assert before.checksum != after.checksum
    told = changed_parts(before.parts, after.parts)
    assert told == ("its own file changed" if what == "nets.py" else f"{what} changed")


@pytest.mark.parametrize(
    "what",
    [
        "pack/constants.py",
        "cfg.json",
        "w.safetensors",
        *(pytest.param(w, marks=pytest.mark.long) for w in READ[1:]),
    ],
)
def test_nothing_stored_is_served_for_a_robust_model_that_changed(command, folder, monkeypatch, what):
    assert certify(command, *WEIGHTS).code == 0
    assert certify(command, *WEIGHTS).code == 0  # unchanged: taken as it is
    before = held(folder / "run")
    change(folder, what, monkeypatch)
    for again in (
        certify(command, *WEIGHTS, "--inputs", "4"),
        command("reproduce", "--run-code", "run", "--output", "again"),
        command("falsify", "--run-code", "run"),
    ):
        refused(again, "nets:make is not the")
        told = {"w.safetensors": "weights"}.get(what, what)
        assert ("% of their spread" if what in READ else told) in again.err
    found = command("verify", "--run-code", "run", "--resample", "0")
    assert found.code == 1
    assert "nets:make is not the model of the run" in found.out
    assert "contradicts" not in found.out
    assert held(folder / "run") == before


def two_copies(command, folder: Path) -> dict[str, str]:
    """Certify with the standard model of one folder and the robust model of another; return the options."""
    robust = folder / "robust"
    shutil.copytree(folder, robust, ignore=shutil.ignore_patterns("robust"))
    options = {"robust": f"{robust / 'nets.py'}:make", "standard": "nets.py:make"}
    assert certify(command, **options).code == 0
    return options


@pytest.mark.parametrize("what", ["cfg.json", "environment"])
def test_a_standard_model_that_changed_behind_its_checksum_is_refused(command, folder, monkeypatch, what):
    options = two_copies(command, folder)
    before = held(folder / "run")
    if what == "environment":  # the standard model alone reads something else
        original = Path.read_text

        def read(self, *args, **given):
            text = original(self, *args, **given)
            other = self.name == "cfg.json" and folder / "robust" not in self.parents
            return text.replace("0.0", "0.4") if other else text

        monkeypatch.setattr(Path, "read_text", read)
    else:
        change(folder, what, monkeypatch)
    refused(certify(command, **options), "the standard model nets:make is not the one")
    assert command("verify", "--run-code", "run", "--resample", "0").code == 1
    assert held(folder / "run") == before


def test_a_standard_model_of_other_code_is_computed_anew_and_changes_no_certificate(command, folder):
    options = two_copies(command, folder)
    (folder / "shift.py").write_text("def edge():\n    return -9.0\n")
    again = certify(command, "--format", "json", **options)
    assert again.code == 0
    assert json.loads(again.out)["clean_accuracy"]["standard"] == 0.0


@pytest.mark.parametrize("role", ["robust", "standard"])
def test_declared_files_belong_to_the_checksum_and_are_named(command, folder, monkeypatch, role):
    given = (f"--{role}-file", "cfg.json", f"--{role}-file", "model.pkl")
    other = {"standard": "nets.py:make"} if role == "standard" else {}
    assert certify(command, *given, **other).code == 0
    described = json.loads((folder / "run" / "run.json").read_text())
    assert described["sources"][f"{role}_files"] == ["../cfg.json", "../model.pkl"]
    assert {"file cfg.json", "file model.pkl"} <= set(described["models"][role]["parts"])
    assert command("reproduce", "--run-code", "run").code == 0
    change(folder, "model.pkl", monkeypatch)
    assert "file model.pkl changed" in command("verify", "--run-code", "run", "--resample", "0").out
    refused(command("reproduce", "--run-code", "run"), "file model.pkl changed")
    refused(certify(command, f"--{role}-file", "gone.json", **other), "gone.json cannot be read")


@pytest.mark.parametrize(
    "robust, precision",
    [("make", "bf16"), ("half", "fp32"), pytest.param("Half", "bf16", marks=pytest.mark.long)],
)
def test_unchanged_models_are_taken_again_in_any_precision(command, folder, robust, precision):
    for _ in range(2):
        assert certify(command, "--precision", precision, robust=f"nets.py:{robust}").code == 0
    assert command("verify", "--run-code", "run", "--resample", "1").code == 0


@pytest.mark.parametrize(
    "what, factory, how",
    [
        ("shift.py", "Scaled", ("margin", "--norm", "linf")), pytest.param("cfg.json", "Scaled", ("margin", "--norm", "linf"), marks=pytest.mark.long),
        ("environment", "make", ("lipschitz-constant", "--lipschitz-constant", "2")),
    ],
)  # fmt: skip
def test_certificates_without_samples(command, folder, monkeypatch, what, factory, how):
    def run():
        models = ("--robust", f"nets.py:{factory}", "--standard", "none", "--output", "run")
        return command("certify", "--data", "d.npz", "--certificate", *how, "--alpha", "0.9", *models)

    for _ in range(2):
        assert run().code == 0
    before = held(folder / "run")
    change(folder, what, monkeypatch)
    for again in (run(), command("reproduce", "--run-code", "run")):
        refused(again, f"robust model nets:{factory}")
    found = command("verify", "--run-code", "run", "--resample", "2")
    assert found.code == 1
    assert f"nets:{factory} is not the model of the run" in found.out
    assert held(folder / "run") == before


def test_studies_that_attack(command, folder, monkeypatch):
    options = ("--data", "d.npz", "--robust", "nets.py:make", "--norm", "l2", "--eps", "0.1")
    for _ in range(2):
        assert command("attack", *options, "--output", "run").code == 0
    change(folder, "cfg.json", monkeypatch)
    again = command("attack", *options, "--output", "run")
    refused(again, "the robust model nets:make is not the one that run was made with")


def test_shards_made_with_two_models_of_one_checksum_are_not_merged(command, folder, monkeypatch):
    def shard(number, *more):
        return certify(command, "--shard", f"{number}/2", "--output", f"shard-{number}", *more).code

    assert shard(1) == 0
    change(folder, "cfg.json", monkeypatch)
    assert shard(2) == 0
    refused(command("merge", "shard-1", "shard-2", "--output", "whole"), "two robust models of one checksum")
    (folder / "cfg.json").write_text(FILES["cfg.json"])
    assert shard(2, "--fresh") == 0
    assert command("merge", "shard-1", "shard-2", "--output", "whole").code == 0
    assert certify(command, "--output", "whole").code == 0
    change(folder, "cfg.json", monkeypatch)
    assert certify(command, "--output", "whole").code == 2


def test_a_worker_that_loads_another_model_is_refused(folder, monkeypatch):
    from certmix.runs.opening import Named
    from certmix.runs.sources import load_models

    sources, cpu = Sources(data="d.npz", standard=None, robust="nets.py:make"), torch.device("cpu")
    named = Named.of(sources, "nets.py:make", load_models(sources, "nets.py:make", cpu, print))
    assert named.load(cpu).robust.name == "nets:make"
    change(folder, "environment", monkeypatch)
    with pytest.raises(RunError, match="another robust model than the driver"):
        named.load(cpu)


def test_a_run_without_logits_of_its_model_is_not_gone_on_with(command, folder):
    assert certify(command).code == 0
    sql(folder / "run", "DELETE FROM facts WHERE key LIKE 'logits of %'")
    refused(certify(command), "keeps no logits to know its robust model by")
    assert command("verify", "--run-code", "run", "--resample", "0").code == 2


@pytest.mark.parametrize("precision", CLOSE)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_what_counts_as_the_same_logits(precision, scale):
    """The limit is a share of the spread, at any scale; nothing rests on where the largest logit is."""
    stored = scale * np.random.default_rng(0).normal(size=(16, 5))
    spread, close = np.ptp(stored), CLOSE[precision]
    moved = stored.copy()
    moved[3, 2] += 0.98 * close * spread
    assert difference(stored, moved, precision) == ""
    moved[3, 2] += 0.05 * close * spread
    assert "1 of 16 inputs differ" in difference(stored, moved, precision)
    assert "16 of 16" in difference(stored, np.full_like(stored, stored.mean()), precision)
    assert difference(stored, stored[:, :4], precision) != ""


def test_numbers_that_are_not_finite_are_compared_as_well():
    stored = np.array([[0.0, np.nan], [np.inf, 1.0]])
    assert difference(stored, stored.copy()) == ""
    assert difference(stored, np.array([[0.0, np.nan], [2.0, 1.0]])) != ""
    assert difference(np.zeros((2, 2)), np.array([[0.0, np.nan], [0.0, 0.0]])) != ""
    assert difference(np.ones((2, 2)), np.zeros((2, 2))) != ""  # a constant, swapped for another
