"""The nonlinear mix and its surrogates: closed forms, ties, gradients, and how often base models run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain_nuts import softmax, transformed
from torch import nn

from certmix.attacks import pgd
from certmix.errors import ModelError, ParameterError
from certmix.models.mixture import mix_logits
from certmix.nuts import NonlinearTransform
from certmix.nuts.adaptive import AuxiliaryMixture, direct_bypass
from certmix.nuts.mixture import NutsMixture, TransformedRobust

S, P, C = 1.3, 2.5, -0.4


class Fixed(nn.Module):
    """Gives the same logits whatever comes, and counts how often it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.passes = torch.as_tensor(logits), 0

    def forward(self, inputs):
        self.passes += 1
        return self.logits


class Counted(nn.Linear):
    passes = 0

    def forward(self, inputs):
        self.passes += 1
        return super().forward(inputs)


def linear(seed, inputs=6, classes=5, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    net = Counted(inputs, classes)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return net.eval().requires_grad_(False)


def points(seed=0, number=7, inputs=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, inputs, generator=generator).to(dtype)


def mixture(alpha=0.9, temperature=0.0, scale=1.0, s=S, p=P, c=C):
    parts = linear(1, scale=scale), linear(2, scale=scale)
    return NutsMixture(*parts, NonlinearTransform(s, p, c), alpha, temperature).eval()


G = np.array([[2.0, 1.0, -1.0, 0.5], [0.0, 3.0, 3.0, 3.0], [-1.0, -1.0, -1.0, -1.0]])
H = np.array([[0.1, 2.0, 1.5, -1.0], [0.3, -0.2, 0.1, 4.0], [5.0, -5.0, 0.0, 1.0]])
ONE_HOT = np.eye(4)[[0, 1, 0]]  # the lowest of the largest


def fixed(alpha, temperature, dtype=torch.float64):
    parts = Fixed(torch.tensor(G, dtype=dtype)), Fixed(torch.tensor(H, dtype=dtype))
    return NutsMixture(*parts, NonlinearTransform(S, P, C), alpha, temperature)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.76, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 3.0])
def test_the_mix_in_closed_form(alpha, temperature):
    if alpha == temperature == 0.0:
        return  # refused: see below
    g = softmax(G / temperature) if temperature else ONE_HOT
    expected = np.log((1 - alpha) * g + alpha * softmax(transformed(H, S, P, C)))
    found = fixed(alpha, temperature)(torch.zeros(3, 1))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1.0, 1e307])
@pytest.mark.parametrize("temperature", [0.0, 1e-6, 1e6])
def test_extreme_logits_and_weights_give_finite_outputs_and_gradients(size, temperature):
    for alpha in (0.0 if temperature else 0.1, 1e-300, 0.5, 1 - 1e-16, 1.0):
        for s, p in ((1e6, 32.0), (1e-3, 0.2)):
            g, h = (size * torch.tensor(one) / 8 for one in (G, H))
            g.requires_grad_(), h.requires_grad_()
            net = NutsMixture(nn.Identity(), nn.Identity(), NonlinearTransform(s, p, C), alpha, temperature)
            mixed = net.mix(g, h)
            assert mixed.isfinite().all()
            mixed.log_softmax(-1).sum().backward()
            assert all(one.grad is None or one.grad.isfinite().all() for one in (g, h))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_steep_transform_overflows_no_narrow_gradient(dtype):
    logits = torch.linspace(0, 3, 50).to(dtype).repeat(2, 1)
    logits[1] = 0.0
    transform = NonlinearTransform(1e6, 32.0, 100.0, "linear")
    narrow, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    net = TransformedRobust(nn.Identity(), transform)
    for leaf in (narrow, wide):
        net(leaf).log_softmax(-1)[:, 0].sum().backward()
    assert wide.grad[0].abs().max() > torch.finfo(dtype).max, "or the test shows nothing"
    assert narrow.grad.isfinite().all()
    assert narrow.grad[0].norm() > 0
    steepest = narrow.grad[0].abs().max().double()
    assert steepest.item() == pytest.approx(math.sqrt(torch.finfo(dtype).max), rel=0.01)
    similar = nn.functional.cosine_similarity(narrow.grad[0].double(), wide.grad[0], dim=0)
    assert similar.item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_of_either_model_shows(temperature):
    good, bad = torch.zeros(1, 3), torch.tensor([[0.0, math.nan, 1.0]])
    assert mix_logits(bad, good, 0.7, temperature).isnan().any()
    assert mix_logits(good, bad, 0.7, temperature).isnan().any()
    endless = torch.tensor([[0.0, math.inf, 1.0]])
    assert mix_logits(endless, good, 0.7, temperature).isnan().any()


def test_gradients_are_those_of_differences():
    h, g = torch.tensor(H[:2]).requires_grad_(), torch.tensor(G[:2])
    transform = NonlinearTransform(S, P, C)
    cold = NutsMixture(nn.Identity(), nn.Identity(), transform, 0.7)
    warm = NutsMixture(nn.Identity(), nn.Identity(), transform, 0.7, 0.5)
    assert torch.autograd.gradcheck(lambda z: cold.mix(g, z), h)
    assert torch.autograd.gradcheck(warm.mix, (g.clone().requires_grad_(), h))


@pytest.mark.parametrize(
    "alpha,temperature,message",
    [(-0.1, 1.0, "alpha = -0.1: the mixing weight"), (1.1, 0.0, "alpha = 1.1"), (math.nan, 0.0, "alpha = nan"),
     (0.5, -1.0, "temperature = -1.0: give 0"), (0.5, 1e-9, "temperature = 1e-09"), (0.5, math.nan, "temperature"),
     (0.0, 0.0, "alpha = 0 at standard temperature 0: .*no finite logarithm: raise one")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(alpha, temperature, message):
    with pytest.raises(ParameterError, match=message):
        mixture(alpha, temperature)
    with pytest.raises(ParameterError, match=message):
        mix_logits(torch.tensor(G), torch.tensor(H), alpha, temperature)


def test_models_of_different_classes_are_refused():
    other = NutsMixture(linear(1), linear(2, classes=4), NonlinearTransform(S, P, C), 0.9)
    with pytest.raises(ModelError, match=r"\(7, 5\).*\(7, 4\)"):
        other(points())
    auxiliary = AuxiliaryMixture(linear(1), linear(2, classes=4), NonlinearTransform(S, P, C), alpha_d=0.9)
    with pytest.raises(ModelError, match=r"\(7, 5\).*\(7, 4\)"):
        auxiliary(points())


# The auxiliary mix and the bypass.


@pytest.mark.parametrize("alpha_d", [0.0, 0.3, 0.957, 1.0])
@pytest.mark.parametrize("r_d", [0.0, 0.5, 0.9, 1.0])
def test_the_auxiliary_mix_in_closed_form(alpha_d, r_d):
    parts = Fixed(torch.tensor(G)), Fixed(torch.tensor(H))
    net = AuxiliaryMixture(*parts, NonlinearTransform(S, P, C), alpha_d=alpha_d, r_d=r_d)
    robust = r_d * softmax(H) + (1 - r_d) * softmax(transformed(H, S, P, C))
    expected = np.log((1 - alpha_d) * softmax(G) + alpha_d * robust)
    found = net(torch.zeros(3, 1))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert [part.passes for part in parts] == [1, 1]


@pytest.mark.parametrize("change", [{"alpha_d": -0.1}, {"alpha_d": math.nan}, {"r_d": 1.1}])
def test_weights_of_the_auxiliary_out_of_range_are_refused(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        direct_bypass(mixture(), **{"alpha_d": 0.9, **change})


def test_auxiliary_gradients_are_those_of_differences_and_reach_both_models():
    g, h = (torch.tensor(one[:2]).requires_grad_() for one in (G, H))
    net = direct_bypass(fixed(0.99, 0.0), 0.957).auxiliary
    assert torch.autograd.gradcheck(net.mix, (g, h))
    net.mix(g, h)[:, 0].sum().backward()
    assert g.grad.abs().min() > 0
    assert h.grad.abs().min() > 0


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("r_d", [0.0, 0.9])
def test_the_bypass_has_the_values_of_the_mix_and_the_gradient_of_the_auxiliary(scale, temperature, r_d):
    net = mixture(0.999, temperature, scale, s=5.0, p=4.0, c=-1.1)
    bypass = direct_bypass(net, 0.957, r_d)
    left, right = points().requires_grad_(), points().requires_grad_()
    weights = points(5, 7, 5, torch.float64)
    value, surrogate = bypass(left), bypass.auxiliary(right)
    assert torch.equal(value, net(left))
    assert not torch.equal(value, surrogate)
    (value * weights).sum().backward()
    (surrogate * weights).sum().backward()
    assert left.grad.abs().sum() > 0
    assert torch.equal(left.grad, right.grad)
    with torch.no_grad():
        assert torch.equal(bypass(left), net(left))
    with torch.inference_mode():
        assert torch.equal(bypass(points()), value)


def test_base_models_run_once_a_pass():
    net = mixture()
    bypass = direct_bypass(net, 0.9)
    models = net.standard, net.robust
    for one in (net, bypass.auxiliary, bypass):
        for x in (points(), points().requires_grad_()):
            for model in models:
                model.passes = 0
            one(x)
            assert [model.passes for model in models] == [1, 1]
    alone = TransformedRobust(net.robust, net.transform)
    net.robust.passes = 0
    alone(points())
    assert net.robust.passes == 1


def test_gradients_one_input_at_a_time():
    """torch.func sees through the custom gradients: vmap of grad is the batch's gradient."""
    bypass, x = direct_bypass(mixture(), 0.9), points()
    each = torch.func.vmap(torch.func.grad(lambda one: bypass(one).log_softmax(-1)[0]))(x)
    leaf = x.clone().requires_grad_()
    bypass(leaf).log_softmax(-1)[:, 0].sum().backward()
    assert torch.allclose(each, leaf.grad, rtol=1e-5, atol=1e-7)


def hidden():
    """A mix whose answer is the standard model's, for the robust one is unsure everywhere."""
    standard, robust = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        standard.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 0.0]]))
        robust.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, -1.0]]))
        standard.bias.copy_(torch.tensor([-2.0, 2.0]))
        robust.bias.copy_(torch.tensor([-0.5, 0.5]))
    transform = NonlinearTransform(0.1, 1.0, 0.0, "linear")
    return NutsMixture(standard, robust, transform, 0.6).eval().requires_grad_(False)


def test_an_attack_through_the_bypass_finds_what_the_mix_hides():
    net = hidden()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(64, 2, generator=generator)
    inputs[:, 0] = 0.5 + 0.1 * inputs[:, 0] + 0.01
    labels = net(inputs).argmax(1)
    assert (labels == 0).all()
    held = {}
    for name, model in (("mix", net), ("bypass", direct_bypass(net, 0.6))):
        found = pgd(model, inputs, labels, "linf", 0.2, steps=10, generator=torch.Generator().manual_seed(1))
        held[name] = (net(found).argmax(1) == labels).double().mean().item()
    assert held["bypass"] == 0.0
    assert held["mix"] > 0.5
