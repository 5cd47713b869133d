"""Certificates: sound against smoothed functions in closed form, ordered, monotone, rounded down."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from certmix.radii import CERTIFICATES, certify_radii, constant
from certmix.selftests.cases import (
    EPS,
    alphas,
    cases,
    lead,
    near_one,
    pair_of_half_spaces,
    probabilities,
    seeds,
    sigmas,
    simplex_pairs,
)
from certmix.types import ConfidenceBounds, Status

TIES = 1e-12  # what the logits of a mix may be off by
CLASSES, RIVAL = 3, 1  # of the third class, which takes what two half-spaces leave, nothing is claimed
NAMES = sorted(CERTIFICATES)


def radius(name, p, q, sigma, alpha):
    return float(CERTIFICATES[name].radius(p, q, sigma, alpha))


def rounding(p, q, sigma, alpha, size):
    """What rounding down may take: a few 1e-14 sigma, more where quantiles are large."""
    quantiles = np.abs(ndtri([p, q, alpha * p, (1 - alpha) + alpha * q, (1 - alpha) / alpha, alpha]))
    size = size if math.isfinite(size) else 0.0
    return 64 * EPS * sigma * (1 + quantiles[np.isfinite(quantiles)].sum()) + 64 * EPS * size


def assert_at_least(large, small, p, q, sigma, alpha):
    assert large >= small - rounding(p, q, sigma, alpha, small), (large, small)


# ---------------------------------------------------------------- half-spaces


@pytest.mark.parametrize("name", NAMES)
@cases
@given(simplex_pairs(), alphas)
def test_the_mix_of_two_half_spaces_holds_inside(name, pair, alpha):
    """Along the normal, where both lose fastest; with every vertex as g; margin mu at the radius itself."""
    p, q = pair
    t = radius(name, p, q, 1.0, alpha)
    assume(0 < t < math.inf)
    at = pair_of_half_spaces(*ndtri([p, q]), np.array([t]), CLASSES)[0]
    assert at[0] - at[1] >= constant.margin_threshold(alpha) - TIES
    h = pair_of_half_spaces(*ndtri([p, q]), np.array([t * (1 - 1e-3) - 1e-7]), CLASSES)
    for vertex in np.eye(CLASSES):
        assert lead(vertex[None], h, alpha, np.zeros(1, int), RIVAL)[0] >= -TIES


@cases
@given(simplex_pairs(), alphas)
def test_exact_is_the_largest_radius(pair, alpha):
    """At the radius the margin is mu, and just outside some g flips the mix."""
    p, q = pair
    t = radius("exact", p, q, 1.0, alpha)
    assume(0 < t < math.inf)
    at = pair_of_half_spaces(*ndtri([p, q]), np.array([t, t * (1 + 1e-3) + 1e-7]), CLASSES)
    assert at[0, 0] - at[0, 1] == pytest.approx(constant.margin_threshold(alpha), abs=1e-12)
    assert lead(np.eye(CLASSES)[[RIVAL]], at[1:], alpha, np.zeros(1, int), RIVAL)[0] <= TIES
    if alpha == 1.0:
        largest = radius("smoothing", p, q, 1.0, 1.0)
        assert largest == pytest.approx(t, rel=0, abs=rounding(p, q, 1.0, 1.0, t))


@pytest.mark.parametrize("name", NAMES)
@cases
@given(seeds, st.integers(1, 3), st.floats(0.51, 1.0))
def test_no_smoothed_function_falls_below_mu_within_the_radius(name, random, terms, alpha):
    """Means of half-spaces: functions with values in [0, 1], tried along their normals, slopes and anywhere.

    h_y(x + z) = sum_k w_k Phi(a_k - u_k . z) and h_i(x + z) = sum_k v_k Phi(b_k + e_k . z).
    """
    axis = random.normal(size=(1, 4))
    around = axis + random.uniform(0, 0.5) * random.normal(size=(2 * terms, 4)) * (terms > 1)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    u, e = around[:terms], around[terms:]
    w, v = (random.dirichlet(np.ones(terms)) * random.uniform(low, 1) for low in (0.9, 0.5))
    a = random.uniform(0.5, 3.5, terms)
    b = -a - random.exponential(1.0, terms) if random.random() < 0.8 else random.uniform(-5, 0, terms)

    def at(z):
        return ndtr(a - z @ u.T) @ w, ndtr(b + z @ e.T) @ v

    p, q = (float(one[0]) for one in at(np.zeros((1, 4))))
    t = radius(name, p, q, 1.0, alpha)
    assume(t > 0)
    slopes = np.vstack([w @ u, v @ e, w @ u + v @ e])
    ways = np.vstack([u, e, slopes, -slopes, random.normal(size=(24, 4))])
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-300)
    own, rival = at(np.vstack([t * step * ways for step in (1.0, 0.7, 0.3)]))
    assert np.min(own - rival) >= constant.margin_threshold(alpha) - 1e-13


# ------------------------------------------------------- against the equations


def normal_quantile(x):
    """Phi^-1 to working precision; infinite at 0 and 1."""
    if x <= 0 or x >= 1:
        return mpmath.inf if x >= 1 else -mpmath.inf
    if x > 0.5:
        return -normal_quantile(1 - x)
    w = mpmath.mpf(float(ndtri(float(x))))
    for _ in range(3):
        error = (mpmath.ncdf(w) - x) / mpmath.npdf(w)
        w -= error / (1 + error * w / 2)
    return w


def exceeds(name, t, p, q, alpha):
    """Whether t noise levels are more than the certificate's equation allows, in 60 digits or more."""
    if p <= q:
        return True
    with mpmath.workdps(80):
        p, q, alpha, t = map(mpmath.mpf, (p, q, alpha, t))
        mu = (1 - alpha) / alpha
        if name == "exact":
            return mpmath.ncdf(normal_quantile(p) - t) - mpmath.ncdf(normal_quantile(q) + t) <= mu
        if name == "smoothing":
            return t >= (normal_quantile(alpha * p) - normal_quantile(alpha * q + (1 - alpha))) / 2
        slope = (1 if name == "lipschitz" else 2) / mpmath.sqrt(2 * mpmath.pi)
        return t >= (p - q - mu) / (2 * slope)


@pytest.mark.parametrize("name", ["exact", "smoothing", "lipschitz", "lipschitz-paper"])
@cases
@given(simplex_pairs(), alphas, sigmas)
def test_strictly_below_the_true_radius_and_close_to_it(name, pair, alpha, sigma):
    p, q = pair
    assume(all(x == 0 or x > 1e-300 for x in pair))
    found = radius(name, p, q, sigma, alpha)
    if found == math.inf:
        assert (p, q) == (1, 0) or (alpha == 1 and (p == 1 or q == 0))
        return
    with mpmath.workdps(30):
        t = mpmath.mpf(found) / mpmath.mpf(sigma)
        room = rounding(p, q, 1.0, alpha, 0.0) + 1e-10 * t
        assert found == 0 or not exceeds(name, t, p, q, alpha)
        assert exceeds(name, t + room, p, q, alpha)


@pytest.mark.parametrize("k", [1, 4, 9, 12, 15])
def test_certainty_ties_and_edges(k):
    for alpha in (0.5 + 2.0**-53, 0.5 + 10.0**-k, 0.76, 1.0):
        assert radius("exact", 1.0, 0.0, 0.5, alpha) == math.inf
    for name in NAMES:
        for p, q, alpha in ((1.0, 0.0, 0.5), (0.5, 0.5, 1.0), (0.2, 0.8, 0.76), (0.625, 0.375, 0.8)):
            assert radius(name, p, q, 0.5, alpha) == 0


@cases
@given(near_one, alphas)
def test_closed_form_for_two_classes(p, alpha):
    """q = 1 - p: mixing costs Phi^-1(1 / (2 alpha)), whatever p is; at alpha = 1 it is Cohen's radius."""
    assume(alpha > 0.5 and p - (1 - p) > (1 - alpha) / alpha * (1 + 1e-6))
    cost = float(-ndtri((2 * alpha - 1) / (2 * alpha)))
    expected = float(-ndtri(1 - p)) - cost
    tolerance = rounding(p, 1 - p, 1.0, alpha, expected) + 64 * EPS * abs(cost)
    assert radius("exact", p, 1 - p, 1.0, alpha) == pytest.approx(expected, rel=0, abs=tolerance)


# ---------------------------------------------------------------------- order


@cases
@given(simplex_pairs(), sigmas, alphas)
def test_order_of_the_certificates(pair, sigma, alpha):
    r = {name: radius(name, *pair, sigma, alpha) for name in NAMES}
    assert all(value >= 0 for value in r.values())  # NaN fails
    for large, small in (
        *(("exact", name) for name in NAMES),
        ("smoothing", "lipschitz-paper"),
        ("lipschitz", "lipschitz-paper"),
    ):
        assert_at_least(r[large], r[small], *pair, sigma, alpha)


@pytest.mark.parametrize("name", NAMES)
@cases
@given(probabilities, probabilities, alphas)
def test_nothing_without_a_margin_and_the_status(name, p, q, alpha):
    """Also for p + q > 1, which one distribution does not have."""
    bounds = ConfidenceBounds(np.array([p]), np.array([q]), 0.001, "clopper-pearson", {"p": 0.001})
    found = certify_radii(bounds, sigma=0.5, alpha=alpha, certificate=name)
    value = found.radius[0]
    assert value == radius(name, p, q, 0.5, alpha) >= 0
    assert value == 0 or p - q > (1 - alpha) / alpha * (1 - 4 * EPS)
    assert value < math.inf or p == 1 or q == 0
    established = Status.CERTIFIED if value > 0 else Status.NOT_CERTIFIED
    assert found.status[0] == (established if p > q else Status.ABSTAIN)


@pytest.mark.parametrize("name", NAMES)
@cases
@given(simplex_pairs(), simplex_pairs(), alphas, alphas)
def test_monotone_in_p_q_and_alpha(name, one, other, low, high):
    low, high = sorted((low, high))
    p, q = max(one[0], other[0]), min(one[1], other[1])
    better = radius(name, p, q, 1.0, low)
    for worse in (one, other):
        assert_at_least(better, radius(name, *worse, 1.0, low), *worse, 1.0, low)
    assert_at_least(radius(name, p, q, 1.0, high), better, p, q, 1.0, low)


@pytest.mark.parametrize("name", NAMES)
@cases
@given(simplex_pairs(), sigmas, alphas, st.integers(-6, 6))
def test_scales_with_sigma(name, pair, sigma, alpha, power):
    assume(1e-240 < sigma < 1e240)
    one, scaled = (radius(name, *pair, s, alpha) for s in (sigma, sigma * 2.0**power))
    assert scaled == 2.0**power * one  # powers of two are exact, rounding down included
    if math.isfinite(one):
        room = rounding(*pair, 3 * sigma, alpha, one)
        assert radius(name, *pair, 3 * sigma, alpha) == pytest.approx(3 * one, rel=1e-14, abs=room)
