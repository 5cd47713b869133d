"""A linear problem in the plane, certified in memory or in a folder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import certmix
from certmix.types import Dataset


def plane(weights) -> nn.Module:
    net = nn.Linear(2, len(weights))
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weights))
        net.bias.zero_()
    return net


def points(inputs, labels, classes=2) -> Dataset:
    inputs = np.asarray(inputs, np.float32)
    return Dataset(
        "points", "test", np.asarray(labels), np.arange(len(inputs)) * 10, tuple("abcdefghij"[:classes]),
        lambda i: inputs[i], None, "checksum-of-" + str(float(inputs.sum())),
    )  # fmt: skip


INPUTS = [[0.5, 0.0], [0.3, 0.2], [-0.4, 0.1], [0.02, 0.0], [0.6, 0.0]]
LABELS = [0, 0, 1, 0, 1]
NET = [[1.0, 0.0], [-1.0, 0.0]]


def run(**options) -> certmix.CertifyResult:
    """Certify five points with two classes, a fixed 400 samples each, in memory."""
    defaults = dict(
        sigma=0.5, alpha=0.76, data=points(INPUTS, LABELS), standard=plane(NET), robust=plane(NET),
        samples=400, inputs="all", goal="fixed",
    )  # fmt: skip
    return certmix.certify(**{**defaults, **options})
