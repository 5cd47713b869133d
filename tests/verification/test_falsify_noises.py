"""falsify finds radii that are too large in l1, linf and l0, and none that the network keeps to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from certmix.radii import Smoothing
from certmix.verification.falsify.attack import Claim, Claims, Target
from certmix.verification.falsify.falsify import Falsification, attack_claims
from certmix.verification.request import FalsifyRequest

ALPHA, COUNT = 0.8, 6
MU = (1 - ALPHA) / ALPHA


class Threshold(nn.Module):
    """Class 1 where the first value is above 1/2."""

    def forward(self, x):
        z = 30 * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([-z, z], 1)


class AnyShown(nn.Module):
    """Class 1 where a pixel that is shown is above 1/2."""

    def forward(self, x):
        z = 30 * ((x[:, :-1] * x[:, -1:]).flatten(1).sum(1) - 0.5)
        return torch.stack([-z, z], 1)


def below(smoothing: Smoothing, depth: float) -> float:
    """P[noise < depth] of one value."""
    if smoothing.kind == "laplace":
        tail = 0.5 * np.exp(-abs(depth) / smoothing.scale)
        return float(1 - tail if depth > 0 else tail)
    return float(np.clip(0.5 + depth / (2 * smoothing.scale), 0, 1))


def attacked(smoothing: Smoothing, net: nn.Module, input: torch.Tensor, radius: float) -> Falsification:
    kept = tuple(Claim(i, 0, radius) for i in range(COUNT))
    claims = Claims("exact", ALPHA, smoothing.norm, smoothing, 0.001, COUNT, kept)
    asked = FalsifyRequest(steps=4, copies=32, samples=20_000)
    target = Target(net.eval(), 2, torch.device("cpu"), (0.0, 1.0))
    return Falsification("planted", claims, asked, attack_claims(target, claims, lambda claim: input, asked))


@pytest.mark.parametrize(
    "smoothing",
    [Smoothing("laplace", 0.25), Smoothing("uniform", 0.5), Smoothing("uniform", 0.5, "linf", 12)],
    ids=lambda s: f"{s.kind} {s.norm}",
)
@pytest.mark.parametrize("part, falsified", [(0.9, False), (1.15, True)])
def test_a_radius_beyond_that_of_the_network_is_found(smoothing, part, falsified):
    input = torch.full((1, 3, 4), 102 / 255)
    input[0, 0, 0] = 51 / 255
    depth = 0.5 - 51 / 255
    assert below(smoothing, depth) > 0.5 + 0.5 * MU
    true = brentq(lambda t: 2 * below(smoothing, depth - t) - 1 - MU, 0.0, 1.0)
    found = attacked(smoothing, Threshold(), input, part * true)
    assert found.falsified == falsified
    for one in found.findings:
        assert one.distance > true * 0.999


@pytest.mark.parametrize("radius, falsified", [(1, False), (2, True)])
def test_pixels_beyond_those_of_the_network_are_found(radius, falsified):
    """4 of 16 pixels are kept: two changed ones are seen with chance 819/1820, and 1 - 2 of it is below mu."""
    assert 1 - 2 * 0.25 > MU > 1 - 2 * 819 / 1820
    smoothing = Smoothing("ablation", 4, dimension=16)
    found = attacked(smoothing, AnyShown(), torch.zeros(1, 4, 4), radius)
    assert found.falsified == falsified
    assert all(one.distance == 2 for one in found.findings)
