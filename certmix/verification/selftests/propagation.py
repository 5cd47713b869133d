"""Bound propagation: random small networks, attacked within the ball; nothing falls below the bounds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from certmix.margins.propagation import METHODS, NORMS, certified_radius, logit_differences_lower
from certmix.radii import constant
from certmix.types import FloatArray
from certmix.verification.selftests.draws import shown
from certmix.verification.selftests.mixing import lead
from certmix.verification.selftests.tally import Tally

__all__ = ["run"]

SHAPE, CLASSES = (2, 5, 5), 3
RADII = {"linf": (0.003, 0.03, 0.2), "l2": (0.02, 0.2, 1.0)}
STEPS = 5
TIES = 1e-9


def run(random: np.random.Generator, cases: int, tally: Tally) -> None:
    """Bounds against random points and descent; verified radii against the mix; rounding."""
    for k in range(max(2, cases // 25)):
        net = small_net(random, deep=k % 2 == 0)
        x = torch.from_numpy(random.random((64, *SHAPE)))
        top = net(x).topk(2).values
        clearest = (top[:, 1] - top[:, 0]).argsort()
        for norm in NORMS:
            _bounds(random, tally, net, x[:2], norm)
            _verified(random, tally, net, x[clearest[:4]], norm)
    _cancelling(random, tally)


def small_net(random: np.random.Generator, *, deep: bool) -> nn.Module:
    """Return a float64 network with random weights: convolution, rectifiers, dense layers."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(50, 8), nn.ReLU(), nn.Linear(8, CLASSES)]
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


def _points(
    random: np.random.Generator, net: nn.Module, x: Tensor, y: Tensor, norm: str, eps: Tensor
) -> Tensor:
    """Return logits (points, N, c) at random points of the balls and on descents from them."""
    found, limit = [], eps * (1 - 1e-9)
    for rival in range(CLASSES):
        delta = torch.from_numpy(random.normal(size=tuple(x.shape)))
        for _ in range(STEPS):
            delta = _onto(delta, norm, limit).requires_grad_(True)
            z = net(x + delta)
            found.append(z.detach())
            differences = z.gather(1, y[:, None])[:, 0] - z[:, rival]
            (gradient,) = torch.autograd.grad(differences.sum(), delta)
            unit = gradient.sign() if norm == "linf" else gradient / _size(gradient).clamp_min(1e-30)
            delta = delta.detach() - 3 * eps.view(-1, 1, 1, 1) * unit
    return torch.stack(found)


def _size(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _onto(delta: Tensor, norm: str, limit: Tensor) -> Tensor:
    reach = limit.view(-1, 1, 1, 1)
    if norm == "linf":
        return delta.detach().clamp(-reach, reach)
    return delta.detach() * (reach / _size(delta).clamp_min(1e-30)).clamp_max(1.0)


def _bounds(random: np.random.Generator, tally: Tally, net: nn.Module, x: Tensor, norm: str) -> None:
    y = net(x).argmax(1)
    outside = torch.arange(CLASSES)[None] != y[:, None]
    for eps in RADII[norm]:
        z = _points(random, net, x, y, norm, torch.full((len(x),), eps, dtype=torch.float64))
        gaps = (z.gather(2, y[None, :, None].expand(len(z), -1, 1)) - z).amin(0)[outside].view(len(x), -1)
        for method in METHODS:
            bounds = logit_differences_lower(net, x, y.numpy(), norm, eps, method=method)
            tally.record(
                f"{method}: attacks stay above the bounds", gaps.numpy() - bounds,
                lambda _, eps=eps: f"{norm}, {shown(eps=eps)}", unit="logits",
            )  # fmt: skip


def _verified(random: np.random.Generator, tally: Tally, net: nn.Module, x: Tensor, norm: str) -> None:
    """Within a verified radius the mix keeps its class, whichever vertex g is."""
    alpha = float(random.uniform(0.7, 1.0))
    y, mu = net(x).argmax(1), constant.margin_threshold(alpha)
    found = certified_radius(net, x, y.numpy(), norm, mu, max_eps=RADII[norm][-1], tolerance=1e-3)
    z = _points(random, net, x, y, norm, torch.from_numpy(found.radius)).flatten(0, 1)
    h: FloatArray = z.softmax(1).numpy()
    chosen = np.tile(y.numpy(), len(h) // len(y))
    certified = np.tile(found.radius > 0, len(h) // len(y))
    for vertex in np.eye(CLASSES):
        slack = lead(np.tile(vertex, (len(h), 1)), h, alpha, chosen) + TIES
        tally.record(
            "the mix keeps its class within verified radii", slack[certified],
            lambda _: f"{norm}, {shown(alpha=alpha)}", unit="logits",
        )  # fmt: skip


def _cancelling(random: np.random.Generator, tally: Tally) -> None:
    """Weights that cancel: float64 sums are off by far more than their last digit, bounds are not."""
    net = nn.Linear(32, 2, bias=False).double().requires_grad_(False)
    large = random.normal(size=16) * 2.0 ** random.integers(0, 60, 16)
    net.weight.zero_()
    net.weight[0] = torch.from_numpy(np.concatenate([large, -large]))
    x = torch.from_numpy(1 + random.random(32) * 2.0**-20)
    exact = sum(Fraction(float(w)) * Fraction(float(v)) for w, v in zip(net.weight[0], x, strict=True))
    size = Fraction(float(np.abs(large).sum()))
    for norm in NORMS:
        for method in METHODS:
            ends = [
                logit_differences_lower(net, x[None], [k], norm, 0.0, method=method)[0, 0] for k in (0, 1)
            ]
            slack = [(exact - Fraction(float(ends[0]))) / size, (-exact - Fraction(float(ends[1]))) / size]
            tally.record(
                "rounding errors lie within the bounds", [float(one) for one in slack],
                lambda _, m=method, n=norm: f"{m}, {n}", unit="of the weights",
            )  # fmt: skip
