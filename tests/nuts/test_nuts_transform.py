"""The transform on tensors and arrays, margins of logits, and grids: against plain arithmetic."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_nuts import layer_norm, margins

from certmix.errors import DataError, ModelError, ParameterError
from certmix.nuts import (
    GRIDS,
    Grid,
    NonlinearTransform,
    TransformSettings,
    attacked_margin,
    changed_share,
    clean_margin,
    layer_normalize,
    parse_grid,
    transform_numpy,
)
from certmix.nuts.algorithm import _sorted_margins
from certmix.nuts.grid import CLAMP_NAMES
from certmix.nuts.margins import CLAMPS as ARRAY_CLAMPS
from certmix.nuts.margins import normalize_numpy
from certmix.nuts.transform import CLAMPS, _SignedPower

PLAIN_CLAMPS = {
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "relu": lambda x: max(x, 0.0),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "linear": lambda x: x,
}


def logits_of(shape, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def gradient(transform, logits):
    """Of a loss on the transformed probabilities, as an attack takes it."""
    leaf = logits.clone().requires_grad_()
    transform(leaf).log_softmax(-1)[..., 0].sum().backward()
    return leaf.grad


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e-2, 1.0, 1e6])
@pytest.mark.parametrize(
    "classes,top_k", [(2, None), (10, None), (10, 4), (10, 10), (1000, None), (1000, 250)]
)
def test_layer_norm_is_the_published_one(classes, top_k, scale):
    logits = logits_of((3, classes), scale=scale) + scale
    expected = layer_norm(logits.numpy(), top_k)
    np.testing.assert_allclose(layer_normalize(logits, top_k).numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(normalize_numpy(logits.numpy(), top_k), expected, rtol=1e-10, atol=1e-12)
    assert layer_normalize(logits.float()).dtype == torch.float64


@pytest.mark.parametrize("scale", [1e6, 1e150, 1e300])
def test_large_layer_norms_ignore_scale_and_shift(scale):
    logits = logits_of((6, 10))
    expected = layer_normalize(1e6 * logits)
    assert torch.allclose(layer_normalize(scale * logits), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(layer_normalize(scale * (logits + 8)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("top_k", [None, 2, 3])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e300])
def test_equal_logits_give_zeros_and_a_finite_gradient(value, top_k):
    logits = torch.full((2, 5), value, dtype=torch.float64)
    assert torch.equal(layer_normalize(logits, top_k), torch.zeros(2, 5, dtype=torch.float64))
    assert not normalize_numpy(logits.numpy(), top_k).any()
    assert gradient(NonlinearTransform(2.0, 3.0, 0.5, top_k=top_k), logits).isfinite().all()


@pytest.mark.parametrize("scale,lowest", [(1.0, -2e4), (1e3, -2e7), (1e6, -1e8), (1e300, -1e8)])
def test_a_tie_of_the_largest_is_cut_off(scale, lowest):
    logits = scale * torch.tensor([[2.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    normal = layer_normalize(logits, top_k=2)
    assert normal[0].tolist() == pytest.approx([0.0, 0.0, lowest / 2, lowest])
    assert gradient(NonlinearTransform(1.0, 4.0, -1.0, top_k=2), logits).isfinite().all()


@pytest.mark.parametrize("clamp", CLAMP_NAMES)
def test_clamps_are_what_they_are_called(clamp):
    x = torch.linspace(-12, 12, 97, dtype=torch.float64)
    expected = [PLAIN_CLAMPS[clamp](value) for value in x.tolist()]
    np.testing.assert_allclose(CLAMPS[clamp](x).numpy(), expected, rtol=1e-13, atol=0)
    np.testing.assert_allclose(ARRAY_CLAMPS[clamp](x.numpy()), expected, rtol=1e-13, atol=0)


def test_both_tables_hold_the_named_clamps():
    assert tuple(CLAMPS) == tuple(ARRAY_CLAMPS) == CLAMP_NAMES


@pytest.mark.parametrize("clamp", CLAMP_NAMES)
def test_equation_4_term_by_term(clamp):
    z, s, p, c = [2.0, -1.0, 0.5, 0.1], 1.7, 2.5, -0.3
    clamped = [PLAIN_CLAMPS[clamp](value + c) for value in layer_norm(np.array(z))]
    expected = [s * math.copysign(abs(value) ** p, value) for value in clamped]
    found = NonlinearTransform(s, p, c, clamp)(torch.tensor([z], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("top_k", [None, 4])
@pytest.mark.parametrize("clamp", CLAMP_NAMES)
@pytest.mark.parametrize("s,p,c", [(1.0, 1.0, 0.0), (5.0, 4.0, -1.1), (0.01, 0.3, 2.0), (1e3, 8.0, -0.5)])
def test_arrays_and_tensors_agree(s, p, c, clamp, top_k):
    logits = logits_of((40, 12)).float()
    tensors = NonlinearTransform(s, p, c, clamp, top_k)(logits).numpy()
    arrays = transform_numpy(logits.numpy(), TransformSettings(s, p, c, clamp, top_k))
    # LN is a difference: near 0 it is known to the rounding of its largest terms, magnified by p < 1
    floor = s * (1e-13 if p < 1 else 1e-12) ** min(p, 1.0)
    np.testing.assert_allclose(arrays, tensors, rtol=1e-12, atol=floor)


@pytest.mark.parametrize("clamp", CLAMP_NAMES)
@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 3.571])
def test_gradients_are_those_of_differences(clamp, p):
    logits = logits_of((3, 6), seed=2).requires_grad_()
    assert torch.autograd.gradcheck(NonlinearTransform(0.7, p, 0.2, clamp, top_k=5), logits, atol=1e-6)


def test_the_gradient_of_a_power_at_zero():
    zero = torch.zeros(1, dtype=torch.float64)
    slopes = [
        torch.autograd.functional.jacobian(lambda z, p=p: _SignedPower.apply(z, p), zero) for p in (0.5, 1, 2)
    ]
    assert [float(slope) for slope in slopes] == pytest.approx([0.5e3, 1.0, 0.0])


@pytest.mark.parametrize("clamp", CLAMP_NAMES)
@pytest.mark.parametrize("p", [0.2, 1.0, 1.3, 4.0])
def test_gradients_stay_finite_where_many_values_are_zero(clamp, p):
    logits = torch.tensor([[1.0, -1.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    for c in (-5.0, -1.0, 0.0):
        transform = NonlinearTransform(2.0, p, c, clamp)
        assert transform(logits).isfinite().all()
        assert gradient(transform, logits).isfinite().all()
        assert gradient(transform, logits.float()).isfinite().all()


@pytest.mark.parametrize("clamp", ["elu", "softplus", "linear"])
def test_monotone_clamps_change_no_prediction(clamp):
    assert changed_share(logits_of((500, 6)), NonlinearTransform(3.0, 2.5, -1.5, clamp)) == 0.0


def test_changed_predictions_are_counted():
    logits = torch.tensor([[0.0, 5.0, -5.0], [4.0, 0.0, -1.0], [0.0, 0.1, 9.0], [0.0, 6.0, 3.0]])
    low_gelu = NonlinearTransform(1.0, 1.0, -3.0)  # every class is where GELU falls
    assert low_gelu(logits)[0].argmax() == 2
    assert changed_share(logits, low_gelu) == 1.0
    empty_relu = NonlinearTransform(1.0, 1.0, -3.0, "relu")  # all tie at 0: the first class wins
    assert changed_share(logits, empty_relu) == 0.75


@pytest.mark.parametrize(
    "change",
    [{"s": 0.0}, {"s": 1e7}, {"s": math.nan}, {"p": 0.0}, {"p": 33.0}, {"c": -101.0}, {"c": math.inf},
     {"clamp": "tanh"}, {"top_k": 1}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        NonlinearTransform(**{"s": 1.0, "p": 1.0, "c": 0.0, **change})


@pytest.mark.parametrize("shape", [(), (4, 1)])
def test_a_single_class_is_refused(shape):
    with pytest.raises(ModelError, match="at least 2 classes"):
        layer_normalize(torch.zeros(shape))


small_logits = st.lists(st.floats(-30, 30), min_size=3, max_size=6)


@given(small_logits, st.integers(0, 2))
def test_margins_are_those_of_a_loop(logits, label):
    assert clean_margin([logits])[0] == pytest.approx(margins([logits])[0], rel=1e-9, abs=1e-14)
    found = attacked_margin([logits], [label])[0]
    assert found == pytest.approx(margins([logits], [label])[0], rel=1e-9, abs=1e-14)
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
    found = np.empty((*grid.shape, len(logits)))
    for (i, s), (j, p), (k, c) in product(*(enumerate(getattr(grid, name)) for name in "spc")):
        mapped = transform_numpy(logits, TransformSettings(s, p, c, clamp, top_k))
        found[i, j, k] = clean_margin(mapped) if labels is None else attacked_margin(mapped, labels)
    return found


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("clamp", CLAMP_NAMES)
def test_the_kernel_is_its_twin(clamp, top_k):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 4, (30, 6)).astype(np.float32)
    logits[3], logits[4, :3] = 0.25, logits[4, 3]
    grid = Grid((0.01, 1.0, 1e3), (0.5, 1.0, 2.5, 8.0), (-2.5, -0.3, 1.0))
    for labels in (None, rng.integers(0, 6, 30)):
        targets = np.full(30, -1) if labels is None else labels
        found = _sorted_margins(logits.astype(float), targets, grid=grid, clamp=clamp, top_k=top_k)
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
