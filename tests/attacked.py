"""Ground truth for attacks: who is outside ball and box, and the best point against a linear model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outside(points: Tensor, inputs: Tensor, norm: str, eps: float, box=(0.0, 1.0)) -> list[int]:
    """Return the inputs whose point leaves the ball, in float64, or the box, or is no number."""
    moved = (points.double() - inputs.double()).flatten(1).numpy()
    size = np.array([np.linalg.norm(row, ORDERS[norm]) for row in moved])
    rows = points.flatten(1)
    kept = ((rows >= box[0]) & (rows <= box[1])).all(1).numpy()
    return [int(i) for i in np.flatnonzero(~((size <= eps) & kept))]


def best_offset(slope: np.ndarray, input: np.ndarray, norm: str, eps: float, box=(0.0, 1.0)) -> np.ndarray:
    """Return the offset in ball and box that maximises a linear function with nonzero slopes."""
    room = np.where(slope > 0, box[1] - input, input - box[0])
    if norm == "linf":
        size = np.minimum(eps, room)
    elif norm == "l1":
        size, budget = np.zeros_like(room), eps
        for i in np.argsort(-np.abs(slope)):
            size[i] = min(room[i], budget)
            budget -= size[i]
    else:
        low, high = 0.0, eps / np.abs(slope).min() + 1e3 / np.abs(slope).min()
        for _ in range(200):
            middle = (low + high) / 2
            size = np.minimum(middle * np.abs(slope), room)
            low, high = (middle, high) if np.linalg.norm(size) <= eps else (low, middle)
    return np.sign(slope) * size


def linear(weight, bias=0.0, dtype=torch.float64) -> nn.Module:
    """Return a linear model in evaluation mode with weights (classes, inputs)."""
    weight = torch.as_tensor(weight, dtype=dtype)
    net = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(weight)
        net.bias.copy_(torch.as_tensor(bias, dtype=dtype).expand(len(weight)))
    return net.eval()


def small_net(classes: int = 5, seed: int = 0, dtype=torch.float32) -> nn.Module:
    """Return a random convolutional net for inputs (3, 8, 8), in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, classes),
        )  # fmt: skip
    return net.to(dtype).eval()


def small_inputs(count: int, seed: int = 0, dtype=torch.float32) -> Tensor:
    """Return random inputs (count, 3, 8, 8) in [0, 1], some inputs on its edge."""
    drawn = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1
    return drawn.clamp(0, 1).to(dtype)


class Counting(nn.Module):
    """A model that writes down the size of each batch and whether a gradient was wanted."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.batches, self.gradients = module, [], []
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        self.gradients.append(inputs.requires_grad)
        return self.module(inputs)
