"""Training: deterministic, resumable, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from certmix.data import load
from certmix.errors import DataError, ParameterError, RunError
from certmix.models.spec import load_model
from certmix.training import RECIPES, make_recipe, train, train_to_folder
from certmix.training.recipes import OBJECTIVES

GENERATOR = np.random.default_rng(0)


def stripes(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright images are class 1, dark ones class 0."""
    labels = GENERATOR.integers(0, 2, count)
    images = GENERATOR.integers(0, 60, (count, 3, 32, 32)) + 180 * labels[:, None, None, None]
    return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)


def quick(name: str, **changes):
    return make_recipe(
        name, **{"architecture": "residual", "epochs": 2, "batch_size": 16, "learning_rate": 0.02, **changes}
    )


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_equal_seeds_give_equal_weights_and_resuming_changes_nothing(tmp_path: Path):
    images, labels = stripes()
    recipe = quick("gaussian", noise_copies=1)
    whole = state(train(recipe, images, labels, classes=2, seed=5))
    calls = []

    def stop(progress):
        calls.append(progress)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, images, labels, classes=2, seed=5, checkpoint=tmp_path / "c", report=stop)
    resumed = state(train(recipe, images, labels, classes=2, seed=5, checkpoint=tmp_path / "c"))
    other = state(train(quick("gaussian", noise_copies=1, epochs=1), images, labels, classes=2, seed=6))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert any(not torch.equal(whole[k], other[k]) for k in whole)
    with pytest.raises(RunError, match="other settings"):
        train(recipe, images, labels, classes=2, seed=9, checkpoint=tmp_path / "c")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_lowers_its_loss(name):
    images, labels = stripes(96)
    losses = []
    train(
        quick(name, epochs=3, attack_steps=1 if name == "adversarial" else None), images, labels,
        classes=2, report=lambda p: losses.append(p.loss),
    )  # fmt: skip
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_consistency_term_vanishes_for_equal_predictions():
    images, labels = torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.long)

    class Constant(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 0.0]]).expand(len(x), 2)

    losses = [
        OBJECTIVES["gaussian"](
            Constant(), images, labels, make_recipe("gaussian", consistency=c, entropy=0.0), torch.Generator()
        )
        for c in (0.0, 50.0)
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_trained_folder_can_be_used(tmp_path: Path):
    from certmix.types import Dataset

    images, labels = stripes(48)

    class Read:
        def __call__(self, i):
            return images[i].float().numpy() / 255

        def everything(self):
            return images.numpy()

    data = Dataset(
        "stripes", "train", labels.numpy(), np.arange(48), ("dark", "bright"), Read(), (0.0, 1.0), "x"
    )
    card = train_to_folder(quick("standard", epochs=3), data, data, tmp_path)
    assert card.name == "stripes-standard"
    assert set(card.accuracy) == {"clean on stripes"}
    stored = json.loads((tmp_path / "stripes-standard.json").read_text())
    assert stored["recipe"]["epochs"] == 3
    loaded = load_model(str(tmp_path / "stripes-standard.json"))
    assert loaded.module(images[:2].float() / 255).shape == (2, 2)


def test_recipes_refuse_what_makes_no_sense():
    for name, changes in (
        ("magic", {}), ("gaussian", {"noise_sigma": 0.0}), ("adversarial", {"eps": -1.0}),
        ("standard", {"epochs": 0}), ("standard", {"batch_size": 1}),
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            make_recipe(name, **changes)


def test_only_colour_images_are_trained_on(tmp_path: Path):
    np.savez(tmp_path / "x.npz", inputs=np.zeros((4, 2), np.float32), labels=[0, 1, 0, 1])
    data = load(tmp_path / "x.npz")
    with pytest.raises(DataError, match="8-bit colour"):
        train_to_folder(quick("standard"), data, data, tmp_path)
