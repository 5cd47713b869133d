"""The transform on tensors: equation 4 term by term, its twin on arrays, and gradients that stay finite."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from plain_nuts import layer_norm

from certmix.errors import ModelError, ParameterError
from certmix.nuts import (
    NonlinearTransform,
    TransformSettings,
    changed_share,
    layer_normalize,
    transform_numpy,
)
from certmix.nuts.grid import CLAMP_NAMES
from certmix.nuts.margins import CLAMPS as ARRAY_CLAMPS
from certmix.nuts.margins import normalize_numpy
from certmix.nuts.transform import CLAMPS, signed_power

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


def test_the_package_imports_no_torch():
    code = "import sys, certmix.nuts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


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
        torch.autograd.functional.jacobian(lambda z, p=p: signed_power(z, p), zero) for p in (0.5, 1, 2)
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
