"""Theorem 3.5: classifiers of known Lipschitz constants, moved by the radius in their worst direction."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ndtr

from certmix.margins import margins
from certmix.radii import constant, theorems
from certmix.selftests.cases import alphas, cases, lead, seeds

ROUNDING = 1e-13
DUAL = {"l2": 2.0, "linf": 1.0, "l1": np.inf}  # the norm of weights dual to the norm of the radii
unit = st.floats(0, 1)
constants = st.one_of(
    st.floats(0, 10, allow_subnormal=False), st.sampled_from([0.0, 1e-300, 1e300, math.inf])
)


def formula(p, rivals, alpha, own, others):
    """The theorem in exact fractions; None for an infinite radius."""
    a, smallest = Fraction(alpha), None
    for q, other in zip(rivals, others, strict=True):
        gap = a * (Fraction(p) - Fraction(q)) + a - 1
        if gap <= 0 or math.isinf(own + other):
            return Fraction(0)
        steepness = a * (Fraction(own) + Fraction(other))
        if steepness > 0:
            smallest = gap / steepness if smallest is None else min(smallest, gap / steepness)
    return smallest


@cases
@given(unit, st.lists(unit, min_size=1, max_size=5), st.floats(0.5, 1), constants, st.data())
def test_equals_the_formula_from_strictly_below(p, rivals, alpha, own, data):
    others = data.draw(st.lists(constants, min_size=len(rivals), max_size=len(rivals)))
    got = float(theorems.lipschitz_radius([p], [rivals], alpha, own, others)[0])
    true, gap = formula(p, rivals, alpha, own, others), p - max(rivals) - (1 - alpha) / alpha
    if true is None:
        assert got == math.inf or gap < 1e-14
    elif true > 10**300:  # beyond float64
        assert got > 1e299
    else:
        assert 0 <= Fraction(got) < true or got == true == 0
        assert gap <= 1e-4 or got >= float(true) * (1 - 1e-10)


@pytest.mark.parametrize("norm", DUAL)
@cases
@given(seeds, alphas)
def test_linear_probabilities(norm, random, alpha):
    """h_i(x) = b_i + w_i . x: a rival i gains r |w_y - w_i| at distance r, at most r (|w_y| + |w_i|)."""
    mu = constant.margin_threshold(alpha)
    b = np.concatenate([[mu + (1 - mu) * random.random()], random.uniform(0, 0.2, 4)]).clip(0, 1)
    w = random.normal(size=(5, 6)) * 10.0 ** random.uniform(-2, 2)
    w[1] = -w[0] * random.uniform(0.1, 3)
    steep = np.linalg.norm(w, ord=DUAL[norm], axis=1)
    radius = float(theorems.lipschitz_radius([b[0]], [b[1:]], alpha, steep[0], steep[1:])[0])
    left = b[0] - b[1:] - radius * np.linalg.norm(w[0] - w[1:], ord=DUAL[norm], axis=1)
    assert radius == 0 or np.min(left) >= mu - ROUNDING
    alone = float(theorems.lipschitz_radius([b[0]], [[b[1]]], alpha, steep[0], [steep[1]])[0])
    if alone > 1e-6 / steep[0]:  # opposed weights leave margin mu just outside
        assert b[0] - b[1] - alone * (1 + 1e-6) * (steep[0] + steep[1]) < mu


@pytest.mark.parametrize("norm", DUAL)
@cases
@given(seeds, alphas)
def test_two_classes_hold_inside_and_flip_outside(norm, random, alpha):
    """h = (1/2 + s, 1/2 - s), s linear, under the mix with the worst g."""
    mu, w = constant.margin_threshold(alpha), random.normal(size=6)
    assume(mu < 0.999)
    steep = float(np.linalg.norm(w, ord=DUAL[norm]))
    start = (mu + (1 - mu) * random.uniform(0.05, 1)) / 2
    radius = float(theorems.lipschitz_radius([0.5 + start], [[0.5 - start]], alpha, steep, [steep])[0])
    s = start - np.array([1 - 1e-9, 1 + 1e-3]) * radius * steep
    h = np.stack([0.5 + s, 0.5 - s], 1).clip(0, 1)
    inside, outside = lead(np.array([[0.0, 1.0]] * 2), h, alpha, np.zeros(2, np.int64))
    assert inside > 0 > outside


@pytest.mark.parametrize("of", constant.CONSTANTS_OF)
@cases
@given(seeds, alphas)
def test_logits_that_move_as_fast_as_their_constant_allows(of, random, alpha):
    classes = 2 if of == "logits" else int(random.integers(2, 7))
    z, steep = random.normal(size=classes) * 4, 10.0 ** random.uniform(-2, 2)
    radius = float(constant.constant_radius([z], alpha, steep, of)[0][0])
    assume(radius > 1e-9 / steep)
    top, mu = int(z.argmax()), constant.margin_threshold(alpha)

    def margin(distance):
        moved, lost = z, 2 * steep * distance
        if of != "probabilities":
            reach = steep * distance / (np.sqrt(2) if of == "logits" else 1.0)
            moved, lost = z + reach * np.where(np.arange(classes) == top, -1.0, 1.0), 0.0
        h = constant.softmax_probabilities(moved[None])[0]
        return h[top] - np.delete(h, top).max() - lost

    assert margin(radius) >= mu - ROUNDING
    if 1e-6 < mu < 0.999 or alpha == 1:
        assert margin(radius * (1 + 1e-3)) < mu


@cases
@given(seeds, alphas, st.sampled_from(["logits", "each-logit"]))
def test_radii_from_a_constant_are_rounded_down(random, alpha, of):
    """The closed form in 60 digits."""
    z, steep = random.normal(size=4) * 10.0 ** random.uniform(-1, 1.5), 10.0 ** random.uniform(-3, 3)
    found = float(constant.constant_radius([z], alpha, steep, of)[0][0])
    with mpmath.workdps(60):
        mu = (1 - mpmath.mpf(alpha)) / mpmath.mpf(alpha)
        odds = [mpmath.exp(mpmath.mpf(float(v)) - mpmath.mpf(float(z.max()))) for v in sorted(z)[:-1]]
        inner = (1 - mu) / (max(odds) + mu * sum(odds))
        speed = (mpmath.sqrt(2) if of == "logits" else 2) * mpmath.mpf(steep)
        assert found <= max(0, mpmath.log(inner) / speed if inner > 0 else 0)


@cases
@given(st.lists(st.floats(-30, 30, allow_subnormal=False), min_size=1, max_size=8))
def test_softmax_margins_are_rounded_down(lower):
    """What bounds of logit differences l allow; for l <= 0 the infimum is tanh(l / 2)."""
    found = float(margins.softmax_margin_lower(np.array([lower]))[0])
    with mpmath.workdps(60):
        odds = sum(mpmath.exp(-mpmath.mpf(one)) for one in lower)
        least = mpmath.mpf(min(lower))
        assert found <= (-mpmath.expm1(-least) / (1 + odds) if least > 0 else mpmath.tanh(least / 2))


@cases
@given(seeds)
def test_no_half_space_is_steeper_than_the_tight_constant(random):
    u = random.normal(size=(20, 4))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    step = 1e-5 * u @ u[0]
    slope = (ndtr(step) - ndtr(-step)) / 2e-5
    assert np.all(slope <= theorems.TIGHT_CONSTANT + 1e-10)
    assert slope.max() == pytest.approx(theorems.TIGHT_CONSTANT, abs=1e-8)  # and one reaches it


def test_constants_are_rounded_up():
    pi_below = Fraction("3.14159265358979323846264338327950")
    assert Fraction(theorems.TIGHT_CONSTANT) ** 2 * 2 * pi_below >= 1
    assert Fraction(theorems.PAPER_CONSTANT) ** 2 * pi_below >= 2
    assert pytest.approx(math.sqrt(2 / math.pi), rel=1e-15) == theorems.PAPER_CONSTANT
    assert pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-15) == theorems.TIGHT_CONSTANT


@pytest.mark.parametrize("name", ["PAPER_CONSTANT", "TIGHT_CONSTANT"])
def test_equal_constants_agree_with_the_gaussian_case(name):
    p, q, sigma, one = np.linspace(0.5, 1, 30), np.linspace(0.3, 0, 30), 0.25, getattr(theorems, name)
    general = theorems.lipschitz_radius(p, q, 0.8, one / sigma, one / sigma)
    special = theorems.gaussian_lipschitz_radius(p, q, sigma, 0.8, one)
    np.testing.assert_allclose(general, special, rtol=1e-10, atol=1e-14)
