"""Two settings of the field, with small nets of random weights: CIFAR-10, and folders of large images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spreading import rows

import certmix

NETS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A wide residual block."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        y = x
        for conv, norm in zip(self.convs, self.norms):
            y = F.relu(norm(conv(y)))
        return y + self.shortcut(x)


def wide():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), Block(8, 16, 1), Block(16, 32, 2), nn.AdaptiveAvgPool2d(1),
                             nn.Flatten(), nn.Linear(32, 10))


def tiny():
    """A net for 224 x 224 images whose first layer already divides the side by 16."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
                             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
'''


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def test_a_folder_of_large_images_by_workers(command, nets, tmp_path: Path):
    """Three photographs of different sizes, one a class, as ImageNet comes: a sub-folder a class."""
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate([(300, 240), (224, 224), (256, 400)]):
        target = tmp_path / "photographs" / f"n{number:08d}"
        target.mkdir(parents=True)
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(target / f"image_{number}.png")
    given = (
        "certify", "--sigma", 0.5, "--alpha", 0.76, "--data", tmp_path / "photographs", "--resize", 224,
        "--crop", 224, "--standard", "none", "--robust", f"{nets}:tiny", "--images", "all", "--samples", 200,
        "--format", "json",
    )  # fmt: skip
    alone = command(*given, "--output", "alone")
    assert alone.code == 0, alone.err
    both = command(*given, "--output", "both", "--workers", 2)
    assert both.code == 0, both.err
    assert both.out == alone.out
    assert {row[1] for row in rows(tmp_path / "both")} == {0, 1, 2}
    assert rows(tmp_path / "both") == rows(tmp_path / "alone")


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
def test_a_wide_net_on_cifar10_images(nets):
    def certified(**more):
        return certmix.certify(
            0.25, 0.76, robust=f"{nets}:wide", images=2, samples=3, selection_samples=1, goal="fixed",
            standard=None, batch_size=2, **more,
        ).records  # fmt: skip

    alone, shards = certified(), [certified(shard=f"{i}/2")[0] for i in (1, 2)]
    assert [record.index for record in alone] == [record.index for record in shards]
    for one, other in zip(alone, shards, strict=True):
        assert (one.selection == other.selection).all()
        assert (one.estimation[3] == other.estimation[3]).all()
