"""Margins against plain arithmetic, and the kernel against its twin."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import DataError, ParameterError
from certmix.nuts import (
    GRIDS,
    Grid,
    TransformSettings,
    attacked_margin,
    clean_margin,
    parse_grid,
    transform_numpy,
)
from certmix.nuts.algorithm import _sorted_margins
from certmix.nuts.grid import CLAMP_NAMES

small_logits = st.lists(st.floats(-30, 30), min_size=3, max_size=6)


def probabilities(logits):
    weights = [math.exp(value - max(logits)) for value in logits]
    return [weight / math.fsum(weights) for weight in weights]


def plain_margin(logits, label=None):
    """Definition 2.1 by a loop."""
    shares = probabilities(logits)
    label = logits.index(max(logits)) if label is None else label
    return shares[label] - max(share for i, share in enumerate(shares) if i != label)


@given(small_logits, st.integers(0, 2))
def test_margins_are_those_of_a_loop(logits, label):
    assert clean_margin([logits])[0] == pytest.approx(plain_margin(logits), rel=1e-9, abs=1e-14)
    found = attacked_margin([logits], [label])[0]
    assert found == pytest.approx(plain_margin(logits, label), rel=1e-9, abs=1e-14)
    assert -1 <= found <= clean_margin([logits])[0]


@given(st.floats(1e-300, 700))
def test_two_classes_have_a_closed_form(distance):
    expected = math.tanh(distance / 2)
    assert clean_margin([[0.0, distance]])[0] == pytest.approx(expected, rel=1e-14)
    assert attacked_margin([[0.0, distance]], [0])[0] == pytest.approx(-expected, rel=1e-14)


def test_ties_have_no_margin_whichever_class_is_right():
    assert attacked_margin([[1.0, 1.0, 0.0]] * 2, [0, 1]).tolist() == [0.0, 0.0]
    assert clean_margin([[2.0, 2.0]]).tolist() == [0.0]


def margins_on_grid(logits, labels, grid, clamp="gelu", top_k=None):
    """Return the margins at every point of a grid, (s, p, c, m), without a kernel; labels None: as predicted."""
    margins = np.empty((*grid.shape, len(logits)))
    for (i, s), (j, p), (k, c) in product(*(enumerate(getattr(grid, name)) for name in "spc")):
        mapped = transform_numpy(logits, TransformSettings(s, p, c, clamp, top_k))
        margins[i, j, k] = clean_margin(mapped) if labels is None else attacked_margin(mapped, labels)
    return margins


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("clamp", CLAMP_NAMES)
def test_the_kernel_is_its_twin(clamp, top_k):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 4, (30, 6)).astype(np.float32)
    logits[3], logits[4, :3] = 0.25, logits[4, 3]
    grid = Grid((0.01, 1.0, 1e3), (0.5, 1.0, 2.5, 8.0), (-2.5, -0.3, 1.0))
    for labels in (None, rng.integers(0, 6, 30)):
        targets = np.full(30, -1) if labels is None else labels
        found = _sorted_margins(logits.astype(float), targets, grid=grid, clamp=clamp, top_k=top_k, threads=2)
        expected = np.sort(margins_on_grid(logits, labels, grid, clamp, top_k), axis=-1)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(
    "logits,labels,found",
    [([[1.0, math.nan]], [0], "1 of 2"), ([[1.0, -math.inf]], [0], "1 of 2"), ([[1e308, 0.0]], [0], "1 of 2"),
     ([1.0, 2.0], [0], "shape"), ([[1.0]], [0], "shape"), ([[1.0, 2.0]], [2], "0..1"),
     ([[1.0, 2.0]], [0, 1], "shape"), ([[1.0, 2.0]], [0.0], "float64"), ([[1.0, 2.0]], [-1], "-1")],
)  # fmt: skip
def test_arrays_that_make_no_sense_are_refused(logits, labels, found):
    with pytest.raises(DataError, match=found):
        attacked_margin(logits, labels)


def test_a_grid_is_read_from_text():
    assert parse_grid("s=0.05:5:8,p=1:4:8,c=-1.1:0:8") == GRIDS["cifar10"]
    assert parse_grid(" c=0, s=2 ,p=1:2:2").shape == (1, 2, 1)
    assert parse_grid("s=0.1:10:3,p=1,c=0").s == pytest.approx((0.1, 1.0, 10.0))


@pytest.mark.parametrize(
    "text,found",
    [("", "once each"), ("s=1,p=1", "once each"), ("s=1,p=1,c=0,c=1", "once each"), ("s=1:2,p=1,c=0", "form"),
     ("s=a,p=1,c=0", "form"), ("s=0:1:3,p=1,c=0", "s = 0"), ("s=1,p=1:99:3,c=0", "p = 99"),
     ("s=1,p=1,c=0:1:1", "candidates"), ("s=1,p=1,c=0:1:0", "candidates"), ("s=2:2:5,p=1,c=0", "candidates"),
     ("s=1,p=4:1:3,c=0", "increase"), ("s=1,p=1,c=nan", "c = nan")],
)  # fmt: skip
def test_text_that_is_no_grid_is_refused(text, found):
    with pytest.raises(ParameterError, match=found):
        parse_grid(text)


def test_a_grid_without_candidates_is_refused():
    with pytest.raises(ParameterError, match="no candidate for p"):
        Grid((1.0,), (), (0.0,))
