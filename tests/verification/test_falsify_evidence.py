"""When findings are evidence: coverage by enumeration, binomial tails, giving up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from certmix.errors import ParameterError
from certmix.verification.falsify.attack import noise_seed
from certmix.verification.falsify.evidence import (
    chance_of,
    findings_needed,
    hopeless,
    score_margin_upper,
    stops,
    threshold,
    vote_margin_upper,
)
from certmix.verification.request import FalsifyRequest

SAMPLES = 14


def outcomes() -> list[np.ndarray]:
    """Every way in which 14 votes fall on three classes."""
    return [np.array([a, b, SAMPLES - a - b]) for a in range(SAMPLES + 1) for b in range(SAMPLES + 1 - a)]


@pytest.mark.parametrize("h", [(0.5, 0.5, 0.0), (0.65, 0.35, 0.0), (0.4, 0.2, 0.4), (0.1, 0.05, 0.85)])
@pytest.mark.parametrize("delta", [0.2, 0.05, 0.01])
def test_the_upper_bound_of_a_margin_is_too_small_as_rarely_as_it_says(h, delta):
    law = multinomial(SAMPLES, h)
    missed = sum(
        law.pmf(counts) for counts in outcomes() if vote_margin_upper(counts, 0, 1, delta) < h[0] - h[1]
    )
    assert missed <= delta


def test_the_upper_bound_is_not_idle():
    """At margins well below the threshold nearly all outcomes are evidence."""
    law, mu = binom(1000, 0.5), threshold(0.76)
    power = sum(
        law.pmf(k) for k in range(1001) if vote_margin_upper(np.array([k, 1000 - k]), 0, 1, 1e-4) < mu
    )
    assert power > 0.99


def test_score_differences_are_bounded_above():
    rng = np.random.default_rng(0)
    misses, widths = 0, []
    for _ in range(200):
        drawn = rng.uniform(-0.2, 0.6, 400)
        upper = score_margin_upper(drawn, 0.05)
        misses += upper < 0.2
        widths.append(upper - 0.2)
    assert misses <= 20
    assert 0 < np.mean(widths) < 0.1


@pytest.mark.parametrize("images", [1, 10, 25, 200, 5000])
@pytest.mark.parametrize("rate", [0.0014, 0.001, 0.05])
def test_findings_needed_is_the_least_number_that_is_rare_enough(images, rate):
    needed = findings_needed(images, rate, 0.01)
    assert binom.sf(needed - 1, images, rate) <= 0.01
    assert needed == 1 or binom.sf(needed - 2, images, rate) > 0.01
    assert chance_of(needed, images, rate) == pytest.approx(binom.sf(needed - 1, images, rate), rel=1e-9)


def test_one_finding_is_enough_where_nothing_is_random():
    assert findings_needed(100, 0.0, 0.01) == 1
    assert chance_of(1, 100, 0.0) == 0.0
    assert chance_of(0, 100, 0.0) == 1.0


@pytest.mark.parametrize("samples", [100, 250, 251, 10_000])
def test_the_last_stop_is_the_planned_number_of_samples(samples):
    assert stops(samples)[-1] == samples
    assert stops(samples) == sorted(set(stops(samples)))


def test_only_points_above_the_threshold_are_given_up():
    mu = threshold(0.76)
    assert hopeless(0.9, 0.92, 250, 10_000, mu)
    assert not hopeless(mu - 0.1, 1.0, 250, 10_000, mu)
    assert not hopeless(mu + 0.01, 1.0, 250, 10_000, mu)
    assert hopeless(1.0, 1.0, 250, 10_000, mu)  # no spread at all


def test_the_threshold_is_rounded_down():
    assert threshold(1.0) == 0.0
    assert threshold(0.76) <= 0.24 / 0.76
    assert threshold(0.76) == pytest.approx(0.24 / 0.76, rel=1e-15)


def test_noise_never_shares_a_seed_with_the_run():
    seeds = {noise_seed(a, b, p) for a in range(3) for b in range(3) for p in ("judgement", "search 1")}
    assert len(seeds) == 18
    assert not seeds & set(range(1000))
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": 0}, {"images": "some"}, {"alpha": 0.4}, {"certificate": "none"}, {"steps": 0},
        {"copies": 1}, {"restarts": 0}, {"samples": 10}, {"error_rate": 0.0}, {"error_rate": 1.0}, {"seed": -1},
        {"alpha": math.nan},
    ],
)  # fmt: skip
def test_requests_out_of_range_are_refused(wrong):
    with pytest.raises(ParameterError):
        FalsifyRequest(**wrong)
