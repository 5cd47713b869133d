"""Half-space pairs: honest certificates stand, faulty ones are found; rates are in docs/falsify.md."""

from __future__ import annotations

import half_spaces
import numpy as np
import pytest
from half_spaces import SIGMA, attack, images, pair, smoothed, true_margin, true_radius
from scipy.special import ndtr, ndtri

from certmix.radii import exact_radius
from certmix.sampling import count_votes
from certmix.verification.checks import Outcome
from certmix.verification.request import FalsifyRequest

FAULTS = [  # samples of the certificate, gap, pipeline
    ("stretched", 10_000, 0.0),
    ("threshold_forgotten", 10_000, 0.0),
    ("wrong_side", 1_000, 0.0),
    ("frequencies", 100, 0.0),
]


def test_the_closed_form_is_that_of_the_network():
    depth, gap = np.array([0.4, 1.2]), 0.3
    h = smoothed(depth, gap)
    for image, expected in zip(images(depth, 0), h, strict=True):
        votes = count_votes(pair(gap), image, SIGMA, 4000, 1, classes=3) / 4000
        assert np.abs(votes - expected).max() < 0.03


def test_the_true_radius_is_tight():
    """In closed form, and as the exact certificate of the true p and q has it."""
    radius = true_radius(1.7, 0.76)
    assert radius == pytest.approx(SIGMA * (1.7 - ndtri(1 / 1.52)), abs=1e-9)
    assert radius == pytest.approx(float(exact_radius(ndtr(1.7), ndtr(-1.7), SIGMA, 0.76)), abs=1e-9)
    assert true_margin(1.7, radius) == pytest.approx(0.24 / 0.76, abs=1e-9)
    assert true_radius(0.3, 0.76) == 0.0


@pytest.mark.parametrize("name, gap", [("honest", 0.0), ("honest_two_sided", 0.3)])
@pytest.mark.parametrize("samples", [100, 10_000])
def test_honest_certificates_stand(name, gap, samples):
    for seed in range(2):
        found = attack(getattr(half_spaces, name), seed, count=15, samples=samples, gap=gap)
        assert found.complete
        assert len(found.attacked) > 5
        assert not found.findings
        assert not found.falsified
        assert found.check.outcome == Outcome.HOLDS


@pytest.mark.parametrize("name, samples, gap", FAULTS)
def test_faults_are_found(name, samples, gap):
    found = attack(getattr(half_spaces, name), 1, count=25, samples=samples, gap=gap)
    assert found.falsified
    assert found.chance < 0.01
    assert found.check.outcome == Outcome.FAILS
    assert found.check.count == len(found.findings) >= found.needed


def test_findings_are_true():
    """At every finding the margin, in closed form, is below the threshold: the wrong class is not blamed."""
    seed, count = 2, 25
    found = attack(half_spaces.frequencies, seed, count=count, samples=100)
    depth = np.random.default_rng(seed).uniform(0.7, 2.5, count)
    assert found.findings
    for one in found.findings:
        assert one.distance < one.claim.radius
        assert true_margin(depth[one.claim.index], one.distance) < one.threshold
        assert true_radius(depth[one.claim.index], 0.76) < one.claim.radius


def test_the_estimate_is_the_true_margin_there():
    found = attack(half_spaces.honest, 0, count=8)
    depth = np.random.default_rng(0).uniform(0.7, 2.5, 8)
    for one in found.attacked:
        error = 4 / np.sqrt(one.samples)
        assert one.margin == pytest.approx(true_margin(depth[one.claim.index], one.distance), abs=error)


def test_one_finding_may_be_what_the_failure_probability_allows():
    """With a failure probability of one half wrong certificates are no surprise."""
    found = attack(half_spaces.frequencies, 1, count=25, samples=100, delta=0.5)
    assert found.findings
    assert found.needed > len(found.findings)
    assert not found.falsified
    assert found.check.outcome == Outcome.HOLDS
    assert "not more than" in found.check.message


def test_infinite_radii_are_attacked_too():
    """All of few samples agree: the frequency 1 claims the whole space."""
    found = attack(half_spaces.frequencies, 0, count=3, samples=10, depths=(2.4, 2.5))
    endless = [one for one in found.attacked if np.isinf(one.claim.radius)]
    assert endless
    assert all(one.found for one in endless)
    assert found.as_dict()["attacks"][endless[0].claim.index]["radius"] is None


def test_the_robust_classifier_alone_is_attacked_at_alpha_1():
    request = FalsifyRequest(steps=4, copies=16)
    for name, falsified in (("honest", False), ("stretched", True)):
        found = attack(getattr(half_spaces, name), 0, count=15, alpha=1.0, request=request)
        assert found.falsified == falsified
        assert found.attacked[0].threshold == 0.0
