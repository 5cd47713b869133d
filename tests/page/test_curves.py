"""Curves as whole numbers: never above the truth, exact where they can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.bounds import clopper_pearson
from certmix.page.views import MOST_STEPS, axis, count_at, share_text, steps
from certmix.text import floor_digits

RADII = st.lists(st.floats(1e-6, 3.0), min_size=1, max_size=60)


def _true(radii, at):
    return sum(r >= at for r in radii)


@given(RADII, st.floats(0, 3))
def test_no_curve_is_above_the_share_that_is_certified(radii, at):
    along = axis([np.array(radii)], "l2", 0.0)
    curve = steps(np.array(radii), along)
    assert count_at(curve, math.ceil(at * 10**along.digits)) <= _true(radii, at)
    for r in radii:  # and those of few digits count at themselves
        if r == round(r, 4):
            assert count_at(curve, along.units(r)) == _true(radii, r)


def test_many_radii_are_rounded_down_to_a_grid():
    radii = np.random.default_rng(0).random(10_000)
    curve = steps(radii, axis([radii], "l2", 1.0))
    assert len(curve[0]) <= MOST_STEPS + 1
    for at in np.linspace(0, 1, 101):
        shown, true = count_at(curve, math.ceil(at * 1e5)), _true(radii, at)
        assert true - 10_000 * 2 / MOST_STEPS <= shown <= true


@given(
    st.sampled_from(["l2", "linf"]),
    st.floats(0, 3) | st.integers(0, 9999).map(lambda k: k / 1000),
    st.integers(-1, 1),
)
def test_units_are_the_digits_of_the_radius_rounded_down(norm, radius, ulps):
    radius, along = float(radius + ulps * np.spacing(radius)), axis([], norm, 40.0)
    scaled = max(radius, 0.0) * along.scale
    whole = round(scaled) / along.scale == radius and norm == "linf"
    shown = floor_digits(float(round(scaled)) if whole else scaled, along.digits).replace(".", "")
    assert along.units(max(radius, 0.0)) == int(shown)


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16, 31, 113])
def test_grey_levels_are_whole_in_linf(k):
    along = axis([], "linf", 0.5)
    assert along.units(k / 255) == 1000 * k
    assert along.label(1000 * k) == f"{k}/255"
    assert count_at(steps(np.array([k / 255]), along), 1000 * k) == 1


def test_infinite_radii_reach_the_end_and_none_have_no_steps():
    radii = np.array([math.inf, 0.5])
    along = axis([radii], "l2", 1.0)
    assert count_at(steps(radii, along), along.end) == 1
    nothing = steps(np.empty(0), axis([], "l2", 0.0))
    assert nothing == ([], []) and count_at(nothing, 0) == 0


@pytest.mark.parametrize("largest", [1e-7, 3e-4, 0.02, 0.76, 1.0, 3.9, 250.0])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_axes_hold_their_radii_and_have_few_ticks(largest, norm):
    along = axis([np.array([largest])], norm, 0.0)
    assert along.units(largest) < along.end or along.end == 40
    assert 2 <= len(along.ticks) <= 9 or along.end <= 40
    assert 20 <= along.end // along.stride <= 480


@given(st.integers(0, 300), st.integers(1, 300))
def test_shares_are_rounded_outwards(count, inputs):
    count = min(count, inputs)
    shown, low, high = share_text(count, inputs)
    least, most = (float(end[0]) for end in clopper_pearson.interval(np.array([count]), inputs))
    assert float(shown) <= 100 * count / inputs + 1e-9 and float(shown) > 100 * count / inputs - 0.1001
    assert float(low) <= 100 * least + 1e-9 and float(high) >= 100 * most - 1e-9
