"""FGSM, PGD and Auto-PGD: linear models, whose optimum is known, and what every attack promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attacked import Counting, best_offset, linear, outside, seeded, small_inputs, small_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from certmix.attacks import ATTACKS, LOSSES, apgd, apgd_ce, apgd_targeted, fgsm, pgd
from certmix.attacks.apgd import checkpoints
from certmix.attacks.geometry import distance
from certmix.errors import ModelError, ParameterError

QUICK = {name: {"steps": 4} if "steps" in one.settings else {} for name, one in ATTACKS.items()}
GRADIENT = ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-targeted"]
PAIRS = [(name, norm) for name in GRADIENT for norm in ATTACKS[name].norms]


def attack(name, model, inputs, labels, norm="linf", eps=0.1, **changes):
    return ATTACKS[name].function(model, inputs, labels, norm, eps, **{**QUICK[name], **changes})


def predicted(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(inputs).argmax(1)


def clean(count, **settings):
    """A small net, inputs, and the labels that it gives them."""
    model, inputs = small_net(**settings), small_inputs(count, **settings)
    return model, inputs, predicted(model, inputs)


# ------------------------------------------------------------ against the truth


@pytest.mark.parametrize(
    "eps, name, norm",
    [
        pytest.param(eps, *pair, marks=[pytest.mark.long] * (eps != 0.9 and pair[0] != "pgd"))
        for eps in (0.1, 0.9, 4.0)
        for pair in PAIRS
    ],
)
def test_the_optimum_of_a_linear_model_is_found_with_and_without_the_box(eps, name, norm):
    weight = torch.randn(2, 7, generator=seeded(1), dtype=torch.float64)
    inputs = torch.rand(5, 7, generator=seeded(2), dtype=torch.float64)
    inputs[:, 0], inputs[:, 1] = 0.0, 1.0
    given, close = {"early_stop": False}, {"fgsm": 1e-9, "pgd": 1e-6}.get(name, 1e-4)
    if name == "pgd":
        given |= {"steps": 80, "step_size": eps if norm == "l2" else eps / 4, "random_start": eps > 0.5}
    elif name != "fgsm":
        given["steps"] = 100
    found = attack(name, linear(weight, (50.0, 0.0)), inputs, torch.zeros(5).long(), norm, eps, **given)
    assert outside(found, inputs, norm, eps) == []
    slope = (weight[1] - weight[0]).numpy()
    for input, point in zip(inputs.numpy(), found.numpy(), strict=True):
        best = slope @ best_offset(slope, input, norm, eps)
        assert best * (1 - close) <= slope @ (point - input) <= best * (1 + 1e-9)


class Between(nn.Module):
    """Class 1 wins for 0.5 < x < 0.6; beyond, class 0 wins again, with a higher cross-entropy."""

    def forward(self, inputs):
        x = inputs[:, :1]
        here = torch.where(x < 0.5, 0, torch.where(x < 0.6, 1, 2)).squeeze(1)
        logits = torch.tensor([[5.0, 0.0, 0.0], [0.49, 0.51, -9.0], [0.34, 0.33, 0.33]])[here]
        return logits + torch.cat([-1e-6 * x, 0 * x, 0 * x], 1)


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_misclassified_point_beats_a_right_one_of_higher_loss(early_stop):
    model, inputs, labels = Between().eval(), torch.tensor([[0.45], [0.55], [0.9]]), torch.zeros(3).long()
    options = dict(eps=0.4, steps=4, step_size=0.1, random_start=False, early_stop=early_stop)
    found = pgd(model, inputs, labels, **options)
    torch.testing.assert_close(found[:2], torch.tensor([[0.55], [0.55]]))
    losses = [LOSSES["cross-entropy"](model(x), labels, None)[0] for x in (found, inputs + 0.2)]
    assert losses[0] < losses[1]


def reference(model, inputs, labels, norm, eps, loss):
    """The authors' code, 15 steps; it computes in float32."""
    package = pytest.importorskip("pyautoattack.autopgd_base")
    options = dict(norm=norm.capitalize(), eps=eps, n_iter=15, device="cpu")
    if loss == "targeted-dlr":
        attack = package.APGDAttack_targeted(model, n_target_classes=4, **options)
    else:
        attack = package.APGDAttack(model, loss={"cross-entropy": "ce"}.get(loss, loss), **options)
    with torch.random.fork_rng():
        return attack.perturb(inputs.clone(), labels.clone())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm, eps", [("linf", 0.025), ("l2", 0.25)])
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr", "targeted-dlr"])
def test_parity_with_the_authors_code_at_equal_budgets(norm, eps, loss):
    model, inputs, labels = clean(60)
    function = (
        apgd_targeted if loss == "targeted-dlr" else lambda *given, **named: apgd(*given, loss=loss, **named)
    )
    ours = function(model, inputs, labels, norm, eps, steps=15, generator=seeded())
    theirs = reference(model, inputs, labels, norm, eps, loss)
    broken, expected = (predicted(model, found) != labels for found in (ours, theirs))
    assert 7 < expected.sum() < 54
    assert int((broken != expected).sum()) <= 2


# --------------------------------------------------------------- every attack


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(PAIRS), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from([0.0, 1e-9, 8 / 255, 0.5, 5.0, 1e6]), st.integers(0, 1000), st.booleans(),
)  # fmt: skip
def test_every_attack_stays_in_ball_and_box(pair, dtype, eps, seed, early_stop):
    (name, norm), inputs = pair, small_inputs(3, seed, dtype)
    labels, model = torch.tensor([0, 1, 2]), small_net(seed=seed % 3, dtype=dtype)
    found = attack(name, model, inputs, labels, norm, eps, early_stop=early_stop, generator=seeded(seed))
    assert found.dtype == dtype
    assert outside(found, inputs, norm, eps) == []
    if eps == 0:
        assert torch.equal(found, inputs)
    elif dtype == torch.float32 and eps < 1:
        inputs = 2 * inputs - 1
        found = attack(name, model, inputs, labels, norm, eps, box=(-1.0, 1.0))
        assert outside(found, inputs, norm, eps, (-1.0, 1.0)) == []


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("early_stop", [True, False])
def test_the_best_of_all_tracked_points_is_returned(name, early_stop):
    model, inputs, labels = clean(12)
    labels[0] = (labels[0] + 1) % 5
    seen: list[list[tuple]] = [[] for _ in range(12)]

    def track(at, points, logits, step):
        torch.testing.assert_close(logits, model(points).detach(), rtol=1e-4, atol=1e-5)
        if step == 0:
            assert torch.equal(points, inputs)
        for i, point, z in zip(at.tolist(), points, logits, strict=True):
            seen[i].append((int(z.argmax()) != int(labels[i]), point, z, step))

    options = dict(early_stop=early_stop, track=track, restarts=2, generator=seeded())
    found = attack(name, model, inputs, labels, eps=0.02, **options)
    broken = predicted(model, found) != labels
    assert 0 < broken.sum() < 12
    steps = [[step for *_, step in row] for row in seen]
    assert all(row == sorted(set(row)) for row in steps)
    assert {step for row in steps for step in row} == set(range(max(map(len, steps))))
    assert early_stop or len({len(row) for row in seen}) == 1
    for i, row in enumerate(seen):
        among = [(point, z) for wrong, point, z, _ in row if wrong == bool(broken[i])]
        assert bool(broken[i]) == any(wrong for wrong, *_ in row)
        assert any(torch.equal(found[i], point) for point, _ in among)
        if early_stop:
            assert [wrong for wrong, *_ in row] == [False] * (len(row) - 1) + [bool(broken[i])]
        elif name in ("fgsm", "pgd", "apgd-ce"):
            logits = torch.stack([z for _, z in among])
            losses = LOSSES["cross-entropy"](logits, labels[i].repeat(len(among)), None)
            assert torch.equal(found[i], among[int(losses.argmax())][0])


def worth(model, inputs, labels, loss="cross-entropy"):
    """How good an attacked input is: misclassified points above all others, then by loss."""
    with torch.no_grad():
        logits = model(inputs)
    return 1e6 * (logits.argmax(1) != labels) + LOSSES[loss](logits, labels, None)


@pytest.mark.parametrize("name, norm", PAIRS)
def test_more_restarts_steps_and_targets_never_give_a_worse_point(name, norm):
    model, inputs, labels = clean(8, dtype=torch.float64)
    eps, loss = {"linf": 0.01, "l2": 0.1, "l1": 1.0}[norm], ATTACKS[name].loss
    more = [{"restarts": 1}, {"restarts": 2}, {"restarts": 4}]
    if name == "apgd-targeted":
        more = [{"targets": 1}, {"targets": 2}, {"targets": 9}, {"targets": 9, "restarts": 2}]
    if name == "pgd":
        more = [{"steps": k, "step_size": eps / 2} for k in (1, 2, 5)] + [
            {"steps": 5, "step_size": eps / 2, "restarts": 2}
        ]
    before = worth(model, inputs, labels, loss)
    for options in more:
        found = attack(
            name, model, inputs, labels, norm, eps, early_stop=False, generator=seeded(5), **options
        )
        after = worth(model, found, labels, loss)
        assert torch.all(after >= before - 1e-9)
        before = after


@pytest.mark.parametrize("name", GRADIENT)
def test_the_surroundings_play_no_part_and_nothing_is_left_behind(name):
    model, inputs, labels = clean(4)
    model.requires_grad_(True)
    state, before = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = [attack(name, model, inputs, labels, eps=0.02)]
    with torch.no_grad():
        found.append(attack(name, model, inputs, labels, eps=0.02))
    with torch.inference_mode():
        found.append(attack(name, model, inputs.clone(), labels.clone(), eps=0.02).clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())
    assert not (found[0].requires_grad or inputs.requires_grad)
    for part in (slice(0), slice(1)):  # an empty batch and a batch of one
        assert attack(name, model, inputs[part], labels[part]).shape == inputs[part].shape
    labels[2] = (labels[2] + 1) % 5  # what is misclassified stays as it is
    for early_stop in (True, False) if name in ("fgsm", "pgd") else ():
        moved = distance(attack(name, model, inputs, labels, eps=1e-3, early_stop=early_stop), inputs, "linf")
        assert (moved == 0).tolist() == [False, False, early_stop, False]


def test_the_generator_decides_and_batches_do_not():
    model, inputs, labels = clean(6, dtype=torch.float64)

    def run(rows=slice(None), generator=None):
        return pgd(model, inputs[rows], labels[rows], eps=0.002, steps=3, generator=generator)

    one, again, two = (run(generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, again) and torch.equal(run(), run())
    assert not torch.equal(one, two)
    split = seeded(1)
    parts = [run(slice(k, k + 2), split) for k in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts), one)


# -------------------------------------------------------------- what is asked


def test_early_stop_drops_inputs_one_by_one_and_never_asks_twice():
    """Label 1 wins beyond x = 1/2: the inputs break at the clean point, after 1, 2 and 4 steps, or never."""
    inputs = torch.tensor([[0.6], [0.45], [0.35], [0.15], [0.05]], dtype=torch.float64)
    model = Counting(linear([[-1.0], [1.0]], (1.0, 0.0)))
    labels, seen = torch.zeros(5, dtype=torch.long), []
    options = dict(steps=4, step_size=0.1, random_start=False)
    found = pgd(model, inputs, labels, eps=0.4, track=lambda at, *_: seen.append(at.tolist()), **options)
    assert seen == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4], [3, 4], [3, 4]]
    assert model.batches == [5, 4, 3, 2, 2]
    assert model.gradients == [True, True, True, True, False]
    torch.testing.assert_close(found[:, 0], torch.tensor([0.6, 0.55, 0.55, 0.55, 0.45]).double())
    found = pgd(model, inputs, labels, eps=0.4, early_stop=False, **options)
    torch.testing.assert_close(found[:, 0], torch.tensor([1.0, 0.85, 0.75, 0.55, 0.45]).double())
    assert model.batches[5:] == [5] * 5


@pytest.mark.parametrize("function, options, gradients", [
    (fgsm, {}, [True, False]),
    (fgsm, {"restarts": 3}, [True, False] * 3),
    (pgd, {"steps": 3, "restarts": 2}, [False, *[True, True, True, False] * 2]),
    (apgd_ce, {"steps": 1}, [False, True, False]),
    (apgd_ce, {"steps": 7}, [False, *[True] * 7, False]),
])  # fmt: skip
def test_one_forward_pass_a_point_and_one_backward_pass_a_step(function, options, gradients):
    net, inputs, labels = clean(4)
    model = Counting(net)
    function(model, inputs, labels, eps=1e-4, **options)
    assert model.gradients == gradients
    assert model.batches == [4] * len(gradients)


def test_each_target_takes_the_survivors_and_finds_its_own_class():
    """Class 3 has the lowest clean logit of the rivals and is the only one within reach."""
    weight = torch.diag(torch.tensor([0.0, 0.1, 0.1, 12.0, 0.1]))
    model = Counting(linear(weight, (2.5, 1.0, 1.5, -6.0, 1.4)))
    inputs = torch.full((2, 5), 0.5, dtype=torch.float64)
    inputs[1, 3] = 0.1
    labels, options = torch.zeros(2, dtype=torch.long), dict(eps=0.25, steps=3)
    assert torch.equal(model.module(inputs)[0].argsort(descending=True), torch.tensor([0, 2, 4, 1, 3]))
    few = predicted(model.module, apgd_targeted(model, inputs, labels, targets=3, **options))
    assert few.tolist() == [0, 0]
    model.batches.clear()
    found = apgd_targeted(model, inputs, labels, **options)
    assert predicted(model.module, found).tolist() == [3, 0]
    assert model.batches[:13] == [2] * 13
    assert model.batches[-1] == 1
    model.batches.clear()
    apgd_targeted(model, inputs, labels, early_stop=False, **options)
    assert model.batches == [2] * (1 + 4 * 4)


# --------------------------------------------------- Auto-PGD against its paper


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert (checkpoints(10), checkpoints(1)) == ((3, 5, 6, 7, 8, 9, 10), (1,))
    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    assert checkpoints(1000) == tuple(np.ceil(np.round(1000 * np.array(p[1:-1]), 6)).astype(int))


def wave(x):
    return (1 + 0.3 * x) * np.cos(14 * x + np.arange(3))


def wave_slope(x):
    return 0.3 * np.cos(14 * x + np.arange(3)) - 14 * (1 + 0.3 * x) * np.sin(14 * x + np.arange(3))


class Waves(nn.Module):
    """Class 0 always wins; the margin goes up and down."""

    def forward(self, x):
        height = ((1 + 0.3 * x) * torch.cos(14 * x + torch.arange(3))).sum(1)
        return torch.stack([9 - height, height], 1)


def algorithm_1(start, centre, eps, steps):
    """The paper's algorithm, plainly: its points, and how often the step was halved."""
    here = before = best = start
    path, length, rises, halved, halvings, last, checked = [start], 2 * eps, 0, False, 0, 0, wave(start).sum()
    for k in range(1, steps + 1):
        ahead = np.clip(here + length * np.sign(wave_slope(here)), centre - eps, centre + eps)
        if k > 1:
            ahead = here + 0.75 * (ahead - here) + 0.25 * (here - before)
            ahead = np.clip(ahead, centre - eps, centre + eps)
        rises += wave(ahead).sum() > wave(here).sum()
        before, here = here, ahead
        best = here if wave(here).sum() > wave(best).sum() else best
        path.append(here)
        if k in checkpoints(steps):
            halved = rises < 0.75 * (k - last) or (not halved and wave(best).sum() == checked)
            if halved:
                length, here, halvings = length / 2, best, halvings + 1
            rises, checked, last = 0, wave(best).sum(), k
    return np.array(path), halvings


@pytest.mark.parametrize("steps", [30, 100])
def test_every_point_is_that_of_the_papers_algorithm(steps):
    inputs, eps = torch.rand(4, 3, generator=seeded(3), dtype=torch.float64) * 0.4 + 0.3, 0.25
    seen: list[list[np.ndarray]] = [[] for _ in inputs]

    def track(at, points, logits, step):
        for i, point in zip(at.tolist(), points.numpy(), strict=True):
            seen[i].append(point)

    apgd(Waves().eval(), inputs, torch.zeros(4).long(), "linf", eps, loss="margin", steps=steps, track=track)
    for input, (_, start, *rest) in zip(inputs.numpy(), seen, strict=True):
        path, halvings = algorithm_1(start, input, eps, steps)
        assert halvings >= 3
        np.testing.assert_allclose([start, *rest], path, atol=1e-12)


# -------------------------------------------------------------------- refusals


class Failing(nn.Module):
    """Gives NaN, or NaN gradients, away from the input."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.eval()

    def forward(self, inputs):
        score = inputs.flatten(1).sum(1) - 1
        moved = (score.detach().abs() > 1e-6)[:, None]
        logits = torch.stack([9 - score, score], 1)
        if self.how == "gradients":
            return logits + 0 * (score * 0).abs().sqrt()[:, None]
        return torch.where(moved, torch.nan if self.how == "logits" else -torch.inf, logits)


@pytest.mark.parametrize("how", ["logits", "infinite", "gradients"])
@pytest.mark.parametrize("name", GRADIENT)
def test_what_would_disarm_the_attack_is_refused(name, how):
    inputs, word = torch.tensor([[0.5, 0.5], [0.25, 0.75]]), how.replace("infinite", "logits")
    for early_stop in (True, False):
        with pytest.raises(ModelError, match=f"infinite {word} at attacked inputs.*square"):
            attack(name, Failing(how), inputs, torch.zeros(2, dtype=torch.long), early_stop=early_stop)


INPUTS, LABELS, NET = torch.full((2, 4), 0.5), torch.zeros(2, dtype=torch.long), linear(torch.eye(3, 4))


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
    ({"inputs": INPUTS + 0.6}, ParameterError, r"\[1.1, 1.1\], outside the box \[0, 1\]"),
    ({"inputs": torch.full((2, 4), float("nan"))}, ParameterError, "NaN"),
    ({"inputs": torch.ones(2, 4, dtype=torch.uint8)}, ParameterError, "uint8.*floating-point"),
    ({"inputs": torch.ones(2)}, ParameterError, r"\(N, ...\)"),
    ({"model": nn.Linear(4, 3)}, ModelError, r"training mode.*model.eval\(\)"),
    ({"model": nn.Sequential(nn.Flatten(), nn.Dropout().train()).eval().append(nn.Dropout())}, ModelError, "eval"),
    ({"model": answer(torch.full((2, 3), float("nan")))}, ModelError, "2 of 2 clean inputs"),
    ({"model": answer(torch.zeros(3, 3))}, ModelError, r"\(3, 3\)"),
    ({"model": answer(torch.zeros(2))}, ModelError, r"\(2,\)"),
    ({"model": answer(torch.zeros(2, 1))}, ModelError, "single logit"),
    ({"model": answer(torch.zeros(2, 3, dtype=torch.long))}, ModelError, "int64"),
    ({"model": answer(({}, torch.zeros(2, 3)))}, ModelError, "tuple"),
]  # fmt: skip
OWN = [
    ("pgd", {"steps": 0}), ("pgd", {"steps": 2.5}), ("pgd", {"step_size": 0.0}), ("pgd", {"step_size": float("nan")}),
    ("pgd", {"loss": "x"}), ("apgd-ce", {"steps": 0}), ("apgd-targeted", {"targets": 0}),
    ("square", {"queries": 0}), ("square", {"p_init": 0.0}), ("square", {"p_init": float("nan")}), ("square", {"loss": "x"}),
]  # fmt: skip


@pytest.mark.parametrize("name, change, error, message", [
    *((name, *row) for name in [*GRADIENT, "square"] for row in REFUSED),
    *((name, change, ParameterError, next(iter(change))) for name, change in OWN),
    ("apgd-ce", {"norm": "l1"}, ParameterError, "attack by fgsm, pgd"),
    ("apgd-targeted", {"norm": "l1"}, ParameterError, "'l1' is not served by apgd-targeted"),
    ("pgd", {"model": lambda x: F.linear(x.float().round().detach(), torch.ones(2, 4))}, ModelError, "square"),
])  # fmt: skip
def test_bad_arguments_are_refused_in_one_line(name, change, error, message):
    arguments = {"model": NET, "inputs": INPUTS.double(), "labels": LABELS, "norm": "linf", "eps": 0.1}
    with pytest.raises(error, match=message) as caught:
        attack(name, **{**arguments, **change})
    assert "\n" not in str(caught.value)


def test_the_table_tells_what_there_is():
    assert ATTACKS["pgd"].settings == ("steps", "step_size", "loss", "random_start", "restarts")
    assert ATTACKS["apgd-targeted"].settings == ("targets", "steps", "restarts")
    assert ATTACKS["apgd-ce"].settings == ("steps", "restarts")
