"""The mix and its trust terms: closed forms by hand, gradients through R_i, limits, saturation, Lemma 3.2."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.models.mixture import MixedClassifier, mix_logits, mix_outputs
from certmix.models.trust import TRUSTS, log_trust_values, trusted_outputs

NORMS = ("linf", "l2", "l1")
FORMS = ("probabilities", "logits")
GRADIENT_TRUSTS = [name for name in TRUSTS if name != "constant"]
WAYS = list(itertools.product(TRUSTS, FORMS))
SETTINGS = list(itertools.product(TRUSTS, FORMS, NORMS))
ORDERS = {"linf": 1, "l2": 2, "l1": np.inf}


class Linear(nn.Module):
    """Logits W x + b, with their values and Jacobian in numpy."""

    def __init__(self, weight, bias) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float64), requires_grad=False)
        self.bias = nn.Parameter(torch.as_tensor(bias, dtype=torch.float64), requires_grad=False)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias

    def by_hand(self, x):
        weight = self.weight.detach().numpy()
        return weight @ x + self.bias.detach().numpy(), weight


class Quadratic(Linear):
    """Logits (w_i . x)^2 / 2 + b_i."""

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T) ** 2 / 2 + self.bias

    def by_hand(self, x):
        weight, bias = self.weight.detach().numpy(), self.bias.detach().numpy()
        return (weight @ x) ** 2 / 2 + bias, (weight @ x)[:, None] * weight


class Constant(nn.Module):
    """The same logits for every input; with `touched`, by way of the input."""

    def __init__(self, logits, touched=False) -> None:
        super().__init__()
        self.register_buffer("logits", torch.as_tensor(logits, dtype=torch.float64))
        self.touched = touched

    def forward(self, x):
        logits = self.logits.expand(len(x), -1)
        return logits + 0 * x.flatten(1).sum(1, keepdim=True) if self.touched else logits


class Detaching(Linear):
    def forward(self, x):
        return super().forward(x.detach())


def pair(kind=Linear, classes=4, features=6, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda: kind(rng.normal(size=(classes, features)), rng.normal(size=classes))  # noqa: E731
    return draw(), draw()


def points(count=3, features=6, seed=1, requires_grad=False):
    values = np.random.default_rng(seed).normal(size=(count, features))
    return torch.from_numpy(values).requires_grad_(requires_grad)


def outputs_by_hand(model, x, form):
    """Outputs and their Jacobian (classes, features) at one point, in numpy."""
    logits, jacobian = model.by_hand(x)
    if form == "logits":
        return logits, jacobian
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    return p, (np.diag(p) - np.outer(p, p)) @ jacobian


def trust_by_hand(g, h, trust, norm):
    def length(rows):
        return np.linalg.norm(rows, ORDERS[norm], axis=1)

    if trust == "constant":
        return np.ones(len(g[0]))
    if trust == "max-gradient":
        return np.full(len(g[0]), length(g[1])[g[0].argmax()])
    return length(g[1]) if trust == "gradient" else length(g[1]) / length(h[1])


def mix_by_hand(standard, robust, x, alpha, trust, form, norm, normalised):
    g, h = (outputs_by_hand(model, x, form) for model in (standard, robust))
    weight = alpha / (1 - alpha) * trust_by_hand(g, h, trust, norm)
    mixed = (g[0] + weight * h[0]) / (1 + weight if normalised else 1)
    return np.log(mixed) if form == "probabilities" else mixed


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("trust, form, norm", SETTINGS)
def test_values_are_those_by_hand(trust, form, norm, normalised):
    for kind in (Linear, Quadratic):
        models, x = pair(kind), points()
        mix = MixedClassifier(*models, 0.7, trust=trust, form=form, norm=norm, normalised=normalised)
        expected = [mix_by_hand(*models, row, 0.7, trust, form, norm, normalised) for row in x.numpy()]
        np.testing.assert_allclose(mix(x), np.stack(expected), rtol=1e-10, atol=1e-12)


def by_finite_differences(function, x, step=1e-6):
    """Gradient of a scalar function of a tensor, coordinate by coordinate."""
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        moved = [x.clone(), x.clone()]
        moved[0][index] += step
        moved[1][index] -= step
        gradient[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    ("trust", "form", "norm", "normalised"),
    [
        pytest.param(*one, normal, marks=[pytest.mark.long] * (not normal and one[0] != "gradient-ratio"))
        for one in SETTINGS
        for normal in (True, False)
    ],
)
def test_the_gradient_is_that_of_the_whole_mix(trust, form, norm, normalised):
    mix = MixedClassifier(*pair(Quadratic), 0.6, trust=trust, form=form, norm=norm, normalised=normalised)
    weights = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64)
    x = points(2, requires_grad=True)
    (gradient,) = torch.autograd.grad((mix(x) * weights).sum(), x)
    numeric = by_finite_differences(lambda moved: (mix(moved) * weights).sum(), x.detach())
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-7)
    if trust != "constant":  # leaving the gradient of the trust out would be seen
        g, h, r = trusted_outputs(mix.standard, mix.robust, x, trust=trust, form=form, norm=norm)
        held = mix_outputs(g, h, 0.6, log_trust=r.detach(), form=form, normalised=normalised)
        (partial,) = torch.autograd.grad((held * weights).sum(), x)
        assert (partial - numeric).abs().max() > 0.01 * numeric.abs().max()


def test_parameters_are_trained_through_the_trust_and_gather_no_gradient_by_themselves():
    standard, robust = pair(Quadratic)
    mix = MixedClassifier(standard.requires_grad_(), robust.requires_grad_(), 0.6, trust="gradient-ratio")
    x = points(2)
    total = mix(x)[:, 0].sum()
    assert all(parameter.grad is None for parameter in mix.parameters())
    total.backward()
    for model in (standard, robust):
        kept = model.weight.detach().clone()

        def loss(weight, model=model):
            model.weight.data.copy_(weight)
            return mix(x)[:, 0].sum().detach()

        numeric = by_finite_differences(loss, kept)
        model.weight.data.copy_(kept)
        torch.testing.assert_close(model.weight.grad, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("trust, form", WAYS)
def test_ends_are_the_classifiers_themselves(trust, form, normalised):
    settings = {"trust": trust, "form": form, "normalised": normalised}
    x = points(requires_grad=True)
    constant = Constant([0.0, 1.0, 2.0, -1.0])
    for standard, robust in (pair(Quadratic), (constant, constant), (Constant([3.0, 0, 0, 0]), pair()[1])):
        for alpha, model in ((0.0, standard), (1.0, robust)):
            expected = model(x) if form == "logits" else model(x).log_softmax(1)
            torch.testing.assert_close(MixedClassifier(standard, robust, alpha, **settings)(x), expected)


def test_without_the_denominator_a_steep_class_wins_that_neither_classifier_prefers():
    """g = (1, 0), h = (1, 1/2), R = (1, 100), gamma = 1: (2, 50) against (1, 50/101)."""
    x = torch.zeros(1, 1, dtype=torch.float64)
    models = Linear([[1.0], [100.0]], [1.0, 0.0]), Linear([[0.0], [0.0]], [1.0, 0.5])
    first, second = (
        MixedClassifier(*models, 0.5, trust="gradient", form="logits", normalised=normalised)(x)
        for normalised in (False, True)
    )
    torch.testing.assert_close(first, torch.tensor([[2.0, 50.0]], dtype=torch.float64))
    torch.testing.assert_close(second, torch.tensor([[1.0, 50 / 101]], dtype=torch.float64))


@pytest.mark.parametrize("trust, form, norm", SETTINGS)
def test_an_input_is_mixed_alike_alone_and_in_a_batch(trust, form, norm):
    mix = MixedClassifier(*pair(Quadratic), 0.6, trust=trust, form=form, norm=norm)
    x = points(4, requires_grad=True)
    together = mix(x)
    alone = torch.cat([mix(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(together[2, 0], x)
    assert gradient[2].abs().min() > 0
    assert gradient[[0, 1, 3]].abs().max() == 0


def test_trust_of_a_saturated_softmax_is_exact_and_smaller_than_any_float():
    """Two classes, odds e^m: grad g_1 = sigmoid(m) sigmoid(-m) (w_1 - w_2)."""
    standard = Linear([[3.0, 0.0], [0.0, 4.0]], [1e4, 0.0])
    x = torch.zeros(1, 2, dtype=torch.float64)
    got = log_trust_values(standard, standard, x, "gradient", norm="l2")
    torch.testing.assert_close(got, torch.full((1, 2), -1e4 + math.log(5.0), dtype=torch.float64))
    assert log_trust_values(standard, standard, x, "gradient-ratio").abs().max() == 0.0


@pytest.mark.parametrize("trust, form, norm", SETTINGS)
@pytest.mark.parametrize("normalised", [True, pytest.param(False, marks=pytest.mark.long)])
def test_saturated_logits_stay_finite_and_carry_gradients(trust, form, norm, normalised):
    standard, robust = pair(classes=5)
    standard.bias.data.copy_(torch.tensor([1e4, -1e4, 0, 3, 9999]))
    robust.bias.data.copy_(torch.tensor([-1e4, 1e4, 0, -3, 9000]))
    others = (robust, standard, Constant([1e4, 0, 0, 0, 0], True))
    for other, dtype in itertools.product(others, (torch.float64, torch.float32)):
        settings = {"trust": trust, "form": form, "norm": norm, "normalised": normalised}
        mix, x = (
            MixedClassifier(standard, other, 0.76, **settings).to(dtype),
            points(requires_grad=True).to(dtype),
        )
        out = mix(x)
        gradients = torch.stack([torch.autograd.grad(z.sum(), x, retain_graph=True)[0] for z in out.T])
        assert out.dtype == dtype
        assert out.isfinite().all()
        assert gradients.isfinite().all()
        assert gradients.abs().amax((0, 2)).min() > 0


@pytest.mark.parametrize("touched", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_classifier_that_never_changes_has_no_gradient_and_no_error(form, touched):
    constant, other = Constant([2.0, 0.0, 1.0, 0.0], touched), pair(Quadratic)[0]
    x = points(requires_grad=True)
    alone = mix_outputs(constant(x), constant(x), 0.0, form=form)
    even = mix_outputs(constant(x), constant(x), 0.7, form=form)
    for (trust, standard, robust, wanted), norm in itertools.product(
        [
            ("gradient", constant, other, alone), ("max-gradient", constant, other, alone),
            ("gradient-ratio", constant, other, alone), ("gradient-ratio", other, constant, alone),
            ("gradient-ratio", constant, constant, even),
        ],
        NORMS,
    ):  # fmt: skip
        out = MixedClassifier(standard, robust, 0.7, trust=trust, form=form, norm=norm)(x)
        torch.testing.assert_close(out, wanted)
        if out.requires_grad:
            assert torch.autograd.grad(out.sum(), x, allow_unused=True)[0].isfinite().all()


@pytest.mark.parametrize("trust, form", WAYS)
def test_cached_outputs_mix_as_the_module_does_at_every_alpha(trust, form):
    models, x = pair(Quadratic), points()
    alphas = torch.tensor([0.0, 0.3, 0.76, 1.0], dtype=torch.float64)
    cached = trusted_outputs(*models, x, trust=trust, form=form, norm="l2")
    swept = mix_outputs(*cached[:2], alphas, log_trust=cached[2], form=form)
    values = log_trust_values(*models, x, trust, form, "l2")
    apart = mix_outputs(*cached[:2], alphas, log_trust=values, form=form)
    whole = [MixedClassifier(*models, a, trust=trust, form=form, norm="l2")(x) for a in alphas.tolist()]
    torch.testing.assert_close(swept, torch.stack(whole), rtol=0, atol=0)
    torch.testing.assert_close(swept, apart, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "enable_grad"])
def test_the_trust_is_measured_where_nothing_is_recorded(mode):
    mix, x = (
        MixedClassifier(*pair(), 0.7, trust="gradient-ratio"),
        points(requires_grad=mode != "enable_grad"),
    )
    settings = (0.7, "gradient-ratio", "probabilities", "linf", True)
    expected = [mix_by_hand(*pair(), row, *settings) for row in x.detach().numpy()]
    with getattr(torch, mode)():
        out = mix(x)
    np.testing.assert_allclose(out, np.stack(expected), rtol=1e-10)
    assert not out.requires_grad


@pytest.mark.parametrize("shape", [(), (6,), (3, 1, 2)])
@pytest.mark.parametrize("trust", GRADIENT_TRUSTS)
def test_inputs_of_any_shape(trust, shape):
    features = math.prod(shape)
    models = [model.float() for model in pair(features=features, classes=2)]
    for model in models:
        model.forward = lambda x, model=model: Linear.forward(model, x.reshape(len(x), features))
    mix = MixedClassifier(*models, 0.6, trust=trust)
    for count in (0, 4):
        x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        out = mix(x)
        assert out.shape == (count, 2)
        assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_mixed_in_float64_and_give_float32(dtype):
    models = [model.to(dtype) for model in pair()]
    models[1].bias.data[:] = torch.tensor([1000.0, -30000.0, 0.0, -60000.0])
    models[0].bias.data[:] = torch.tensor([1000.0, -60000.0, 0.0, -60000.0])
    for trust in TRUSTS:
        out = MixedClassifier(*models, 0.6, trust=trust)(points().to(dtype))
        assert out.dtype == torch.float32
        assert out.isfinite().all()


def test_differences_below_float32_still_order_the_classes():
    mixed = mix_logits(torch.tensor([[0.0, 100.0, 0.0]]), torch.tensor([[0.0, 100.0, 90.0]]), 0.76)
    assert mixed[0, 2] > mixed[0, 0]
    assert "alpha=0.76" in repr(MixedClassifier(*pair(), 0.76))


def test_a_worst_case_standard_classifier_flips_exactly_below_the_margin():
    """h has margin 0.4; mu = (1 - alpha) / alpha crosses it at alpha = 1 / 1.4 (Lemma 3.2)."""
    worst, h = Constant([-50.0, 50.0]), Constant(np.log([0.7, 0.3]))
    x, threshold = torch.zeros(1, 1), 1 / 1.4
    assert MixedClassifier(worst, h, threshold + 1e-3)(x).argmax() == 0
    assert MixedClassifier(worst, h, threshold - 1e-3)(x).argmax() == 1


@pytest.mark.parametrize("trust", GRADIENT_TRUSTS)
def test_a_classifier_that_hides_its_gradient_is_refused(trust):
    hiding = Detaching(*[value.detach() for value in pair()[0].parameters()])
    for model in (hiding, hiding.requires_grad_()):
        with pytest.raises(ModelError, match="standard model's outputs change.* no gradient"):
            MixedClassifier(model, pair()[1], 0.5, trust=trust)(points())
    for alpha, settings in ((0.5, {}), (0.0, {"trust": trust}), (1.0, {"trust": trust})):
        MixedClassifier(hiding, hiding, alpha, **settings)(points())
    if trust == "gradient-ratio":
        with pytest.raises(ModelError, match="robust model's"):
            MixedClassifier(pair()[0], hiding, 0.5, trust=trust)(points(1))


def test_errors():
    for settings, words in (
        ({"trust": "r"}, "trust 'r'"),
        ({"form": "odds"}, "form 'odds'"),
        ({"norm": "l3"}, "l3"),
    ):
        with pytest.raises(ParameterError, match=rf"{words}.*use one of"):
            MixedClassifier(*pair(), 0.5, **settings)
    for alpha in (1.2, -0.1, float("nan")):
        with pytest.raises(ParameterError, match=f"{alpha}: the mixing weight must lie in"):
            MixedClassifier(*pair(), alpha)
        with pytest.raises(ParameterError, match=f"{alpha}: the mixing weight must lie in"):
            mix_logits(torch.zeros(2), torch.zeros(2), alpha)
    g, h = pair()
    with pytest.raises(ParameterError, match="int64.*floating point"):
        MixedClassifier(g, h, 0.5, trust="gradient")(torch.zeros(2, 6, dtype=torch.int64))
    with pytest.raises(ModelError, match="equal classes"):
        MixedClassifier(g, pair(classes=3)[0], 0.5, trust="gradient-ratio")(points())
    with pytest.raises(ModelError, match="2 classes"):
        MixedClassifier(pair(classes=1)[0], pair(classes=1)[0], 0.5, trust="gradient")(points())
    with pytest.raises(ParameterError, match=r"trust terms are \(2, 4\)"):
        mix_outputs(g(points()), h(points()), 0.5, log_trust=torch.zeros(2, 4))
