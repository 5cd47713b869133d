"""Order of the certificates, monotonicity, scale, closed forms: properties of all inputs."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from certmix.radii import CERTIFICATES, certify_radii, exact_radius
from certmix.types import ConfidenceBounds, Status

EPS = 2.0**-52
NAMES = sorted(CERTIFICATES)
quick = settings(deadline=None, max_examples=150)

near_one = st.floats(0.0, 15.9).map(lambda x: 1 - 10.0**-x)
tiny = st.floats(0.0, 300.0).map(lambda x: 10.0**-x)
probabilities = st.one_of(st.floats(0, 1), near_one, tiny, st.sampled_from([0.0, 0.5, 1.0]))
near_half = st.floats(0.4, 12.0).map(lambda x: 0.5 + 10.0**-x)
alphas = st.one_of(st.floats(0.5, 1), near_one.filter(lambda x: x > 0.5), near_half.filter(lambda x: x <= 1))
alphas = st.one_of(alphas, st.sampled_from([0.5, 0.76, 1.0]))
sigmas = st.floats(0.05, 4)


@st.composite
def simplex_pairs(draw):
    """(p, q) with p + q <= 1, as two classes of one distribution have."""
    p = draw(probabilities)
    room = min(p, 1 - p)
    return p, min(room, draw(st.one_of(st.just(room), tiny.map(lambda x: x * room), st.just(0.0))))


def radius(name, p, q, sigma, alpha):
    return float(np.ravel(CERTIFICATES[name].radius(p, q, sigma, alpha))[0])


def rounding(p, q, sigma, alpha, size):
    """The margin that rounding down may take: a few 1e-14 sigma, more where quantiles are large."""
    quantiles = np.abs(ndtri([p, q, alpha * p, (1 - alpha) + alpha * q]))
    size = size if math.isfinite(size) else 0.0
    return 64 * EPS * sigma * (1 + quantiles[np.isfinite(quantiles)].sum()) + 64 * EPS * size


def assert_at_least(large, small, p, q, sigma, alpha):
    assert large >= small - rounding(p, q, sigma, alpha, small), (large, small)


@quick
@given(simplex_pairs(), sigmas, alphas)
def test_order_of_the_certificates(pair, sigma, alpha):
    r = {name: radius(name, *pair, sigma, alpha) for name in NAMES}
    assert all(value >= 0 for value in r.values())  # NaN fails
    for large, small in (
        ("exact", "smoothing"),
        ("exact", "lipschitz"),
        ("smoothing", "lipschitz-paper"),
        ("lipschitz", "lipschitz-paper"),
    ):
        assert_at_least(r[large], r[small], *pair, sigma, alpha)


def test_tight_lipschitz_and_smoothing_are_incomparable():
    gap = [
        radius("lipschitz", p, 1 - p, 1, a) - radius("smoothing", p, 1 - p, 1, a)
        for p, a in ((0.99, 0.76), (0.99, 1.0))
    ]
    assert gap[0] > 0.01
    assert gap[1] < -0.01


@quick
@given(probabilities, probabilities, sigmas, alphas, st.sampled_from(NAMES))
def test_no_nan_and_nothing_without_a_margin(p, q, sigma, alpha, name):
    value = radius(name, p, q, sigma, alpha)
    assert value >= 0
    if p - q <= (1 - alpha) / alpha * (1 - 4 * EPS):
        assert value == 0
    if value == math.inf:
        assert p == 1 or q == 0


@quick
@given(simplex_pairs(), simplex_pairs(), sigmas, alphas, st.sampled_from(NAMES))
def test_monotone_in_p_and_q(one, other, sigma, alpha, name):
    p, q = max(one[0], other[0]), min(one[1], other[1])
    better = radius(name, p, q, sigma, alpha)
    for worse in (one, other):
        assert_at_least(better, radius(name, *worse, sigma, alpha), *worse, sigma, alpha)


@quick
@given(simplex_pairs(), sigmas, alphas, alphas, st.sampled_from(NAMES))
def test_monotone_in_alpha(pair, sigma, one, other, name):
    low, high = sorted((one, other))
    small = radius(name, *pair, sigma, low)
    assert_at_least(radius(name, *pair, sigma, high), small, *pair, sigma, low)


@pytest.mark.parametrize("name", NAMES)
def test_strictly_monotone_away_from_rounding(name):
    steps = np.linspace(0, 0.1, 200)
    assert np.all(np.diff(CERTIFICATES[name].radius(0.85 + steps, 0.05, 0.5, 0.8)) > 0)
    assert np.all(np.diff(CERTIFICATES[name].radius(0.85, 0.01 + steps, 0.5, 0.8)) < 0)
    by_alpha = [radius(name, 0.9, 0.05, 0.5, a) for a in np.linspace(0.6, 1, 100)]
    assert np.all(np.diff(by_alpha) > 0)


@quick
@given(simplex_pairs(), sigmas, alphas, st.integers(-6, 6), st.sampled_from(NAMES))
def test_scales_with_sigma(pair, sigma, alpha, power, name):
    one, scaled = radius(name, *pair, sigma, alpha), radius(name, *pair, sigma * 2.0**power, alpha)
    assert scaled == 2.0**power * one  # powers of two are exact, rounding down included
    by_three = radius(name, *pair, 3 * sigma, alpha)
    if math.isfinite(one):
        assert by_three == pytest.approx(3 * one, rel=1e-14, abs=rounding(*pair, 3 * sigma, alpha, one))


@quick
@given(st.one_of(st.floats(0.5, 1, exclude_max=True), near_one), sigmas)
def test_alpha_one_is_cohens_radius(p, sigma):
    cohen = sigma * float(ndtri(p))
    tolerance = rounding(p, 1 - p, sigma, 1.0, cohen)
    assume(p > 0.5)
    for name in ("exact", "smoothing"):
        assert radius(name, p, 1 - p, sigma, 1.0) == pytest.approx(cohen, rel=0, abs=tolerance)


@quick
@given(simplex_pairs(), sigmas)
def test_exact_and_smoothing_agree_at_alpha_one(pair, sigma):
    one, other = (radius(name, *pair, sigma, 1.0) for name in ("exact", "smoothing"))
    assert one == other or one == pytest.approx(other, rel=0, abs=rounding(*pair, sigma, 1.0, other))


@quick
@given(probabilities, probabilities, sigmas, st.sampled_from(NAMES))
def test_alpha_half_certifies_nothing(p, q, sigma, name):
    assert radius(name, p, q, sigma, 0.5) == 0
    assert radius(name, 1.0, 0.0, sigma, 0.5) == 0


@pytest.mark.parametrize("alpha", [0.5 + 2.0**-53, 0.5 + 1e-9, 0.51, 0.76, 1.0])
def test_certainty_is_certified_everywhere(alpha):
    assert radius("exact", 1.0, 0.0, 0.5, alpha) == math.inf
    for name in NAMES:
        if name != "exact" and alpha < 1:
            assert radius(name, 1.0, 0.0, 0.5, alpha) < math.inf


@quick
@given(near_one, alphas, sigmas)
def test_closed_form_for_two_classes(p, alpha, sigma):
    """q = 1 - p: mixing costs sigma Phi^-1(1 / (2 alpha)), whatever p is."""
    assume(alpha > 0.5 and p - (1 - p) > (1 - alpha) / alpha * (1 + 1e-6))
    cost = float(-ndtri((2 * alpha - 1) / (2 * alpha)))
    expected = sigma * (float(ndtri(p)) - cost)
    tolerance = rounding(p, 1 - p, sigma, alpha, expected) + 64 * EPS * sigma * abs(cost)
    assert radius("exact", p, 1 - p, sigma, alpha) == pytest.approx(expected, rel=0, abs=tolerance)


@quick
@given(st.floats(0.55, 1, exclude_max=True), st.floats(0.52, 1), st.floats(1e-9, 1e-3))
def test_closed_form_is_continuous(p, alpha, change):
    """Just beside q = 1 - p the general solution takes over without a step."""
    assume(2 * p - 1 > (1 - alpha) / alpha + 1e-3)
    at, beside = exact_radius([p, p], [1 - p, (1 - p) * (1 - change)], 1.0, alpha)
    assert at <= beside + 1e-13
    assert beside - at < 3 * change


@quick
@given(st.floats(0, 1), st.floats(0, 1), alphas, st.sampled_from(NAMES))
def test_status(p, q, alpha, name):
    bounds = ConfidenceBounds(np.array([p]), np.array([q]), 0.001, "clopper-pearson", {"p": 0.001})
    result = certify_radii(bounds, sigma=0.5, alpha=alpha, certificate=name)
    assert (result.certificate, result.norm, result.sigma, result.alpha) == (name, "l2", 0.5, alpha)
    if p <= q:
        expected = Status.ABSTAIN
    else:
        expected = Status.CERTIFIED if result.radius[0] > 0 else Status.NOT_CERTIFIED
    assert result.status[0] == expected
    assert result.radius[0] == radius(name, p, q, 0.5, alpha)
    assert result.radius[0] == 0 or expected == Status.CERTIFIED


def test_abstain_not_certified_certified():
    p, q = np.array([0.4, 0.4, 0.6, 0.9, 1.0]), np.array([0.4, 0.6, 0.3, 0.05, 0.0])
    result = certify_radii(ConfidenceBounds(p, q, 0.001, "clopper-pearson", {}), sigma=0.5, alpha=0.76)
    assert result.certificate == "exact"
    assert result.status.tolist() == [0, 0, 1, 2, 2]
    assert result.status.dtype == np.int64
    assert result.radius[:3].tolist() == [0, 0, 0]
    assert result.radius[4] == math.inf
