"""SmoothedClassifier: predictions that abstain, certificates that hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import certmix
from certmix.errors import ModelError, ParameterError
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


def test_kinds_of_inputs_give_the_same_certificates():
    kinds = (
        POINTS.double(),
        POINTS.numpy(),
        POINTS.double().numpy(),
        POINTS.tolist(),
        POINTS.T.contiguous().T,
    )
    first = certmix.SmoothedClassifier(sign(), 0.5).certify(POINTS, 300)
    for given in (*kinds, POINTS.clone().requires_grad_()):
        smooth = certmix.SmoothedClassifier(sign(), 0.5, classes=2)
        found = smooth.certify(given, 300)
        np.testing.assert_array_equal(found.classes, first.classes)
        np.testing.assert_array_equal(found.radii.radius, first.radii.radius)
        assert smooth.predict(given, 300).classes[:2].tolist() == [0, 1]


@pytest.mark.parametrize("classes", [None, 2])
@pytest.mark.parametrize("base", [sign, lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2))])
def test_one_input_is_a_batch_of_one_and_none_is_none(base, classes):
    torch.manual_seed(0)
    net = base()
    one = POINTS[0] if isinstance(net, nn.Linear) else torch.linspace(0, 1, 12).view(3, 2, 2)
    alone = certmix.SmoothedClassifier(net, 0.5, classes=classes)
    batch = certmix.SmoothedClassifier(net, 0.5, classes=classes)
    np.testing.assert_array_equal(alone.counts(one, 200), batch.counts(one[None], 200))
    np.testing.assert_array_equal(alone.counts(one[None], 200), batch.counts(one, 200))
    for smooth in (alone, certmix.SmoothedClassifier(net, 0.5, classes=classes)):
        assert smooth.counts(one[None][:0], 200).shape == (0, 2)
        assert smooth.predict(one[None][:0], 200).classes.shape == (0,)
        certificates = smooth.certify(one[None][:0], 200)
        assert certificates.classes.shape == certificates.radii.radius.shape == (0,)
    with pytest.raises(ParameterError, match="dimensions before: give"):
        alone.counts(one[None, None], 200)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((POINTS * 255).byte(), "inputs are uint8 of shape .*in the units of sigma, such as pixels"),
        (POINTS.long().numpy(), "inputs are int64"),
        (POINTS > 0, "inputs are bool"),
        (POINTS.to(torch.complex64), "inputs are complex64"),
        (torch.tensor(1.0), "of shape \\(\\): give floating point"),
        ("text", "inputs of type str are no numbers"),
        (None, "inputs of type NoneType are no numbers"),
        ([[1.0], [1.0, 2.0]], "inputs of type list are no numbers"),
        (np.array([object()]), "inputs of type ndarray are no numbers"),
    ],
)
def test_what_is_no_floating_point_is_refused(given, message):
    smooth = certmix.SmoothedClassifier(sign(), 0.5, classes=2)
    for ask in (smooth.counts, smooth.predict, smooth.certify):
        with pytest.raises(ParameterError, match=message):
            ask(given, 100)
    with pytest.raises(ModelError, match="fails on inputs"):
        smooth.predict(torch.zeros(3, 5), 100)


def test_an_exported_program_is_taken():
    program = torch.export.export(
        sign().eval(), (POINTS,), dynamic_shapes=({0: torch.export.Dim("n", max=64)},)
    ).module()
    exported = certmix.SmoothedClassifier(program, 0.5).counts(POINTS, 300)
    np.testing.assert_array_equal(exported, certmix.SmoothedClassifier(sign(), 0.5).counts(POINTS, 300))


def test_training_mode_is_left():
    base = nn.Sequential(sign(), nn.Dropout(0.9)).train()
    smooth = certmix.SmoothedClassifier(base, 0.5)
    assert not base.training
    assert smooth.counts(POINTS[1:2], 200)[0, 1] > 180
