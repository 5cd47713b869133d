"""Constants of the softmax, and the radii that a network's Lipschitz constant gives."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.errors import ParameterError
from certmix.radii.constant import (
    CONSTANTS_OF,
    SOFTMAX_FACTORS,
    STEEPNESS,
    constant_radius,
    margin_threshold,
    softmax_probabilities,
)
from certmix.types import Status

LOGITS = np.random.default_rng(0).normal(0, 3, (300, 5))


def gradient(z: np.ndarray, y: int, i: int) -> np.ndarray:
    """The gradient of p_y - p_i with respect to the logits."""
    p = softmax_probabilities(z[None])[0]
    eye = np.eye(len(z))
    return p[y] * (eye[y] - p) - p[i] * (eye[i] - p)


@pytest.mark.parametrize("kind, order", [("logits", 2), ("each-logit", 1)])
def test_no_gradient_exceeds_the_factor_and_one_reaches_it(kind, order):
    found = max(np.linalg.norm(gradient(z, 0, 1), order) for z in LOGITS)
    assert 0.5 * SOFTMAX_FACTORS[kind] < found <= SOFTMAX_FACTORS[kind]
    even = gradient(np.array([50.0, 50.0, 0.0]), 0, 1)
    assert np.linalg.norm(even, order) == pytest.approx(SOFTMAX_FACTORS[kind])


@pytest.mark.parametrize("kind", ["logits", "each-logit"])
@pytest.mark.parametrize("alpha", [0.51, 0.76, 0.95, 1.0])
def test_never_less_than_theorem_3_5_with_the_softmax_factor(kind, alpha):
    radius, _ = constant_radius(LOGITS, alpha, 1.7, kind)
    h = np.sort(softmax_probabilities(LOGITS), 1)
    theorem = (h[:, -1] - h[:, -2] - (1 - alpha) / alpha) / (1.7 * SOFTMAX_FACTORS[kind])
    assert (radius >= np.maximum(theorem, 0) * (1 - 1e-12) - 1e-13).all()
    assert radius.mean() > 1.2 * np.maximum(theorem, 0).mean()


def test_by_hand_of_probabilities_and_of_h_alone():
    z = np.log([[0.7, 0.2, 0.1]])
    radius, status = constant_radius(z, 0.8, 0.5, "probabilities")
    assert radius[0] == pytest.approx((0.5 - 0.25) / (2 * 0.5))
    assert radius[0] <= 0.25
    assert status.tolist() == [Status.CERTIFIED]
    # h alone: the distance of logits
    radius, _ = constant_radius([[3.0, 1.0, 0.5]], 1.0, 4.0)
    assert radius[0] == pytest.approx(2.0 / (math.sqrt(2) * 4.0))
    assert radius[0] < 2.0 / (math.sqrt(2) * 4.0)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=6),
    st.sampled_from([0.5, 0.51, 0.625, 0.76, 0.999, 1.0]),
    st.sampled_from(["logits", "each-logit"]),
    st.floats(1.0, 3.0),
)
def test_order(logits, alpha, kind, factor):
    """Alpha helps, steepness harms, shifting all logits changes nothing but rounding."""
    z = np.array([logits])
    radius, status = constant_radius(z, alpha, 1.0, kind)
    assert constant_radius(z, min(1.0, alpha + 0.05), 1.0, kind)[0] >= radius
    assert constant_radius(z, alpha, factor, kind)[0] <= radius
    assert constant_radius(z - 3.5, alpha, 1.0, kind)[0] == pytest.approx(radius, rel=1e-9, abs=1e-12)
    assert (radius > 0) == (status == Status.CERTIFIED)
    assert alpha > 0.5 or radius == 0


def test_ties_abstain_and_huge_logits_stay_finite():
    radius, status = constant_radius([[1.0, 1.0, 0.0], [0.1, 0.0, 0.0], [3e38, -3e38, 0]], 0.6, 1e-300)
    assert status.tolist() == [Status.ABSTAIN, Status.NOT_CERTIFIED, Status.CERTIFIED]
    assert radius[:2].tolist() == [0, 0]
    assert np.isfinite(radius[2])


@pytest.mark.parametrize("alpha", [0.5, 0.51, 0.76, 0.9, 1 / 3 + 1 / 2, 1.0])
def test_the_threshold_is_rounded_up(alpha):
    exact = (1 - Fraction(alpha)) / Fraction(alpha)
    assert exact <= Fraction(margin_threshold(alpha)) <= exact + Fraction(1, 2**51)


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.4}, {"constant": 0.0}, {"constant": float("inf")}, {"constant": float("nan")},
        {"constant_of": "magic"}, {"logits": [[1.0]]}, {"logits": [1.0, 2.0]}, {"logits": [[1.0, float("nan")]]},
    ],
)  # fmt: skip
def test_values_out_of_range(change):
    with pytest.raises(ParameterError) as refused:
        constant_radius(**{"logits": [[1.0, 0.0]], "alpha": 0.76, "constant": 1.0, **change})
    assert "\n" not in str(refused.value)
    assert set(CONSTANTS_OF) == set(STEEPNESS) == set(SOFTMAX_FACTORS)
