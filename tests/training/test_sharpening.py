"""Logits are scaled just enough for the mix, and no class changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.margins import margin_lower
from certmix.training import make_recipe
from certmix.training.intervals import scale_for, sharpen

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


def test_enough_images_reach_mu_and_classes_stay():
    torch.manual_seed(0)
    net = Net().eval()
    images = torch.randint(0, 256, (200, 3, 2, 2), dtype=torch.uint8)
    x = images.float() / 255
    labels = net(x).argmax(1)
    scale = sharpen(net, images, labels, 1 / 255, 0.76)
    assert scale > 1
    assert (net(x).argmax(1) == labels).all()
    margins = margin_lower(net, x, labels, "linf", 1 / 255, method="interval")
    verified = margins > 0
    assert verified.sum() > 50
    assert 0.9 <= (margins[verified] >= MU).mean() < 0.97


def test_what_cannot_be_sharpened_is_refused():
    with pytest.raises(ModelError, match="no linear layer 'head'"):
        sharpen(nn.Linear(2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1), 0.1, 0.76)
    with pytest.raises(ParameterError, match="sharpen alpha = 0.4"):
        make_recipe("interval", sharpen_alpha=0.4)
    with pytest.raises(ParameterError, match="to the interval recipe"):
        make_recipe("standard", sharpen_alpha=0.76)
