"""The shipped networks under attack inside the balls that bound propagation verified for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import worst_mix

from certmix.attacks import apgd
from certmix.data import load, load_arrays
from certmix.margins.propagation import certified_radius, logit_differences_lower, margin_lower
from certmix.models.zoo import load_zoo, zoo_card
from certmix.radii.constant import margin_threshold
from certmix.types import Status

ALPHA = 0.76


def some(count: int):
    inputs, labels = load_arrays(load("cifar10-sample", "test"))
    return torch.from_numpy(inputs[:count]).float() / 255, labels[:count]


def flips(h, x, y: int, eps: float) -> bool:
    return worst_mix.flips(h, x, y, "linf", eps, alpha=ALPHA, steps=10)


def test_no_attack_within_a_verified_radius_flips_the_mix():
    h = load_zoo("cifar10-interval-linf").requires_grad_(False)
    x, _ = some(6)
    y = h(x).argmax(1)
    found = certified_radius(
        h, x, y, "linf", margin_threshold(ALPHA), max_eps=4 / 255, tolerance=1 / 510, input_range=(0.0, 1.0)
    )
    certified = np.flatnonzero(found.status == Status.CERTIFIED)
    assert len(certified) >= 2
    for k in certified[:2].tolist():
        assert not flips(h, x[k], int(y[k]), float(found.radius[k]) * (1 - 1e-6))


@pytest.mark.parametrize(
    "name, eps", [("cifar10-adversarial-linf", 1e-4), ("cifar10-interval-linf", 2 / 255)]
)
def test_attacked_points_lie_above_the_bounds(name, eps):
    """The radii of the adversarially trained model are 0: its bounds are loose, not wrong."""
    h = load_zoo(name).requires_grad_(False)
    x, _ = some(3)
    y = h(x).argmax(1)
    bounds = logit_differences_lower(h, x, y, "linf", eps, method="interval", input_range=(0.0, 1.0))
    found = apgd(h, x, y, "linf", eps, steps=10, generator=torch.Generator().manual_seed(0))
    z = h.double()(found.double()).numpy()
    rows = np.arange(len(y))
    differences = (z[rows, y][:, None] - z)[np.arange(10)[None] != y.numpy()[:, None]].reshape(3, 9)
    assert (bounds <= differences).all()
    clean = h(x.double()).numpy()
    gaps = (clean[rows, y][:, None] - clean)[np.arange(10)[None] != y.numpy()[:, None]].reshape(3, 9)
    assert (differences < gaps).any()


def test_the_attack_flips_what_is_not_certified():
    h = load_zoo("cifar10-interval-linf").requires_grad_(False)
    x, _ = some(12)
    y = h(x).argmax(1)
    assert any(flips(h, x[k], int(y[k]), 32 / 255) for k in range(3))


def test_the_model_for_bound_propagation_certifies_what_its_card_says():
    card = zoo_card("cifar10-interval-linf")
    assert card.recipe["name"] == "interval"
    h = load_zoo(card.name)
    x, labels = some(60)
    y = h(x).argmax(1).numpy()
    margins = margin_lower(h, x, y, "linf", 1 / 255, method="interval", input_range=(0.0, 1.0))
    robust, mixed = (
        (y == labels) & (margins >= bound) & (margins > 0) for bound in (0.0, margin_threshold(ALPHA))
    )
    assert robust.mean() >= 0.25
    assert mixed.mean() >= 0.2
