"""The mixed classifier: its formula, its extremes, and Lemma 3.2 on real modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import certmix
from certmix.errors import ModelError, ParameterError
from certmix.models.mixture import MixedClassifier, mix_logits


class Fixed(nn.Module):
    """Gives the same logits for every input."""

    def __init__(self, logits) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_it_is_the_logarithm_of_the_mixture():
    g, h = torch.randn(5, 4), torch.randn(5, 4)
    expected = (0.24 * g.double().softmax(1) + 0.76 * h.double().softmax(1)).log()
    torch.testing.assert_close(mix_logits(g, h, 0.76), expected, rtol=1e-12, atol=1e-12)


def test_differences_below_float32_still_order_the_classes():
    h = torch.tensor([[0.0, 100.0, 90.0]])
    mixed = mix_logits(torch.tensor([[0.0, 100.0, 0.0]]), h, 0.76)
    assert mixed[0, 2] > mixed[0, 0]
    assert "alpha=0.76" in repr(certmix.MixedClassifier(Fixed([1.0]), Fixed([1.0]), 0.76))


def test_a_worst_case_standard_classifier_flips_exactly_below_the_margin():
    """h has margin 0.4; mu = (1 - alpha) / alpha crosses it at alpha = 1 / 1.4."""
    h = Fixed(np.log([0.7, 0.3]))
    worst = Fixed([-50.0, 50.0])
    x, threshold = torch.zeros(1, 1), 1 / 1.4
    assert MixedClassifier(worst, h, threshold + 1e-3)(x).argmax() == 0
    assert MixedClassifier(worst, h, threshold - 1e-3)(x).argmax() == 1


def test_errors():
    with pytest.raises(ParameterError, match=r"1\.2"):
        MixedClassifier(Fixed([0.0]), Fixed([0.0]), 1.2)
    with pytest.raises(ParameterError):
        mix_logits(torch.zeros(2), torch.zeros(2), float("nan"))
    with pytest.raises(ModelError, match="equal classes"):
        MixedClassifier(Fixed([0.0, 1.0]), Fixed([0.0, 1.0, 2.0]), 0.5)(torch.zeros(1, 1))
