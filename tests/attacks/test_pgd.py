"""PGD: linear models, whose optimum is known, and what every attack promises."""

from __future__ import annotations

import pytest
import torch
from attacked import Counting, best_offset, linear, outside, small_images, small_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from certmix.attacks import ATTACKS, LOSSES, pgd
from certmix.errors import ModelError, ParameterError

QUICK = {name: {"steps": 4} if "steps" in one.settings else {} for name, one in ATTACKS.items()}
GRADIENT = ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-targeted"]
PAIRS = [(name, norm) for name in GRADIENT for norm in ATTACKS[name].norms]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attack(name, model, images, labels, norm="linf", eps=0.1, **changes):
    return ATTACKS[name].function(model, images, labels, norm, eps, **{**QUICK[name], **changes})


def predicted(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [0.1, 0.9])
@pytest.mark.parametrize("random_start", [False, True])
def test_the_optimum_of_a_linear_model_is_found_with_and_without_the_box(norm, eps, random_start):
    weight = torch.randn(2, 7, generator=seeded(1), dtype=torch.float64)
    model, images = linear(weight, (30.0, 0.0)), torch.rand(5, 7, generator=seeded(2), dtype=torch.float64)
    labels = torch.zeros(5, dtype=torch.long)
    found = pgd(
        model, images, labels, norm, eps, steps=80, random_start=random_start,
        step_size=eps if norm == "l2" else eps / 4, early_stop=False, generator=seeded(),
    )  # fmt: skip
    slope = (weight[1] - weight[0]).numpy()
    for image, point in zip(images.numpy(), found.numpy(), strict=True):
        best = best_offset(slope, image, norm, eps)
        assert slope @ (point - image) == pytest.approx(slope @ best, rel=1e-6)
        assert slope @ (point - image) <= slope @ best * (1 + 1e-12)
    at_the_edge = torch.minimum(found, 1 - found).numpy() < 1e-9
    assert eps < 0.5 or at_the_edge.any()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(PAIRS), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from([0.0, 1e-9, 8 / 255, 0.5, 5.0, 1e6]), st.integers(0, 1000), st.booleans(),
)  # fmt: skip
def test_every_attack_stays_in_ball_and_box(pair, dtype, eps, seed, early_stop):
    (name, norm), images = pair, small_images(3, seed, dtype)
    labels = torch.tensor([0, 1, 2])
    model = small_net(seed=seed % 3, dtype=dtype)
    found = attack(name, model, images, labels, norm, eps, early_stop=early_stop, generator=seeded(seed))
    assert found.dtype == dtype
    assert outside(found, images, norm, eps) == []
    if eps == 0:
        assert torch.equal(found, images)


def test_another_box_is_kept_to():
    images = 2 * small_images(4) - 1
    for name, norm in PAIRS:
        found = attack(name, small_net(), images, torch.arange(4), norm, 0.3, box=(-1.0, 1.0))
        assert outside(found, images, norm, 0.3, (-1.0, 1.0)) == []
        assert outside(found, images, norm, 0.3) != []


def test_early_stop_drops_images_one_by_one_and_never_asks_twice():
    """Label 1 wins beyond x = 1/2: the images break at the clean point, after 1, 2 and 4 steps, or never."""
    images = torch.tensor([[0.6], [0.45], [0.35], [0.15], [0.05]], dtype=torch.float64)
    model = Counting(linear([[-1.0], [1.0]], (1.0, 0.0)))
    labels, seen = torch.zeros(5, dtype=torch.long), []
    options = dict(steps=4, step_size=0.1, random_start=False)
    found = pgd(model, images, labels, eps=0.4, track=lambda at, *_: seen.append(at.tolist()), **options)
    assert seen == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4], [3, 4], [3, 4]]
    assert model.batches == [5, 4, 3, 2, 2]
    assert model.gradients == [True, True, True, True, False]
    torch.testing.assert_close(found[:, 0], torch.tensor([0.6, 0.55, 0.55, 0.55, 0.45]).double())
    found = pgd(model, images, labels, eps=0.4, early_stop=False, **options)
    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 0.85, 0.75, 0.55, 0.45]).double())
    assert model.batches[5:] == [5] * 5


def test_a_random_start_costs_one_evaluation_more_without_a_gradient_at_the_images():
    model, images = Counting(small_net()), small_images(4)
    labels = predicted(model.module, images)
    pgd(model, images, labels, eps=1e-4, steps=3, restarts=2)
    assert model.batches == [4] * 9
    assert model.gradients == [False] + 2 * [True, True, True, False]


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("early_stop", [True, False])
def test_the_best_of_all_tracked_points_is_returned(name, early_stop):
    model, images = small_net(), small_images(12)
    labels = predicted(model, images)
    labels[0] = (labels[0] + 1) % 5
    seen: list[list[tuple]] = [[] for _ in range(12)]

    def track(at, points, logits, step):
        torch.testing.assert_close(logits, model(points).detach(), rtol=1e-4, atol=1e-5)
        if step == 0:
            assert torch.equal(points, images)
        for i, point, z in zip(at.tolist(), points, logits, strict=True):
            seen[i].append((int(z.argmax()) != int(labels[i]), point, z, step))

    found = attack(
        name, model, images, labels, eps=0.02, early_stop=early_stop, track=track, restarts=2,
        generator=seeded(),
    )  # fmt: skip
    broken = predicted(model, found) != labels
    assert 0 < broken.sum() < 12
    steps = [[step for *_, step in row] for row in seen]
    assert all(row == sorted(set(row)) for row in steps)
    assert {step for row in steps for step in row} == set(range(max(map(len, steps))))
    assert early_stop or len({len(row) for row in seen}) == 1
    for i, row in enumerate(seen):
        assert bool(broken[i]) == any(wrong for wrong, *_ in row)
        if early_stop:
            assert [wrong for wrong, *_ in row] == [False] * (len(row) - 1) + [bool(broken[i])]
        assert any(torch.equal(found[i], point) for wrong, point, *_ in row if wrong == bool(broken[i]))
    if name in ("fgsm", "pgd", "apgd-ce") and not early_stop:
        for i, row in enumerate(seen):
            among = [z for wrong, _, z, _ in row if wrong == bool(broken[i])]
            losses = LOSSES["cross-entropy"](torch.stack(among), labels[i].repeat(len(among)), None)
            best = [point for wrong, point, *_ in row if wrong == bool(broken[i])][int(losses.argmax())]
            assert torch.equal(found[i], best)


class Between(nn.Module):
    """Class 1 wins for 0.5 < x < 0.6; beyond, class 0 wins again, with a higher cross-entropy."""

    def forward(self, inputs):
        x = inputs[:, :1]
        here = torch.where(x < 0.5, 0, torch.where(x < 0.6, 1, 2)).squeeze(1)
        logits = torch.tensor([[5.0, 0.0, 0.0], [0.49, 0.51, -9.0], [0.34, 0.33, 0.33]])[here]
        return logits + torch.cat([-1e-6 * x, 0 * x, 0 * x], 1)


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_misclassified_point_beats_a_right_one_of_higher_loss(early_stop):
    model, images, labels = Between().eval(), torch.tensor([[0.45], [0.55], [0.9]]), torch.zeros(3).long()
    found = pgd(
        model, images, labels, eps=0.4, steps=4, step_size=0.1, random_start=False, early_stop=early_stop
    )
    torch.testing.assert_close(found[:2], torch.tensor([[0.55], [0.55]]))
    losses = [LOSSES["cross-entropy"](model(x), labels, None)[0] for x in (found, images + 0.2)]
    assert losses[0] < losses[1]


def worth(model, images, labels, loss="cross-entropy"):
    """How good an attacked image is: misclassified points above all others, then by loss."""
    with torch.no_grad():
        logits = model(images)
    return 1e6 * (logits.argmax(1) != labels) + LOSSES[loss](logits, labels, None)


@pytest.mark.parametrize("name, norm", PAIRS)
def test_more_restarts_never_give_a_worse_point(name, norm):
    model, images = small_net(dtype=torch.float64), small_images(8, dtype=torch.float64)
    labels, eps = predicted(model, images), {"linf": 0.01, "l2": 0.1, "l1": 1.0}[norm]
    loss = {"apgd-dlr": "dlr", "apgd-targeted": "targeted-dlr"}.get(name, "cross-entropy")
    options = {"targets": 1} if name == "apgd-targeted" else {}
    before = worth(model, images, labels, loss)
    for restarts in (1, 2, 4):
        found = attack(
            name, model, images, labels, norm, eps, restarts=restarts, early_stop=False,
            generator=seeded(5), **options,
        )  # fmt: skip
        after = worth(model, found, labels, loss)
        assert torch.all(after >= before - 1e-9)
        before = after


def test_more_steps_of_equal_size_never_give_a_worse_point():
    model, images = small_net(), small_images(8)
    labels, before = predicted(model, images), torch.full((8,), -torch.inf).double()
    for steps in (1, 2, 5, 9):
        found = pgd(
            model,
            images,
            labels,
            eps=0.02,
            steps=steps,
            step_size=0.01,
            early_stop=False,
            generator=seeded(1),
        )
        after = worth(model, found, labels)
        assert torch.all(after >= before - 1e-6)
        before = after


def test_the_generator_decides_and_batches_do_not():
    model, images = small_net(dtype=torch.float64), small_images(6, dtype=torch.float64)
    labels, options = predicted(model, images), dict(eps=0.002, steps=3)
    runs = [pgd(model, images, labels, generator=seeded(s), **options) for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(pgd(model, images, labels, **options), pgd(model, images, labels, **options))
    one = seeded(1)
    parts = [
        pgd(model, x, y, generator=one, **options)
        for x, y in zip(images.split(2), labels.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), runs[0])


@pytest.mark.parametrize("name", GRADIENT)
def test_the_surroundings_play_no_part_and_nothing_is_left_behind(name):
    model, images = small_net().requires_grad_(True), small_images(4)
    labels = predicted(model, images)
    state, before = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = [attack(name, model, images, labels, eps=0.02)]
    with torch.no_grad():
        found.append(attack(name, model, images, labels, eps=0.02))
    with torch.inference_mode():
        found.append(attack(name, model, images.clone(), labels.clone(), eps=0.02).clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())
    assert not found[0].requires_grad
    assert not images.requires_grad


def test_a_confident_model_is_attacked_all_the_same():
    """Logits so large that float32 cross-entropies and their gradients are 0."""
    weight, image = torch.tensor([[400.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.9, 0.5]])
    model, label = linear(weight, dtype=torch.float32), torch.tensor([0])
    inputs = image.clone().requires_grad_(True)
    assert torch.autograd.grad(F.cross_entropy(model(inputs), label), inputs)[0].abs().max() == 0
    found = pgd(model, image, label, eps=0.5, random_start=False)
    assert found[0, 0] == pytest.approx(0.4, abs=1e-6)


def test_an_empty_batch_and_a_batch_of_one():
    model, images = small_net(), small_images(1)
    for name in GRADIENT:
        assert attack(name, model, images[:0], torch.zeros(0, dtype=torch.long)).shape == (0, 3, 8, 8)
        assert attack(name, model, images, torch.tensor([1])).shape == (1, 3, 8, 8)


class Failing(nn.Module):
    """Gives NaN, or NaN gradients, away from the image."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.eval()

    def forward(self, inputs):
        score = inputs.flatten(1).sum(1) - 1
        moved = (score.detach().abs() > 1e-6)[:, None]
        logits = torch.stack([9 - score, score], 1)
        if self.how == "logits":
            return torch.where(moved, torch.nan, logits)
        if self.how == "infinite":
            return torch.where(moved, -torch.inf, logits)
        return logits + 0 * (score * 0).abs().sqrt()[:, None]


@pytest.mark.parametrize(
    "how, word", [("logits", "logits"), ("infinite", "logits"), ("gradient", "gradients")]
)
@pytest.mark.parametrize("name", GRADIENT)
def test_what_would_disarm_the_attack_is_refused(name, how, word):
    images = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    for early_stop in (True, False):
        with pytest.raises(ModelError, match=f"infinite {word} at attacked images.*square"):
            attack(name, Failing(how), images, torch.zeros(2, dtype=torch.long), early_stop=early_stop)


class Rounding(nn.Module):
    """Hides its gradient."""

    def forward(self, inputs):
        return F.linear(inputs.round().detach(), torch.ones(2, 4))


def test_a_model_without_a_gradient_is_refused():
    with pytest.raises(ModelError, match="square"):
        pgd(Rounding().eval(), torch.rand(2, 4), torch.zeros(2, dtype=torch.long))


IMAGES, LABELS, NET = torch.full((2, 4), 0.5), torch.zeros(2, dtype=torch.long), linear(torch.eye(3, 4))


def answer(value):
    return lambda inputs: value


REFUSED = [
    ({"norm": "l7"}, ParameterError, "'l7'.*linf or l2"),
    ({"eps": -1.0}, ParameterError, "-1.0.*at least 0"),
    ({"eps": float("nan")}, ParameterError, "nan"),
    ({"eps": float("inf")}, ParameterError, "inf"),
    ({"box": (1.0, 0.0)}, ParameterError, "lower one first"),
    ({"restarts": 0}, ParameterError, "restarts = 0"),
    ({"labels": torch.tensor([0, 3])}, ParameterError, "label 3.*0 .. 2"),
    ({"labels": torch.tensor([-1, 0])}, ParameterError, "label -1"),
    ({"labels": torch.tensor([0.0, 1.0])}, ParameterError, "float32.*integers"),
    ({"labels": torch.tensor([0])}, ParameterError, r"\(1,\).*\(2,\)"),
    ({"images": IMAGES + 0.6}, ParameterError, r"\[1.1, 1.1\], outside the box \[0, 1\]"),
    ({"images": torch.full((2, 4), float("nan"))}, ParameterError, "NaN"),
    ({"images": torch.ones(2, 4, dtype=torch.uint8)}, ParameterError, "uint8.*floating-point"),
    ({"images": torch.ones(2)}, ParameterError, r"\(N, ...\)"),
    ({"model": nn.Linear(4, 3)}, ModelError, r"training mode.*model.eval\(\)"),
    ({"model": nn.Sequential(nn.Flatten(), nn.Dropout().train()).eval().append(nn.Dropout())}, ModelError, "eval"),
    ({"model": answer(torch.full((2, 3), float("nan")))}, ModelError, "2 of 2 clean images"),
    ({"model": answer(torch.zeros(3, 3))}, ModelError, r"\(3, 3\)"),
    ({"model": answer(torch.zeros(2))}, ModelError, r"\(2,\)"),
    ({"model": answer(torch.zeros(2, 1))}, ModelError, "single logit"),
    ({"model": answer(torch.zeros(2, 3, dtype=torch.long))}, ModelError, "int64"),
    ({"model": answer((torch.zeros(2, 3),))}, ModelError, "tuple"),
]  # fmt: skip


@pytest.mark.parametrize("change, error, message", REFUSED)
@pytest.mark.parametrize("name", GRADIENT)
def test_bad_arguments_are_refused_in_one_line(name, change, error, message):
    arguments = {
        "model": NET,
        "images": IMAGES.double(),
        "labels": LABELS,
        "norm": "linf",
        "eps": 0.1,
        **change,
    }
    with pytest.raises(error, match=message) as caught:
        attack(name, **arguments)
    assert "\n" not in str(caught.value)


def test_settings_of_pgd_are_checked():
    for change in (
        {"steps": 0},
        {"steps": 2.5},
        {"step_size": 0.0},
        {"step_size": float("nan")},
        {"loss": "x"},
    ):
        with pytest.raises(ParameterError, match=next(iter(change))):
            pgd(NET, IMAGES.double(), LABELS, **change)


def test_the_table_tells_what_there_is():
    assert ATTACKS["pgd"].settings == ("steps", "step_size", "loss", "random_start", "restarts")
    assert ATTACKS["apgd-targeted"].settings == ("targets", "steps", "restarts")
    for name in GRADIENT:
        assert ATTACKS[name].summary
        assert "l2" in ATTACKS[name].norms
    with pytest.raises(ParameterError, match="attack by fgsm, pgd"):
        attack("apgd-ce", NET, IMAGES.double(), LABELS, "l1")
