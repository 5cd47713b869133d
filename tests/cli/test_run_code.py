"""Code that a file names, such as a run that a stranger sent, runs only where it was allowed."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import NETS, certified, sources

from certmix.errors import ModelError
from certmix.models.spec import load_model
from certmix.nuts.description import MixSettings
from certmix.nuts.folder import BaseModel, load_nuts, save_nuts
from certmix.nuts.grid import TransformSettings
from certmix.runs.sources import Sources, load_models

NOT_RUN = "and was not run: read it, then add --run-code"
ALONE = {"robust model checksum", "standard model checksum", "robust model logits", "standard model logits"}
"""Checks of a run that need its models, besides the samples that are drawn again."""
AGAIN = {"same seed", "new seed"}


class Planted:
    """A run, a guarantee and a mix of a model whose code leaves a mark when it is imported."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, folder / "mark"
        self.named = sources(folder)
        self.text = f"{NETS}\nopen({str(self.mark)!r}, 'w').close()\n"
        (folder / "nets.py").write_text(self.text)
        self.run = certified(folder / "run", self.named, samples=200, inputs=4)
        settings = MixSettings(TransformSettings(1.0, 1.0, 0.0), 0.8, alpha_d=0.9)
        pair = [BaseModel(load_model(self.named[role])) for role in ("standard", "robust")]
        save_nuts(folder / "mix", settings, *pair)
        self.mark.unlink()

    def edit(self, **changed: object) -> None:
        """Change the sources that run.json names."""
        file = self.run / "run.json"
        described = json.loads(file.read_text())
        described["sources"] |= changed
        file.write_text(json.dumps(described))

    def ran(self) -> bool:
        """Whether the code ran since this was asked last."""
        found = self.mark.exists()
        self.mark.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def planted(made: Planted, tmp_path: Path) -> Planted:
    """A copy that may be changed; its run names the same model."""
    copy = object.__new__(Planted)
    vars(copy).update(vars(made), folder=tmp_path, run=tmp_path / "run")
    for name in ("run", "mix"):
        shutil.copytree(made.folder / name, tmp_path / name)
    copy.mark.unlink(missing_ok=True)
    return copy


EVALUATED = ("--data", "points.npz", "--steps", 1, "--queries", 2, "--targets", 1, "--sweep-inputs", 1)
OPENING = {
    "verify": ("verify", "run"),
    "verify, nothing sampled": ("verify", "run", "--resample", 0),
    "falsify": ("falsify", "run", "--steps", 1, "--samples", 200),
    "reproduce": ("reproduce", "run"),
    "guarantee": ("verify", "guarantee.toml"),
    "a mix": ("attack", "--robust", "nuts:mix", "--data", "points.npz", "--inputs", 1, "--steps", 1),
    "a mix, certified": ("certify", "--robust", "nuts:mix#robust", "--standard", "none", "--data", "points.npz",
                         "--sigma", 0.25, "--alpha", 0.8, "--inputs", 1, "--samples", 100),
    "nuts evaluate": ("nuts", "evaluate", "mix", *EVALUATED),
}  # fmt: skip
"""Commands that open what somebody else may have made, and load the models that it names."""


@pytest.mark.parametrize("words", OPENING.values(), ids=OPENING)
def test_what_a_file_names_runs_only_where_it_is_allowed(command, planted, words):
    shutil.copy(planted.folder / "mix" / "nuts.json", planted.folder / "kept.json")
    shutil.copy(Path(planted.named["data"]), planted.folder / "points.npz")
    assert command("guarantee", "init", "run").code == 0
    assert not planted.ran()
    found = command(*words)
    assert found.code == 2
    assert not planted.ran()
    assert NOT_RUN in f"{found.err} {found.out}"
    command(*words, "--run-code")
    assert planted.ran()


@pytest.mark.parametrize("words", [
    ("show", "run"), ("recertify", "run", "--alpha", 0.9), ("audit", "run"), ("trade-off", "run"),
    ("report", "run"), ("guarantee", "init", "run"), ("verify", "run"), ("plan", "--like", "run", "--throughput", 9),
])  # fmt: skip
def test_no_other_command_runs_code_of_a_run(command, planted, words, monkeypatch):
    monkeypatch.chdir(planted.folder)
    command(*words)
    assert not planted.ran()


def test_what_needs_no_code_is_checked_and_the_rest_is_said(command, planted):
    found = json.loads(command("verify", "run", "--format", "json").out)
    outcomes = {one["check"]: one["outcome"] for one in found["checks"]}
    unchecked = {check for check, outcome in outcomes.items() if outcome == "unchecked"}
    assert unchecked == ALONE | AGAIN
    assert {"counts", "failure budget", "data checksum"} <= outcomes.keys() - unchecked
    assert {outcome for check, outcome in outcomes.items() if check not in unchecked} == {"holds"}
    assert found["exit_code"] == 2
    told = {one["check"]: one["message"] for one in found["checks"]}
    for check in AGAIN | {"robust model checksum"}:
        assert f"is code that run/run.json names, {NOT_RUN}" in told[check]
    assert json.loads(command("verify", "run", "--run-code", "--format", "json").out)["exit_code"] == 0


def inside(planted: Planted) -> list[str]:
    """Return names of code within the run folder."""
    (planted.run / "evil.py").write_text(planted.text)
    (planted.run / "pack").mkdir()
    (planted.run / "pack" / "evil.py").write_text(planted.text)
    (planted.run / "evil.pt2").write_bytes(b"PK")
    (planted.run / "link.py").symlink_to(planted.named["robust"].rpartition(":")[0])
    (planted.folder / "out.py").symlink_to(planted.run / "evil.py")
    return [
        f"{planted.run / 'evil.py'}:linear", "run/evil.py:linear", f"{planted.run / 'pack' / 'evil.py'}:linear",
        "evil:linear", "pack.evil:linear", f"{planted.run / 'evil.pt2'}", f"{planted.run / 'link.py'}:linear",
        f"{planted.folder / 'out.py'}:linear",
    ]  # fmt: skip


def test_code_inside_a_run_is_refused_whatever_is_allowed(command, planted, monkeypatch):
    monkeypatch.syspath_prepend(planted.run)
    for spec in inside(planted):
        planted.edit(robust=spec, standard=spec)
        for words in (("verify", "--resample", 0), ("falsify",), ("reproduce",)):
            found = command(words[0], "run", *words[1:], "--run-code")
            assert found.code == 2
            assert "from where none is run" in f"{found.err}{found.out}", spec
            assert not planted.ran(), spec


@pytest.mark.parametrize("mix", ["nuts:./mix#base", "nuts:{run}/mix", "nuts:~/run/mix#robust", "./mix",
                                 "nuts:~/elsewhere#base", "denoised:nuts:./mix#base,{net}"])  # fmt: skip
def test_code_inside_a_run_is_refused_though_a_mix_names_it(command, planted, monkeypatch, mix):
    monkeypatch.setenv("HOME", str(planted.folder))
    monkeypatch.syspath_prepend(planted.run)
    names = inside(planted)
    shutil.copytree(planted.folder / "mix", planted.run / "mix")
    (planted.folder / "elsewhere").symlink_to(planted.run / "mix")
    (planted.folder / "nets.py").write_text(NETS)
    file = planted.run / "mix" / "nuts.json"
    described = json.loads(file.read_text())
    named = mix.format(run=planted.run, net=f"{planted.folder / 'nets.py'}:linear")
    planted.edit(**dict.fromkeys(("standard", "robust"), named.replace("./mix", f"{planted.run / 'mix'}")))
    for spec in [one for one in names if not one.startswith("run/")] + ["~/run/evil.py:linear"]:
        for role in ("standard", "robust"):
            described[role]["spec"] = spec
        file.write_text(json.dumps(described))
        for words in (("verify", "--resample", 0), ("falsify",), ("reproduce",)):
            found = command(words[0], "run", *words[1:], "--run-code")
            assert found.code == 2
            assert "from where none is run" in f"{found.err}{found.out}", spec
            assert not planted.ran(), spec


def test_code_inside_a_run_is_refused_for_what_lies_in_it(command, planted, monkeypatch):
    monkeypatch.syspath_prepend(planted.run)
    names = [one for one in inside(planted) if not one.startswith("run/")]
    shutil.copytree(planted.folder / "mix", planted.run / "mixes" / "one")
    shutil.copytree(planted.run, planted.folder / "copy", ignore=shutil.ignore_patterns("mixes"))
    shutil.copytree(planted.folder / "copy", planted.run / "certified" / "inner")
    (planted.folder / "way").symlink_to(planted.run / "mixes")
    for spec in names:
        for file in (
            planted.run / "mixes" / "one" / "nuts.json",
            planted.run / "certified" / "inner" / "run.json",
        ):
            described = json.loads(file.read_text())
            if file.name == "nuts.json":
                described["standard"]["spec"] = described["robust"]["spec"] = spec
            else:
                described["sources"] |= {"standard": spec, "robust": spec}
            file.write_text(json.dumps(described))
        for folder in ("run/mixes/one", "way/one"):
            with pytest.raises(ModelError, match="is code inside .*run, from where none is run"):
                load_nuts(Path(folder), run_code=True)
        found = command("falsify", "run/certified/inner", "--run-code")
        assert found.code == 2 and "from where none is run" in found.err
        assert not planted.ran()


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"format_version": 1}'])
def test_a_file_of_that_name_above_a_run_is_no_run(command, planted, content):
    (planted.folder / "run.json").write_text(content)
    (planted.folder / "mine.py").write_text(planted.text)
    planted.edit(robust="../mine.py:linear", standard="../mine.py:linear")
    done = command("verify", "run", "--run-code", "--resample", 0)
    assert planted.ran() and "from where none is run" not in done.out + done.err


def test_a_denoiser_that_a_file_names_is_code_though_its_classifier_is_an_object(planted):
    stored = {"data": planted.named["data"], "standard": None, "robust": None,
              "denoiser": planted.named["robust"], "objects": ["robust"]}  # fmt: skip
    net = load_model(planted.named["robust"]).module
    planted.ran()
    for path, allowed, told in (
        (planted.named["robust"], False, NOT_RUN),
        (inside(planted)[0], True, "from where none"),
    ):
        named = Sources.from_dict(
            {**stored, "denoiser": path}, planted.run / "run.json", allowed, given={"robust": net}
        )
        with pytest.raises(ModelError, match=told):
            load_models(named, net, torch.device("cpu"), print)
        assert not planted.ran()


@pytest.mark.parametrize("spec", ["evil.py:linear", "./evil.py:linear", "evil:linear"])
def test_code_beside_run_json_is_refused_from_inside_the_folder(command, planted, monkeypatch, spec):
    inside(planted)
    monkeypatch.syspath_prepend("")
    monkeypatch.chdir(planted.run)
    planted.edit(robust=spec, standard=spec)
    for allowed in ((), ("--run-code",)):
        found = command("verify", ".", "--resample", 0, *allowed)
        assert found.code == 2
        assert not planted.ran()


def test_a_mix_runs_no_code_of_its_own_folder(planted, monkeypatch):
    (planted.folder / "mix" / "evil.py").write_text(planted.text)
    file = planted.folder / "mix" / "nuts.json"
    described = json.loads(file.read_text())
    described["robust"]["spec"] = "./evil.py:linear"
    file.write_text(json.dumps(described))
    for load in (lambda: load_nuts(planted.folder / "mix", run_code=True),
                 lambda: load_model(f"nuts:{planted.folder / 'mix'}", run_code=True)):  # fmt: skip
        with pytest.raises(ModelError, match="from where none is run"):
            load()
    planted.ran()  # the standard model, which is allowed
    with pytest.raises(ModelError, match=NOT_RUN):
        load_nuts(planted.folder / "mix")
    assert not planted.ran()


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """What was asked of a network, which these tests do without."""
    datasets, asked = pytest.importorskip("datasets"), []

    def ask(name, *_):
        asked.append(name)
        raise ConnectionError("there is no network")

    monkeypatch.setattr(datasets, "load_dataset", ask)
    return asked


ASKING = {
    **{name: words for name, words in OPENING.items() if "mix" not in name and name != "nuts evaluate"},
    "proposed": ("guarantee", "init", "run", "--force"), "page": ("report", "run"),
    "shown": ("show", "run"), "audited": ("audit", "run"),
}  # fmt: skip


@pytest.mark.parametrize("words", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("name", ["hf:attacker/beacon", "hf:attacker/beacon:plain"])
def test_data_on_a_network_is_fetched_only_where_it_is_allowed(command, planted, fetched, words, name):
    assert command("guarantee", "init", "run").code == 0
    planted.edit(data=name)
    guarantee = Path("guarantee.toml")
    guarantee.write_text(re.sub(r"(\[data\]\nname = ).*", rf'\1"{name}"', guarantee.read_text()))
    found = command(*words)
    assert not fetched
    if words[0] in ("show", "audit", "report"):
        assert found.code == 0
        return
    told = (
        "and was not fetched: add --run-code" if words[0] != "guarantee" else "name it yourself, with --data"
    )
    assert found.code == 2 and told in f"{found.out}{found.err}"
    if words[0] != "guarantee":
        command(*words, "--run-code")
        assert fetched


def test_data_on_a_network_may_be_named_by_whoever_asks(command, planted, fetched):
    assert command("certify", "--data", "hf:own/data", "--sigma", 0.25, "--alpha", 0.8).code == 2
    assert fetched == ["own/data"]


@pytest.mark.parametrize(
    "spec", ["timm:evil", "robustbench:evil", "installed:linear", "gone.pt2", "~/evil.py:f"]
)
def test_libraries_programs_and_modules_are_code_as_well(command, planted, spec):
    planted.edit(robust=spec)
    before = {name for name in sys.modules if name.partition(".")[0] in ("timm", "robustbench", "installed")}
    found = command("falsify", "run")
    assert found.code == 2
    assert NOT_RUN in found.err
    assert before == {
        name for name in sys.modules if name.partition(".")[0] in ("timm", "robustbench", "installed")
    }


@pytest.mark.parametrize("key, value", [("run_code", True), ("named_by", "/elsewhere/guarantee.toml")])
def test_a_run_cannot_vouch_for_itself(command, planted, key, value):
    planted.edit(**{key: value})
    for words in (("verify",), ("falsify",), ("reproduce",)):
        found = command(words[0], "run", *words[1:])
        assert found.code == 2
        assert not planted.ran()
    with pytest.raises(TypeError, match=key):
        Sources.from_dict({key: value}, planted.run / "run.json")


def test_whether_code_may_run_is_not_stored(planted):
    given: Callable[..., Sources] = lambda **more: Sources(robust=planted.named["robust"], **more)  # noqa: E731
    assert given(run_code=True).as_dict() == given().as_dict()


def test_weights_with_a_pickle_are_refused_though_code_is_allowed(command, planted):
    class Payload:
        def __reduce__(self):
            return (open, (str(planted.mark), "w"))

    torch.save({"weight": Payload()}, planted.folder / "w.pt")
    planted.edit(robust_weights=str(planted.folder / "w.pt"))
    found = command("falsify", "run", "--run-code")
    assert found.code == 2
    assert "which only code can restore" in found.err
    np.testing.assert_equal((planted.run / "w").exists(), False)
