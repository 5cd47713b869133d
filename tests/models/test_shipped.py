"""The shipped models do what their cards say."""

from __future__ import annotations

import pytest
import torch

from certmix.data import load, stack
from certmix.models.zoo import ZOO_FOLDER, gaussian_names, load_zoo, zoo_card, zoo_names


@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_model_does_what_its_card_says(name):
    sample, card = load("cifar10-sample"), zoo_card(name)
    model, inputs = load_zoo(name), torch.from_numpy(stack(sample, range(0, 500, 5)))
    with torch.inference_mode():
        logits = model(inputs)
    assert logits.shape == (100, card.classes) and logits.isfinite().all()
    accuracy = float((logits.argmax(1).numpy() == sample.labels[::5]).mean())
    assert abs(accuracy - card.accuracy["clean on cifar10-sample"]) < 0.12
    assert (card.name, card.data, card.input_range) == (name, "cifar10 train", (0.0, 1.0))
    assert card.class_names == sample.class_names and card.recipe and card.epochs > 0
    assert all(value > 1 / card.classes for value in card.accuracy.values())
    assert (ZOO_FOLDER / f"{name}.safetensors").stat().st_size <= 4_000_000


def test_every_role_is_shipped_and_every_weights_file_has_its_card():
    assert set(zoo_names()) >= {"cifar10-standard", "cifar10-gaussian-0.50"}
    assert (
        sorted(path.name.removesuffix(".safetensors") for path in ZOO_FOLDER.glob("*.safetensors"))
        == zoo_names()
    )
    assert list(gaussian_names()) == sorted(gaussian_names())
    assert list(gaussian_names().values()) == [n for n in zoo_names() if zoo_card(n).noise_sigma is not None]
