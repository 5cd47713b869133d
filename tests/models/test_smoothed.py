"""SmoothedClassifier: predictions that abstain, certificates that hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import certmix
from certmix.types import Status


def sign() -> nn.Module:
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        net.bias.zero_()
    return net


POINTS = torch.tensor([[0.5, 0.0], [-0.9, 0.3], [0.0, 0.0]])


def test_it_abstains_on_the_boundary_only():
    predictions = certmix.SmoothedClassifier(sign(), 0.5).predict(POINTS, 500)
    assert predictions.established.tolist() == [True, True, False]
    assert predictions.classes[:2].tolist() == [0, 1]


@pytest.mark.parametrize("alpha", [1.0, 0.76])
def test_certified_radii_stay_below_the_true_distance(alpha):
    certificates = certmix.SmoothedClassifier(sign(), 0.5, seed=3).certify(POINTS, 4000, alpha=alpha)
    limits = 0.5 * (norm.ppf(norm.cdf(np.abs(POINTS[:, 0].numpy()) / 0.5)) - norm.ppf(1 / (2 * alpha)))
    assert np.all(certificates.radii.radius <= np.maximum(limits, 0))
    assert np.all(certificates.radii.radius[:2] > 0.5 * limits[:2])
    assert certificates.classes[:2].tolist() == [0, 1]
    assert certificates.radii.status[2] != Status.CERTIFIED


def test_the_seed_decides():
    smooth = [certmix.SmoothedClassifier(sign(), 0.5, seed=s).counts(POINTS, 300) for s in (0, 0, 1)]
    np.testing.assert_array_equal(smooth[0], smooth[1])
    assert np.any(smooth[0] != smooth[2])


def test_training_mode_is_left():
    base = nn.Sequential(sign(), nn.Dropout(0.9)).train()
    smooth = certmix.SmoothedClassifier(base, 0.5)
    assert not base.training
    assert smooth.counts(POINTS[1:2], 200)[0, 1] > 180
