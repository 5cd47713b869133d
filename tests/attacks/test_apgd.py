"""Auto-PGD: linear models, a known peak, its schedule, and parity with the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacked import Counting, best_offset, linear, outside, small_images, small_net
from torch import nn

from certmix.attacks import apgd, apgd_ce, apgd_dlr, apgd_targeted, pgd
from certmix.attacks.apgd import State, checkpoints
from certmix.errors import ParameterError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predicted(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


@pytest.mark.parametrize("attack", [apgd_ce, apgd_dlr, apgd_targeted])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.1, 0.9])
def test_the_optimum_of_a_linear_model_is_found_with_and_without_the_box(attack, norm, eps):
    weight = torch.randn(2, 7, generator=seeded(1), dtype=torch.float64)
    model, images = linear(weight, (6.0, 0.0)), torch.rand(5, 7, generator=seeded(2), dtype=torch.float64)
    found = attack(model, images, torch.zeros(5, dtype=torch.long), norm, eps, early_stop=False)
    slope = (weight[1] - weight[0]).numpy()
    for image, point in zip(images.numpy(), found.numpy(), strict=True):
        best = slope @ best_offset(slope, image, norm, eps)
        assert slope @ (point - image) == pytest.approx(best, rel=1e-4)
        assert slope @ (point - image) <= best * (1 + 1e-12)


class Peak(nn.Module):
    """Class 0 always wins, by least at 0.6 in every input."""

    def forward(self, inputs):
        gap = 1 + (inputs.flatten(1) - 0.6).square().sum(1)
        return torch.stack([gap, 0 * gap], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_halving_steps_close_in_on_a_peak_that_fixed_steps_jump_over(norm):
    images = torch.full((3, 4), 0.5, dtype=torch.float64)
    labels, model = torch.zeros(3, dtype=torch.long), Peak().eval()
    found = apgd(model, images, labels, norm, 0.4, loss="margin", steps=200)
    assert (found - 0.6).abs().max() < 2e-3
    fixed = pgd(model, images, labels, norm, 0.4, loss="margin", steps=200, step_size=0.8)
    assert (fixed - 0.6).abs().max() > 2e-2


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (3, 5, 6, 7, 8, 9, 10)
    assert checkpoints(1) == (1,)
    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    assert checkpoints(1000) == tuple(np.ceil(np.round(1000 * np.array(p[1:-1]), 6)).astype(int))


def state(rises, top_loss, checked_loss, halved):
    """Three inputs an image: now at 1, best at 2."""
    n = len(rises)
    ones, column = torch.ones(n, 3), torch.ones(n)
    return State(
        at=torch.arange(n), points=ones, previous=0 * ones, gradient=ones, loss=column, top_points=2 * ones,
        top_gradient=3 * ones, top_loss=torch.tensor(top_loss), length=column.double(),
        rises=torch.tensor(rises), checked_loss=torch.tensor(checked_loss), halved=torch.tensor(halved),
    )  # fmt: skip


def test_a_checkpoint_halves_where_the_loss_stalls_and_goes_on_from_the_best_point():
    """Of 8 steps 6 must rise; a standing best loss halves unless the step was halved last time."""
    before = state([6, 5, 8, 8, 8], [4.0] * 5, [3.0, 3.0, 4.0, 4.0, 3.0], [False, False, False, True, True])
    after = before.checked(8)
    assert after.length.tolist() == [1.0, 0.5, 0.5, 1.0, 1.0]
    assert after.halved.tolist() == [False, True, True, False, False]
    assert after.points[:, 0].tolist() == [1, 2, 2, 1, 1]
    assert after.gradient[:, 0].tolist() == [1, 3, 3, 1, 1]
    assert after.loss.tolist() == [1, 4, 4, 1, 1]
    assert after.rises.tolist() == [0] * 5
    assert after.checked_loss.tolist() == [4.0] * 5


def test_the_first_step_is_twice_the_radius_and_momentum_comes_after():
    """On a slope without an end, iterates follow the recursion of the paper."""
    model, images = (
        linear([[0.0, 0.0], [1.0, -1.0]], (9.0, 0.0)),
        torch.full((1, 2), 0.5, dtype=torch.float64),
    )
    seen = []
    apgd(
        model, images, torch.tensor([0]), "linf", 0.2, steps=5, generator=seeded(),
        track=lambda at, points, logits, step: seen.append(points[0]),
    )  # fmt: skip
    corner = torch.tensor([0.7, 0.3], dtype=torch.float64)
    torch.testing.assert_close(seen[2], corner)
    expected = (seen[2] + 0.75 * (corner - seen[2]) + 0.25 * (seen[2] - seen[1])).clamp(0.3, 0.7)
    torch.testing.assert_close(seen[3], expected)


@pytest.mark.parametrize("steps", [1, 7])
def test_one_forward_pass_a_point_and_one_backward_pass_a_step(steps):
    model, images = Counting(small_net()), small_images(4)
    labels = predicted(model.module, images)
    apgd_ce(model, images, labels, eps=1e-4, steps=steps)
    assert model.gradients == [False] + [True] * steps + [False]


def test_each_target_takes_the_survivors_and_finds_its_own_class():
    """Class 3 has the lowest clean logit of the rivals and is the only one within reach."""
    weight = torch.diag(torch.tensor([0.0, 0.1, 0.1, 12.0, 0.1]))
    model = Counting(linear(weight, (2.5, 1.0, 1.5, -6.0, 1.4)))
    images = torch.full((2, 5), 0.5, dtype=torch.float64)
    images[1, 3] = 0.1
    labels, options = torch.zeros(2, dtype=torch.long), dict(eps=0.25, steps=3)
    assert torch.equal(model.module(images)[0].argsort(descending=True), torch.tensor([0, 2, 4, 1, 3]))
    assert predicted(model.module, apgd_targeted(model, images, labels, targets=3, **options)).tolist() == [
        0,
        0,
    ]
    model.batches.clear()
    found = apgd_targeted(model, images, labels, **options)
    assert predicted(model.module, found).tolist() == [3, 0]
    assert model.batches[:13] == [2] * 13
    assert model.batches[-1] == 1
    model.batches.clear()
    apgd_targeted(model, images, labels, early_stop=False, **options)
    assert model.batches == [2] * (1 + 4 * 4)


def test_more_targets_and_restarts_never_break_fewer():
    model, images = small_net(dtype=torch.float64), small_images(40, dtype=torch.float64)
    labels, broken = predicted(model, images), torch.zeros(40, dtype=torch.bool)
    for options in ({"targets": 1}, {"targets": 2}, {"targets": 9}, {"targets": 9, "restarts": 2}):
        found = apgd_targeted(model, images, labels, eps=0.012, steps=4, generator=seeded(), **options)
        now = predicted(model, found) != labels
        assert torch.all(now >= broken)
        broken = now
    assert 0 < broken.sum() < 40


def test_few_classes_are_served():
    for classes in (2, 3, 4):
        model, images = small_net(classes), small_images(5)
        labels = predicted(model, images)
        for attack in (apgd_ce, apgd_dlr, apgd_targeted):
            found = attack(model, images, labels, eps=0.5, steps=3)
            assert outside(found, images, "linf", 0.5) == []
            assert torch.any(predicted(model, found) != labels)


def test_settings_arechecked():
    model, images = small_net(), small_images(1)
    for attack, change in ((apgd, {"steps": 0}), (apgd_targeted, {"targets": 0}), (apgd, {"loss": "none"})):
        with pytest.raises(ParameterError, match=next(iter(change))):
            attack(model, images, torch.tensor([0]), **change)
    with pytest.raises(ParameterError, match="'l1' is not served by apgd-targeted"):
        apgd_targeted(model, images, torch.tensor([0]), "l1")


def reference(model, images, labels, norm, eps, loss):
    """The authors' code, 15 steps; it computes in float32."""
    package = pytest.importorskip("pyautoattack.autopgd_base")
    options = dict(norm=norm.capitalize(), eps=eps, n_iter=15, device="cpu")
    if loss == "targeted-dlr":
        attack = package.APGDAttack_targeted(model, n_target_classes=4, **options)
    else:
        attack = package.APGDAttack(model, loss={"cross-entropy": "ce"}.get(loss, loss), **options)
    with torch.random.fork_rng():
        return attack.perturb(images.clone(), labels.clone())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm, eps", [("linf", 0.025), ("l2", 0.25)])
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr", "targeted-dlr"])
def test_parity_with_the_authors_code_at_equal_budgets(norm, eps, loss):
    model, images = small_net(), small_images(150)
    labels = predicted(model, images)
    if loss == "targeted-dlr":
        ours = apgd_targeted(model, images, labels, norm, eps, steps=15, generator=seeded())
    else:
        ours = apgd(model, images, labels, norm, eps, loss=loss, steps=15, generator=seeded())
    theirs = reference(model, images, labels, norm, eps, loss)
    broken, expected = (predicted(model, found) != labels for found in (ours, theirs))
    assert 20 < expected.sum() < 130
    assert int((broken != expected).sum()) <= 4
