"""Square Attack: optima known in closed form, exact membership, exact counts of queries."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch.nn import functional as F

from certmix.attacks.geometry import make_ball
from certmix.attacks.square import MOVES, _bump, share, square, window
from certmix.errors import ModelError, ParameterError

RANDOM = torch.Generator().manual_seed(7)
WEIGHTS = torch.randn(48, generator=RANDOM, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(weights=WEIGHTS, offset=1e3):
    """Two classes with margin z_0 - z_1 = w.x + offset, row by row: batches change nothing."""

    def model(x):
        score = (x.double().flatten(1) * weights).sum(1) + offset
        return torch.stack([score, torch.zeros_like(score)], 1)

    return model


class Counting:
    """A model that notes how many rows each call has, and that no gradient is recorded."""

    def __init__(self, model):
        self.model, self.rows = model, []

    def __call__(self, x):
        assert not torch.is_grad_enabled()
        assert not x.requires_grad
        self.rows.append(len(x))
        return self.model(x)


def inside(points, images, norm, eps):
    """Whether all points are in the ball, in float64, and in the box."""
    difference = (points.double() - images.double()).flatten(1)
    size = difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
    return bool((size <= eps).all()) and points.min() >= 0 and points.max() <= 1


@pytest.mark.parametrize("shape", [(48,), (6, 8), (3, 4, 4)])
def test_the_linf_optimum_of_a_linear_model_is_reached_exactly(shape):
    x = torch.rand(2, *shape, generator=seeded(1))
    found = square(linear(), x, torch.zeros(2, dtype=torch.long), "linf", 0.1, queries=800)
    ball = make_ball(x, "linf", 0.1, (0.0, 1.0))
    best = torch.where(WEIGHTS.view(1, *shape) > 0, ball.lower, ball.upper)
    if len(shape) == 3:  # channels move together, so that a corner may stay out of reach
        reached = ((x.double() - found.double()).flatten(1) @ WEIGHTS) / (
            (x.double() - best.double()).flatten(1) @ WEIGHTS
        )
        assert torch.all(reached > 0.99)
    else:
        assert torch.equal(found, best)


@pytest.mark.parametrize(
    "shape, share_reached", [((6,), 0.8), ((48,), 0.7), ((1, 8, 6), 0.6), ((3, 4, 4), 0.4)]
)
def test_the_l2_optimum_of_a_linear_model_is_approached(shape, share_reached):
    """Windows of 3 x 3 limit it: pyautoattack reaches 0.42 on 3 x 10 x 10 inputs with 2000 queries, this 0.5."""
    weights = WEIGHTS[: torch.Size(shape).numel()]
    x = torch.full((2, *shape), 0.5)
    found = square(linear(weights), x, torch.zeros(2, dtype=torch.long), "l2", 0.3, queries=500)
    descent = (x - found).double().flatten(1) @ weights
    assert torch.all(descent > share_reached * 0.3 * weights.norm())
    assert torch.all(descent <= 0.3 * weights.norm())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (1,), (4, 7), (2, 9, 9), (3, 12, 5), (2, 2, 2, 3)])
def test_every_evaluated_point_is_in_ball_and_box_and_keeps_its_shape(norm, dtype, shape):
    x = torch.rand(3, *shape, generator=seeded(2), dtype=dtype).round(decimals=1)
    seen = []
    weights = torch.linspace(-1, 1, x[0].numel(), dtype=torch.float64)
    found = square(
        linear(weights), x, torch.zeros(3, dtype=torch.long), norm, 0.3, queries=30,
        track=lambda at, points, logits, step: seen.append((at, points)),
    )  # fmt: skip
    assert found.shape == x.shape
    assert found.dtype == dtype
    assert len(seen) == 30
    for at, points in seen:
        assert points.shape == (len(at), *shape)
        assert inside(points, x[at], norm, 0.3)


def test_points_leave_neither_a_ball_nor_another_box():
    x = torch.rand(3, 8, generator=seeded(3)) * 4 - 2
    found = square(
        linear(WEIGHTS[:8]), x, torch.zeros(3, dtype=torch.long), "linf", 1.0, queries=40, box=(-2.0, 2.0)
    )
    assert found.min() >= -2
    assert found.max() <= 2
    assert (found.double() - x.double()).abs().max() <= 1.0
    assert (found == -2).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("queries, restarts", [(1, 1), (2, 1), (70, 1), (131, 3)])
def test_queries_are_counted_exactly(norm, queries, restarts):
    model, x = Counting(linear()), torch.rand(2, 3, 4, 4, generator=seeded(4))
    steps = []
    square(
        model, x, torch.zeros(2, dtype=torch.long), norm, 0.01, queries=queries, restarts=restarts,
        track=lambda at, points, logits, step: steps.append(step),
    )  # fmt: skip
    assert model.rows == [2] * (queries * restarts)
    assert steps == list(range(queries * restarts))


def three_cases(x):
    """Offsets are read off the last input: misclassified as it is, within reach, and out of reach."""
    offset = torch.tensor([-1.0, 0.4, 5.0])[(x[:, -1] * 4).round().long()]
    score = (x[:, :12] - 0.5).sum(1, dtype=torch.float64) + offset
    return torch.stack([score, torch.zeros_like(score)], 1)


def case_images(*cases):
    x = torch.full((len(cases), 13), 0.5)
    x[:, -1] = torch.tensor(cases) / 4
    return x, torch.zeros(len(cases), dtype=torch.long)


def test_early_stop_drops_each_image_at_its_first_misclassified_point():
    model, visits = Counting(three_cases), {0: [], 1: [], 2: [], 3: []}

    def track(at, points, logits, step):
        for row, score in zip(at.tolist(), logits[:, 0].tolist(), strict=True):
            visits[row].append(score)

    x, y = case_images(0, 1, 1, 2)
    found = square(model, x, y, "linf", 0.04, queries=150, track=track)
    assert sum(model.rows) == sum(map(len, visits.values()))
    assert len(visits[0]) == 1
    assert len(visits[3]) == 150
    for row in (1, 2):
        assert 3 < len(visits[row]) < 150
        assert all(score >= 0 for score in visits[row][:-1])
        assert visits[row][-1] < 0
        assert three_cases(found[row : row + 1])[0, 0] == visits[row][-1]


def test_images_that_drop_out_leave_the_moves_of_the_others_alone():
    x, y = case_images(0, 1, 1, 2, 1, 2)
    paths = []
    for early in (True, False):
        visits = {row: [] for row in range(6)}
        square(
            three_cases, x, y, "linf", 0.05, queries=70, early_stop=early,
            track=lambda at, points, logits, step, visits=visits: [
                visits[row].append(point) for row, point in zip(at.tolist(), points, strict=True)
            ],
        )  # fmt: skip
        paths.append(visits)
    assert min(len(paths[0][row]) for row in (1, 2, 4)) < 30
    for row in (3, 5):
        assert torch.equal(torch.stack(paths[0][row]), torch.stack(paths[1][row]))


def test_a_broken_batch_is_not_asked_about_again():
    model = Counting(lambda x: torch.stack([x[:, 0] * 0, x[:, 0] * 0 + 1], 1))
    x = torch.rand(5, 4, generator=seeded())
    assert torch.equal(square(model, x, torch.zeros(5, dtype=torch.long), queries=100, restarts=4), x)
    assert model.rows == [5]


def test_without_early_stop_the_loss_of_broken_images_goes_on_rising():
    x, y = torch.full((3, 8), 0.5), torch.zeros(3, dtype=torch.long)
    model = linear(WEIGHTS[:8], offset=-float(WEIGHTS[:8].sum()) / 2 + 0.01)
    stopped, full = (
        square(model, x, y, "linf", 0.1, queries=300, early_stop=early_stop) for early_stop in (True, False)
    )
    margins = [(model(points)[:, 0]) for points in (stopped, full)]
    assert torch.all(margins[0] < 0)
    assert torch.allclose(margins[1], 0.01 - 0.1 * WEIGHTS[:8].abs().sum().expand(3))


def test_what_gradients_cannot_see_is_found():
    def staircase(x):
        score = (x.mul(20).round() / 20).double().flatten(1) @ WEIGHTS[:12]
        return torch.stack([score - score.detach() + score, torch.zeros_like(score)], 1).detach()

    x = torch.full((1, 12), 0.5)
    y = staircase(x).argmax(1)
    assert staircase(square(staircase, x, y, "linf", 0.5, queries=200)).argmax(1) != y


def test_an_image_is_attacked_alike_alone_and_in_a_batch():
    x, y = torch.rand(4, 2, 5, 5, generator=seeded(5)), torch.zeros(4, dtype=torch.long)
    model = linear(WEIGHTS.repeat(2)[:50], offset=3.0)
    for norm in ("linf", "l2"):
        together = square(model, x, y, norm, 0.2, queries=70, restarts=2)
        alone = square(model, x[:1], y[:1], norm, 0.2, queries=70, restarts=2)
        assert torch.equal(together[:1], alone)


def test_the_generator_decides_and_the_global_one_is_left_alone():
    x, y = torch.rand(2, 8, generator=seeded(6)), torch.zeros(2, dtype=torch.long)
    before = torch.get_rng_state()
    runs = [
        square(linear(WEIGHTS[:8]), x, y, "l2", 0.1, queries=9, generator=generator)
        for generator in (seeded(1), seeded(1), seeded(2), None, None)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(runs[3], runs[4])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_never_make_it_worse(norm):
    x, y = torch.rand(6, 3, 4, 4, generator=seeded(8)), torch.zeros(6, dtype=torch.long)
    margins = [
        linear()(square(linear(), x, y, norm, 0.1, queries=12, restarts=restarts))[:, 0]
        for restarts in (1, 2, 5)
    ]
    assert torch.all(margins[1] <= margins[0])
    assert torch.all(margins[2] <= margins[1])
    assert torch.any(margins[2] < margins[0])
    starts = {}
    square(
        linear(),
        x,
        y,
        norm,
        0.1,
        queries=12,
        restarts=3,
        track=lambda *seen: starts.setdefault(seen[3], seen[1]),
    )
    assert not torch.equal(starts[1], starts[12])
    assert not torch.equal(starts[12], starts[24])


def test_the_share_halves_when_published_rescaled_to_the_queries():
    bounds = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    for k, bound in enumerate(bounds):
        assert share(bound, 10_000, 0.8) == 0.8 / 2**k
        assert share(bound + 1, 10_000, 0.8) == 0.8 / 2 ** (k + 1)
        assert share(bound + 2, 20_000, 0.8) == share(bound // 2 + 1, 10_000, 0.8)
    shares = [share(query, 300, 0.8) for query in range(300)]
    assert shares == sorted(shares, reverse=True)


def test_windows_fit_and_cover_their_share():
    for height, width, part, odd in itertools.product(
        (1, 2, 3, 8, 32), (1, 5, 32), (0.001, 0.1, 0.8, 1.0), (0, 1)
    ):
        size = window(part, height, width, bool(odd))
        assert 1 <= size[0] <= height
        assert 1 <= size[1] <= width
        assert not odd or size[0] % 2 or size[0] == height
    assert window(1.0, 4, 9) == (4, 9)
    assert window(1.0, 9, 4) == (9, 4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_moves_reach_every_pixel_and_change_the_point(norm):
    x = torch.full((4000, 2, 6, 6), 0.5)
    ball, moves = make_ball(x, norm, 0.1, (0.0, 1.0)), MOVES[norm]
    draws = torch.rand(4000, 400, generator=seeded())
    points = moves.start(ball, lambda count: draws[:, :count])
    size = window(0.05, 6, 6, moves.odd)
    moved = moves.move(ball, points, size, draws[:, 300:307])
    assert (moved != points).flatten(1).any(1).all()
    touched = (moved != points).float().mean((0, 1))
    assert touched.min() > 0.01
    assert norm == "l2" or torch.allclose(touched, touched.flip(0, 1), atol=0.05)


def test_an_l2_move_keeps_what_lies_elsewhere_in_proportion_and_spends_the_radius():
    x = torch.full((50, 3, 9, 9), 0.5)
    ball = make_ball(x, "l2", 0.2, (0.0, 1.0))
    draws = torch.rand(50, 400, generator=seeded())
    points = MOVES["l2"].start(ball, lambda count: draws[:, :count])
    moved = MOVES["l2"].move(ball, points, (3, 3), draws[:, 390:398])
    for each in (points, moved):
        assert torch.allclose((each - x).flatten(1).norm(dim=1), torch.tensor(0.2), rtol=1e-5)
    from_centre = MOVES["l2"].move(ball, x, (3, 3), draws[:, 390:398])
    assert torch.allclose((from_centre - x).flatten(1).norm(dim=1), torch.tensor(0.2), rtol=1e-5)
    changed = (moved - points).abs().amax(1) > 1e-6
    assert changed.sum((1, 2)).max() <= 18


def test_l2_points_that_leave_the_ball_by_rounding_are_pulled_back(monkeypatch):
    monkeypatch.setattr(sys.modules["certmix.attacks.square"], "_SLACK", -0.01)
    x, seen = torch.rand(3, 2, 7, 7, generator=seeded(12)), []
    square(
        linear(torch.ones(98, dtype=torch.float64)), x, torch.zeros(3, dtype=torch.long), "l2", 0.3, queries=9,
        track=lambda at, points, logits, step: seen.append(points),
    )  # fmt: skip
    assert all(inside(points, x, "l2", 0.3) for points in seen)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 3), (2, 5), (4, 9), (6, 6), (5, 3)])
def test_bumps_follow_the_published_formula(height, width):
    """Section 4.3: eta = sum over k = 0 .. M of 1 / (n + 1 - k)^2, M = n - max(|r - ...|, |s - ...|)."""
    n = max(height, width) // 2
    expected = torch.zeros(height, width)
    for r, s in itertools.product(range(1, height + 1), range(1, width + 1)):
        steps = n - max(abs(r - height // 2 - 1), abs(s - width // 2 - 1))
        expected[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(steps + 1))
    assert torch.allclose(_bump(height, width), expected / expected.norm(), atol=1e-6)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"queries": 0}, "queries = 0"),
        ({"restarts": 0}, "restarts = 0"),
        ({"p_init": 0.0}, "p_init = 0"),
        ({"p_init": float("nan")}, "p_init = nan"),
        ({"norm": "l1"}, "'l1'"),
        ({"eps": -1.0}, "-1"),
        ({"loss": "best"}, "best"),
    ],
)
def test_bad_arguments_are_refused(settings, match):
    with pytest.raises(ParameterError, match=match):
        square(linear(WEIGHTS[:4]), torch.rand(1, 4, generator=seeded()), torch.tensor([0]), **settings)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="NaN"):
        square(lambda x: x * torch.nan, torch.rand(1, 4, generator=seeded()), torch.tensor([0]))


@pytest.mark.parametrize("norm, eps", [("linf", 0.03), ("l2", 0.4)])
def test_it_is_as_strong_as_pyautoattack(norm, eps):
    reference = pytest.importorskip("pyautoattack.square")
    first, second, last = (
        torch.randn(shape, generator=seeded(k))
        for k, shape in enumerate([(8, 3, 3, 3), (16, 8, 3, 3), (5, 144)])
    )

    def net(x):
        hidden = F.conv2d(
            F.conv2d(x, first / 5, stride=2, padding=1).relu(), second / 9, stride=2, padding=1
        ).relu()
        return hidden.flatten(1) @ last.T / 12

    x = torch.rand(192, 3, 10, 10, generator=seeded(9))
    y = net(x).argmax(1)
    ours = square(net, x, y, norm, eps, queries=120)
    with torch.random.fork_rng():
        attack = reference.SquareAttack(
            net, norm=norm.capitalize(), n_queries=120, eps=eps, resc_schedule=True
        )
        theirs = attack.perturb(x, y)
    robust = [(net(points).argmax(1) == y).float().mean() for points in (ours, theirs)]
    assert 0.2 < robust[1] < 0.9
    assert robust[0] <= robust[1] + 0.05
    assert robust[0] >= robust[1] - 0.15
