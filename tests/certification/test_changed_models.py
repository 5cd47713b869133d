"""A model that changed, in whichever file or variable, is not served what was stored of the one before."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from certmix.errors import ModelError, RunError
from certmix.models.spec import load_model
from certmix.runs import Store
from certmix.runs.behaviour import CLOSE, difference, logits_key
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
SMALL = ("--sigma", "1", "--alpha", "0.9", "--images", "3", "--samples", "200", "--selection-samples", "20")


@pytest.fixture
def folder(tmp_path: Path, command, monkeypatch) -> Path:
    """A folder with the model, weights and four inputs of zeros."""
    monkeypatch.setattr("certmix.tables.curves.curve_plot", lambda *a, **k: b"a plot")
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


WEIGHTS = ("--robust-weights", "w.safetensors")


@pytest.mark.parametrize("what", [*CODE, *READ, "w.safetensors"])
def test_nothing_stored_is_served_for_a_robust_model_that_changed(command, folder, monkeypatch, what):
    assert certify(command, *WEIGHTS).code == 0
    assert certify(command, *WEIGHTS).code == 0  # unchanged: taken as it is
    before = held(folder / "run")
    change(folder, what, monkeypatch)
    for again in (
        certify(command, *WEIGHTS),
        certify(command, *WEIGHTS, "--images", "4"),
        command("reproduce", "run", "--output", "again"),
        command("falsify", "run"),
    ):
        assert (again.code, again.out) == (2, "")
        assert again.err.count("\n") == 1
        assert "nets:make is not the" in again.err
        told = {"nets.py": "its own file", "w.safetensors": "weights"}.get(what, what)
        assert ("% of their spread" if what in READ else told) in again.err
    found = command("verify", "run", "--resample", "0")
    assert found.code == 1
    assert "nets:make is not the model of the run" in found.out
    assert "contradicts" not in found.out
    assert held(folder / "run") == before


@pytest.mark.parametrize("what", READ)
def test_a_standard_model_that_changed_behind_its_checksum_is_refused(command, folder, monkeypatch, what):
    robust = folder / "robust"
    shutil.copytree(folder, robust, ignore=shutil.ignore_patterns("robust"))
    options = {"robust": f"{robust / 'nets.py'}:make", "standard": "nets.py:make"}
    assert certify(command, **options).code == 0
    before = held(folder / "run")
    if what == "environment":
        monkeypatch.setattr(Path, "read_text", _other_reading(robust))
    else:
        change(folder, what, monkeypatch)
    again = certify(command, **options)
    assert (again.code, again.out) == (2, "")
    assert "the standard model nets:make is not the one" in again.err
    assert command("verify", "run", "--resample", "0").code == 1
    assert held(folder / "run") == before


def _other_reading(apart: Path):
    """Path.read_text that answers the standard model alone otherwise, as its surroundings might."""
    original = Path.read_text

    def read(self, *args, **options):
        text = original(self, *args, **options)
        return text.replace("0.0", "0.4") if self.name == "cfg.json" and apart not in self.parents else text

    return read


def test_a_standard_model_of_other_code_is_computed_anew_and_changes_no_certificate(command, folder):
    robust = folder / "robust"
    shutil.copytree(folder, robust, ignore=shutil.ignore_patterns("robust"))
    options = {"robust": f"{robust / 'nets.py'}:make", "standard": "nets.py:make"}
    assert certify(command, **options).code == 0
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
    assert described["sources"][f"{role}_files"] == [str(folder / name) for name in ("cfg.json", "model.pkl")]
    assert {"file cfg.json", "file model.pkl"} <= set(described["models"][role]["parts"])
    assert command("verify", "run", "--resample", "0").code == 0
    assert command("reproduce", "run").code == 0
    change(folder, "model.pkl", monkeypatch)
    assert "file model.pkl changed" in command("verify", "run", "--resample", "0").out
    again = command("reproduce", "run")
    assert again.code == 2
    assert "file model.pkl changed" in again.err
    (folder / "model.pkl").unlink()
    for named in (("-file", "gone.json"), ("-file", "cfg.json", f"--{role}-file", "gone.json")):
        refused = certify(command, f"--{role}{named[0]}", *named[1:], **other)
        assert refused.code == 2


def test_a_declared_file_that_is_missing_is_named(command, folder):
    refused = certify(command, "--robust-file", "gone.json")
    assert (refused.code, refused.out) == (2, "")
    assert "gone.json cannot be read" in refused.err


@pytest.mark.parametrize("robust", ["nets.py:make", "nets.py:half", "nets.py:Half"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_unchanged_models_are_taken_again_in_any_precision(command, folder, robust, precision):
    for _ in range(2):
        assert certify(command, "--precision", precision, robust=robust).code == 0
    assert command("verify", "run", "--resample", "1").code == 0


@pytest.mark.parametrize("what", ["shift.py", *READ])
@pytest.mark.parametrize(
    "how", [("margin", "--norm", "linf"), ("lipschitz-constant", "--lipschitz-constant", "2")]
)
def test_certificates_without_samples(command, folder, monkeypatch, what, how):
    factory = "Scaled" if how[0] == "margin" else "make"

    def run():
        models = ("--robust", f"nets.py:{factory}", "--standard", "none", "--output", "run")
        return command("certify", "--data", "d.npz", "--certificate", *how, "--alpha", "0.9", *models)

    first = run()
    assert first.code == 0, first.err
    assert run().code == 0
    before = held(folder / "run")
    change(folder, what, monkeypatch)
    for again in (run(), command("reproduce", "run")):
        assert (again.code, again.out) == (2, "")
        assert f"robust model nets:{factory}" in again.err
    found = command("verify", "run", "--resample", "2")
    assert found.code == 1
    assert f"nets:{factory} is not the model of the run" in found.out
    assert held(folder / "run") == before


def test_studies_that_attack(command, folder, monkeypatch):
    options = (
        "--data",
        "d.npz",
        "--robust",
        "nets.py:make",
        "--norm",
        "l2",
        "--eps",
        "0.1",
    )
    for _ in range(2):
        assert command("attack", *options, "--output", "run").code == 0
    change(folder, "cfg.json", monkeypatch)
    again = command("attack", *options, "--output", "run")
    assert (again.code, again.out) == (2, "")
    assert "the robust model nets:make is not the one that run was made with" in again.err


def test_shards_made_with_two_models_of_one_checksum_are_not_merged(command, folder, monkeypatch):
    for number in (1, 2):
        if number == 2:
            change(folder, "cfg.json", monkeypatch)
        found = certify(command, "--shard", f"{number}/2", "--output", f"shard-{number}")
        assert found.code == 0
    merged = command("merge", "shard-1", "shard-2", "--output", "whole")
    assert (merged.code, merged.out) == (2, "")
    assert "two robust models of one checksum" in merged.err
    change_back = folder / "cfg.json"
    change_back.write_text(FILES["cfg.json"])
    assert certify(command, "--shard", "2/2", "--output", "shard-2", "--fresh").code == 0
    assert command("merge", "shard-1", "shard-2", "--output", "whole").code == 0
    assert certify(command, "--output", "whole").code == 0
    change_back.write_text('{"t": 0.4}')
    assert certify(command, "--output", "whole").code == 2


def test_a_worker_that_loads_another_model_is_refused(folder, monkeypatch):
    from certmix.runs.opening import Named
    from certmix.runs.sources import load_models

    sources = Sources(data="d.npz", standard=None, robust="nets.py:make")
    named = Named.of(
        sources, "nets.py:make", load_models(sources, "nets.py:make", torch.device("cpu"), print)
    )
    assert named.load(torch.device("cpu")).robust.name == "nets:make"
    change(folder, "environment", monkeypatch)
    with pytest.raises(RunError, match="another robust model than the driver"):
        named.load(torch.device("cpu"))


def test_a_run_without_logits_of_its_model_is_not_gone_on_with(command, folder):
    assert certify(command).code == 0
    store = Store(folder / "run" / "numbers.sqlite", 2)
    checksum = json.loads((folder / "run" / "run.json").read_text())["models"]["robust"]["checksum"]
    store._db.execute("DELETE FROM facts WHERE key = ?", (logits_key(checksum),))
    store._db.commit()
    store.close()
    again = certify(command)
    assert (again.code, again.out) == (2, "")
    assert "keeps no logits to know its robust model by" in again.err
    assert command("verify", "run", "--resample", "0").code == 2


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


def test_a_file_given_alone_needs_no_list(folder):
    assert Sources(robust_files="cfg.json").robust_files == ("cfg.json",)
    assert Sources(robust_files=[Path("a"), "b"]).robust_files == ("a", "b")
    with pytest.raises(ModelError, match="gone"):
        load_model("nets.py:make", files=["gone"])


def test_commands_that_load_no_model_say_so(command, folder):
    for number in (1, 2):
        assert certify(command, "--shard", f"{number}/2", "--output", f"shard-{number}").code == 0
    (folder / "nets.py").unlink()
    words = "odels not checked"
    assert words in command("merge", "shard-1", "shard-2", "--output", "run").err
    assert words in " ".join(command("recertify", "run", "--alpha", "0.8").out.split())
    assert words in command("trade-off", "run", "--plot", "none").out.replace("\n", " ")
    assert "models: not checked" in command("audit", "run").out
    assert command("report", "run", "--output", "page.html").code == 0
    assert "not checked for this page" in (folder / "page.html").read_text()
