"""Networks of known sizes with random weights: throughput needs no training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.models.spec import load_model
from certmix.models.zoo import zoo_names

__all__ = ["NETS", "make"]


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        plain = stride == 1 and before == after
        self.shortcut = nn.Identity() if plain else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        shapes = [(before, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, k, s, k // 2, bias=False) for a, b, k, s in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in shapes)
        plain = stride == 1 and before == 4 * width
        self.shortcut = nn.Identity() if plain else nn.Conv2d(before, 4 * width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(3):
            y = self.norms[k](self.convolutions[k](y))
            y = F.relu(y if k < 2 else y + self.shortcut(x))
        return y


def _stages(block: type[nn.Module], before: int, widths: list[int], depths: list[int], strides: list[int],
            expansion: int = 1) -> list[nn.Module]:  # fmt: skip
    layers: list[nn.Module] = []
    for width, depth, stride in zip(widths, depths, strides, strict=True):
        for k in range(depth):
            layers.append(block(before, width, stride if k == 0 else 1))
            before = expansion * width
    return layers


def _with_head(stem: list[nn.Module], body: list[nn.Module], features: int, classes: int) -> nn.Module:
    return nn.Sequential(
        *stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)
    ).eval()


def residual8() -> nn.Module:
    """8 layers of 16 channels."""
    stem = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()]
    return _with_head(stem, _stages(Basic, 16, [16], [3], [1]), 16, 10)


def resnet110() -> nn.Module:
    """ResNet-110 for 32x32, 1.7 M parameters, as in Cohen et al."""
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return _with_head(stem, _stages(Basic, 16, [16, 32, 64], [18, 18, 18], [1, 2, 2]), 64, 10)


def wrn2810() -> nn.Module:
    """The size of a WideResNet-28-10, 36 M parameters."""
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return _with_head(stem, _stages(Basic, 16, [160, 320, 640], [4, 4, 4], [1, 2, 2]), 640, 10)


def resnet50() -> nn.Module:
    """The size of a ResNet-50 at 224x224, 25 M parameters."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    body = _stages(Bottleneck, 64, [64, 128, 256, 512], [3, 4, 6, 3], [1, 2, 2, 2], expansion=4)
    return _with_head(stem, body, 2048, 1000)


NETS = {
    "residual8": (residual8, (3, 32, 32), 10),
    "resnet110": (resnet110, (3, 32, 32), 10),
    "wrn-28-10": (wrn2810, (3, 32, 32), 10),
    "resnet50": (resnet50, (3, 224, 224), 1000),
}


def make(name: str, device: str = "cpu") -> tuple[nn.Module, tuple[int, ...], int]:
    """Return a net in evaluation mode, its input's shape and its number of classes; shipped models too."""
    if name in zoo_names():
        return load_model(name, device=device).module, (3, 32, 32), 10
    build, shape, classes = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build()
    return net.to(device).to(memory_format=torch.channels_last), shape, classes  # type: ignore[call-overload]
