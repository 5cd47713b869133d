"""A mix in a folder: there and back, moved, tampered with, and as a model that other commands load."""

from __future__ import annotations

import json
import os
import shutil
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
from certmix.nuts.description import FitFacts, MixSettings, TuningImages
from certmix.nuts.folder import PARTS, BaseModel, load_nuts, read_nuts, save_nuts
from certmix.nuts.mixture import NutsMixture, TransformedRobust

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

def stateless():
    return nn.Flatten()
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


@pytest.fixture
def pair(nets):
    return pair_of(nets)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    save_nuts(place / "mix", SETTINGS, *pair_of(written(place)))
    return place / "mix"


@pytest.fixture
def spoilt(made):
    """A mix whose nuts.json is put back after the test."""
    text = (made / "nuts.json").read_bytes()
    yield made
    (made / "nuts.json").write_bytes(text)


@pytest.fixture
def folder(tmp_path, pair):
    save_nuts(tmp_path / "mix", SETTINGS, *pair)
    return tmp_path / "mix"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    place = tmp_path_factory.mktemp("zoo")
    for seed, name in enumerate(("tiny-standard", "tiny-0.50")):
        torch.manual_seed(seed)
        card = Card(
            name=name, architecture="residual", classes=10, class_names=None, input_shape=(3, 16, 16),
            input_range=(0.0, 1.0), noise_sigma=0.5 if seed else None, recipe={"name": "standard"}, seed=seed,
            data="made up", data_checksum="0" * 64, epochs=1, precision="fp32",
        )  # fmt: skip
        save_zoo(place, card, build("residual", 10), "float32")
    return place


IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def refused(function, *arguments, match, kind=ModelError, **options):
    """It fails with one line, which names what was found and a remedy."""
    with pytest.raises(kind, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)


def edited(folder, change):
    path = folder / "nuts.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


# There and back.


def test_a_folder_gives_back_the_mix(folder, pair):
    loaded = load_nuts(folder)
    g, h = (one.loaded.module for one in pair)
    transform = NonlinearTransform(5.0, 3.571, -1.1)
    mix = NutsMixture(g, h, transform, 0.987654321)
    assert loaded.settings == SETTINGS
    assert torch.equal(loaded.mixture(X), mix(X))
    assert torch.equal(loaded.transformed(X), TransformedRobust(h, transform)(X))
    assert torch.equal(loaded.auxiliary(X), AuxiliaryMixture(g, h, transform, alpha_d=0.957)(X))
    bypass = loaded.bypass
    assert torch.equal(bypass(X), mix(X))
    left, right = X.clone().requires_grad_(), X.clone().requires_grad_()
    bypass(left)[:, 0].sum().backward()
    direct_bypass(mix, 0.957)(right)[:, 0].sum().backward()
    assert torch.equal(left.grad, right.grad)
    for module in (loaded.mixture, loaded.transformed, loaded.auxiliary, bypass):
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    assert loaded.fit is loaded.tuning is None
    assert loaded.standard.checksum == pair[0].loaded.checksum


@pytest.mark.parametrize(
    "settings",
    [
        MixSettings(TransformSettings(0.1 + 0.2, 1 / 3, -2.14, "softplus", 3), 1 / 3, 0.5, None, 0.0),
        MixSettings(TransformSettings(1, 1, 0, "linear"), 1, 0, 1, 1),
        MixSettings(TransformSettings(1.0, 1.0, 0.0), np.float64(0.7), np.float64(1.0)),
    ],
)
def test_settings_come_back_exactly(tmp_path, pair, settings):
    save_nuts(tmp_path / "mix", settings, *pair)
    loaded = load_nuts(tmp_path / "mix")
    assert loaded.settings == settings
    assert (loaded.mixture.alpha, loaded.mixture.temperature) == (settings.alpha, settings.temperature)
    assert loaded.transformed.transform.settings == settings.transform


def test_facts_of_the_fit_and_tuning_images_come_back(tmp_path, pair):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 60, 4)), rng.integers(0, 4, 60)
    logits[:, np.arange(60), labels] += 2
    found = fit(*logits, labels, Grid((0.5, 2.0), (1.0, 2.0), (-0.5, 0.0)), 0.9)
    facts = FitFacts.of(found)
    tuning = TuningImages("cifar10", "train", "ab" * 32, (4, 1, 7), {"attack": "apgd-ce", "eps": 8 / 255})
    settings = MixSettings(found.settings, found.alpha)
    save_nuts(tmp_path / "mix", settings, *pair, fit=facts, tuning=tuning)
    loaded = load_nuts(tmp_path / "mix")
    assert loaded.settings == settings
    assert loaded.fit == facts
    assert loaded.tuning == tuning
    assert {name: getattr(found, name) for name in FitFacts.__struct_fields__} == asdict(loaded.fit)
    assert read_nuts(tmp_path / "mix") == loaded.description
    assert tuning.shared("ab" * 32, [7, 2, 4, 4]).tolist() == [4, 7]
    assert tuning.shared("cd" * 32, [7, 2, 4]).tolist() == []


def test_shipped_models_are_named_and_the_folder_moves(tmp_path):
    names = ("cifar10-standard", "cifar10-adversarial-linf")
    pair = [BaseModel(load_model(name)) for name in names]
    written = save_nuts(tmp_path / "a", SETTINGS, *pair, copy_weights=True)
    assert (written.standard.spec, written.robust.spec) == names
    assert os.listdir(tmp_path / "a") == ["nuts.json"]
    assert str(ZOO_FOLDER) not in (tmp_path / "a" / "nuts.json").read_text()
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load_nuts(tmp_path / "b", classes=10).mixture(torch.rand(3, 3, 32, 32)).shape == (3, 10)
    refused(load_nuts, tmp_path / "b", classes=100, match="standard model: .*10 classes apart")


@pytest.mark.parametrize("copy_weights", [False, True])
def test_a_factory_with_weights_and_normalisation(tmp_path, nets, copy_weights):
    weights = tmp_path / "old.pt"
    torch.manual_seed(5)
    torch.save({"state_dict": {"1.weight": torch.randn(4, 12), "1.bias": torch.randn(4)}}, weights)
    extras = {"weights": weights, "normalize": "0.5,0.4,0.3/0.25"}
    robust = BaseModel(load_model(f"{nets}:robust", **extras), **extras)
    standard = BaseModel(load_model(f"{nets}:accurate"))
    mix = tmp_path / "mix"
    written = save_nuts(mix, SETTINGS, standard, robust, copy_weights=copy_weights)
    expected = load_nuts(mix).mixture(X)
    assert written.robust.normalize == "0.5,0.4,0.3/0.25"
    assert written.robust.spec == f"{nets}:robust"
    moved = tmp_path / "far" / "mix"
    shutil.copytree(mix, moved)
    if not copy_weights:
        assert written.robust.weights == str(weights)
        assert os.listdir(mix) == ["nuts.json"]
    weights.unlink()
    if copy_weights:
        assert written.robust.weights.startswith("./models/")
        assert load_file(moved / written.robust.weights).keys() == {"1.weight", "1.bias"}
        assert torch.equal(load_nuts(moved).mixture(X), expected)
    else:
        refused(load_nuts, moved, match="the robust model: .*old.pt cannot be read")


def test_code_inside_the_folder_is_named_relative_to_it(tmp_path, nets):
    mix = tmp_path / "mix"
    mix.mkdir()
    shutil.copy(nets, mix / "nets.py")
    pair = [BaseModel(load_model(f"{mix / 'nets.py'}:{name}")) for name in ("accurate", "robust")]
    written = save_nuts(mix, SETTINGS, *pair)
    assert written.standard.spec == "./nets.py:accurate"
    expected = load_nuts(mix).mixture(X)
    shutil.move(mix, tmp_path / "moved")
    assert torch.equal(load_nuts(tmp_path / "moved").mixture(X), expected)
    assert torch.equal(load_nuts(os.path.relpath(tmp_path / "moved")).mixture(X), expected)


def test_cards_and_exported_programs_are_copied(tmp_path, zoo):
    place = tmp_path / "trained"
    place.mkdir()
    for suffix in ("json", "safetensors"):
        shutil.copy(zoo / f"tiny-0.50.{suffix}", place)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 10)).eval()
    program = torch.export.export(net, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
    torch.export.save(program, tmp_path / "net.pt2")
    pair = [BaseModel(load_model(str(tmp_path / "net.pt2"))), BaseModel(load_model(str(place)))]
    written = save_nuts(tmp_path / "mix", SETTINGS, *pair, copy_weights=True)
    assert written.standard.spec.endswith("/net.pt2")
    assert written.robust.spec.endswith("/tiny-0.50.json")
    expected = load_nuts(tmp_path / "mix").mixture(IMAGES)
    shutil.rmtree(place)
    (tmp_path / "net.pt2").unlink()
    shutil.move(tmp_path / "mix", tmp_path / "moved")
    assert torch.equal(load_nuts(tmp_path / "moved").mixture(IMAGES), expected)


def test_weights_that_a_factory_draws_are_kept_by_copying_them(tmp_path, nets, pair):
    drawn = BaseModel(load_model(f"{nets}:drawn"))
    refused(save_nuts, tmp_path / "mix", SETTINGS, drawn, pair[1], match="standard .* save with copy_weights")
    assert not (tmp_path / "mix" / "nuts.json").exists()
    save_nuts(tmp_path / "mix", SETTINGS, drawn, pair[1], copy_weights=True)
    assert torch.equal(load_nuts(tmp_path / "mix").standard.module(X), drawn.loaded.module(X))


def test_a_model_of_fixed_mode_behind_a_normalisation(tmp_path, nets, pair):
    fixed = BaseModel(load_model(f"{nets}:stubborn", normalize="0.5/0.25"), normalize="0.5/0.25")
    written = save_nuts(tmp_path / "mix", SETTINGS, pair[0], fixed, copy_weights=True)
    assert load_file(tmp_path / "mix" / written.robust.weights).keys() == {"1.weight", "1.bias"}
    assert torch.equal(load_nuts(tmp_path / "mix").robust.module(X), fixed.loaded.module(X))


def test_an_earlier_mix_survives_a_failure(folder, pair, nets):
    before = (folder / "nuts.json").read_bytes()
    drawn = BaseModel(load_model(f"{nets}:drawn"))
    refused(save_nuts, folder, SETTINGS, pair[0], drawn, match="checksum")
    assert (folder / "nuts.json").read_bytes() == before
    save_nuts(folder, replace(SETTINGS, alpha=0.75), *pair)
    assert load_nuts(folder).settings.alpha == 0.75


def test_what_cannot_be_saved(tmp_path, pair):
    wrapped = BaseModel(wrap_model(torch.nn.Flatten()))
    refused(save_nuts, tmp_path / "mix", SETTINGS, wrapped, pair[1], match="the standard model: .*is unknown")
    (tmp_path / "file").write_text("")
    refused(save_nuts, tmp_path / "file" / "mix", SETTINGS, *pair, kind=RunError, match="cannot write")
    save_nuts(tmp_path / "mix", SETTINGS, *pair)
    for spec in (f"nuts:{tmp_path / 'mix'}", str(tmp_path / "mix"), str(tmp_path / "mix" / "nuts.json")):
        nested = BaseModel(load_model(spec))
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
        load_nuts,
        tmp_path / "b",
        match=rf"the robust model .*checksum {found}\.\.\., .*tuned {tuned}\.\.\.: restore",
    )
    nets.write_text(NETS.replace("manual_seed(seed)", "manual_seed(seed + 0)"))
    refused(load_nuts, folder, match="the standard model .*checksum")
    nets.unlink()
    refused(load_nuts, folder, match="the standard model: .*nets.py cannot be read")


def test_swapped_copies_are_noticed(tmp_path, nets, pair):
    written = save_nuts(tmp_path / "mix", SETTINGS, *pair, copy_weights=True)
    one, other = (tmp_path / "mix" / model.weights for model in (written.standard, written.robust))
    shutil.copy(other, one)
    refused(load_nuts, tmp_path / "mix", match="the standard model .*checksum")
    one.write_bytes(b"nothing")
    refused(load_nuts, tmp_path / "mix", match="the standard model: weights .* cannot be read")
    one.unlink()
    refused(load_nuts, tmp_path / "mix", match="the standard model: .*cannot be read")


@pytest.mark.parametrize("key,value,message", [
    ("alpha", 1.5, "alpha = 1.5: the mixing weight"), ("alpha", -0.1, "alpha = -0.1"),
    ("alpha", "0.9", "alpha: Expected `float`, got `str`: save"), ("alpha", None, "alpha: Expected"),
    ("alpha", True, "alpha: Expected"), ("alpha", 10**400, "alpha: Number out of range"), ("alpha", float("nan"), "alpha = nan"),
    ("temperature", -1, "temperature = -1.0"), ("s", 0, "s = 0.0"), ("p", 1e9, "p = "), ("c", [], "json: c: Expected"),
    ("clamp", "tanh", "clamp 'tanh' is unknown"), ("top_k", 1, "top_k = 1"), ("top_k", 2.5, "top_k: Expected"),
    ("alpha_d", 1.01, "alpha_d = 1.01"), ("r_d", None, "r_d: Expected"), ("r_d", -1, "r_d = -1.0"),
    ("format_version", 3, "format version 3, this certmix reads 2: update certmix"),
    ("format_version", 1, "format version 1, this certmix reads 2: fit again, its LN was another"),
    ("format_version", "1", "format version"), ("format_version", True, "format version"), ("format_version", 0, "format version"),
    ("a\nb", 1, "the file: .*unknown field"), ("\ud800", 1, "not Unicode"), ("standard", None, "standard: Expected"), ("robust", {}, "robust: .*missing required field `spec`"),
    ("fit", {"beta": 2}, "fit: .*missing"), ("tuning", 3, "tuning: Expected"), ("extra", 1, "the file: .*unknown field `extra`"),
])  # fmt: skip
def test_a_changed_file_is_refused(spoilt, key, value, message):
    edited(spoilt, lambda plain: plain.update({key: value}))
    refused(load_nuts, spoilt, match=message)
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
    edited(spoilt, lambda plain: plain["robust"].update({key: value}))
    refused(load_nuts, spoilt, match=message)


def test_a_link_out_of_the_folder_is_not_followed(folder, nets):
    (folder / "nets.py").symlink_to(nets)
    edited(folder, lambda plain: plain["robust"].update(spec="./nets.py:robust"))
    refused(load_nuts, folder, match="leads out of the folder")


@pytest.mark.parametrize("text,message", [
    ("", "is not JSON: restore"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON"), ("\udcff", "is not JSON"),
    ("[]", "no format version"), ("{}", "no format version"), ("3", "no format version"),
    ('{"format_version": 1, "format_version": 1}', "is not JSON"), ('{"format_version": 2}', "lacks alpha, alpha_d, c: save"),
])  # fmt: skip
def test_broken_files_are_refused(spoilt, text, message):
    (spoilt / "nuts.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(load_nuts, spoilt, match=message)
    refused(load_model, str(spoilt), match=message)
    (spoilt / "nuts.json").unlink()
    refused(load_nuts, spoilt, match="nuts.json cannot be read .*: name a folder that holds nuts.json")


def test_models_of_different_input_ranges_are_refused(tmp_path, zoo):
    other = tmp_path / "other"
    card = replace(zoo_card("tiny-0.50", zoo), name="wide", input_range=(-1.0, 1.0))
    save_zoo(other, card, build("residual", 10), "float32")
    pair = BaseModel(load_model(str(zoo / "tiny-standard.json"))), BaseModel(load_model(str(other)))
    refused(
        save_nuts, tmp_path / "mix", SETTINGS, *pair, match=r"\(0.0, 1.0\), the robust one in \(-1.0, 1.0\)"
    )


# As a model.


def test_parts_by_spec(folder, pair):
    kinds = {
        "": NutsMixture,
        "#robust": TransformedRobust,
        "#bypass": DirectBypass,
        "#auxiliary": AuxiliaryMixture,
    }
    loaded = load_nuts(folder)
    parts = (loaded.mixture, loaded.transformed, loaded.bypass, loaded.auxiliary)
    for (part, kind), expected in zip(kinds.items(), parts, strict=True):
        model = load_model(f"nuts:{folder}{part}")
        assert type(model.module) is kind
        assert model.spec == f"nuts:{folder}{part}"
        assert model.name == f"nuts:mix{part}"
        assert model.card is None
        assert torch.equal(model.module(X), expected(X))
        assert not any(one.training for one in model.module.modules())
    for part, base in zip(("#standard", "#base"), pair, strict=True):
        model = load_model(f"nuts:{folder}{part}")
        assert torch.equal(model.module(X), base.loaded.module(X))
        assert model.checksum == base.loaded.checksum


def test_a_folder_or_its_file_will_do(folder, monkeypatch):
    expected = load_model(f"nuts:{folder}")
    for spec in (str(folder), str(folder / "nuts.json"), f"nuts:{folder / 'nuts.json'}"):
        found = load_model(spec)
        assert found.checksum == expected.checksum
        assert torch.equal(found.module(X), expected.module(X))
    monkeypatch.chdir(folder.parent)
    for spec in ("mix", "nuts:mix", "nuts:./mix", "nuts:mix/nuts.json"):
        assert load_model(spec).checksum == expected.checksum
    assert load_model("nuts:mix#robust").name == "nuts:mix#robust"
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("nuts:~/mix#base").spec == "nuts:~/mix#base"
    (folder.parent / "a#b").mkdir()
    shutil.copy(folder / "nuts.json", folder.parent / "a#b")
    assert load_model("nuts:a#b").checksum == expected.checksum


def test_what_the_specs_refuse(folder, zoo, tmp_path):
    refused(load_model, f"nuts:{folder}#h", match="part #h is unknown: use one of #robust, #bypass")
    refused(load_model, f"nuts:{folder}", weights=Path("w.pt"), match="brings its own weights")
    refused(load_model, str(folder), normalize="0/1", match="normalises inside")
    for suffix in ("json", "safetensors"):
        shutil.copy(zoo / f"tiny-0.50.{suffix}", folder)
    refused(load_model, str(folder), match="holds a mix and a model: write nuts:")
    assert load_model(f"nuts:{folder}").name == "nuts:mix"
    refused(load_model, "nonsense", match="nuts:FOLDER")
    assert all(f"#{part}" in FORMS for part in PARTS)
    edited(folder, lambda plain: plain.update(alpha_d=None))
    for part in ("bypass", "auxiliary"):
        refused(load_model, f"nuts:{folder}#{part}", match="has no alpha_d, .*: compute it")
    load_model(f"nuts:{folder}#robust")


def test_a_part_needs_only_its_own_base_model(folder, nets):
    edited(folder, lambda plain: plain["standard"].update(spec="gone.pt2"))
    for part in ("robust", "base"):
        load_model(f"nuts:{folder}#{part}")
    for part in ("", "#bypass", "#standard"):
        refused(load_model, f"nuts:{folder}{part}", match="the standard model: .*gone.pt2")


def checksums(folder):
    return {part: load_model(f"nuts:{folder}{part and '#' + part}").checksum for part in ("", *PARTS)}


def test_checksums_cover_what_a_part_depends_on(folder, pair):
    before = checksums(folder)
    assert len(set(before.values())) == len(before)
    shutil.copytree(folder, folder.parent / "elsewhere")
    assert checksums(folder.parent / "elsewhere") == before
    changed = {
        "alpha": (0.9, {"", "bypass"}), "temperature": (1.0, {"", "bypass"}),
        "alpha_d": (0.9, {"auxiliary", "bypass"}), "r_d": (0.5, {"auxiliary", "bypass"}),
        **{key: (value, {"", "robust", "auxiliary", "bypass"})
           for key, value in (("s", 5.000000000000001), ("top_k", 3), ("clamp", "relu"))},
    }  # fmt: skip
    text = (folder / "nuts.json").read_text()
    for key, (value, parts) in changed.items():
        edited(folder, lambda plain, k=key, v=value: plain.update({k: v}))
        after = checksums(folder)
        (folder / "nuts.json").write_text(text)
        assert {part for part in after if after[part] != before[part]} == parts, key
    save_nuts(folder, SETTINGS, *reversed(pair))
    assert all(after != before[part] for part, after in checksums(folder).items())
