"""Curves as whole numbers: never above the truth, exact where they can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.bounds import clopper_pearson
from certmix.page.chart import count_at
from certmix.page.curves import MOST_STEPS, axis, share_text, steps

RADII = st.lists(st.floats(1e-6, 3.0), min_size=1, max_size=60)


def _true(radii, at):
    return sum(r >= at for r in radii)


@given(RADII, st.floats(0, 3))
def test_no_curve_is_above_the_share_that_is_certified(radii, at):
    along = axis(max(radii), "l2")
    curve = steps(np.array(radii), 100, along)
    units = math.ceil(at * 10**along.digits)
    assert count_at(curve, units) <= _true(radii, at)


@given(RADII)
def test_radii_of_few_digits_count_at_themselves(radii):
    rounded = [round(r, 4) for r in radii if round(r, 4) > 0]
    along = axis(max(rounded, default=1.0), "l2")
    curve = steps(np.array(rounded), 100, along)
    for r in rounded:
        assert count_at(curve, along.units(r)) == _true(rounded, r)


def test_many_radii_are_rounded_down_to_a_grid():
    radii = np.random.default_rng(0).random(10_000)
    along = axis(1.0, "l2")
    curve = steps(radii, 10_000, along)
    assert len(curve.units) <= MOST_STEPS + 1
    for at in np.linspace(0, 1, 101):
        shown, true = count_at(curve, math.ceil(at * 1e5)), _true(radii, at)
        assert true - 10_000 * 2 / MOST_STEPS <= shown <= true


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16, 31, 113])
def test_grey_levels_are_whole_in_linf(k):
    along = axis(0.5, "linf")
    assert along.units(k / 255) == 1000 * k
    assert along.label(1000 * k) == f"{k}/255"
    assert count_at(steps(np.array([k / 255]), 3, along), 1000 * k) == 1


def test_infinite_radii_reach_the_end():
    along = axis(1.0, "l2")
    assert count_at(steps(np.array([math.inf, 0.5]), 4, along), along.end) == 1


def test_nothing_certified_has_no_steps():
    curve = steps(np.empty(0), 5, axis(0.0, "l2"))
    assert curve.units == () and count_at(curve, 0) == 0


@pytest.mark.parametrize("largest", [1e-7, 3e-4, 0.02, 0.76, 1.0, 3.9, 250.0])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_axes_hold_their_radii_and_have_few_ticks(largest, norm):
    along = axis(largest, norm)
    assert along.units(largest) <= along.end
    assert 2 <= len(along.ticks) <= 9 or along.end <= 40
    assert 20 <= along.end // along.stride <= 480


@given(st.integers(0, 300), st.integers(1, 300))
def test_shares_are_rounded_outwards(count, images):
    count = min(count, images)
    shown, low, high = share_text(count, images)
    least, most = (float(end[0]) for end in clopper_pearson.interval(np.array([count]), images))
    assert float(shown) <= 100 * count / images + 1e-9 and float(shown) > 100 * count / images - 0.1001
    assert float(low) <= 100 * least + 1e-9 and float(high) >= 100 * most - 1e-9
