"""Theorem 3.5 with constants of their own for each class."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.errors import ParameterError
from certmix.radii import PAPER_CONSTANT, TIGHT_CONSTANT, gaussian_lipschitz_radius, lipschitz_radius

quick = settings(deadline=None, max_examples=150)
unit = st.floats(0, 1)
constants = st.one_of(
    st.floats(0, 10, allow_subnormal=False), st.sampled_from([0.0, 1e-300, 1e300, math.inf])
)


def formula(p, rivals, alpha, own, others):
    """The theorem in exact fractions; None for an infinite radius."""
    a, smallest = Fraction(alpha), None
    for q, other in zip(rivals, others, strict=True):
        gap = a * (Fraction(p) - Fraction(q)) + a - 1
        if gap <= 0 or (math.isinf(own + other) and gap > 0):
            return Fraction(0)
        steepness = a * (Fraction(own) + Fraction(other))
        if steepness > 0:
            smallest = gap / steepness if smallest is None else min(smallest, gap / steepness)
    return smallest


@quick
@given(unit, st.lists(unit, min_size=1, max_size=5), st.floats(0.5, 1), constants, st.data())
def test_equals_the_formula_from_strictly_below(p, rivals, alpha, own, data):
    others = data.draw(st.lists(constants, min_size=len(rivals), max_size=len(rivals)))
    got = float(lipschitz_radius([p], [rivals], alpha, own, others)[0])
    true = formula(p, rivals, alpha, own, others)
    if true is None:
        assert got == math.inf or p - max(rivals) - (1 - alpha) / alpha < 1e-14
        return
    assert got >= 0
    if true > 10**300:  # beyond float64
        assert got > 1e299
        return
    assert Fraction(got) < true or got == true == 0
    gap = p - max(rivals) - (1 - alpha) / alpha
    if gap > 1e-4:
        assert got >= float(true) * (1 - 1e-10)


def test_the_runner_up_need_not_be_the_rival_that_binds():
    """A rival far behind but steep decides: min over all of them, not the largest q."""
    flat, steep = (0.9 - 0.2 - 1 / 3) / 2, (0.9 - 0.01 - 1 / 3) / 11
    got = lipschitz_radius([0.9], [[0.2, 0.01]], 0.75, 1.0, [1.0, 10.0])
    assert got[0] == pytest.approx(min(flat, steep), rel=1e-13)
    assert got[0] < 0.3 * flat


def test_own_and_rival_constants_are_added():
    got = lipschitz_radius([0.9, 0.9], [[0.1], [0.1]], 1.0, [1.0, 3.0], [[3.0], [1.0]])
    np.testing.assert_allclose(got, 0.2, rtol=1e-13)


def test_order_of_rivals_does_not_matter():
    rng = np.random.default_rng(0)
    q, others = rng.uniform(0, 0.2, (4, 6)), rng.uniform(0.1, 2, (4, 6))
    order = rng.permutation(6)
    one = lipschitz_radius([0.9] * 4, q, 0.8, 1.0, others)
    other = lipschitz_radius([0.9] * 4, q[:, order], 0.8, 1.0, others[:, order])
    np.testing.assert_array_equal(one, other)


def test_zero_constants_do_not_divide():
    with np.errstate(all="raise"):
        sure = lipschitz_radius([0.9, 0.4], [[0.05, 0.02], [0.3, 0.1]], 0.75, 0.0, 0.0)
    assert sure.tolist() == [math.inf, 0.0]
    mixed = lipschitz_radius([0.9], [[0.05, 0.3]], 1.0, 0.0, [0.0, 2.0])  # only the second can move
    assert mixed[0] == pytest.approx(0.3, rel=1e-13)


@pytest.mark.parametrize("name, unit_constant", [("paper", PAPER_CONSTANT), ("tight", TIGHT_CONSTANT)])
def test_equal_constants_agree_with_the_gaussian_case(name, unit_constant):
    p, q, sigma = np.linspace(0.5, 1, 30), np.linspace(0.3, 0, 30), 0.25
    general = lipschitz_radius(p, q, 0.8, unit_constant / sigma, unit_constant / sigma)
    special = gaussian_lipschitz_radius(p, q, sigma, 0.8, unit_constant)
    np.testing.assert_allclose(general, special, rtol=1e-10, atol=1e-14)


def test_constants_of_the_gaussian_case():
    assert pytest.approx(math.sqrt(2 / math.pi), rel=1e-15) == PAPER_CONSTANT
    assert pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-15) == TIGHT_CONSTANT
    pi_below = Fraction("3.14159265358979323846264338327950")
    assert Fraction(TIGHT_CONSTANT) ** 2 * 2 * pi_below >= 1  # both rounded up
    assert Fraction(PAPER_CONSTANT) ** 2 * pi_below >= 2


def test_linear_model_whose_constants_are_known():
    """h_i(x) = b_i + w_i.x has Lipschitz constant |w_i|_q in the norm p dual to q.

    The certified ball holds margin mu, and along -(w_y - w_i) the true distance
    to it is no nearer than the radius, with equality where w_y and w_i are opposed.
    """
    rng = np.random.default_rng(1)
    w, bias, alpha = rng.normal(size=(4, 6)), np.array([0.85, 0.1, 0.03, 0.02]), 0.75
    w *= 0.05
    w[1] = -0.5 * w[0]
    for dual in (1, 2, np.inf):
        lip = np.linalg.norm(w, ord=dual, axis=1)
        radius = lipschitz_radius([bias[0]], [bias[1:]], alpha, lip[0], lip[1:])[0]
        nearest = [
            (bias[0] - bias[i] - (1 - alpha) / alpha) / np.linalg.norm(w[0] - w[i], ord=dual)
            for i in (1, 2, 3)
        ]
        assert radius <= min(nearest)
        single = lipschitz_radius([bias[0]], [[bias[1]]], alpha, lip[0], [lip[1]])[0]
        assert single == pytest.approx(nearest[0], rel=1e-12)
        assert single <= nearest[0]


@pytest.mark.parametrize(
    "p, q",
    [
        ([0.9, 0.9, 0.9], [[0.05, 0.03]]),  # one row of rivals for three images
        (0.9, [[0.05], [0.3], [0.01]]),  # three rows for one
        ([0.9, 0.8], [0.05, 0.3, 0.01, 0.02]),  # four columns or two images?
        ([0.9, 0.8], [0.05, 0.3, 0.01]),
        ([0.9], np.zeros((1, 0))),  # nobody to beat
        ([0.9], np.zeros((1, 2, 2))),
    ],
)
def test_rows_that_do_not_match_are_refused(p, q):
    """Never a radius computed from another image's rivals, or from memory beyond the array."""
    with pytest.raises(ValueError):  # ParameterError is one
        lipschitz_radius(p, q, 0.75, 1.0, 1.0)


def test_one_rival_a_row_from_a_flat_array():
    flat = lipschitz_radius([0.9, 0.8], [0.05, 0.1], 0.75, 1.0, 1.0)
    np.testing.assert_array_equal(flat, lipschitz_radius([0.9, 0.8], [[0.05], [0.1]], 0.75, 1.0, 1.0))


@pytest.mark.parametrize(
    "own, others, found",
    [(-1.0, 1.0, "-1.0"), (1.0, [1.0, -1e-9], "-1e-09"), (math.nan, 1.0, "nan"), (1.0, [math.nan, 1], "nan")],
)
def test_bad_constants_are_refused(own, others, found):
    with pytest.raises(ParameterError, match="Lipschitz constant") as caught:
        lipschitz_radius([0.9], [[0.05, 0.02]], 0.75, own, others)
    assert found in str(caught.value).lower()


def test_constants_of_another_shape_are_refused():
    with pytest.raises(ValueError):
        lipschitz_radius([0.9], [[0.05, 0.02]], 0.75, 1.0, [1.0, 2.0, 3.0])
