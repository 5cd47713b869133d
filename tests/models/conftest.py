"""A card to write small models with."""

import pytest
from msgspec.structs import replace

from certmix.models.zoo import Card


@pytest.fixture(scope="session")
def make_card():
    def make(name="tiny", **changes):
        card = Card(
            name=name, architecture="residual", classes=10, class_names=None, input_shape=(3, 16, 16),
            input_range=(0.0, 1.0), noise_sigma=None, recipe={"name": "standard", "eps": 0.0}, seed=3,
            data="made up", data_checksum="0" * 64, epochs=1, precision="fp32", accuracy={"test": 0.5},
        )  # fmt: skip
        return replace(card, **changes)

    return make
