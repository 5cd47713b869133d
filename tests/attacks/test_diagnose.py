"""The look before the attack: planted faults are found, healthy models pass in silence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from certmix.attacks import ATTACKS, LOSSES
from certmix.attacks.diagnose import diagnose_gradients
from certmix.data import load, spread, stack
from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier
from certmix.models.spec import load_model

WEIGHTS = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
INPUTS = torch.rand(40, 12, generator=torch.Generator().manual_seed(4))
LABELS = (INPUTS @ WEIGHTS).argmax(1)


def linear(x):
    return x @ WEIGHTS


def diagnose(model, **settings):
    return diagnose_gradients(model, INPUTS, LABELS, **settings)


def gaps(*values):
    """Inputs and labels of the identity model whose two largest logits are so far apart."""
    inputs = torch.zeros(len(values), 3)
    inputs[:, 0] = torch.tensor(values)
    return inputs, torch.zeros(len(values), dtype=torch.long)


@pytest.fixture(scope="module")
def pictures():
    data = load("cifar10-sample")
    positions = spread(len(data), 16)
    return torch.from_numpy(stack(data, positions)), torch.from_numpy(data.labels[positions])


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.long)])
def test_shipped_models_and_their_mix_pass_in_silence(pictures, plain):
    standard, robust = (load_model(name).module for name in ("cifar10-standard", "cifar10-adversarial-linf"))
    for model in (standard, robust, MixedClassifier(standard, robust, 0.76)):
        health = diagnose_gradients(model, *pictures, plain=plain)
        assert health.messages == ()
        assert not health.blind
        assert health.inputs == 16
        assert health.vanishing == health.saturated == health.non_finite == health.one_hot == 0


@pytest.mark.parametrize(
    "model, expected",
    [
        (lambda x: linear(x).softmax(1), "look like probabilities"),
        (lambda x: F.one_hot(linear(x).argmax(1), 4).float(), "one-hot"),
        (lambda x: linear(x.detach()), "no gradient reaches the inputs"),
        (lambda x: torch.from_numpy(linear(x).numpy()), "no gradient reaches the inputs"),
        (lambda x: linear((x * 255).round() / 255), "not saturated"),
        (lambda x: linear(x).softmax(1).mul(1e-30).log() * torch.inf, "not finite"),
        (lambda x: F.one_hot(linear(x).argmax(1), 4).float().log(), "not finite"),
        (lambda x: linear(x) + 0 * (x - x).sqrt().sum(1, keepdim=True), "not finite"),
    ],
    ids=["softmax", "one-hot", "detached", "numpy", "quantised", "infinite", "log one-hot", "gradient"],
)  # fmt: skip
@pytest.mark.parametrize("attack", [name for name, one in ATTACKS.items() if not one.gradient_free])
def test_planted_faults_are_found_on_every_attacks_own_loss(model, expected, attack):
    health = diagnose(model, loss=ATTACKS[attack].loss)
    assert health.blind
    assert any(expected in message for message in health.messages)
    for message in health.messages:
        assert message.startswith("attack ") and "\n" not in message and ";" in message


SURE = {
    "x 1e5": lambda x: 1e5 * linear(x),
    "float64": lambda x: (1e5 * linear(x)).double(),
    "half": lambda x: (1e3 * linear(x)).half() * 10,
}


@pytest.mark.parametrize("model", SURE.values(), ids=SURE)
def test_a_sure_model_blinds_the_plain_cross_entropy_and_none_of_our_losses(model):
    health = diagnose(lambda x: 20 * linear(x))
    assert health.saturated > 0.5
    assert health.messages == ()
    assert any("saturated softmax" in message for message in diagnose(model, plain=True).messages)
    for loss in LOSSES:
        assert diagnose(model, loss=loss).messages == ()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_few_classes_and_wrong_inputs_are_not_called_blind(classes, loss):
    inputs = 50 * torch.randn(40, classes, generator=torch.Generator().manual_seed(classes))
    for labels in (inputs.argmax(1), inputs.argmin(1)):
        assert diagnose_gradients(lambda x: 20 * x, inputs, labels, loss=loss).messages == ()


def test_a_one_hot_standard_model_in_a_mix_is_seen_at_alpha_0_alone():
    class OneHot(nn.Module):
        def forward(self, x):
            return 1e5 * F.one_hot(linear(x).argmax(1), 4).float()

    class Linear(nn.Module):
        def forward(self, x):
            return linear(x)

    blind, mixed = (diagnose(MixedClassifier(OneHot(), Linear(), alpha)) for alpha in (0.0, 0.5))
    assert blind.detached
    assert blind.blind
    assert mixed.messages == ()


def test_a_version_divided_as_the_message_says_is_healthy():
    for factor in (1e3, 1e5, 1e9):
        [message] = diagnose(lambda x, factor=factor: factor * linear(x), plain=True).messages
        divisor = float(message.split("divided by ")[1].split(",")[0])
        healthy = diagnose(lambda x, factor=factor, divisor=divisor: factor / divisor * linear(x), plain=True)
        assert healthy.messages == ()


def test_shares_are_exact():
    inputs, labels = gaps(1.0, 15.0, 20.0, 50.0, 95.0, 150.0, 1e4, 1e4, 1e4, 1e4)
    scaled, plain = (diagnose_gradients(lambda x: x, inputs, labels, plain=plain) for plain in (False, True))
    assert scaled.saturated == plain.saturated == 0.8  # from 16.6 on, log(1 + 2 exp(-gap)) rounds to 0
    assert plain.vanishing == 0.6  # from 88 on, exp(-gap) is denormal in float32, from 104 on it is 0
    assert scaled.vanishing == 0
    assert scaled.logit_gap == 95.0
    health = diagnose_gradients(lambda x: x, *gaps(*[1.0] * 49, math.nan))
    assert health.non_finite == pytest.approx(0.02)
    assert "2 % of the inputs" in health.messages[0]
    assert health.logit_gap == 1.0
    inputs = torch.tensor([[0.0, 0.0, -math.inf], [0.0, 1.0, 2.0]])  # a log-probability of minus infinity
    health = diagnose_gradients(lambda x: x, inputs, torch.tensor([0, 2]))
    assert health.saturated == health.non_finite == 0.5


def test_one_vanishing_gradient_of_twenty_is_tolerated_and_two_are_not():
    def dead_at_zero(x):
        return linear(x) * x.any(1, keepdim=True)

    inputs, labels = INPUTS[:20].clone(), LABELS[:20].clone()
    for dead, blind in ((1, False), (2, True)):
        inputs[:dead], labels[:dead] = 0, 0
        health = diagnose_gradients(dead_at_zero, inputs, labels)
        assert health.vanishing == dead / 20
        assert health.blind == blind


def test_batches_change_nothing_and_nothing_is_left_behind():
    model = nn.Linear(12, 4)
    with torch.no_grad():
        whole = diagnose_gradients(model, INPUTS, LABELS)
    assert whole.messages == ()
    parts = diagnose_gradients(model, INPUTS, LABELS, batch_size=7)
    assert parts.logit_gap == pytest.approx(whole.logit_gap, rel=1e-5)
    assert parts.inputs == whole.inputs
    assert model.weight.grad is None
    assert INPUTS.grad is None
    with pytest.raises(ParameterError, match="0 inputs"):
        diagnose_gradients(linear, INPUTS[:0], LABELS[:0])
    with pytest.raises(ParameterError, match="40 inputs and 3 labels"):
        diagnose_gradients(linear, INPUTS, LABELS[:3])
