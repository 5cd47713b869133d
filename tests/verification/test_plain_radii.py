"""The second implementation of radii: closed forms, the half-space pair, and agreement with the first one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from certmix.radii import CERTIFICATES
from certmix.radii.constant import CONSTANTS_OF
from certmix.radii.constant import constant_radius as kernel_radius
from certmix.verification.plain import RADII, constant_radius, exact_radius, softmax_margin

TABLE = [  # p, q, alpha, sigma, 2a paper, 2a tight, 2b, 2c: 40-digit arithmetic, design notes section 2
    (0.99, 0.01, 0.76, 0.5, 0.208116110696337, 0.416232221392674, 0.341030800412578, 0.959811811084739),
    (0.9, 0.05, 0.76, 0.5, 0.167383401233583, 0.334766802467167, 0.266926736505794, 0.524859329126938),
    (0.95, 0.02, 0.9, 0.25, 0.128290627666878, 0.256581255333757, 0.280395718199073, 0.426660199303829),
    (0.999, 0.0002, 0.55, 1, 0.113185660364474, 0.226371320728949, 0.124827665564394, 1.94630028866449),
    (0.7, 0.2, 1, 0.25, 0.0783321335822188, 0.156664267164438, 0.170752718285119, 0.170752718285119),
]


@pytest.mark.parametrize("row", TABLE)
def test_reference_values(row):
    p, q, alpha, sigma, *expected = row
    names = ("lipschitz-paper", "lipschitz", "smoothing", "exact")
    assert [RADII[name](p, q, sigma, alpha) for name in names] == pytest.approx(expected, rel=1e-12)


def test_every_certificate_of_the_table_has_a_plain_twin():
    assert set(RADII) == set(CERTIFICATES)


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.76, 0.51])
@pytest.mark.parametrize("p", [0.995, 0.9999, 1 - 1e-9])
def test_exact_has_a_closed_form_for_two_classes(p, alpha):
    expected = max(0.0, 0.5 * (-ndtri(1 - p) - ndtri(1 / (2 * alpha))))
    assert exact_radius(p, 1 - p, 0.5, alpha) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p, q, alpha", [(0.9, 0.05, 0.76), (0.6, 0.01, 0.8), (0.999, 1e-6, 0.55)])
def test_the_half_space_pair_holds_inside_and_flips_outside(p, q, alpha):
    """The base answers y where u.z <= Phi^-1(p), i where u.z >= -Phi^-1(q): the mix flips at the radius."""
    radius = exact_radius(p, q, 1.0, alpha)
    for t, holds in ((0.999 * radius, True), (1.001 * radius, False)):
        h = np.array([ndtr(ndtri(p) - t), ndtr(ndtri(q) + t)])
        mix = (1 - alpha) * np.array([0.0, 1.0]) + alpha * h
        assert bool(mix[0] > mix[1]) is holds


PAIRS = st.one_of(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda x: (x[0], x[1] * (1 - x[0]))),
    st.floats(-16, 0).map(lambda power: (1 - 10.0**power, 10.0**power)),
    st.tuples(st.floats(-16, 0), st.floats(-300, 0)).map(lambda x: (1 - 10.0 ** x[0], 10.0 ** (x[0] + x[1]))),
    st.sampled_from([(1.0, 0.0), (1.0, 1e-9), (0.5, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 1.0)]),
)  # fmt: skip
ALPHAS = st.one_of(st.floats(0.5, 1), st.sampled_from([0.5, 0.5 + 1e-9, 0.76, 1 - 1e-12, 1.0]))


@given(PAIRS, ALPHAS, st.floats(-3, 2).map(lambda power: 10.0**power))
@settings(max_examples=70, deadline=None)
def test_radii_agree(pair, alpha, sigma):
    """The published radius never exceeds the plain one, and lies within 1e-12 (sigma + radius) of it."""
    for name, rule in CERTIFICATES.items():
        published, plain = float(rule.radius(*pair, sigma, alpha)), RADII[name](*pair, sigma, alpha)
        if math.isinf(plain) or math.isinf(published):
            assert published == plain
        else:
            assert plain - 1e-12 * (sigma + plain) <= published <= plain * (1 + 1e-15)


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=6), ALPHAS, st.floats(-3, 3).map(lambda power: 10.0**power),
    st.sampled_from(list(CONSTANTS_OF)),
)  # fmt: skip
@settings(max_examples=70, deadline=None)
def test_radii_from_constants_agree(logits, alpha, constant, what):
    z = np.array(logits)
    published, plain = (
        float(kernel_radius(z[None], alpha, constant, what)[0][0]),
        constant_radius(z, alpha, constant, what),
    )
    near = 1e-12 + 1e-15 / max(2 * alpha - 1, 1e-300)  # log(1 - mu), mu rounded up, near alpha = 1/2
    assert plain - near * (1 / constant + plain) <= published <= plain * (1 + 1e-15)


def test_a_lipschitz_network_alone_has_its_known_radius():
    z = np.array([3.0, 1.0, 0.0])
    assert constant_radius(z, 1.0, 2.0, "logits") == pytest.approx(2 / (math.sqrt(2) * 2))
    assert constant_radius(z, 1.0, 2.0, "each-logit") == pytest.approx(2 / (2 * 2))
    h = np.exp(z) / np.exp(z).sum()
    assert softmax_margin(z) == pytest.approx(h[0] - h[1])
    assert constant_radius(z, 0.76, 2.0, "probabilities") == pytest.approx((h[0] - h[1] - 0.24 / 0.76) / 4)
    assert constant_radius(z, 0.5, 2.0, "logits") == 0
