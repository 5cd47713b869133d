"""The pair of half-spaces: the mix holds just inside the exact radius and flips just outside."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certmix.radii import CERTIFICATES, exact_radius

CLASSES, DIMENSION = 12, 7
CASES = [  # p, q, alpha, sigma; the other ten classes share the rest, each at most q
    (0.99, 0.01, 0.76, 0.5),
    (0.9, 0.05, 0.76, 0.5),
    (0.95, 0.02, 0.9, 0.25),
    (0.8, 0.1, 0.67, 1.0),
    (0.999, 0.0002, 0.55, 1.0),
    (0.7, 0.2, 1.0, 0.25),
    (0.9999, 0.00001, 0.51, 0.12),
    (0.6, 0.4, 0.9, 0.3),
    (0.3, 0.07, 1.0, 1.0),
]


def direction():
    u = np.random.default_rng(3).normal(size=DIMENSION)
    return u / np.linalg.norm(u)


def smoothed(offsets, p, q, sigma):
    """h at x = offsets (m, d), in closed form.

    hbar is class 0 on {u.z <= sigma Phi^-1(p)}, class 1 on {u.z >= -sigma Phi^-1(q)}
    and even over the remaining classes between the two.
    """
    t = offsets @ direction() / sigma
    selected, rival = ndtr(ndtri(p) - t), ndtr(ndtri(q) + t)
    rest = np.maximum(0.0, 1 - selected - rival) / (CLASSES - 2)
    return np.column_stack([selected, rival, *[rest] * (CLASSES - 2)])


def mix(g, h, alpha):
    with np.errstate(divide="ignore"):
        return np.log((1 - alpha) * g + alpha * h)


def standard_outputs():
    """All vertices of the simplex and some points of it: what g may say."""
    rng = np.random.default_rng(4)
    return np.vstack(
        [np.eye(CLASSES), rng.dirichlet(np.ones(CLASSES), 20), rng.dirichlet(np.full(CLASSES, 0.1), 20)]
    )


def ball(radius):
    """Points of the closed ball: both ends of the critical direction, its inside, anywhere."""
    rng = np.random.default_rng(5)
    along = np.outer(np.linspace(-1, 1, 41), direction())
    around = rng.normal(size=(200, DIMENSION))
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    return radius * np.vstack([along, around, around * rng.uniform(0, 1, (200, 1))])


@pytest.mark.parametrize("p, q, alpha, sigma", CASES)
def test_premises_of_the_pair(p, q, alpha, sigma):
    h = smoothed(np.zeros((1, DIMENSION)), p, q, sigma)[0]
    assert h.sum() == pytest.approx(1, abs=1e-12)
    assert h[0] == pytest.approx(p, rel=1e-12)
    assert h[1:].max() == pytest.approx(q, rel=1e-12)


@pytest.mark.parametrize("name", sorted(CERTIFICATES))
@pytest.mark.parametrize("p, q, alpha, sigma", CASES)
def test_mix_holds_inside_every_certified_ball(name, p, q, alpha, sigma):
    radius = float(np.ravel(CERTIFICATES[name].radius(p, q, sigma, alpha))[0])
    h = smoothed(ball(0.999 * radius), p, q, sigma)
    if radius == 0:
        return
    assert np.all(h[:, 0] - h[:, 1:].max(1) > (1 - alpha) / alpha)
    for g in standard_outputs():
        assert np.all(mix(g, h, alpha).argmax(1) == 0)


@pytest.mark.parametrize("p, q, alpha, sigma", CASES)
def test_mix_flips_just_outside(p, q, alpha, sigma):
    radius = float(np.ravel(exact_radius(p, q, sigma, alpha))[0])
    assert radius > 0
    outside = 1.001 * radius * direction()[None, :]
    assert np.linalg.norm(outside) == pytest.approx(1.001 * radius)
    logits = mix(np.eye(CLASSES)[1], smoothed(outside, p, q, sigma), alpha)[0]
    assert logits.argmax() == 1
    assert logits[1] > logits[0]


@pytest.mark.parametrize("p, q, alpha, sigma", CASES)
def test_margin_at_the_radius_is_the_threshold(p, q, alpha, sigma):
    """Also at the reported radius itself: it is rounded to the safe side."""
    radius = float(np.ravel(exact_radius(p, q, sigma, alpha))[0])
    h = smoothed(radius * direction()[None, :], p, q, sigma)[0]
    assert h[0] - h[1] == pytest.approx((1 - alpha) / alpha, abs=1e-12)


def test_half_spaces_reach_the_tight_lipschitz_constant():
    """The slope of a half-space's smoothed indicator is 1 / (sigma sqrt(2 pi)) at its boundary."""
    sigma, step = 0.5, 1e-5
    h = smoothed(np.array([[-step], [step]]) * direction(), 0.5, 0.1, sigma)[:, 0]
    assert (h[0] - h[1]) / (2 * step) == pytest.approx(1 / (sigma * np.sqrt(2 * np.pi)), rel=1e-8)
