"""Which positions are taken, and how inputs are stacked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.data import load, load_arrays, spread, stack
from certmix.errors import ParameterError


@given(length=st.integers(1, 100_000), count=st.integers(1, 2000))
def test_spread_is_even(length, count):
    positions = spread(length, count)
    taken = min(length, count)
    assert positions.dtype == np.int64 and len(positions) == taken
    assert positions.tolist() == [k * length // taken for k in range(taken)]
    assert positions[0] == 0 and positions[-1] < length
    gaps = np.diff(np.append(positions, length))
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    np.testing.assert_array_equal(spread(length, "all"), np.arange(length))


@pytest.mark.parametrize("count", [0, -3, "some", "10"])
def test_bad_count(count):
    with pytest.raises(ParameterError, match="at least 1, or for all"):
        spread(10, count)


def test_spread_over_the_test_set_is_the_sample():
    np.testing.assert_array_equal(spread(10_000, 500), load("cifar10-sample").indices)


def test_stack_keeps_the_order_asked_for():
    sample = load("cifar10-sample")
    inputs = stack(sample, np.array([7, 3]))
    assert inputs.dtype == np.float32 and inputs.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(inputs, [sample.read(7), sample.read(3)])
    assert stack(sample, []).shape == (0, 3, 32, 32)


def test_whole_set_of_a_plain_reader_is_float():
    sample = load("cifar10-sample")
    shorter = replace(sample, labels=sample.labels[:3], read=lambda k: sample.read(k))
    inputs, labels = load_arrays(shorter)
    assert inputs.dtype == np.float32 and len(inputs) == len(labels) == 3
    np.testing.assert_array_equal(inputs, stack(sample, range(3)))
