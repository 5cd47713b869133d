"""Cards and weights: writing, reading, refusing, and what is shipped."""

import hashlib
import json
import os

import pytest
import torch
from msgspec.structs import asdict

from certmix.errors import ModelError, ParameterError, RunError
from certmix.models.architectures import build, fold_batch_norm
from certmix.models.zoo import load_zoo, save_zoo, zoo_card

INPUTS = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = build("residual", 10)
    with torch.no_grad():
        made(torch.rand(8, 3, 16, 16))  # moves the running statistics off their start
    return made.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_saved_model_computes_the_same(tmp_path, model, dtype, tolerance, make_card):
    card = save_zoo(tmp_path, make_card(class_names=tuple("abcdefghij")), model, dtype)
    loaded = load_zoo("tiny", tmp_path)
    assert torch.allclose(loaded(INPUTS), model(INPUTS), atol=tolerance)
    assert not any(part.training for part in loaded.modules())
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in loaded.modules())
    assert zoo_card("tiny", tmp_path) == card
    assert card.sha256 == hashlib.sha256((tmp_path / "tiny.safetensors").read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_saving_refuses_what_could_not_be_loaded(tmp_path, model, make_card):
    with pytest.raises(ParameterError, match="'int8' is unknown: use float16 or float32"):
        save_zoo(tmp_path, make_card(), model, "int8")
    with pytest.raises(ModelError, match="do not fit architecture 'conv' with 10 classes"):
        save_zoo(tmp_path, make_card(architecture="conv"), model)
    with pytest.raises(
        ModelError, match="architecture 'vast' is unknown: this version has residual, masked, conv"
    ):
        save_zoo(tmp_path, make_card(architecture="vast"), model)
    folded = fold_batch_norm(load_copy(model))
    with pytest.raises(ModelError, match="not folded"):
        save_zoo(tmp_path, make_card(), folded)
    large = load_copy(model)
    with torch.no_grad():
        large.head.bias.fill_(1e5)
    with pytest.raises(ModelError, match=r"head\.bias are not finite in float16: use float32"):
        save_zoo(tmp_path, make_card(), large)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        save_zoo(tmp_path / "file", make_card(), model)


def load_copy(model):
    copy = build("residual", 10)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def test_an_interrupted_write_leaves_the_old_pair(tmp_path, model, monkeypatch, make_card):
    save_zoo(tmp_path, make_card(), model)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match=r"No space left on device\): free space"):
        save_zoo(tmp_path, make_card(seed=9), model, "float32")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_loading_refuses_other_or_no_weights(tmp_path, model, make_card):
    save_zoo(tmp_path, make_card(), model)
    with pytest.raises(ModelError, match=r"huge\.json cannot be read .*: the models of this folder are tiny"):
        load_zoo("huge", tmp_path)
    weights = tmp_path / "tiny.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=r"its card says .* install or train again"):
        load_zoo("tiny", tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"tiny\.safetensors cannot be read .*: put the weights beside the"):
        load_zoo("tiny", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is no card .Expecting"),
        ("[1]", "is no card .Expected `object`, got `array`"),
        (lambda card: card.pop("seed") and "", "missing required field `seed`"),
        (lambda card: card.update(colour="red"), "unknown field `colour`"),
        (lambda card: card.update(classes="ten"), r"Expected `int \| null`, got `str`"),
        (lambda card: card.update(accuracy=[0.5]), "Expected `object`, got `array`"),
        (lambda card: card.update(classes=1), "1 classes: at least 2"),
        (lambda card: card.update(class_names=["cat"]), "10 classes and 1 class names"),
        (lambda card: card.update(noise_sigma=0.0), "noise_sigma = 0.0: give a number > 0"),
        (lambda card: card.update(input_range=[1, 0]), r"input_range = \(1, 0\)"),
        (lambda card: card.update(accuracy={"test": 81.0}), r"accuracy \{'test': 81.0\}: give fractions"),
        (lambda card: card.update(name="../up"), "model name '../up'"),
    ],
)
def test_bad_cards_are_refused_in_one_line(tmp_path, change, message, make_card):
    plain = asdict(make_card())
    text = change if isinstance(change, str) else change(plain) or json.dumps(plain)
    (tmp_path / "tiny.json").write_text(text)
    with pytest.raises(ModelError, match=message) as caught:
        zoo_card("tiny", tmp_path)
    assert "\n" not in str(caught.value)
