"""Bound propagation: random small networks, attacked within the ball; nothing falls below the bounds."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from certmix.margins.propagation import METHODS, NORMS, certified_radius, logit_differences_lower
from certmix.radii import constant
from certmix.selftests.cases import few, lead, seeds

SHAPE, CLASSES = (2, 5, 5), 3
RADII = {"linf": (0.003, 0.03, 0.2), "l2": (0.02, 0.2, 1.0)}
TIES = 1e-9


def small_net(random, deep):
    """A float64 network with random weights: convolution, rectifiers, dense layers."""
    layers = [nn.Flatten(), nn.Linear(50, 8), nn.ReLU(), nn.Linear(8, CLASSES)]
    if deep:
        layers = [
            nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 6), nn.LeakyReLU(0.1),
            nn.Linear(6, CLASSES),
        ]  # fmt: skip
    net = nn.Sequential(*layers).double().eval().requires_grad_(False)
    for weights in net.parameters():
        fan = max(int(weights[0].numel()), 1)
        weights.copy_(torch.from_numpy(random.normal(size=tuple(weights.shape)) * 2 / fan**0.5))
    return net


def size(delta):
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-30)


def attacked(random, net, x, y, norm, eps):
    """Logits (points, N, c) at random points of the balls and on descents from them."""
    found, reach = [], (eps * (1 - 1e-9)).view(-1, 1, 1, 1)
    for rival in range(CLASSES):
        delta = torch.from_numpy(random.normal(size=tuple(x.shape)))
        for _ in range(5):
            moved = (reach / size(delta)).clamp_max(1) * delta if norm == "l2" else delta.clamp(-reach, reach)
            delta = moved.detach().requires_grad_(True)
            z = net(x + delta)
            found.append(z.detach())
            differences = z.gather(1, y[:, None])[:, 0] - z[:, rival]
            (gradient,) = torch.autograd.grad(differences.sum(), delta)
            unit = gradient.sign() if norm == "linf" else gradient / size(gradient)
            delta = delta.detach() - 3 * eps.view(-1, 1, 1, 1) * unit
    return torch.stack(found)


@pytest.mark.parametrize("norm", NORMS)
@few
@given(seeds, st.booleans())
def test_attacks_stay_above_the_bounds(norm, random, deep):
    net, x = small_net(random, deep), torch.from_numpy(random.random((2, *SHAPE)))
    y = net(x).argmax(1)
    outside = torch.arange(CLASSES)[None] != y[:, None]
    for eps in RADII[norm]:
        z = attacked(random, net, x, y, norm, torch.full((2,), eps, dtype=torch.float64))
        gaps = (z.gather(2, y[None, :, None].expand(len(z), -1, 1)) - z).amin(0)[outside].view(2, -1)
        for method in METHODS:
            assert np.all(
                gaps.numpy() >= logit_differences_lower(net, x, y.numpy(), norm, eps, method=method)
            )


@pytest.mark.parametrize("norm", NORMS)
@few
@given(seeds, st.booleans(), st.floats(0.7, 1.0))
def test_the_mix_keeps_its_class_within_verified_radii(norm, random, deep, alpha):
    net, x = small_net(random, deep), torch.from_numpy(random.random((64, *SHAPE)))
    top = net(x).topk(2).values
    x = x[(top[:, 1] - top[:, 0]).argsort()[:4]]  # the clearest, which some radius is certified for
    y, mu = net(x).argmax(1), constant.margin_threshold(alpha)
    found = certified_radius(net, x, y.numpy(), norm, mu, max_eps=RADII[norm][-1], tolerance=1e-3)
    h = attacked(random, net, x, y, norm, torch.from_numpy(found.radius)).flatten(0, 1).softmax(1).numpy()
    certified = np.tile(found.radius > 0, len(h) // 4)
    for vertex in np.eye(CLASSES):
        slack = lead(np.tile(vertex, (len(h), 1)), h, alpha, np.tile(y.numpy(), len(h) // 4))
        assert np.all(slack[certified] >= -TIES)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", METHODS)
@few
@given(seeds)
def test_rounding_errors_lie_within_the_bounds(norm, method, random):
    """Weights that cancel: float64 sums are off by far more than their last digit, bounds are not."""
    net = nn.Linear(32, 2, bias=False).double().requires_grad_(False)
    large = random.normal(size=16) * 2.0 ** random.integers(0, 60, 16)
    net.weight.zero_()
    net.weight[0] = torch.from_numpy(np.concatenate([large, -large]))
    x = torch.from_numpy(1 + random.random(32) * 2.0**-20)
    exact = sum(Fraction(float(w)) * Fraction(float(v)) for w, v in zip(net.weight[0], x, strict=True))
    first, second = (
        Fraction(float(logit_differences_lower(net, x[None], [k], norm, 0.0, method=method)[0, 0]))
        for k in (0, 1)
    )
    assert first <= exact <= -second
