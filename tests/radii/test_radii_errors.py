"""What is refused, how it is said, and the shapes that come back."""

import math

import numpy as np
import pytest

from certmix.errors import CertmixError, ParameterError
from certmix.radii import CERTIFICATES, certify_radii, lipschitz_radius
from certmix.types import ConfidenceBounds

NAMES = sorted(CERTIFICATES)


def bounds(p=0.9, q=0.05):
    return ConfidenceBounds(np.array([p]), np.array([q]), 0.001, "clopper-pearson", {"p": 0.001})


def one_line_with(caught, *words):
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text
    assert isinstance(caught.value, CertmixError)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.4999999, 0.0, -1.0, 1.0000001, 2.0, math.nan, math.inf])
def test_alpha_out_of_range(name, alpha):
    with pytest.raises(ParameterError) as caught:
        CERTIFICATES[name].radius(0.9, 0.05, 0.5, alpha)
    one_line_with(caught, "alpha", str(alpha), "1/2 <= alpha <= 1")


def test_remedy_for_alpha_points_the_right_way():
    for alpha, word, wrong in ((0.3, "raise", "lower"), (1.5, "lower", "raise")):
        with pytest.raises(ParameterError) as caught:
            certify_radii(bounds(), sigma=0.5, alpha=alpha)
        text = str(caught.value).replace("p_lower", "")
        assert wrong not in text, f"alpha = {alpha}: {text!r} should not say {wrong!r} but {word!r}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [0.0, -0.25, math.nan, math.inf])
def test_sigma_out_of_range(name, sigma):
    with pytest.raises(ParameterError) as caught:
        CERTIFICATES[name].radius(0.9, 0.05, sigma, 0.76)
    one_line_with(caught, "sigma", str(sigma), "positive")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [1e308, 1.5e-323])
def test_sigma_whose_radii_would_overflow_or_lose_digits(name, sigma):
    with pytest.raises(ParameterError) as caught:
        CERTIFICATES[name].radius(0.999, 0.001, sigma, 1.0)
    one_line_with(caught, "sigma", str(sigma), "other units")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p, q, which", [
    (math.nan, 0.1, "p_lower"), (1.5, 0.1, "p_lower"), (-0.1, 0.1, "p_lower"), (math.inf, 0.1, "p_lower"),
    (0.9, math.nan, "q_upper"), (0.9, 1.5, "q_upper"), (0.9, -1e-9, "q_upper"),
])  # fmt: skip
def test_probabilities_out_of_range(name, p, q, which):
    with pytest.raises(ParameterError) as caught:
        CERTIFICATES[name].radius([0.8, p], [0.1, q], 0.5, 0.76)
    one_line_with(caught, which, str(p if which == "p_lower" else q), "[0, 1]")


@pytest.mark.parametrize("alpha", [0.4, 1.1, math.nan])
def test_class_constants_check_alpha(alpha):
    with pytest.raises(ParameterError, match="alpha"):
        lipschitz_radius([0.9], [[0.05]], alpha, 1.0, 1.0)


@pytest.mark.parametrize("p, q", [(1.5, 0.1), (0.9, math.nan), (math.nan, 0.1), (0.9, -0.1)])
def test_class_constants_check_probabilities(p, q):
    with pytest.raises(ParameterError, match="probabilities"):
        lipschitz_radius([p], [[0.05, q]], 0.76, 1.0, 1.0)


def test_unknown_certificate():
    with pytest.raises(ParameterError) as caught:
        certify_radii(bounds(), sigma=0.5, alpha=0.76, certificate="exakt")
    one_line_with(caught, "exakt", *NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_certify_radii_checks_what_the_certificates_check(name):
    for sigma, alpha in ((0.5, 0.4), (-1.0, 0.76)):
        with pytest.raises(ParameterError):
            certify_radii(bounds(), sigma=sigma, alpha=alpha, certificate=name)
    with pytest.raises(ParameterError):
        certify_radii(bounds(p=math.nan), sigma=0.5, alpha=0.76, certificate=name)


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    rule = CERTIFICATES[name].radius
    assert rule([0.9, 0.8], [[0.05], [0.01], [0.0]], 0.5, 0.76).shape == (3, 2)
    assert rule([0.9, 0.8], 0.05, 0.5, 0.76).shape == (2,)
    assert rule([], [], 0.5, 0.76).shape == (0,)
    assert rule(np.ones((4, 2))[::2, ::-1] * 0.9, 0.05, 0.5, 0.76).dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_numbers_give_a_number(name):
    """As the docstrings show: two numbers give an array of no dimension."""
    assert np.shape(CERTIFICATES[name].radius(0.9, 0.05, 0.5, 0.76)) == ()


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_alone(name):
    p, q = np.array([0.9, 0.4]), np.array([0.05, 0.6])
    p.setflags(write=False)
    q.setflags(write=False)
    CERTIFICATES[name].radius(p, q, 0.5, 0.76)
    assert p.tolist() == [0.9, 0.4]


@pytest.mark.parametrize("name", NAMES)
def test_lengths_that_do_not_match(name):
    with pytest.raises(ValueError):
        CERTIFICATES[name].radius([0.9, 0.8, 0.7], [0.1, 0.2], 0.5, 0.76)


def test_table_entries_describe_themselves():
    assert next(iter(CERTIFICATES)) == "exact"
    for name, rule in CERTIFICATES.items():
        assert rule.name == name
        assert rule.norm == "l2"
        assert rule.label
        assert rule.meaning


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
