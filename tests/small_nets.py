"""Random small nets that hold every layer, and an attack that looks for values below the bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Additions, subtraction, constants, a mean and a shortcut of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.second, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(2, 4, 1, 2)
        self.head = nn.Linear(4, 3)
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.0, 0.3]).view(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5) / 0.25
        y = F.relu(self.norm(self.first(x)))
        y = F.relu(self.second(y) + self.shortcut(x)) - 0.5 * y + self.shift
        return 1.5 * self.head(F.leaky_relu(y, 0.2).mean((2, 3)))


class Largest(nn.Module):
    """Maxima over windows and over the whole plane."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.pool = nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.MaxPool2d(3, 2, 1)
        self.norm, self.second = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, dilation=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.pool(self.convolution(x))).relu()
        return self.head(self.second(x).amax((2, 3)) / 3)


def plain() -> nn.Module:
    """Strided convolution, both normalisations, both rectifiers."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(),
        nn.Linear(64, 8, bias=False), nn.BatchNorm1d(8), nn.LeakyReLU(0.1), nn.Linear(8, 3),
    )  # fmt: skip


def pooled() -> nn.Module:
    """Averages, overlapping and global; a maximum of 2 x 2."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 6, 2, padding=1), nn.MaxPool2d(2),
        nn.Identity(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(6, 3),
    )  # fmt: skip


NETS = {"plain": plain, "residual": Residual, "largest": Largest, "pooled": pooled}
SHAPE = (2, 7, 7)


def random_net(name: str, seed: int) -> nn.Module:
    """Return a net in evaluation mode with random weights and statistics, float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = NETS[name]()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return net.eval().requires_grad_(False)


def inputs(count: int, seed: int = 0) -> Tensor:
    """Return float32 inputs in [0, 1]."""
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


def worst_found(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: str,
    eps: float,
    *,
    seed: int = 0,
    starts: int = 3,
    runs: nn.Module | None = None,
) -> Tensor:
    """Return the smallest z_y - z_j, float64 (N, classes), that random points and descent find in the ball.

    The net is run in float64; the differences are attacked one rival at a time.  Where there is one that
    `runs`, in float32, its differences at the points found count, a little inside the ball.
    """
    precision = next(net.parameters()).dtype
    net, x = net.double(), x.double()
    eps = eps if runs is None else eps * (1 - 1e-5)
    generator = torch.Generator().manual_seed(seed)
    classes = net(x).shape[1]
    found = torch.full((len(x), classes), torch.inf, dtype=torch.float64)
    for _ in range(starts):
        for rival in range(classes):
            delta = torch.empty_like(x).normal_(generator=generator)
            for step in range(6):
                delta = _onto(delta, norm, eps).requires_grad_(True)
                z = net(x + delta)
                differences = z.gather(1, y[:, None]) - z
                seen = differences.detach()
                if runs is not None:
                    with torch.no_grad():
                        own = runs((x + delta).float()).double()
                    seen = own.gather(1, y[:, None]) - own
                found = torch.minimum(found, seen)
                (gradient,) = torch.autograd.grad(differences[:, rival].sum(), delta)
                flat = gradient.flatten(1)
                unit = (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)).view_as(delta)
                towards = gradient.sign() if norm == "linf" else unit
                delta = delta.detach() - eps * towards * (1.0 if step else 5.0)
    net.to(precision)
    return found


def _onto(delta: Tensor, norm: str, eps: float) -> Tensor:
    """Project into the ball, a hair inside, so that rounding x + delta does not leave it."""
    eps = eps * (1 - 1e-9)
    if norm == "linf":
        return delta.detach().clamp(-eps, eps)
    norms = delta.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return delta.detach() * (eps / norms.clamp_min(1e-30)).clamp_max(1.0)


def normalised_net() -> nn.Module:
    """Three classes of inputs of any size, with batch normalisation, in evaluation mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()  # fmt: skip
