"""The minimum-margin attack on models whose smallest margin is known."""

import pytest
import torch
from attacked import linear, seeded
from torch import nn

from certmix.attacks.minimum_margin import FOUND_BY, label_margin, minimum_margin

EPS = 0.05
TWO = linear([[3.0, -1.0], [-3.0, 2.0]], [-1.5, 0.8])


def points(n=60, seed=0):
    x = 0.1 + 0.8 * torch.rand(n, 2, generator=seeded(seed), dtype=torch.float64)
    return x, torch.randint(0, 2, (n,), generator=seeded(seed + 1))


def closed_form(x, y, norm):
    """With two classes the margin is tanh(gap / 2), and the least gap is a dual norm away."""
    difference = TWO.weight[0] - TWO.weight[1]
    gap = (x @ difference + TWO.bias[0] - TWO.bias[1]) * torch.where(y == 0, 1.0, -1.0)
    dual = {"linf": difference.abs().sum(), "l2": difference.norm()}[norm]
    return torch.tanh((gap - EPS * dual) / 2).detach()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_margin_is_found_for_every_input_right_or_wrong(norm):
    x, y = points()
    found = minimum_margin(TWO, x, y, norm, EPS, steps=60, targets=1, generator=seeded())
    # a targeted loss falls back to the margin itself; inputs that are wrong are attacked by the first attack alone
    assert torch.allclose(found.margin, closed_form(x, y, norm), atol=2e-3)
    assert (found.margin >= closed_form(x, y, norm) - 1e-12).all()
    assert torch.equal(found.wrong, found.margin < 0)
    assert torch.allclose(TWO(found.points), found.logits, atol=1e-12)
    assert torch.allclose(label_margin(found.logits, y), found.margin, atol=1e-12)
    assert {FOUND_BY[k] for k in found.found_by.tolist()} <= {"clean", "apgd-ce", "apgd-targeted"}
    assert torch.equal(found.step > 0, found.found_by > 0)


def test_the_clean_point_counts():
    x, y = points()
    found = minimum_margin(TWO, x, y, "linf", 0.0, steps=3, targets=1)
    assert torch.equal(found.points, x) and (found.found_by == 0).all()


def test_leaving_broken_inputs_changes_nothing_for_those_that_stay_right():
    x, y = points(80, 3)
    whole, early = (
        minimum_margin(
            TWO, x, y, "linf", EPS, steps=20, targets=1, early_stop=early_stop, generator=seeded(1)
        )
        for early_stop in (False, True)
    )
    right = ~whole.wrong
    assert torch.equal(whole.wrong, early.wrong) and right.any() and whole.wrong.any()
    assert torch.allclose(whole.margin[right], early.margin[right], atol=1e-9)
    assert (early.margin[whole.wrong] >= whole.margin[whole.wrong] - 1e-12).all()


def test_more_steps_of_tracking_are_never_lost():
    """What is kept is the least of all evaluated points, not the attack's last or favourite one."""
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 5)).double().eval()
    x = torch.rand(20, 4, dtype=torch.float64, generator=seeded(2))
    y, seen = net(x).argmax(1), torch.full((20,), torch.inf, dtype=torch.float64)

    class Watched(nn.Module):
        def forward(self, inputs):
            logits = net(inputs)
            near = (inputs.detach()[:, None] - x).abs().amax(2) <= EPS + 1e-12
            margins = torch.stack(
                [label_margin(logits.detach(), y[k].expand(len(inputs))) for k in range(20)], 1
            )
            seen.copy_(torch.minimum(seen, torch.where(near, margins, torch.inf).amin(0)))
            return logits

    found = minimum_margin(Watched().eval(), x, y, "linf", EPS, steps=8, targets=2, generator=seeded())
    assert torch.allclose(found.margin, seen, atol=1e-9)
