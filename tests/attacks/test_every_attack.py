"""Every attack on linear models, whose attacked accuracy is computed: at few classes and at any scale of logits."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from certmix.attacks import ATTACKS, search
from certmix.attacks.minimum_margin import minimum_margin

EPS, COUNT = 0.2, 24
WEIGHT = (1.0, 0.5, 0.8)
REACH = 2 * EPS * sum(WEIGHT)
"""By how much the ball moves a difference of two logits at scale 1."""


def blocks(classes: int, scale: float, dtype: torch.dtype) -> nn.Module:
    """A class for each block of three inputs: in linf one offset is the best against all rivals at once."""
    net = nn.Linear(3 * classes, classes, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(scale * torch.block_diag(*torch.tensor(WEIGHT).expand(classes, 3)[:, None]))
        net.bias.zero_()
    return net.eval()


def gaps(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return (logits.gather(1, labels[:, None])[:, 0] - others).detach()


def problem(classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs whose gaps lie on both sides of what the ball moves, labels, and which of them hold.

    At scale 1000 some that the ball can break are so sure that float64 has no probability and no
    cross-entropy but 1 and 0 for them.
    """
    generator = torch.Generator().manual_seed(classes)
    drawn = partial(torch.rand, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (COUNT,), generator=generator)
    level = (0.2 + 0.1 * drawn(COUNT, 1)).repeat(1, classes)  # equal rivals: no attack is led to a worse one
    level[torch.arange(COUNT), labels] = 0.5 + 0.28 * drawn(COUNT)
    inputs = (level[:, :, None] + 0.02 * drawn(COUNT, 1, 3)).flatten(1).to(dtype)
    labels[::11] = (labels[::11] + 1) % classes  # some are wrong before
    after = gaps(blocks(classes, 1.0, torch.float64)(inputs.double()), labels) - REACH
    clear = after.abs() > 0.03
    assert 0.2 < (after[clear] > 0).double().mean() < 0.8
    return inputs[clear], labels[clear], after[clear] > 0


@pytest.mark.filterwarnings("ignore:autoattack")
@pytest.mark.parametrize(
    "classes, scale",
    [
        (10, 1000.0),
        *(pytest.param(*of, marks=pytest.mark.long) for of in ((2, 1000.0), (3, 30.0), (10, 1.0))),
    ],
)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_accuracy_of_a_linear_model_is_the_computed_one(attack, classes, scale, request):
    if attack == "autoattack":
        request.getfixturevalue("quick")
    inputs, labels, held = problem(classes, torch.float32)
    model = blocks(classes, scale, torch.float32)
    budget = {"steps": 30, "queries": 600}
    budget = {name: budget[name] for name in budget if name in ATTACKS[attack].settings}
    found = ATTACKS[attack].function(model, inputs, labels, "linf", EPS, **budget)
    assert (found - inputs).abs().max() <= EPS
    assert torch.equal((model(found).argmax(1) == labels) & (model(inputs).argmax(1) == labels), held)


@pytest.mark.parametrize("gradient_free", [False, True])
@pytest.mark.parametrize(
    "classes, scale",
    [(10, 1000.0), *(pytest.param(*of, marks=pytest.mark.long) for of in ((2, 1.0), (3, 1000.0)))],
)
def test_the_smallest_margin_is_found_at_any_scale(classes, scale, gradient_free):
    inputs, labels, held = problem(classes, torch.float64)
    model = blocks(classes, scale, torch.float64)
    found = minimum_margin(
        model, inputs, labels, "linf", EPS, steps=30, queries=600, gradient_free=gradient_free
    )
    assert torch.equal(~found.wrong, held)
    least = gaps(model(inputs), labels) - scale * REACH  # where probabilities round to 1, too
    slack = 0.1 if gradient_free else 0.01
    assert torch.all(gaps(found.logits, labels)[held] <= least[held] + slack * scale)


class Sized(nn.Module):
    """Keeps the sizes of its batches."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.sizes = inner, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return self.inner(x)


@pytest.mark.filterwarnings("ignore:autoattack")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_gpu_sees_few_sizes_of_batches_and_finds_the_same_points(attack, request, monkeypatch):
    if attack == "autoattack":
        request.getfixturevalue("quick")
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.rand(50, 9, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    found, sizes = [], []
    for devices in (("cuda",), ("cpu",)):
        monkeypatch.setattr(search, "PADDED", devices)
        model = Sized(blocks(3, 1.0, torch.float32).eval()).eval()
        budget = {"steps": 25, "queries": 200}
        budget = {name: budget[name] for name in budget if name in ATTACKS[attack].settings}
        more = {"version": ["apgd-ce", "square"]} if attack == "autoattack" else {}
        found.append(ATTACKS[attack].function(model, inputs, labels, "linf", EPS, **budget, **more))
        sizes.append(model.sizes)
    torch.testing.assert_close(*found)
    assert len(sizes[0]) == len(sizes[1])
    assert all(small <= size for small, size in zip(*sizes, strict=True))
    assert set(sizes[1]) <= {7, 14, 21, 28, 35, 42, 49, 50} | ({16} if attack == "autoattack" else set())
