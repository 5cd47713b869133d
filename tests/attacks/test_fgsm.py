"""FGSM: exact on linear models, in two forward passes and one backward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacked import Counting, best_offset, linear, outside, small_images, small_net

from certmix.attacks import fgsm, pgd
from certmix.attacks.geometry import distance


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [0.05, 0.4, 0.9, 4.0])
def test_it_is_the_optimum_of_a_linear_model_in_ball_and_box(norm, eps):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    images = torch.rand(6, 8, generator=generator, dtype=torch.float64)
    images[:, 0], images[:, 1] = 0.0, 1.0
    model, labels = linear(weight, (50.0, 0.0, -50.0)), torch.zeros(6, dtype=torch.long)
    found = fgsm(model, images, labels, norm, eps, loss="margin")
    assert outside(found, images, norm, eps) == []
    slope = (weight[1] - weight[0]).numpy()
    for image, point in zip(images.numpy(), found.numpy(), strict=True):
        best = slope @ best_offset(slope, image, norm, eps)
        assert slope @ (point - image) == pytest.approx(best, rel=1e-9)


def test_inside_the_box_it_steps_along_the_dual_direction():
    weight = torch.tensor([[0.0, 0.0, 0.0], [3.0, -4.0, 0.5]])
    model, images, labels = linear(weight, (9.0, 0.0)), torch.full((1, 3), 0.5), torch.tensor([0])
    slope = weight[1].double().numpy()
    expected = {
        "linf": 0.1 * np.sign(slope),
        "l2": 0.1 * slope / np.linalg.norm(slope),
        "l1": [0.0, -0.1, 0.0],
    }
    for norm, offset in expected.items():
        found = fgsm(model, images.double(), labels, norm, 0.1)
        np.testing.assert_allclose((found[0] - 0.5).numpy(), offset, atol=1e-12)


def test_it_takes_two_forward_passes_and_restarts_two_more():
    model, images = Counting(small_net()), small_images(4)
    labels = model.module(images).argmax(1)
    fgsm(model, images, labels, eps=1e-4)
    assert model.gradients == [True, False]
    fgsm(model, images, labels, eps=1e-4, restarts=3)
    assert model.gradients[2:] == [True, False] * 3


def test_an_image_that_is_misclassified_stays_as_it_is():
    model, images = small_net(), small_images(6)
    labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 5
    for attack in (fgsm, pgd):
        moved = distance(attack(model, images, labels, eps=1e-3), images, "linf")
        assert (moved == 0).tolist() == [False, False, True, False, False, False]
        moved = distance(attack(model, images, labels, eps=1e-3, early_stop=False), images, "linf")
        assert torch.all(moved > 0)
