"""What runs is what is bounded: models that do more than their layers say are refused, with the reason."""

from __future__ import annotations

import random
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from certmix.errors import ModelError
from certmix.margins import layers, logit_differences_lower
from certmix.margins.layers import Rectifier
from certmix.margins.translation import build_graph
from certmix.models.architectures import Normalized

X = torch.rand((5, 4), generator=torch.Generator().manual_seed(0))


def base(offset=0.0, classes=2):
    """A small net whose logits have an offset in common, which hides much from absolute comparisons."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, classes)).eval().requires_grad_(False)
    net[2].bias.add_(offset)
    return net


def changed(change, offset=1e6):
    """The base net after `change`, which may give another."""
    net = base(offset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = change(net)
    return (made if isinstance(made, nn.Module) else net).eval()


class Around(nn.Module):
    """A function of the input around the base net; what it keeps is in `kept`."""

    def __init__(self, function, offset=0.0, **kept):
        super().__init__()
        self.net, self.function = base(offset), function
        for name, value in kept.items():
            setattr(self, name, value)
        self.eval()

    def forward(self, x):
        return self.function(self, x)


def replaced(part, name, function):
    setattr(part, name, function)


class Calling(nn.Sequential):
    def __call__(self, x):
        return 3 * super().__call__(x)


class Steeper(Normalized):
    def forward(self, x):
        return super().forward(3 * x)


class Subclassed(torch.Tensor):
    pass


def scaled(net):
    """The weights as a tensor of another class, as libraries of quantised layers have them."""
    net[0].weight = nn.Parameter(net[0].weight.as_subclass(Subclassed), requires_grad=False)


def pre_hook(module, inputs):
    return (inputs[0] * 3,)


CHANGES = {
    "hook": (lambda net: net[0].register_forward_hook(lambda module, x, y: 3 * y), "layer 0 .Linear. has a forward hook"),
    "hook on a rectifier": (lambda net: net[1].register_forward_pre_hook(pre_hook), "layer 1 .ReLU.*pre_hook"),
    "hook on the model": (lambda net: net.register_forward_hook(lambda m, x, y: 3 * y), "the model .Sequential. has a forward hook"),
    "hook on a wrapper": (lambda net: wrapped_and_hooked(net), "the model .Normalized. has a forward hook"),
    "stale weight norm": (lambda net: (nn.utils.weight_norm(net[0]), net[0].weight_g.data.mul_(3)), "WeightNorm.*remove_weight_norm"),
    "old spectral norm": (lambda net: nn.utils.spectral_norm(net[0]), "SpectralNorm.*remove_spectral_norm"),
    "pruned": (lambda net: prune.l1_unstructured(net[0], "weight", 0.5), "L1Unstructured.*prune.remove"),
    "forward of a layer": (lambda net: replaced(net[1], "forward", lambda z: torch.relu(z) ** 2 * 5), "layer 1 .ReLU. has a forward of its own"),
    "forward of the model": (lambda net: replaced(net, "forward", lambda x: 3 * x[:, :2]), "the model .Sequential. has a forward"),
    "call of a layer": (lambda net: replaced(net[1], "_call_impl", lambda z: 3 * z), "a _call_impl of its own"),
    "compiled": (lambda net: replaced(net[1], "_compiled_call_impl", lambda z: 3 * z), "been compiled"),
    "optimised": (lambda net: torch.compile(net), "OptimizedModule"),
    "class with a call": (lambda net: Calling(*net), "a __call__"),
    "subclass of a wrapper": (lambda net: Steeper(net, (0.0,), (1.0,)), "cannot be traced"),
    "traced": (lambda net: fx.symbolic_trace(net), "traced or exported"),
    "scripted": (lambda net: torch.jit.trace(net, X), "traced or exported"),
    "weights of another class": (scaled, "Subclassed"),
    "complex weights": (lambda net: replaced(net[0], "weight", nn.Parameter(net[0].weight + 0j)), "complex64"),
}  # fmt: skip


def wrapped_and_hooked(net):
    wrapper = Normalized(net, (0.1,), (0.5,))
    wrapper.register_forward_hook(lambda module, x, y: 3 * y)
    return wrapper


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_that_does_something_else_is_refused(name):
    change, words = CHANGES[name]
    with pytest.raises(ModelError, match=words) as refused:
        logit_differences_lower(changed(change), X, [0] * 5, "linf", 0.3)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("register", [nn.modules.module.register_module_forward_hook,
                                      nn.modules.module.register_module_forward_pre_hook])  # fmt: skip
def test_a_hook_of_all_modules_is_refused(register):
    handle = register(lambda *given: None)
    try:
        with pytest.raises(ModelError, match="all modules"):
            build_graph(base(), X)
    finally:
        handle.remove()


def test_a_class_of_torchs_that_was_changed_is_refused(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: 3 * torch.relu(x))
    with pytest.raises(ModelError, match="layer 1 .ReLU.: its class"):
        build_graph(base(), X)


def own_generator(self, x):
    return self.net(x) + 1e-9 * torch.rand((), generator=self.generator)


def seldom(self, x):
    return self.net(-x if random.random() < 1e-3 else x)


def counted(self, x):
    self.calls += 1
    return self.net(x)


def summed(self, x):
    self.total += 1
    return self.net(x + 1e-12 * self.total)


def branching_in_secret(self, x):
    with suppress(Exception):
        x = 3 * x if x.max() > 1 else x
    return self.net(x)


def counting_in_secret(self, x):
    with suppress(Exception):
        x = x * float(x.sum() > 1)
    return self.net(x)


def autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return self.net(x)


def by_precision(self, x):
    return self.net(x) if self.flag.dtype == torch.float64 else self.net(3 * x)


def rectified_then_used(self, x):
    y = self.net[0](x)
    return self.net[2](F.relu(y, inplace=True) + y)


def alias_changed(self, x):
    y = self.net[0](x)
    z = y
    y += 0.5
    return self.net[2](y + z)


def view_changed(self, x):
    y = self.net[0](x)
    z = y.flatten(1)
    y -= 0.5
    return self.net[2](z)


def changed_and_returned(self, x):
    y = self.net(x)
    F.leaky_relu(y, 0.1, inplace=True)
    return y


FUNCTIONS = {
    "random numbers": (lambda self, x: self.net(x + 1e-9 * torch.randn(4)), {}, "draws random numbers"),
    "numpy's random numbers": (lambda self, x: self.net(x + 1e-9 * np.random.rand()), {}, "draws random numbers"),
    "seldom random": (seldom, {}, "draws random numbers"),
    "random of the input's shape": (lambda self, x: self.net(x + torch.randn_like(x)), {}, "randn_like"),
    "a generator of its own": (own_generator, {"generator": torch.Generator()}, "when asked again"),
    "dropout that is never off": (lambda self, x: self.net(F.dropout(x)), {}, "training=True, its default"),
    "a counter": (counted, {"calls": 0}, "changes its calls"),
    "a sum": (summed, {"total": nn.Buffer(torch.zeros(1))}, "changes its total"),
    "a branch": (lambda self, x: self.net(3 * x if x.max() > 1 else x), {}, "cannot be traced"),
    "a branch in secret": (branching_in_secret, {}, "asks for a value"),
    "a number in secret": (counting_in_secret, {}, "asks for a value"),
    "a precision asked for": (by_precision, {"flag": nn.Buffer(torch.zeros(1))}, "do not give the model's logits"),
    "changed in place and used": (rectified_then_used, {}, "changed in place since"),
    "an alias changed in place": (alias_changed, {}, "changed in place since"),
    "a view changed in place": (view_changed, {}, "changed in place since"),
    "changed in place and returned": (changed_and_returned, {}, "changed in place since"),
    "a batch of two": (lambda self, x: self.net(x.view(2, -1)), {}, "view to the shape .2, -1."),
    "the batch's size": (lambda self, x: self.net(x / x.shape[0]), {}, "the size of the batch"),
    "rows that meet": (lambda self, x: self.net(x - x.mean(0)), {}, "mean over 0"),
    "sums of weights": (lambda self, x: self.net(x) * (self.net[2].bias + self.net[2].bias), {}, "of constants"),
    "two outputs": (lambda self, x: (self.net(x), x), {}, "output"),
    "a function of the user's": (lambda self, x: flatten(self.net(x)), {}, "flatten"),
}  # fmt: skip


def flatten(x):
    return 3 * x.flatten(1)


fx.wrap("flatten")


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_forward_pass_that_is_no_fixed_function_of_one_input_is_refused(name, offset):
    function, kept, words = FUNCTIONS[name]
    with pytest.raises(ModelError, match=words) as refused:
        build_graph(Around(function, offset, **kept), X[:2])
    assert "\n" not in str(refused.value)


def test_a_precision_that_drowns_the_logits_is_refused():
    with pytest.raises(ModelError, match="without autocast"):
        build_graph(Around(autocast), X)
    with pytest.raises(ModelError, match="in float32 or float64"):
        build_graph(base().bfloat16(), X)


def test_training_mode_is_refused_of_parts_whose_mode_may_matter():
    build_graph(base().train(), X)
    for net in (
        Around(lambda self, x: self.net(x)), nn.Sequential(nn.BatchNorm1d(4), base()),
        nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), base()),
    ):  # fmt: skip
        build_graph(net.eval(), X)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        with pytest.raises(ModelError, match=r"training mode: call model.eval\(\)"):
            build_graph(net.train(), X)
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def slightly_leaky(layer, shape):
    return [Rectifier(1e-3)]


OFFSETS = {
    "none": torch.zeros(3),
    "common": torch.full((3,), 1e6),
    "of one class": torch.tensor([1e6, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", OFFSETS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_offsets_hide_nothing_from_the_comparison(name, count, monkeypatch):
    """A rectifier that leaks a thousandth is seen whatever is added to the logits, which is right by itself."""
    net = base(OFFSETS[name], classes=3)
    build_graph(net, X[:count])
    monkeypatch.setitem(layers.RULES, nn.ReLU, slightly_leaky)
    with pytest.raises(ModelError, match="do not give the model's logits"):
        build_graph(net, X[:count])


def test_the_datas_own_inputs_are_what_is_compared(monkeypatch):
    """At these inputs alone the rectifiers matter."""
    net = base()
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight.abs()), net[0].bias.fill_(0.01)
    monkeypatch.setitem(layers.RULES, nn.ReLU, lambda layer, shape: [])
    build_graph(net, X)
    with pytest.raises(ModelError, match="do not give the model's logits"):
        build_graph(net, -X)


def test_the_graph_keeps_its_own_copy_of_the_weights():
    net = base().double()
    graph = build_graph(net, X)
    before = logit_differences_lower(graph, X, [0] * 5, "linf", 0.1)
    net[0].weight.mul_(3)
    assert (logit_differences_lower(graph, X, [0] * 5, "linf", 0.1) == before).all()


def test_a_model_is_left_as_it_was():
    net = base()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = X.clone()
    build_graph(Around(lambda self, x: self.net(x.__isub__(0.5))), given)
    build_graph(net, given)
    assert torch.equal(given, X)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
