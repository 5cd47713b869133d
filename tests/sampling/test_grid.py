"""Inputs on the grid: what 8-bit images, floats and impossible values become."""

from __future__ import annotations

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from certmix.errors import DataError
from certmix.sampling.grid import Grid

SIGMAS = st.one_of(st.sampled_from([0.12, 0.25, 0.5, 1.0, 32.0, 128.0, 1e-6]), st.floats(1e-4, 1e3))


@settings(max_examples=200, deadline=None)
@given(SIGMAS)
def test_the_step_is_fine_beside_the_noise(sigma):
    grid = Grid.of(sigma)
    assert 4096 <= grid.steps_per_sigma < 8300
    assert grid.steps_per_sigma == Fraction(sigma) * Fraction(grid.per_unit)


@pytest.mark.parametrize("sigma", [0.001, 0.12, 0.25, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("levels", [
    np.arange(256, dtype=np.float32) / 255,
    np.arange(256, dtype=np.float32) * np.float32(1 / 255),
    (np.arange(256) / 255).astype(np.float32),
])  # fmt: skip
def test_8_bit_levels_are_grid_points_and_lose_nothing(sigma, levels):
    grid = Grid.of(sigma)
    point = grid.nearest(levels)
    assert point.is_8bit
    assert point.lost == 0
    np.testing.assert_array_equal(point.steps, np.arange(256) * round(grid.per_unit / 255))
    np.testing.assert_array_equal(grid.value(point.steps), np.arange(256, dtype=np.float32) / 255)
    assert 0 < point.distance < 16 * 2**-24


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.sampled_from([0.12, 0.5, 2.0, 77.0])
)
def test_the_distance_is_an_upper_bound_of_the_true_one(values, sigma):
    grid = Grid.of(sigma)
    point = grid.nearest(np.float32(values))
    square = sum(
        (Fraction(v) - int(k) / Fraction(grid.per_unit)) ** 2
        for v, k in zip(values, point.steps, strict=True)
    )
    assert Fraction(point.distance) ** 2 >= square
    assert point.distance <= math.sqrt(float(square)) * 1.001 + 1e-11
    assert point.distance <= 0.51 / grid.per_unit * math.sqrt(len(values))


@pytest.mark.parametrize("sigma", [0.5, 25.0, 64.0, 128.0, 5000.0])
def test_whole_numbers_are_grid_points_to_the_last_bit(sigma):
    assert Grid.of(sigma).nearest(np.arange(-255.0, 256.0)).lost == 0


def test_one_value_between_levels_makes_an_input_a_float_input():
    levels = np.arange(256, dtype=np.float32) / 255
    levels[7] += 1e-6
    point = Grid.of(0.5).nearest(levels)
    assert not point.is_8bit
    assert point.lost == point.distance > 9e-7


@pytest.mark.parametrize("scale", [None, np.array([0.3, 2.0, 1.0])])
def test_how_far_the_grid_point_is_is_compared_exactly(scale):
    grid, values = Grid.of(0.5, scale), np.float32([0.1234, -3.3, 7.0001])
    steps, scales = grid.nearest(values).steps.tolist(), [1.0] * 3 if scale is None else scale.tolist()
    square = sum(
        (Fraction(x) / Fraction(s) - k / Fraction(grid.per_unit)) ** 2
        for x, s, k in zip(values.tolist(), scales, steps, strict=True)
    )
    true, lost = math.sqrt(square), grid.nearest(values).lost
    given = (true * (1 + 1e-15), true * (1 - 1e-15), lost, lost * (1 - 1e-9), 0.0)
    assert [grid.is_within(values, one) for one in given] == [True, False, True, False, False]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e9])
def test_values_that_no_noise_reaches_are_refused(wrong):
    with pytest.raises(DataError, match="finite and at most"):
        Grid.of(0.5).nearest([0.5, wrong])
