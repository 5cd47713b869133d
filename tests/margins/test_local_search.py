"""The search against exact constants, its monotonicity by construction, and claims on trial."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from attacked import linear, outside, small_inputs, small_net
from torch import nn

from certmix.attacks.geometry import distance
from certmix.errors import ModelError, ParameterError
from certmix.margins.local_search import RATIOS, float64_twin, local_search, slopes_beyond_rounding

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
WEIGHT = np.random.default_rng(0).standard_normal((4, 6))


def inner(count, size, dtype=torch.float64):
    """Points so far inside the box that it cuts no ball of radius 0.1."""
    drawn = torch.rand(count, size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return 0.2 + 0.6 * drawn


class Quadratic(nn.Module):
    """Logits s_i |x - a_i|^2 / 2: the greatest change over the ball has a closed form."""

    def __init__(self, centres, scales):
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("scales", scales)
        self.eval()

    def forward(self, x):
        return self.scales * ((x[:, None] - self.centres) ** 2).sum(2) / 2


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("ratio", ["relaxed", "each"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_linear_model_gives_its_exact_constants_and_never_more(norm, ratio, dtype):
    net = linear(WEIGHT, dtype=dtype)
    exact = np.linalg.norm(net.weight.detach().double().numpy(), DUAL[norm], axis=1)
    found = local_search(net, inner(3, 6, dtype), norm, 0.1, of="logits", ratio=ratio, steps=2, restarts=1)
    np.testing.assert_allclose(
        found.slopes, np.broadcast_to(exact, (3, 4)), rtol=1e-11 if dtype == torch.float64 else 1e-5
    )
    assert (found.slopes <= exact).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_l1_change_over_the_distance_is_exact_for_a_linear_model(norm):
    net, x = linear(WEIGHT), inner(2, 6)
    signs = np.array(list(itertools.product((-1, 1), repeat=4)))
    exact = np.linalg.norm(signs @ WEIGHT, DUAL[norm], axis=1).max()
    found = local_search(net, x, norm, 0.1, of="logits", ratio="yang", steps=40, restarts=3)
    assert (found.slopes <= exact).all() and found.slopes.max() == pytest.approx(exact, rel=1e-3)
    assert (found.slopes > 0.85 * exact).all()  # a convex function has several maxima
    found = local_search(net, x, "l2", 0.1, of="logits", ratio="together", steps=60, restarts=3)
    assert found.slopes == pytest.approx(np.linalg.norm(WEIGHT, 2), rel=1e-3)
    assert (found.slopes <= np.linalg.norm(WEIGHT, 2)).all()


def test_a_quadratic_model_gives_its_exact_relaxed_constants():
    x, eps = inner(3, 5), 0.1
    centres = torch.rand(3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scales = torch.tensor([1.0, 3.0, -2.0], dtype=torch.float64)
    y = torch.zeros(3, dtype=torch.int64)
    found = local_search(Quadratic(centres, scales), x, "l2", eps, of="logits", steps=10, selected=y)
    r = (x[:, None] - centres).norm(dim=2).numpy()
    # y = 0 falls by (r^2 - (r - eps)^2) / 2; class 1 rises outwards, class 2 inwards
    assert (r > eps).all()
    exact = np.stack([(2 * r - eps)[:, 0] / 2, 3 * (2 * r + eps)[:, 1] / 2, 2 * (2 * r - eps)[:, 2] / 2], 1)
    np.testing.assert_allclose(found.slopes, exact, rtol=1e-10)
    assert (found.slopes <= exact).all()


def test_relaxed_constants_divide_by_eps_and_true_slopes_by_the_distance():
    """A concave bump: the largest rise is at distance 0.01, far inside the ball."""
    bump = Quadratic(
        torch.tensor([[0.51], [0.0]], dtype=torch.float64), torch.tensor([-1.0, 0.0], dtype=torch.float64)
    )
    x, y = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([1])
    relaxed = local_search(bump, x, "l2", 0.1, of="logits", selected=y, steps=60)
    assert relaxed.slopes[0, 0] == pytest.approx(0.5 * 0.01**2 / 0.1, rel=1e-2)
    each = local_search(bump, x, "l2", 0.1, of="logits", ratio="each", selected=y, steps=20)
    # |f(x+d) - f(x)| / |d| = |0.01 d - d^2 / 2| / |d|, largest at d = -0.1
    assert each.slopes[0, 0] == pytest.approx(0.06, rel=1e-9)
    steep = local_search(bump, x - 0.3, "linf", 0.1, of="logits", ratio="each", selected=y, steps=20)
    assert steep.slopes[0, 0] == pytest.approx(0.31 + 0.05, rel=1e-9)


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("ratio", RATIOS)
def test_more_steps_or_restarts_never_lower_an_estimate(norm, ratio):
    net, x = small_net(3).double(), small_inputs(2, dtype=torch.float64)
    eps = {"linf": 0.05, "l2": 0.5, "l1": 3.0}[norm]

    def search(steps, restarts):
        return local_search(net, x, norm, eps, ratio=ratio, steps=steps, restarts=restarts)

    short, longer, more = search(2, 2), search(5, 2), search(2, 3)
    assert (longer.by_restart >= short.by_restart).all()
    assert (longer.slopes > short.slopes).any()
    assert np.array_equal(more.by_restart[:2], short.by_restart)
    assert np.array_equal(longer.halfway, short.by_restart)  # 5 // 2 steps
    assert (search(0 + 1, 1).slopes > 0).all()


def test_restarts_differ_ascents_climb_and_starts_depend_on_the_input_alone():
    net, x = small_net(3).double(), small_inputs(4, dtype=torch.float64)
    found = local_search(net, x, "linf", 0.1, ratio="yang", steps=8, restarts=2)
    assert (found.by_restart[0] != found.by_restart[1]).all()
    start = local_search(net, x, "linf", 0.1, ratio="yang", steps=1, restarts=2)
    assert (found.slopes > 1.1 * start.slopes).all()  # an ascent of the negated ratio stays near its start
    seeds = torch.tensor([5, 6, 7, 8])
    whole = local_search(net, x, "l2", 0.5, steps=2, restarts=2, seeds=seeds)
    part = local_search(net, x[2:], "l2", 0.5, steps=2, restarts=2, seeds=seeds[2:], batch_size=2)
    np.testing.assert_allclose(part.by_restart, whole.by_restart[:, 2:], rtol=1e-9)


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("ratio", ["relaxed", "each"])
def test_estimates_are_reached_by_points_of_ball_and_box(norm, ratio):
    net, x = small_net(3), small_inputs(3)
    eps = {"linf": 0.05, "l2": 0.5, "l1": 3.0}[norm]
    found = local_search(net, x, norm, eps, ratio=ratio, steps=4)
    twin = float64_twin(net, x)
    assert twin is not None and next(net.parameters()).dtype == torch.float32
    with torch.no_grad():
        before = twin(x.double()).softmax(1)
        for i in range(3):
            points = torch.from_numpy(found.points[:, i])
            assert outside(points, x, norm, eps) == []
            change = (twin(points.double()).softmax(1) - before)[:, i]
            own = torch.from_numpy(found.selected) == i
            rise = torch.where(own, -change, change) if ratio == "relaxed" else change.abs()
            size = eps if ratio == "relaxed" else distance(points, x, norm).numpy()
            np.testing.assert_allclose(found.slopes[:, i], rise.numpy() / size, rtol=1e-6, atol=1e-10)


def test_a_saturated_softmax_does_not_blind_the_search():
    """At the input the probabilities are 1 and exp(-4000): their gradients are 0 in float64."""
    net = linear(np.array([[4e4, 0.0], [-4e4, 0.0]]), np.array([-2e4, 2e4]), torch.float32)
    found = local_search(net, torch.tensor([[0.55, 0.5]]), "linf", 0.1, steps=3, restarts=1)
    np.testing.assert_allclose(found.slopes, 10.0, rtol=1e-6)


def test_without_a_box_no_ball_is_cut():
    net, x = linear(WEIGHT), torch.zeros(1, 6, dtype=torch.float64)
    exact = np.abs(WEIGHT).sum(1)
    whole = local_search(net, x, "linf", 0.1, of="logits", steps=1, box=None)
    np.testing.assert_allclose(whole.slopes[0], exact, rtol=1e-11)
    cut = local_search(net, x, "linf", 0.1, of="logits", steps=1)
    assert (cut.slopes[0] < exact - 1e-3).all()


def test_a_model_that_float64_cannot_run_is_judged_in_its_own():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = linear(WEIGHT, dtype=torch.float32)

        def forward(self, x):
            return self.net(x.float()).float()

    net, x = Stubborn().eval(), inner(2, 6, torch.float32)
    assert float64_twin(net, x) is None
    found = local_search(net, x, "linf", 0.1, of="logits", steps=1)
    exact = np.abs(WEIGHT).sum(1)
    np.testing.assert_allclose(found.slopes, np.stack([exact] * 2), rtol=1e-2)
    assert (found.slopes <= exact).all()


# ------------------------------------------------------------------- claims


def steepest(net, x, eps, *, norm="l2", of="logits", ratio="together", steps=40):
    found = local_search(net, x, norm, eps, of=of, ratio=ratio, steps=steps)
    points = torch.from_numpy(found.points[:, 0])
    judge = float64_twin(net, x)
    return float(slopes_beyond_rounding(net, judge, x, points, of=of, ratio=ratio, norm=norm).max())


@pytest.mark.parametrize(
    "dtype, eps",
    [
        (torch.float64, 0.1), (torch.float32, 1e-4),
        *(pytest.param(*of, marks=pytest.mark.long) for of in ((torch.float32, 0.1), (torch.float64, 1e-4))),
    ],
)  # fmt: skip
def test_a_true_constant_is_never_contradicted_and_one_a_bit_lower_is(dtype, eps):
    net = linear(WEIGHT, dtype=dtype)
    exact = np.linalg.norm(net.weight.detach().double().numpy(), 2)
    slope = steepest(net, inner(4, 6, dtype), eps, steps=80)
    assert exact * (1 - 2e-3) < slope <= exact


def test_rounding_alone_contradicts_nothing():
    """Float64 itself cannot tell these logits apart: 1e8 swallows what the input changes."""

    class Cancelling(nn.Module):
        def forward(self, x):
            return (x * 1e-3 + 1e8) - 1e8

    net, x = Cancelling().eval(), inner(4, 3)
    found = local_search(net, x, "linf", 1e-7, of="logits", ratio="each", steps=3)
    points, asked = torch.from_numpy(found.points[:, 0]), {"of": "logits", "ratio": "each", "norm": "linf"}
    slopes = slopes_beyond_rounding(lambda z: net(z.float()), net, x, points, **asked)
    assert (slopes <= 1e-3).all()


def test_equal_points_and_relaxed_ratios_are_no_slopes():
    net, x = linear(WEIGHT), inner(2, 6)
    assert (slopes_beyond_rounding(net, None, x, x, of="logits", ratio="each", norm="l2") == 0).all()
    with pytest.raises(ParameterError, match="divides by eps"):
        slopes_beyond_rounding(net, None, x, x, of="logits", ratio="relaxed", norm="l2")


def test_spectral_norm_of_a_convolution_is_caught():
    """PyTorch normalises the weight as a matrix (4, 3 * 9): that bounds no operator norm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.utils.parametrizations.spectral_norm(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), n_power_iterations=50
        )
        net = nn.Sequential(convolution, nn.Flatten()).eval()
    assert steepest(net, small_inputs(2) * 0.5 + 0.25, 0.5) > 1.2


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize("changes, error, words", [
    ({"norm": "l3"}, ParameterError, "norm 'l3' is unknown"),
    ({"of": "scores"}, ParameterError, "of 'scores' is unknown"),
    ({"ratio": "best"}, ParameterError, "ratio 'best' is unknown"),
    ({"eps": 0.0}, ParameterError, "eps = 0.0"),
    ({"eps": float("nan")}, ParameterError, "eps = nan"),
    ({"steps": 0}, ParameterError, "steps = 0"),
    ({"restarts": 0}, ParameterError, "restarts = 0"),
    ({"box": (0.0, 0.5)}, ParameterError, "outside the box"),
    ({"model": linear(WEIGHT).train()}, ModelError, "training mode"),
    ({"model": lambda z: torch.ones(len(z), 3)}, ModelError, "no gradient"),
    ({"model": lambda z: torch.where(z[:, :3] == inner(2, 6)[0, :3], z[:, :3], z[:, :3] * torch.nan),
      "inputs": inner(2, 6)[:1]}, ModelError, "NaN or infinite"),
])  # fmt: skip
def test_bad_arguments_and_models(changes, error, words):
    with pytest.raises(error, match=words):
        local_search(**{"model": linear(WEIGHT), "inputs": inner(2, 6), "eps": 0.1, "steps": 1, **changes})
