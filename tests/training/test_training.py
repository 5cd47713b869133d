"""Training: deterministic, resumable, and it learns."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from attacked import outside, seeded, small_inputs, small_net
from torch import nn
from torch.nn import functional as F

from certmix.data import load
from certmix.errors import DataError, ModelError, ParameterError, RunError
from certmix.margins import margin_lower
from certmix.models.spec import load_model
from certmix.models.zoo import load_zoo
from certmix.training import RECIPES, make_recipe, train, train_to_folder
from certmix.training.intervals import scale_for, sharpen
from certmix.training.objectives import OBJECTIVES, noisy
from certmix.training.recipes import SEEN_BY


def stripes(count: int = 64, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright inputs are class 1, dark ones class 0."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, count)
    inputs = generator.integers(0, 60, (count, 3, side, side)) + 180 * labels[:, None, None, None]
    return torch.from_numpy(inputs.astype(np.uint8)), torch.from_numpy(labels)


def quick(name: str, **changes):
    architecture = SEEN_BY.get(changes.get("noise", name), "residual")
    return make_recipe(
        name,
        **{"architecture": architecture, "epochs": 2, "batch_size": 16, "learning_rate": 0.02, **changes},
    )


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_equal_seeds_give_equal_weights_and_resuming_changes_nothing(tmp_path: Path):
    inputs, labels = stripes(32)

    def weights(recipe=quick("standard"), seed=5, **settings):  # noqa: B008
        return state(train(recipe, inputs, labels, classes=2, seed=seed, **settings))

    def stop(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    whole, checkpoint = weights(), tmp_path / "c"
    with pytest.raises(KeyboardInterrupt):
        weights(checkpoint=checkpoint, report=stop)
    resumed, other = weights(checkpoint=checkpoint), weights(quick("standard", epochs=1), 6)
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert any(not torch.equal(whole[k], other[k]) for k in whole)
    with pytest.raises(RunError, match="other settings"):
        weights(seed=9, checkpoint=checkpoint)


@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EACCES, marks=pytest.mark.long)])
def test_a_disk_that_fails_is_one_line_and_costs_no_epoch(tmp_path: Path, monkeypatch, number):
    inputs, labels = stripes(32)
    write, done, checkpoint = Path.write_bytes, [], tmp_path / "c"

    def fail(path, content):
        done.append(path)
        if len(done) == 2:
            write(path, content[:1000])
            raise OSError(number, os.strerror(number))
        return write(path, content)

    def again():
        return state(train(quick("standard"), inputs, labels, classes=2, checkpoint=checkpoint))

    monkeypatch.setattr(Path, "write_bytes", fail)
    told = "free space and repeat" if number == errno.ENOSPC else "choose a folder that can be written to"
    with pytest.raises(RunError, match=f"cannot write .*: {told}"):
        again()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert torch.load(checkpoint)["epoch"] == 1
    whole = again()
    checkpoint.unlink()
    assert all(torch.equal(value, whole[key]) for key, value in again().items())


@pytest.mark.parametrize(("name", "side", "told"), [
    ("standard", 2, "takes sides of 3 pixels or more"), ("interval", 16, "takes 32 x 32 images"),
    ("standard", 8, "cannot write .*: choose a folder"),
])  # fmt: skip
def test_what_no_training_can_begin_with_is_refused_before_it(tmp_path: Path, name, side, told):
    (tmp_path / "file").touch()
    np.savez(tmp_path / "i.npz", inputs=np.zeros((4, 3, side, side), np.uint8), labels=np.arange(4) % 2)
    data = load(str(tmp_path / "i.npz"))
    with pytest.raises((DataError, RunError), match=told):
        train_to_folder(make_recipe(name), data, data, tmp_path / ("file/x" if side == 8 else "x"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_lowers_its_loss(name):
    inputs, labels, losses = *(stripes(64, 32) if name == "interval" else stripes(48)), []
    recipe = quick(name, epochs=2, **({"attack_steps": 1} if name == "adversarial" else {}))
    train(recipe, inputs, labels, classes=2, report=lambda p: losses.append(p.loss))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_consistency_term_vanishes_for_equal_predictions():
    inputs, labels = torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.long)

    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 0.0]]).expand(len(x), 2)

    losses = [
        OBJECTIVES["gaussian"](
            Constant(), inputs, labels, make_recipe("gaussian", consistency=c, entropy=0.0), torch.Generator()
        )
        for c in (0.0, 50.0)
    ]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_adversarial_examples_are_in_the_ball_and_of_higher_loss(norm):
    net, inputs, labels, seen = small_net().train(), small_inputs(6), torch.tensor([0, 1, 2, 3, 4, 0]), []

    def watched(x):
        seen.append(x.detach())
        return net(x)

    recipe = make_recipe("adversarial", norm=norm, eps=0.1, attack_steps=3)
    loss = OBJECTIVES["adversarial"](watched, inputs, labels, recipe, seeded())
    assert net.training and len(seen) == 4
    assert outside(seen[-1], inputs, norm, 0.1 + 1e-6) == []
    assert loss > F.cross_entropy(net(inputs), labels)


def test_a_trained_folder_can_be_used(tmp_path: Path):
    from certmix.types import Dataset

    inputs, labels = stripes(32)

    class Read:
        def __call__(self, i):
            return inputs[i].float().numpy() / 255

        def everything(self):
            return inputs.numpy()

    data = Dataset(
        "stripes", "train", labels.numpy(), np.arange(32), ("dark", "bright"), Read(), (0.0, 1.0), "x"
    )
    card = train_to_folder(quick("standard"), data, data, tmp_path)
    assert card.name == "stripes-standard"
    assert set(card.accuracy) == {"clean on stripes"}
    classifier = str(tmp_path / "stripes-standard.json")
    stored = json.loads(Path(classifier).read_text())
    assert stored["recipe"]["epochs"] == 2
    loaded, points = load_model(classifier), inputs[:2].float() / 255
    assert loaded.module(points).shape == (2, 2)

    begun = make_recipe(
        "adversarial",
        start=classifier,
        epochs=1,
        batch_size=16,
        learning_rate=1e-9,
    )
    assert begun.architecture == "residual", "that of the model it goes on from"
    after = train(begun, inputs, labels, classes=2)
    assert torch.allclose(after.head.weight, loaded.module.head.weight, atol=1e-3), "its weights"
    with pytest.raises(ParameterError, match="it has 2 classes and the data have 3: start from another"):
        train(begun, inputs, labels, classes=3)
    with pytest.raises(ModelError, match="nothing.json"):
        make_recipe("standard", start=str(tmp_path / "nothing.json"))

    front = train_to_folder(quick("denoiser", classifier=classifier), data, data, tmp_path)
    assert (front.name, front.classes, front.class_names) == ("stripes-denoiser-0.50", None, None)
    assert set(front.accuracy) == {"clean on stripes", "noisy on stripes"}
    assert loaded.checksum[:12] in front.notes and front.noise_sigma == 0.5
    denoiser = load_model(str(tmp_path / f"{front.name}.json")).module
    both = load_model(f"denoised:{tmp_path / front.name}.json,{classifier}").module
    assert torch.equal(both(points), loaded.module(denoiser(points)))
    alone = train_to_folder(quick("denoiser", classifier=None, noise_sigma=0.25), data, data, tmp_path)
    assert alone.name == "stripes-denoiser-0.25" and not alone.accuracy and not alone.notes


@pytest.mark.parametrize(
    ("noise", "scale"),
    [
        pytest.param("laplace", 0.25, marks=pytest.mark.long),
        pytest.param("uniform", 0.5, marks=pytest.mark.long),
        ("ablation", 400),
    ],
)
def test_a_net_of_any_noise_is_trained_and_certified(command, tmp_path: Path, noise, scale):
    inputs, labels = (each.numpy() for each in stripes(96, 32))
    np.savez(tmp_path / "stripes.npz", inputs=inputs, labels=labels)
    told = "--noise", noise, "--scale", scale, "--data", tmp_path / "stripes.npz"
    done = command(
        "train", "gaussian", *told, "--epochs", 4, "--batch-size", 16, "--learning-rate", 0.02, "--output",
        tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    name = f"stripes-{noise}-{scale:g}" if noise == "ablation" else f"stripes-{noise}-{scale:.2f}"
    card = json.loads((tmp_path / f"{name}.json").read_text())
    assert (card["recipe"]["noise"], card["recipe"]["scale"], card["noise_sigma"]) == (noise, scale, None)
    assert card["accuracy"]["noisy on stripes"] > 0.8 and ("clean on stripes" in card["accuracy"]) == (
        noise != "ablation"
    )
    (tmp_path / "g.py").write_text("from torch.nn import *\nnet = Sequential(Flatten(), Linear(3072, 2))\n")
    done = command(
        "certify", *told, "--alpha", 0.9, "--standard", f"{tmp_path / 'g.py'}:net", "--robust",
        tmp_path / f"{name}.json", "--inputs", 3, "--samples", 500, "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"][0]["certified_accuracy"][0] > 0.5


def test_noise_has_the_law_of_its_kind():
    inputs = torch.zeros(4, 3, 32, 32)
    seen = {
        kind: noisy(inputs, make_recipe("gaussian", noise=kind, scale=scale), seeded())
        for kind, scale in (("laplace", 0.5), ("uniform", 0.5), ("ablation", 75))
    }
    assert float(seen["laplace"].abs().mean()) == pytest.approx(0.5, rel=0.05)
    assert float(seen["laplace"].std()) == pytest.approx(0.5 * 2**0.5, rel=0.05)
    assert 0.49 < float(seen["uniform"].abs().max()) <= 0.5
    assert float(seen["uniform"].std()) == pytest.approx(0.5 / 3**0.5, rel=0.03)
    assert seen["ablation"].shape == (4, 4, 32, 32)
    assert seen["ablation"][:, 3].sum((1, 2)).tolist() == [75.0] * 4


def test_a_denoiser_is_trained_on_pixels_and_for_the_classifier():
    class Half(nn.Module):
        def forward(self, x):
            return x / 2

    inputs, labels, recipe = (
        torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), make_recipe("denoiser", pixel_weight=2.0)
    )  # fmt: skip
    seen: list[torch.Tensor] = []

    def classifier(x):
        seen.append(x)
        return x.mean((2, 3))

    loss, pixels = (
        OBJECTIVES["denoiser"](Half(), inputs, labels, recipe, seeded(), behind)
        for behind in (classifier, None)
    )
    (cleaned,) = seen
    assert pixels == pytest.approx(2 * F.mse_loss(cleaned, inputs).item())
    assert loss == pytest.approx((pixels + F.cross_entropy(cleaned.mean((2, 3)), labels)).item())


@pytest.mark.parametrize("name, changes, told", [
    ("magic", {}, "'magic'"), ("gaussian", {"noise_sigma": 0.0}, "sigma = 0"), ("adversarial", {"eps": -1.0}, "eps = -1"),
    ("bands", {"scale": 0.0}, "scale = 0"), ("bands", {"scale": 2.5}, "whole number"),
    ("gaussian", {"scale": 0.5}, "add --noise"), ("gaussian", {"noise": "laplace"}, "scale = 0"),
    ("gaussian", {"noise": "laplace", "scale": 0.5, "noise_sigma": 0.5}, "in the place of sigma"),
    ("standard", {"noise": "laplace", "scale": 0.5}, "of the gaussian recipe"),
    ("gaussian", {"noise": "ablation", "scale": 0.5}, "whole number"),
    ("gaussian", {"noise": "ablation", "scale": 9, "start": "cifar10-gaussian-0.50"}, "trains a masked net"),
    ("denoiser", {"noise_sigma": 0.0}, "sigma = 0"), ("standard", {"architecture": "denoiser"}, "trains a denoiser"),
    ("standard", {"epochs": 0}, "epochs = 0"), ("standard", {"batch_size": 1}, "batch size = 1"),
    ("interval", {"eps": 0.0}, "eps = 0"), ("interval", {"norm": "l2"}, "linf"),
    ("interval", {"sharpen_alpha": 0.4}, "sharpen alpha = 0.4"), ("standard", {"sharpen_alpha": 0.76}, "to the interval recipe"),
])  # fmt: skip
def test_recipes_refuse_what_makes_no_sense(name, changes, told):
    with pytest.raises(ParameterError, match=told):
        make_recipe(name, **changes)


def test_only_colour_inputs_are_trained_on(tmp_path: Path):
    np.savez(tmp_path / "x.npz", inputs=np.zeros((4, 2), np.float32), labels=[0, 1, 0, 1])
    data = load(tmp_path / "x.npz")
    with pytest.raises(DataError, match="8-bit colour"):
        train_to_folder(quick("standard"), data, data, tmp_path)


# ---------------------------------------------------------------- sharpening

MU = 6 / 19


def test_two_classes_need_twice_the_inverse_tanh_of_mu_over_the_difference():
    differences = np.full((10, 1), 0.05)
    exact = 2 * math.atanh(MU) / 0.05
    assert exact <= scale_for(differences, 0.76) <= exact + 1
    assert scale_for(np.full((10, 1), 3.0), 0.76) == 1.0


def test_rows_that_no_factor_mends_are_left_out():
    differences = np.array([[0.5]] * 9 + [[-0.1]] * 20 + [[0.004]])
    assert scale_for(differences, 0.76, share=0.9) == pytest.approx(2 * math.atanh(MU) / 0.5, abs=0.1)
    assert scale_for(differences, 0.76, share=1.0) == 100.0
    assert scale_for(-np.ones((3, 4)), 0.76) == 1.0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.flat(x))


def test_enough_inputs_reach_mu_and_classes_stay():
    torch.manual_seed(0)
    net = Net().eval()
    inputs = torch.randint(0, 256, (200, 3, 2, 2), dtype=torch.uint8)
    x = inputs.float() / 255
    labels = net(x).argmax(1)
    scale = sharpen(net, inputs, labels, 1 / 255, 0.76)
    assert scale > 1
    assert (net(x).argmax(1) == labels).all()
    margins = margin_lower(net, x, labels, "linf", 1 / 255, method="interval")
    verified = margins > 0
    assert verified.sum() > 50
    assert 0.9 <= (margins[verified] >= MU).mean() < 0.97


def test_what_cannot_be_sharpened_is_refused():
    with pytest.raises(ModelError, match="no linear layer 'head'"):
        sharpen(nn.Linear(2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1), 0.1, 0.76)


def test_a_denoiser_takes_the_layers_that_it_shares_with_what_it_starts_from(tmp_path: Path):
    inputs, labels = stripes(32)
    quiet = {"learning_rate": 1e-9, "classifier": None, "epochs": 1, "weight_decay": 0.0, "batch_size": 32}
    fresh, begun = (
        state(train(quick("denoiser", **quiet, **start), inputs, labels, classes=None))
        for start in ({}, {"start": "cifar10-gaussian-0.50"})
    )
    shared = load_zoo("cifar10-gaussian-0.50", fold=False).state_dict()
    for name in ("stem.weight", "blocks.2.conv2.weight"):
        torch.testing.assert_close(begun[name], shared[name], atol=1e-6, rtol=1e-6)
        assert not torch.allclose(fresh[name], shared[name], atol=1e-2)
    torch.testing.assert_close(begun["linear.weight"], fresh["linear.weight"])
    with pytest.raises(ParameterError, match="shares no layers with a denoiser"):
        train(quick("denoiser", **quiet, start="cifar10-standard"), inputs, labels, classes=None)
