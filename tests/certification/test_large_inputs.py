"""The two settings of the field, with random weights: wide nets on CIFAR-10, large ones on folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from spreading import rows

import certmix

NETS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A residual block of 3x3 convolutions (wide), or a bottleneck of 1x1, 3x3 and 1x1."""

    def __init__(self, inputs, outputs, stride, bottleneck):
        super().__init__()
        shape = [(inputs, outputs // 4, 1, 1), (outputs // 4, outputs // 4, 3, stride), (outputs // 4, outputs, 1, 1)]
        shape = shape if bottleneck else [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in shape)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in shape)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        y = x
        for conv, norm in zip(self.convs, self.norms):
            y = F.relu(norm(conv(y)))
        return y + self.shortcut(x)


def stages(stem, width, sizes, bottleneck, classes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers, inputs = [stem], stem[0].out_channels
        for number, size in enumerate(sizes):
            for block in range(size):
                stride = 2 if number > 0 and block == 0 else 1
                layers.append(Block(inputs, width << number, stride, bottleneck))
                inputs = width << number
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def wide():
    """A WRN-10-2."""
    torch.manual_seed(0)
    return stages(nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False)), 32, (1, 1, 1), False, 10)


def fifty():
    """A net of the size of a ResNet-50."""
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return stages(stem, 256, (3, 4, 6, 3), True, 3)


def tiny():
    """A net for 224 x 224 images whose first layer already divides the side by 16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 16, 16), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
        )
'''


@pytest.fixture
def folder_of_images(tmp_path: Path) -> Path:
    """Three photographs of different sizes, one a class, as ImageNet comes: a sub-folder a class."""
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate([(300, 240), (224, 224), (256, 400)]):
        target = tmp_path / "photographs" / f"n{number:08d}"
        target.mkdir(parents=True)
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(target / f"image_{number}.png")
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "photographs"


def test_a_folder_of_large_images_by_workers(command, folder_of_images):
    model = f"{folder_of_images.parent / 'nets.py'}:tiny"
    given = (
        "certify", "--sigma", 0.5, "--alpha", 0.76, "--data", folder_of_images, "--resize", 224, "--crop", 224,
        "--standard", "none", "--robust", model, "--images", "all", "--samples", 200, "--format", "json",
    )  # fmt: skip
    alone = command(*given, "--output", "alone")
    assert alone.code == 0, alone.err
    both = command(*given, "--output", "both", "--workers", 2)
    assert both.code == 0, both.err
    assert both.out == alone.out
    assert {row[1] for row in rows(folder_of_images.parent / "both")} == {0, 1, 2}
    assert rows(folder_of_images.parent / "both") == rows(folder_of_images.parent / "alone")


QUICK = {"samples": 3, "selection_samples": 1, "goal": "fixed", "standard": None, "batch_size": 2}


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
def test_a_net_of_the_size_of_resnet_50_on_224_by_224(folder_of_images):
    nets = folder_of_images.parent / "nets.py"
    data = {"data": str(folder_of_images), "resize": 224, "crop": 224}
    result = certmix.certify(0.5, 0.76, robust=f"{nets}:fifty", images=1, shard="1/1", **data, **QUICK)
    assert [record.drawn for record in result.records] == [3]
    code = {}
    exec(nets.read_text(), code)
    with torch.device("meta"):
        assert 20e6 < sum(weight.numel() for weight in code["fifty"]().parameters()) < 30e6


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
def test_a_wide_net_on_cifar10_images(folder_of_images):
    model = f"{folder_of_images.parent / 'nets.py'}:wide"
    alone = certmix.certify(0.25, 0.76, robust=model, images=2, **QUICK).records
    shards = [
        certmix.certify(0.25, 0.76, robust=model, images=2, shard=f"{i}/2", **QUICK).records[0]
        for i in (1, 2)
    ]
    assert [record.index for record in alone] == [record.index for record in shards]
    for one, other in zip(alone, shards, strict=True):
        assert (one.selection == other.selection).all()
        assert (one.estimation[3] == other.estimation[3]).all()
