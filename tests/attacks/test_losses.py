"""The attack losses against their definitions, and where definitions break down."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.attacks.losses import LOSSES, dlr, margin, probability_margin, targeted_dlr


def drawn(classes: int, count: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator)
    return logits, torch.randint(0, classes, (count,), generator=generator)


def test_losses_are_their_definitions():
    logits, labels = drawn(6)
    targets = (labels + 2) % 6
    for z, y, t, row in zip(logits.double(), labels, targets, range(50), strict=True):
        ranked = z.sort(descending=True).values
        other = torch.cat([z[:y], z[y + 1 :]]).max()
        p = z.softmax(0)
        expected = {
            "cross-entropy": ((1 - p[y]) / p[y]).log(),
            "margin": other - z[y],
            "probability-margin": 2 * (torch.cat([p[:y], p[y + 1 :]]).max() - p[y]).atanh(),
            "dlr": -(z[y] - other) / (ranked[0] - ranked[2]),
            "targeted-dlr": -(z[y] - z[t]) / (ranked[0] - (ranked[2] + ranked[3]) / 2),
        }
        for name, value in expected.items():
            of = targets if name == "targeted-dlr" else None
            found = LOSSES[name](logits, labels, of)
            assert found.dtype == torch.float64
            torch.testing.assert_close(found[row], value, rtol=1e-6, atol=1e-9)


extreme = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, 88.0, 3e38, -3e38])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(LOSSES)), st.integers(2, 6).flatmap(lambda c: st.lists(extreme, min_size=c, max_size=c)),
    st.integers(0, 5), st.integers(0, 5), st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_ties_and_huge_logits_give_finite_losses_and_gradients(name, row, label, target, dtype):
    logits = torch.tensor([row, row], dtype=dtype, requires_grad=True)
    labels, targets = torch.tensor([label % len(row), 0]), torch.tensor([target % len(row), 1])
    for of in (None, targets):
        loss = LOSSES[name](logits, labels, of)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.isfinite().all()
        assert gradient.isnan().sum() == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_no_loss_and_no_gradient_vanishes_however_sure_the_model_is(name, classes):
    logits = torch.randn(30, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = logits.argmax(1)
    for scale in (1.0, 1e3, 1e6):
        scores = (scale * logits).requires_grad_(True)
        loss = LOSSES[name](scores, labels, None)
        (gradient,) = torch.autograd.grad(loss.sum(), scores)
        assert len(loss.unique()) == 30  # points are told apart
        assert torch.all(gradient.abs().amax(1) * scale > 1e-3)


def test_ratios_ignore_scale_and_shift():
    logits, labels = drawn(5)
    for loss in (dlr, targeted_dlr):
        torch.testing.assert_close(
            loss(7 * logits.double() + 3, labels), loss(logits, labels), rtol=1e-9, atol=1e-12
        )
        assert not torch.allclose(margin(7 * logits, labels), margin(logits, labels))


def test_few_classes_fall_back_to_the_margin():
    logits, labels = drawn(2)
    assert torch.equal(dlr(logits, labels), margin(logits, labels))
    logits, labels = drawn(3)
    targets = (labels + 1) % 3
    assert torch.equal(targeted_dlr(logits, labels, targets), margin(logits, labels, targets))
    assert not torch.equal(dlr(logits, labels), margin(logits, labels))
    expected = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)
    torch.testing.assert_close(targeted_dlr(logits, labels, targets), expected.double())
    logits, labels = drawn(5)  # without a target the strongest other class is it
    strongest = logits.scatter(1, labels[:, None], -1e9).argmax(1)
    for loss in (margin, probability_margin, targeted_dlr):
        assert torch.equal(loss(logits, labels), loss(logits, labels, strongest))
