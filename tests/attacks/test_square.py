"""Square Attack: linear models, exact counts of queries, its schedule and parity with pyautoattack."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from attacked import Counting, outside, seeded
from torch.nn import functional as F

from certmix.attacks.geometry import make_ball
from certmix.attacks.square import MOVES, _bump, share, square, window

WEIGHTS = torch.randn(48, generator=seeded(7), dtype=torch.float64)
NORMS = ("linf", "l2")
LONG = pytest.mark.long


def linear(weights=WEIGHTS, offset=1e3):
    """Two classes with margin z_0 - z_1 = w.x + offset, row by row: batches change nothing."""

    def model(x):
        score = (x.double().flatten(1) * weights).sum(1) + offset
        return torch.stack([score, torch.zeros_like(score)], 1)

    return model


def zeros(count):
    return torch.zeros(count, dtype=torch.long)


@pytest.mark.parametrize("shape", [(24,), (4, 6), (3, 2, 4)])
def test_the_linf_optimum_of_a_linear_model_is_reached_exactly(shape):
    weights = WEIGHTS[:24]
    x = torch.rand(2, *shape, generator=seeded(1))
    found = square(linear(weights), x, zeros(2), "linf", 0.1, queries=300)
    ball = make_ball(x, "linf", 0.1, (0.0, 1.0))
    best = torch.where(weights.view(1, *shape) > 0, ball.lower, ball.upper)
    if len(shape) == 3:  # channels move together, so that a corner may stay out of reach
        gained, most = ((x.double() - end.double()).flatten(1) @ weights for end in (found, best))
        assert torch.all(gained > 0.98 * most)
    else:
        assert torch.equal(found, best)


@pytest.mark.parametrize(
    "shape, reached",
    [
        ((48,), 0.6),
        ((3, 4, 4), 0.4),
        *(pytest.param(*of, marks=LONG) for of in (((6,), 0.75), ((1, 8, 6), 0.5))),
    ],
)
def test_the_l2_optimum_of_a_linear_model_is_approached(shape, reached):
    """Windows of 3 x 3 limit it: pyautoattack reaches 0.42 on 3 x 10 x 10 inputs with 2000 queries, this 0.5."""
    weights = WEIGHTS[: torch.Size(shape).numel()]
    x = torch.full((2, *shape), 0.5)
    found = square(linear(weights), x, zeros(2), "l2", 0.3, queries=300)
    descent = (x - found).double().flatten(1) @ weights
    assert torch.all(descent > reached * 0.3 * weights.norm())
    assert torch.all(descent <= 0.3 * weights.norm())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(5,), (1,), (4, 7), (2, 9, 9), (3, 12, 5), (2, 2, 2, 3)])
def test_every_evaluated_point_is_in_ball_and_box_and_keeps_its_shape(norm, shape):
    for dtype, box in ((torch.float32, (0.0, 1.0)), (torch.float64, (-2.0, 2.0))):
        x = (torch.rand(3, *shape, generator=seeded(2), dtype=dtype).round(decimals=1) * 4 - 2).clamp(*box)
        weights, seen = torch.linspace(-1, 1, x[0].numel(), dtype=torch.float64), []
        found = square(
            linear(weights), x, zeros(3), norm, 0.3, queries=30, box=box,
            track=lambda at, points, logits, step: seen.append((at, points)),  # noqa: B023
        )  # fmt: skip
        assert (found.shape, found.dtype, len(seen)) == (x.shape, dtype, 30)
        for at, points in seen:
            assert points.shape == (len(at), *shape)
            assert outside(points, x[at], norm, 0.3, box) == []


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("queries, restarts", [(1, 1), (2, 1), (70, 1), (66, 3)])
def test_queries_are_counted_exactly_and_ask_for_no_gradient(norm, queries, restarts):
    model, x, steps = Counting(linear()), torch.rand(2, 3, 4, 4, generator=seeded(4)), []
    track = lambda at, points, logits, step: steps.append(step)  # noqa: E731
    square(model, x, zeros(2), norm, 0.01, queries=queries, restarts=restarts, track=track)
    assert model.batches == [2] * (queries * restarts)
    assert not any(model.gradients)
    assert steps == list(range(queries * restarts))


def three_cases(x):
    """Offsets are read off the last input: misclassified as it is, within reach, and out of reach."""
    offset = torch.tensor([-1.0, 0.4, 5.0])[(x[:, -1] * 4).round().long()]
    score = (x[:, :12] - 0.5).sum(1, dtype=torch.float64) + offset
    return torch.stack([score, torch.zeros_like(score)], 1)


def test_inputs_drop_out_at_their_first_misclassified_point_and_leave_the_moves_of_others_alone():
    cases = (0, 1, 1, 2, 1, 2)
    x = torch.full((6, 13), 0.5)
    x[:, -1] = torch.tensor(cases) / 4
    model, paths = Counting(three_cases), []
    for early in (True, False):
        visits = {row: [] for row in range(6)}

        def track(at, points, logits, step, visits=visits):
            for row, point, score in zip(at.tolist(), points, logits[:, 0].tolist(), strict=True):
                visits[row].append((point, score))

        found = square(model, x, zeros(6), "linf", 0.04, queries=150, early_stop=early, track=track)
        paths.append(visits)
        if early:
            assert sum(model.batches) == sum(map(len, visits.values()))
            first = found
    early, whole = paths
    assert (len(early[0]), len(early[3]), len(early[5])) == (1, 150, 150)
    for row in (1, 2, 4):
        scores = [score for _, score in early[row]]
        assert 3 < len(scores) < 150
        assert min(scores[:-1]) >= 0 > scores[-1]
        assert three_cases(first[row : row + 1])[0, 0] == scores[-1]
    model = Counting(lambda x: torch.stack([x[:, 0] * 0, x[:, 0] * 0 + 1], 1))
    assert torch.equal(square(model, x, zeros(6), queries=100, restarts=4), x)
    assert model.batches == [6]  # a broken batch is not asked about again
    for row in (3, 5):
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(early[row], whole[row], strict=True))


def test_what_gradients_cannot_see_is_found():
    def staircase(x):
        score = (x.mul(20).round() / 20).double().flatten(1) @ WEIGHTS[:12]
        return torch.stack([score, torch.zeros_like(score)], 1).detach()

    x = torch.full((1, 12), 0.5)
    y = staircase(x).argmax(1)
    assert staircase(square(staircase, x, y, "linf", 0.5, queries=200)).argmax(1) != y


@pytest.mark.parametrize("norm", NORMS)
def test_the_generator_decides_not_the_batch_and_restarts_never_make_it_worse(norm):
    x, steps, before = torch.rand(4, 2, 5, 5, generator=seeded(5)), {}, torch.get_rng_state()
    model = linear(WEIGHTS.repeat(2)[:50])

    def run(rows=slice(None), restarts=2, **named):
        return square(model, x[rows], zeros(4)[rows], norm, 0.2, queries=12, restarts=restarts, **named)

    assert torch.equal(run()[:1], run(slice(1)))
    assert torch.equal(run(generator=seeded(1)), run(generator=seeded(1)))
    assert not torch.equal(run(generator=seeded(1)), run(generator=seeded(2)))
    assert torch.equal(before, torch.get_rng_state())
    margins = [model(run(restarts=restarts))[:, 0] for restarts in (1, 2, 5)]
    assert torch.all(margins[1] <= margins[0])
    assert torch.all(margins[2] <= margins[1])
    assert torch.any(margins[2] < margins[0])
    run(restarts=3, track=lambda at, points, logits, step: steps.setdefault(step, points))
    assert not torch.equal(steps[1], steps[12])
    assert not torch.equal(steps[12], steps[24])


def test_the_share_halves_when_published_rescaled_to_the_queries():
    for k, bound in enumerate((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)):
        assert share(bound, 10_000, 0.8) == 0.8 / 2**k
        assert share(bound + 1, 10_000, 0.8) == 0.8 / 2 ** (k + 1)
        assert share(bound + 2, 20_000, 0.8) == share(bound // 2 + 1, 10_000, 0.8)
    shares = [share(query, 300, 0.8) for query in range(300)]
    assert shares == sorted(shares, reverse=True)


def test_windows_fit_and_cover_their_share():
    for height, width, part, odd in itertools.product(
        (1, 2, 3, 8, 32), (1, 5, 32), (0.001, 0.1, 1.0), (False, True)
    ):
        size = window(part, height, width, odd)
        assert 1 <= size[0] <= height and 1 <= size[1] <= width
        assert not odd or size[0] % 2 or size[0] == height
    assert (window(1.0, 4, 9), window(1.0, 9, 4)) == ((4, 9), (9, 4))
    assert (window(0.8, 32, 32), window(0.05, 32, 32, odd=True), window(0.5, 1, 8)) == (
        (29, 29),
        (7, 7),
        (1, 4),
    )


@pytest.mark.parametrize("norm", NORMS)
def test_moves_reach_every_pixel_and_change_the_point(norm):
    x, draws = torch.full((4000, 2, 6, 6), 0.5), torch.rand(4000, 400, generator=seeded())
    ball, (start, move, odd) = make_ball(x, norm, 0.1, (0.0, 1.0)), MOVES[norm]
    points = start(ball, lambda count: draws[:, :count])
    moved = move(ball, points, window(0.05, 6, 6, odd), draws[:, 300:307])
    assert (moved != points).flatten(1).any(1).all()
    touched = (moved != points).float().mean((0, 1))
    assert touched.min() > 0.01
    assert norm == "l2" or torch.allclose(touched, touched.flip(0, 1), atol=0.05)


def test_an_l2_move_keeps_what_lies_elsewhere_in_proportion_and_spends_the_radius():
    x = torch.full((50, 3, 9, 9), 0.5)
    ball, draws = make_ball(x, "l2", 0.2, (0.0, 1.0)), torch.rand(50, 400, generator=seeded())
    start, move, _ = MOVES["l2"]
    points = start(ball, lambda count: draws[:, :count])
    moved, from_centre = (move(ball, each, (3, 3), draws[:, 390:398]) for each in (points, x))
    for each in (points, moved, from_centre):
        assert torch.allclose((each - x).flatten(1).norm(dim=1), torch.tensor(0.2), rtol=1e-5)
    changed = (moved - points).abs().amax(1) > 1e-6
    assert changed.sum((1, 2)).max() <= 18


def test_l2_points_that_leave_the_ball_by_rounding_are_pulled_back(monkeypatch):
    monkeypatch.setattr(sys.modules["certmix.attacks.square"], "_SLACK", -0.01)
    x, seen = torch.rand(3, 2, 7, 7, generator=seeded(12)), []
    square(
        linear(torch.ones(98, dtype=torch.float64)), x, zeros(3), "l2", 0.3, queries=9,
        track=lambda at, points, logits, step: seen.append(points),
    )  # fmt: skip
    assert all(outside(points, x, "l2", 0.3) == [] for points in seen)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 3), (2, 5), (4, 9), (6, 6), (5, 3)])
def test_bumps_follow_the_published_formula(height, width):
    """Section 4.3: eta = sum over k = 0 .. M of 1 / (n + 1 - k)^2, M = n - max(|r - ...|, |s - ...|)."""
    n = max(height, width) // 2
    expected = torch.zeros(height, width)
    for r, s in itertools.product(range(1, height + 1), range(1, width + 1)):
        steps = n - max(abs(r - height // 2 - 1), abs(s - width // 2 - 1))
        expected[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(steps + 1))
    assert torch.allclose(_bump(height, width), expected / expected.norm(), atol=1e-6)


@pytest.mark.parametrize("norm, eps", [("linf", 0.03), ("l2", 0.4)])
def test_it_is_as_strong_as_pyautoattack(norm, eps):
    reference = pytest.importorskip("pyautoattack.square")
    shapes = [(8, 3, 3, 3), (16, 8, 3, 3), (5, 144)]
    first, second, last = (torch.randn(shape, generator=seeded(k)) for k, shape in enumerate(shapes))

    def net(x):
        hidden = F.conv2d(x, first / 5, stride=2, padding=1).relu()
        hidden = F.conv2d(hidden, second / 9, stride=2, padding=1).relu()
        return hidden.flatten(1) @ last.T / 12

    x = torch.rand(150, 3, 10, 10, generator=seeded(9))
    y = net(x).argmax(1)
    ours = square(net, x, y, norm, eps, queries=100)
    with torch.random.fork_rng():
        attack = reference.SquareAttack(
            net, norm=norm.capitalize(), n_queries=100, eps=eps, resc_schedule=True
        )
        theirs = attack.perturb(x, y)
    robust = [(net(points).argmax(1) == y).float().mean() for points in (ours, theirs)]
    assert 0.2 < robust[1] < 0.9
    assert abs(robust[0] - robust[1]) <= 0.15
