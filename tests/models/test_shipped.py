"""The shipped models do what their cards say, also under attack in the balls that bound propagation verified."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import worst_mix

from certmix.attacks import apgd
from certmix.data import load, stack
from certmix.margins.propagation import certified_radius, logit_differences_lower, margin_lower
from certmix.models.zoo import ZOO_FOLDER, load_zoo, shipped_for, zoo_card, zoo_names
from certmix.radii.constant import margin_threshold
from certmix.sampling.bands import random_bands
from certmix.sampling.splitting import random_splits
from certmix.types import Status

ALPHA = 0.76


SHOWN = {"splitting": random_splits, "bands": random_bands}
DENOISERS = [name for name in zoo_names() if zoo_card(name).classes is None]


@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_model_does_what_its_card_says(name):
    sample, card = load("cifar10-sample"), zoo_card(name)
    model, inputs, how = load_zoo(name), torch.from_numpy(stack(sample, range(0, 500, 5))), "clean"
    if card.recipe["name"] in SHOWN:  # a case of each input, which is what they are for
        how, rng = "noisy", torch.Generator().manual_seed(0)
        inputs = SHOWN[card.recipe["name"]](inputs, card.recipe["scale"], rng)
    with torch.inference_mode():
        answers = model(inputs)
        logits = load_zoo(card.recipe["classifier"])(answers) if name in DENOISERS else answers
    assert answers.shape == (inputs.shape if name in DENOISERS else (100, card.classes))
    assert logits.isfinite().all()
    accuracy = float((logits.argmax(1).numpy() == sample.labels[::5]).mean())
    assert abs(accuracy - card.accuracy[f"{how} on cifar10-sample"]) < 0.12
    assert card.name == name and card.data.startswith("cifar10 train") and card.input_range == (0.0, 1.0)
    assert card.class_names == (None if name in DENOISERS else sample.class_names)
    assert card.recipe and card.epochs > 0
    assert all(value > 0.1 for value in card.accuracy.values())
    assert (ZOO_FOLDER / f"{name}.safetensors").stat().st_size <= 4_000_000


def test_every_role_is_shipped_and_every_weights_file_has_its_card():
    assert set(zoo_names()) >= {"cifar10-standard", "cifar10-gaussian-0.50", "cifar10-denoiser-0.50"}
    assert sorted(path.stem for path in ZOO_FOLDER.glob("*.safetensors")) == zoo_names()
    assert list(shipped_for()) == sorted(shipped_for())
    noisy = [name for name in zoo_names() if zoo_card(name).noise_sigma is not None]
    assert list(shipped_for().values()) == [name for name in noisy if name not in DENOISERS]


def some(count):
    return torch.from_numpy(stack(load("cifar10-sample"), range(count)))


def test_attacks_flip_the_mix_but_not_within_a_verified_radius():
    def flips(k, eps):
        return worst_mix.flips(h, x[k], int(y[k]), "linf", eps, alpha=ALPHA, steps=10)

    h, x = load_zoo("cifar10-interval-linf").requires_grad_(False), some(6)
    y = h(x).argmax(1)
    assert any(flips(k, 32 / 255) for k in range(3))
    found = certified_radius(
        h, x, y, "linf", margin_threshold(ALPHA), max_eps=4 / 255, tolerance=1 / 510, input_range=(0.0, 1.0)
    )
    certified = np.flatnonzero(found.status == Status.CERTIFIED)
    assert len(certified) >= 2
    for k in certified[:2].tolist():
        assert not flips(k, float(found.radius[k]) * (1 - 1e-6))


@pytest.mark.parametrize(
    "name, eps", [("cifar10-adversarial-linf", 1e-4), ("cifar10-interval-linf", 2 / 255)]
)
def test_attacked_points_lie_above_the_bounds(name, eps):
    """The radii of the adversarially trained model are 0: its bounds are loose, not wrong."""

    def differences(points):
        z = h(points.double()).numpy()
        return (z[range(3), y][:, None] - z)[np.arange(10)[None] != y.numpy()[:, None]].reshape(3, 9)

    h, x = load_zoo(name).requires_grad_(False), some(3)
    y = h(x).argmax(1)
    bounds = logit_differences_lower(h, x, y, "linf", eps, method="interval", input_range=(0.0, 1.0))
    found = apgd(h, x, y, "linf", eps, steps=10, generator=torch.Generator().manual_seed(0))
    h.double()
    assert (bounds <= differences(found)).all()
    assert (differences(found) < differences(x)).any()


def test_the_model_for_bound_propagation_certifies_what_its_card_says():
    card = zoo_card("cifar10-interval-linf")
    assert card.recipe["name"] == "interval"
    h, x, labels = load_zoo(card.name), some(60), load("cifar10-sample").labels[:60]
    y = h(x).argmax(1).numpy()
    margins = margin_lower(h, x, y, "linf", 1 / 255, method="interval", input_range=(0.0, 1.0))
    robust, mixed = (
        (y == labels) & (margins >= bound) & (margins > 0) for bound in (0.0, margin_threshold(ALPHA))
    )
    assert robust.mean() >= 0.25
    assert mixed.mean() >= 0.2
