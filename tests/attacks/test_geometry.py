"""Balls cut by boxes: nobody leaves them, and projections and maxima are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attacked import ORDERS, best_offset, outside, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import kstest

from certmix.attacks.geometry import distance, make_ball, start_seeds

NORMS = ("linf", "l2", "l1")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
BOXES = ((0.0, 1.0), (-1.0, 1.0), (0.1, 0.7))


def batch(seed: int, box, dtype, count: int = 3, inputs: int = 6) -> torch.Tensor:
    """Inputs of which about half the inputs lie on the box's edge."""
    drawn = torch.rand(count, inputs, generator=seeded(seed), dtype=torch.float64)
    low, high = torch.tensor(box, dtype=dtype).tolist()
    return (low + (high - low) * (2 * drawn - 0.5)).to(dtype).clamp(low, high)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NORMS), st.sampled_from(DTYPES), st.sampled_from(BOXES), st.integers(0, 10**6),
    st.one_of(st.sampled_from([0.0, 1e-12, 8 / 255, 0.5, 3.0, 1e9, 1e300]), st.floats(1e-6, 10.0)),
    st.sampled_from([1e-3, 1.0, 1e3]),
)  # fmt: skip
def test_no_point_leaves_ball_and_box(norm, dtype, box, seed, eps, scale):
    inputs = batch(seed, box, dtype)
    edges = torch.tensor(box, dtype=dtype).tolist()
    ball = make_ball(inputs, norm, eps, box)
    noise = torch.randn(inputs.shape, generator=seeded(seed + 1))
    far = (inputs + (scale * noise).to(dtype)).clamp(-6e4, 6e4)
    found = {
        "project": ball.project(far),
        "ascend": ball.ascend(ball.project(far), noise.to(dtype), scale * ball.radius),
        "summit": ball.summit(noise.to(dtype)),
        "sample": ball.sample(start_seeds(3, None), 0),
    }
    for name, points in found.items():
        assert points.dtype == dtype
        assert outside(points, inputs, norm, eps, edges) == [], name
        if eps == 0:
            assert torch.equal(points, inputs), name


def test_the_checker_sees_points_outside():
    inputs = torch.full((4, 2), 0.5)
    points = inputs.clone()
    points[1, 0] = torch.nextafter(torch.tensor(0.75), torch.tensor(1.0))
    points[2, 0] = math.nan
    assert outside(points, inputs, "linf", 0.25) == [1, 2]
    points = torch.tensor([[1.0, 1.0], [torch.finfo(torch.float32).eps + 1, 1.0]])
    assert outside(points, points, "l2", 1.0) == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rounding_to_nearest_would_leave_the_ball(dtype):
    inputs = batch(0, (0.0, 1.0), dtype, 200)
    naive = (inputs.double() + 0.03).to(dtype).clamp(0, 1)
    assert outside(naive, inputs, "linf", 0.03)
    ball = make_ball(inputs, "linf", 0.03, (0.0, 1.0))
    assert outside(ball.upper, inputs, "linf", 0.03) == []
    further = torch.nextafter(ball.upper, torch.full_like(inputs, 2.0))
    assert outside(further, inputs, "linf", 0.03) == list(range(200))


def test_an_input_outside_the_box_by_rounding_is_moved_onto_it_within_its_ball():
    inputs = torch.tensor([[1.0 + 2**-20, 0.5, -1e-7]])
    for norm in NORMS:
        ball = make_ball(inputs, norm, 0.1, (0.0, 1.0))
        for seed in range(5):
            points = ball.sample(torch.tensor([seed]), 0)
            assert outside(points, inputs, norm, 0.1) == []


def by_roots(offset, low, high, norm, radius):
    """The projection from its optimality conditions, by a scalar root."""

    def at(t):
        shrunk = offset / (1 + t) if norm == "l2" else np.sign(offset) * np.maximum(np.abs(offset) - t, 0)
        return np.clip(shrunk, low, high)

    def excess(t):
        return np.linalg.norm(at(t), ORDERS[norm]) - radius

    return at(0.0) if excess(0.0) <= 0 else at(brentq(excess, 0.0, 1e7, xtol=1e-15, rtol=1e-14))


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("eps", [0.01, 0.3, 1.0, 2.5])
def test_projections_solve_their_optimality_conditions(norm, eps):
    inputs = batch(3, (0.0, 1.0), torch.float64, 40, 8)
    offsets = torch.randn(40, 8, generator=seeded(1), dtype=torch.float64)
    offsets[::3, 0] = 0.0
    offsets[1::3] *= 0.05
    points = make_ball(inputs, norm, eps, (0.0, 1.0)).project(inputs + offsets)
    for input, offset, point in zip(inputs.numpy(), offsets.numpy(), points.numpy(), strict=True):
        expected = by_roots(offset, -input, 1 - input, norm, eps)
        np.testing.assert_allclose(point - input, expected, atol=1e-11)


@pytest.mark.parametrize("norm", NORMS)
def test_projections_keep_what_is_inside_and_no_feasible_point_is_nearer(norm):
    inputs = batch(5, (0.0, 1.0), torch.float64)
    ball = make_ball(inputs, norm, 0.6, (0.0, 1.0))
    inside = ball.sample(torch.arange(3), 1)
    torch.testing.assert_close(ball.project(inside), inside, rtol=0, atol=1e-15)
    wanted = inputs + 2.0
    nearest = distance(ball.project(wanted), wanted, "l2")
    for stream in range(200):
        assert torch.all(nearest <= distance(ball.sample(torch.arange(3), stream), wanted, "l2") + 1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.05, 0.4, 1.5, 50.0])
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e300])
def test_the_summit_is_the_maximum_of_a_linear_function(norm, eps, scale):
    inputs = batch(7, (0.0, 1.0), torch.float64, 10)
    slopes = torch.randn(10, 6, generator=seeded(2), dtype=torch.float64)
    points = make_ball(inputs, norm, eps, (0.0, 1.0)).summit(slopes * scale)
    for input, slope, point in zip(inputs.numpy(), slopes.numpy(), points.numpy(), strict=True):
        best = slope @ best_offset(slope, input, norm, eps)
        assert slope @ (point - input) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_steps_have_their_length_and_the_least_gradient_moves(norm):
    inputs = torch.full((2, 4), 0.5)
    gradient = torch.tensor([[1.0, -2.0, 0.5, 4.0], [0.0, 1e-42, -1e-43, 0.0]])
    ball, lengths = make_ball(inputs, norm, 0.4, (0.0, 1.0)), torch.full((2,), 0.1, dtype=torch.float64)
    steps = ball.ascend(inputs, gradient, lengths)
    moved = 2 * lengths if norm == "l1" else lengths
    torch.testing.assert_close(distance(steps, inputs, norm), moved, atol=2e-7, rtol=0)
    assert torch.all((steps - inputs) * gradient.sign() >= 0)
    assert torch.equal(ball.summit(torch.zeros_like(inputs)), inputs)  # no gradient, no step
    assert torch.equal(ball.ascend(inputs, torch.zeros_like(inputs), ball.radius), inputs)


def test_a_step_of_l1_moves_its_length_from_old_coordinates_to_new_ones():
    inputs, gradient = torch.full((1, 3), 0.5, dtype=torch.float64), torch.tensor([[1.0, -2.0, 0.5]])
    ball = make_ball(inputs, "l1", 0.4, (0.0, 1.0))
    start = inputs + torch.tensor([[0.4 * (1 - 1e-12), 0.0, 0.0]], dtype=torch.float64)
    near, far = (ball.ascend(start, gradient, torch.tensor([length])) for length in (0.1, 0.4))
    expected = torch.tensor([[0.3, -0.1, 0.0], [0.0, -0.4, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(torch.cat([near, far]) - inputs, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_uniform_in_the_ball(norm):
    """A ball of radius r t holds the share t^D of the ball of radius r; coordinates and signs are even."""
    law = 3
    inputs = torch.full((1000, law), 0.5, dtype=torch.float64)
    ball = make_ball(inputs, norm, 0.3, (0.0, 1.0))
    points = ball.sample(start_seeds(1000, seeded(0)), 0)
    share = (distance(points, inputs, norm) / 0.3).numpy() ** law
    assert kstest(share, "uniform").pvalue > 1e-3
    sizes = (points - inputs).abs().mean(0)
    assert sizes.max() < 1.1 * sizes.min()
    assert ((points > inputs).double().mean(0) - 0.5).abs().max() < 0.06


def test_a_start_depends_on_seed_and_stream_alone():
    inputs = batch(2, (0.0, 1.0), torch.float32, 4)
    seeds = start_seeds(4, seeded(3))
    for norm in NORMS:
        ball = make_ball(inputs, norm, 0.2, (0.0, 1.0))
        whole, rows = ball.sample(seeds, 1), torch.tensor([2, 0])
        assert torch.equal(ball[rows].sample(seeds[rows], 1), whole[rows])
        assert not torch.equal(ball.sample(seeds, 2), whole)
        assert not torch.equal(ball.sample(seeds + 1, 1), whole)
    split = seeded(3)
    assert torch.equal(torch.cat([start_seeds(1, split), start_seeds(3, split)]), seeds)
    assert torch.equal(start_seeds(4, None), start_seeds(4, None))
