"""The shipped models do what their cards say."""

from __future__ import annotations

import pytest
import torch

from certmix.data import load, stack
from certmix.models.zoo import ZOO_FOLDER, gaussian_names, load_zoo, zoo_card, zoo_names


@pytest.mark.parametrize("name", zoo_names())
def test_clean_accuracy_is_what_the_card_says(name):
    sample = load("cifar10-sample")
    model, inputs = load_zoo(name), torch.from_numpy(stack(sample, range(0, 500, 5)))
    with torch.inference_mode():
        accuracy = float((model(inputs).argmax(1).numpy() == sample.labels[::5]).mean())
    card = zoo_card(name)
    assert abs(accuracy - card.accuracy["clean on cifar10-sample"]) < 0.12
    assert card.data == "cifar10 train"


def test_every_role_is_shipped_and_every_weights_file_has_its_card():
    assert set(zoo_names()) >= {"cifar10-standard", "cifar10-gaussian-0.50"}
    assert (
        sorted(path.name.removesuffix(".safetensors") for path in ZOO_FOLDER.glob("*.safetensors"))
        == zoo_names()
    )
    assert list(gaussian_names()) == sorted(gaussian_names())
    assert list(gaussian_names().values()) == [n for n in zoo_names() if zoo_card(n).noise_sigma is not None]
