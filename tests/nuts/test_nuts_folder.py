"""A mix in a folder: there and back, moved, tampered with, and as a model that other commands load."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import asdict, replace
from safetensors.torch import load_file, save_file

from certmix.errors import ModelError, RunError
from certmix.models.architectures import build
from certmix.models.spec import FORMS, load_model, wrap_model
from certmix.models.zoo import ZOO_FOLDER, Card, save_zoo, zoo_card
from certmix.nuts import Grid, NonlinearTransform, TransformSettings, fit
from certmix.nuts.adaptive import AuxiliaryMixture, DirectBypass, direct_bypass
from certmix.nuts.description import FitFacts, MixSettings, TuningInputs
from certmix.nuts.folder import PARTS, BaseModel, load_nuts, read_nuts, save_nuts, write_nuts
from certmix.nuts.mixture import NutsMixture, TransformedRobust

trusted, trusted_model = (partial(load, run_code=True) for load in (load_nuts, load_model))

NETS = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, seed):
        super().__init__(nn.Flatten(), nn.Linear(12, 4))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

def accurate():
    return Net(1)

def robust():
    return Net(2)

def drawn():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))

class Stubborn(Net):
    def train(self, mode=True):
        raise NotImplementedError

def stubborn():
    return Stubborn(2)
"""
X = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
SETTINGS = MixSettings(TransformSettings(5.0, 3.571, -1.1), alpha=0.987654321, alpha_d=0.957)


def written(place):
    path = place / "code" / "nets.py"
    path.parent.mkdir()
    path.write_text(NETS)
    return path


@pytest.fixture
def nets(tmp_path):
    return written(tmp_path)


def pair_of(nets):
    return [BaseModel(load_model(f"{nets}:{name}")) for name in ("accurate", "robust")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A mix and its base models, to read from."""
    place = tmp_path_factory.mktemp("made")
    pair = pair_of(written(place))
    save_nuts(place / "mix", SETTINGS, *pair)
    return place / "mix", pair


@pytest.fixture
def spoilt(made):
    """A mix whose nuts.json is put back after the test."""
    text = (made[0] / "nuts.json").read_bytes()
    yield made[0]
    (made[0] / "nuts.json").write_bytes(text)


@pytest.fixture
def pair(nets):
    return pair_of(nets)


@pytest.fixture
def folder(tmp_path, pair):
    save_nuts(tmp_path / "mix", SETTINGS, *pair)
    return tmp_path / "mix"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    place = tmp_path_factory.mktemp("zoo")
    card = Card(
        name="tiny", architecture="residual", classes=10, class_names=None, input_shape=(3, 16, 16),
        input_range=(0.0, 1.0), noise_sigma=0.5, recipe={"name": "standard"}, seed=0, data="made up",
        data_checksum="0" * 64, epochs=1, precision="fp32",
    )  # fmt: skip
    save_zoo(place, card, build("residual", 10), "float32")
    return place


INPUTS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def refused(function, *arguments, match, kind=ModelError, **options):
    """It fails with one line, which names what was found and a remedy."""
    with pytest.raises(kind, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)


def edited(folder, **changes):
    path = folder / "nuts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edited_base(folder, role, **changes):
    edited(folder, **{role: {**json.loads((folder / "nuts.json").read_text())[role], **changes}})


# There and back.


def test_a_folder_gives_back_the_mix(made):
    folder, pair = made
    loaded = load_nuts(folder, run_code=True)
    g, h = (one.loaded.module for one in pair)
    transform = NonlinearTransform(5.0, 3.571, -1.1)
    mix = NutsMixture(g, h, transform, 0.987654321)
    assert loaded.settings == SETTINGS
    assert torch.equal(loaded.mixture(X), mix(X))
    assert torch.equal(loaded.auxiliary(X), AuxiliaryMixture(g, h, transform, alpha_d=0.957)(X))
    bypass = loaded.bypass
    assert torch.equal(bypass(X), mix(X))
    left, right = X.clone().requires_grad_(), X.clone().requires_grad_()
    bypass(left)[:, 0].sum().backward()
    direct_bypass(mix, 0.957)(right)[:, 0].sum().backward()
    assert torch.equal(left.grad, right.grad)
    for module in (loaded.mixture, loaded.auxiliary, bypass):
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    assert loaded.description.fit is loaded.tuning is None
    assert loaded.standard.checksum == pair[0].loaded.checksum


def test_settings_facts_of_the_fit_and_tuning_inputs_come_back_exactly(made, tmp_path):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 60, 4)), rng.integers(0, 4, 60)
    logits[:, np.arange(60), labels] += 2
    found = fit(*logits, labels, Grid((0.5, 2.0), (1.0, 2.0), (-0.5, 0.0)), 0.9)
    tuning = TuningInputs("cifar10", "train", "ab" * 32, (4, 1, 7), {"attack": "apgd-ce", "eps": 8 / 255})
    known = read_nuts(made[0])
    for settings in (
        MixSettings(TransformSettings(0.1 + 0.2, 1 / 3, -2.14, "softplus", 3), 1 / 3, 0.5, None, 0.0),
        MixSettings(TransformSettings(1, 1, 0, "linear"), 1, 0, 1, 1),
        MixSettings(TransformSettings(1.0, 1.0, 0.0), np.float64(0.7), np.float64(1.0)),
    ):
        saved = replace(known, settings=settings, fit=FitFacts.of(found), tuning=tuning)
        write_nuts(tmp_path, saved)
        assert read_nuts(tmp_path) == saved
    assert {name: getattr(found, name) for name in FitFacts.__struct_fields__} == asdict(saved.fit)
    assert tuning.shared("ab" * 32, [7, 2, 4, 4]).tolist() == [4, 7]
    assert tuning.shared("cd" * 32, [7, 2, 4]).tolist() == []


def test_shipped_models_are_named_and_the_folder_moves(tmp_path):
    names = ("cifar10-standard", "cifar10-adversarial-linf")
    saved = save_nuts(
        tmp_path / "a", SETTINGS, *(BaseModel(load_model(name)) for name in names), copy_weights=True
    )
    assert (saved.standard.spec, saved.robust.spec) == names
    assert os.listdir(tmp_path / "a") == ["nuts.json"]
    assert str(ZOO_FOLDER) not in (tmp_path / "a" / "nuts.json").read_text()
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load_nuts(tmp_path / "b", classes=10).mixture(torch.rand(3, 3, 32, 32)).shape == (3, 10)
    refused(trusted, tmp_path / "b", classes=100, match="standard model: .*10 classes apart")


@pytest.mark.parametrize("copy_weights", [False, True])
def test_a_factory_with_weights_and_normalisation(tmp_path, nets, copy_weights):
    mix, weights = tmp_path / "mix", tmp_path / "old.pt"
    torch.manual_seed(5)
    torch.save({"state_dict": {"1.weight": torch.randn(4, 12), "1.bias": torch.randn(4)}}, weights)
    extras = {"weights": weights, "normalize": "0.5,0.4,0.3/0.25"}
    robust = BaseModel(load_model(f"{nets}:robust", **extras), **extras)
    standard = BaseModel(load_model(f"{nets}:accurate"))
    saved = save_nuts(mix, SETTINGS, standard, robust, copy_weights=copy_weights)
    expected = load_nuts(mix, run_code=True).mixture(X)
    assert saved.standard.spec == f"{nets}:accurate"
    assert (saved.robust.normalize, saved.robust.spec) == ("0.5,0.4,0.3/0.25", f"{nets}:robust")
    moved = tmp_path / "far" / "mix"
    shutil.copytree(mix, moved)
    weights.unlink()
    if not copy_weights:
        assert saved.robust.weights == str(weights)
        assert not (mix / "models").exists()
        return refused(trusted, moved, match="the robust model: .*old.pt cannot be read")
    assert saved.robust.weights.startswith("./models/")
    assert load_file(moved / saved.robust.weights).keys() == {"1.weight", "1.bias"}
    assert torch.equal(load_nuts(moved, run_code=True).mixture(X), expected)
    assert torch.equal(load_nuts(os.path.relpath(moved), run_code=True).mixture(X), expected)
    one, other = (moved / base.weights for base in (saved.standard, saved.robust))
    shutil.copy(other, one)
    refused(trusted, moved, match="the standard model .*checksum")
    one.write_bytes(b"nothing")
    refused(trusted, moved, match="the standard model: weights .* cannot be read")
    one.unlink()
    return refused(trusted, moved, match="the standard model: .*cannot be read")


def test_cards_are_copied_exported_programs_are_not_and_ranges_must_agree(tmp_path, zoo):
    place = tmp_path / "trained"
    shutil.copytree(zoo, place)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10)).eval()
    program = torch.export.export(net, (INPUTS,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    torch.export.save(program, tmp_path / "net.pt2")
    pair = [BaseModel(load_model(str(tmp_path / "net.pt2"))), BaseModel(load_model(str(place)))]
    saved = save_nuts(tmp_path / "mix", SETTINGS, *pair, copy_weights=True)
    assert saved.standard.spec == str(tmp_path / "net.pt2")
    assert saved.robust.spec.endswith("/tiny.json")
    expected = load_nuts(tmp_path / "mix", run_code=True).mixture(INPUTS)
    shutil.rmtree(place)
    shutil.move(tmp_path / "mix", tmp_path / "moved")
    assert torch.equal(load_nuts(tmp_path / "moved", run_code=True).mixture(INPUTS), expected)
    card = replace(zoo_card("tiny", zoo), name="wide", input_range=(-1.0, 1.0))
    save_zoo(tmp_path / "other", card, build("residual", 10), "float32")
    pair = BaseModel(load_model(str(zoo))), BaseModel(load_model(str(tmp_path / "other")))
    told = r"\(0.0, 1.0\), the robust one in \(-1.0, 1.0\)"
    refused(save_nuts, tmp_path / "mix", SETTINGS, *pair, match=told)


def test_weights_that_a_factory_draws_are_kept_by_copying_them(tmp_path, nets, pair):
    drawn = BaseModel(load_model(f"{nets}:drawn"))
    fixed = BaseModel(load_model(f"{nets}:stubborn", normalize="0.5/0.25"), normalize="0.5/0.25")
    mix = tmp_path / "mix"
    refused(save_nuts, mix, SETTINGS, drawn, pair[1], match="standard .* save with copy_weights")
    assert not (mix / "nuts.json").exists()
    saved = save_nuts(mix, SETTINGS, drawn, fixed, copy_weights=True)
    assert load_file(mix / saved.robust.weights).keys() == {"1.weight", "1.bias"}
    loaded = load_nuts(mix, run_code=True)
    assert torch.equal(loaded.standard.module(X), drawn.loaded.module(X))
    assert torch.equal(loaded.robust.module(X), fixed.loaded.module(X))
    before = (mix / "nuts.json").read_bytes()  # a failure leaves the earlier mix
    refused(save_nuts, mix, SETTINGS, pair[0], drawn, match="checksum")
    assert (mix / "nuts.json").read_bytes() == before
    save_nuts(mix, replace(SETTINGS, alpha=0.75), *pair)
    assert load_nuts(mix, run_code=True).settings.alpha == 0.75


def test_what_cannot_be_saved(tmp_path, made):
    folder, pair = made
    wrapped = BaseModel(wrap_model(torch.nn.Flatten()))
    refused(save_nuts, tmp_path / "mix", SETTINGS, wrapped, pair[1], match="the standard model: .*is unknown")
    (tmp_path / "file").write_text("")
    refused(save_nuts, tmp_path / "file" / "mix", SETTINGS, *pair, kind=RunError, match="cannot write")
    for spec in (f"nuts:{folder}", str(folder), str(folder / "nuts.json")):
        nested = BaseModel(load_model(spec, run_code=True))
        refused(save_nuts, tmp_path / "b", SETTINGS, pair[0], nested, match="is itself a nonlinear mix")


# Tampering.


def test_changed_weights_and_code_are_noticed(tmp_path, nets, folder):
    weights = tmp_path / "w.safetensors"
    save_file({"1.weight": torch.ones(4, 12), "1.bias": torch.zeros(4)}, weights)
    robust = BaseModel(load_model(f"{nets}:robust", weights=weights), weights)
    save_nuts(tmp_path / "b", SETTINGS, BaseModel(load_model(f"{nets}:accurate")), robust)
    tuned = robust.loaded.checksum[:12]
    save_file({"1.weight": torch.ones(4, 12), "1.bias": torch.full((4,), 1e-6)}, weights)
    found = load_model(f"{nets}:robust", weights=weights).checksum[:12]
    refused(
        trusted,
        tmp_path / "b",
        match=rf"the robust model .*checksum {found}\.\.\., .*tuned {tuned}\.\.\.: restore",
    )
    nets.write_text(NETS.replace("manual_seed(seed)", "manual_seed(seed + 0)"))
    refused(trusted, folder, match="the standard model .*checksum")
    nets.unlink()
    refused(trusted, folder, match="the standard model: .*nets.py cannot be read")


@pytest.mark.parametrize("key,value,message", [
    ("alpha", 1.5, "alpha = 1.5: the mixing weight"), ("alpha", -0.1, "alpha = -0.1"),
    ("alpha", "0.9", "alpha: Expected `float`, got `str`: save"), ("alpha", None, "alpha: Expected"),
    ("alpha", True, "alpha: Expected"), ("alpha", 10**400, "alpha: Number out of range"), ("alpha", float("nan"), "alpha = nan"),
    ("standard_temperature", -1, "temperature = -1.0"), ("s", 0, "s = 0.0"), ("p", 1e9, "p = "), ("c", [], "json: c: Expected"),
    ("clamp", "tanh", "clamp 'tanh' is unknown"), ("top_k", 1, "top_k = 1"), ("top_k", 2.5, "top_k: Expected"),
    ("alpha_d", 1.01, "alpha_d = 1.01"), ("r_d", None, "r_d: Expected"), ("r_d", -1, "r_d = -1.0"),
    ("format_version", 4, "format version 4, this certmix reads 3: update certmix"),
    ("format_version", 2, "format version 2, this certmix reads 3: fit again"),
    ("format_version", 1, "format version 1, this certmix reads 3: fit again, its LN was another"),
    ("format_version", "1", "format version"), ("format_version", True, "format version"), ("format_version", 0, "format version"),
    ("a\nb", 1, "the file: .*unknown field"), ("\ud800", 1, "not Unicode"), ("standard", None, "standard: Expected"), ("robust", {}, "robust: .*missing required field `spec`"),
    ("fit", {"beta": 2}, "fit: .*missing"), ("tuning", 3, "tuning: Expected"), ("extra", 1, "the file: .*unknown field `extra`"),
])  # fmt: skip
def test_a_changed_file_is_refused(spoilt, key, value, message):
    edited(spoilt, **{key: value})
    refused(trusted, spoilt, match=message)
    with pytest.raises(ModelError, match="nuts.json"):
        read_nuts(spoilt)


@pytest.mark.parametrize("key,value,message", [
    ("checksum", "0" * 64, "checksum .*tuned 000000000000"), ("checksum", "zz", "64 hex digits"),
    ("checksum", 5, "robust.checksum: Expected"), ("spec", 7, "robust.spec: Expected"), ("spec", "", "the robust model"),
    ("spec", "nowhere", "nowhere is unknown|nowhere' is unknown"), ("weights", "", "leads out of the folder|weights"),
    ("spec", "../code/nets.py:robust", "relative path .*leads out of the folder: give an absolute"),
    ("spec", "a/../../code/nets.py:robust", "leads out of the folder"), ("weights", "../w.pt", "leads out of the folder"),
    ("spec", "./bad\0name.pt2", "the robust model"), ("normalize", "5", "the robust model: normalize = '5'"),
    ("spec", "nuts:.", "is itself a nonlinear mix"), ("spec", "./nuts.json", "is itself a nonlinear mix"),
    ("spec", "./", "leads out of the folder|nonlinear mix"), ("code", "x", "robust: .*unknown field `code`"), ("spec", "a\nb", "spec is 'a.*one line"),
])  # fmt: skip
def test_a_changed_reference_is_refused(spoilt, key, value, message):
    edited_base(spoilt, "robust", **{key: value})
    refused(trusted, spoilt, match=message)


def test_a_link_out_of_the_folder_is_not_followed(spoilt):
    (spoilt / "nets.py").symlink_to(spoilt.parent / "code" / "nets.py")
    edited_base(spoilt, "robust", spec="./nets.py:robust")
    refused(trusted, spoilt, match="leads out of the folder")
    (spoilt / "nets.py").unlink()


@pytest.mark.parametrize("text,message", [
    ("", "is not JSON: restore"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("\udcff", "is not JSON"),
    ("[]", "no format version"), ("{}", "no format version"), ("3", "no format version"),
    ('{"format_version": 1, "format_version": 1}', "is not JSON"), ('{"format_version": 3}', "lacks alpha, alpha_d, c: save"),
])  # fmt: skip
def test_broken_files_are_refused(spoilt, text, message):
    (spoilt / "nuts.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(trusted, spoilt, match=message)
    refused(trusted_model, str(spoilt), match=message)
    (spoilt / "nuts.json").unlink()
    refused(trusted, spoilt, match="nuts.json cannot be read .*: name a folder that holds nuts.json")


# As a model.


def test_parts_by_spec(made):
    folder, pair = made
    kinds = {
        "": NutsMixture,
        "#robust": TransformedRobust,
        "#bypass": DirectBypass,
        "#auxiliary": AuxiliaryMixture,
    }
    loaded = load_nuts(folder, run_code=True)
    bent = TransformedRobust(pair[1].loaded.module, NonlinearTransform.of(SETTINGS.transform))
    parts = (loaded.mixture, bent, loaded.bypass, loaded.auxiliary)
    for (part, kind), expected in zip(kinds.items(), parts, strict=True):
        model = load_model(f"nuts:{folder}{part}", run_code=True)
        assert type(model.module) is kind
        assert (model.spec, model.name, model.card) == (f"nuts:{folder}{part}", f"nuts:mix{part}", None)
        assert torch.equal(model.module(X), expected(X))
        assert not any(one.training for one in model.module.modules())
    for part, base in zip(("#standard", "#base"), pair, strict=True):
        model = load_model(f"nuts:{folder}{part}", run_code=True)
        assert torch.equal(model.module(X), base.loaded.module(X))
        assert model.checksum == base.loaded.checksum


def test_a_folder_or_its_file_will_do(made, monkeypatch, tmp_path):
    folder, _ = made
    expected = load_model(f"nuts:{folder}", run_code=True).checksum
    monkeypatch.chdir(folder.parent)
    for spec in (str(folder), str(folder / "nuts.json"), "mix", "nuts:./mix", "nuts:mix/nuts.json"):
        assert load_model(spec, run_code=True).checksum == expected
    assert load_model("nuts:mix#robust", run_code=True).name == "nuts:mix#robust"
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("nuts:~/mix#base", run_code=True).spec == "nuts:~/mix#base"
    (tmp_path / "a#b").mkdir()
    shutil.copy(folder / "nuts.json", tmp_path / "a#b")
    monkeypatch.chdir(tmp_path)
    assert load_model("nuts:a#b", run_code=True).checksum == expected


def test_what_the_specs_refuse_and_a_part_needs_only_its_own_base_model(folder, zoo):
    refused(trusted_model, f"nuts:{folder}#h", match="part #h is unknown: use one of #robust, #bypass")
    refused(trusted_model, f"nuts:{folder}", weights=Path("w.pt"), match="brings its own weights")
    refused(trusted_model, str(folder), normalize="0/1", match="normalises inside")
    shutil.copytree(zoo, folder, dirs_exist_ok=True)
    refused(trusted_model, str(folder), match="holds a mix and a model: write nuts:")
    assert load_model(f"nuts:{folder}", run_code=True).name == "nuts:mix"
    refused(load_model, "nonsense", match="nuts:FOLDER")
    assert all(f"#{part}" in FORMS for part in PARTS)
    edited(folder, alpha_d=None)
    for part in ("bypass", "auxiliary"):
        refused(trusted_model, f"nuts:{folder}#{part}", match="has no alpha_d, .*: compute it")
    edited_base(folder, "standard", spec="gone.pt2")
    for part in ("robust", "base"):
        load_model(f"nuts:{folder}#{part}", run_code=True)
    for part in ("", "#bypass", "#standard"):
        refused(trusted_model, f"nuts:{folder}{part}", match="the standard model: .*gone.pt2")


def checksums(folder):
    return {
        part: load_model(f"nuts:{folder}{part and '#' + part}", run_code=True).checksum
        for part in ("", *PARTS)
    }


def test_checksums_cover_what_a_part_depends_on(folder, pair):
    before = checksums(folder)
    assert len(set(before.values())) == len(before)
    shutil.move(folder, folder.parent / "elsewhere")
    folder = folder.parent / "elsewhere"
    changed = {
        "alpha": (0.9, {"", "bypass"}), "standard_temperature": (1.0, {"", "bypass"}),
        "alpha_d": (0.9, {"auxiliary", "bypass"}), "s": (5.000000000000001, {"", "robust", "auxiliary", "bypass"}),
    }  # fmt: skip
    text = (folder / "nuts.json").read_text()
    for key, (value, parts) in changed.items():
        edited(folder, **{key: value})
        after = checksums(folder)
        (folder / "nuts.json").write_text(text)
        assert {part for part in after if after[part] != before[part]} == parts, key
    save_nuts(folder, SETTINGS, *reversed(pair))
    assert all(after != before[part] for part, after in checksums(folder).items())
