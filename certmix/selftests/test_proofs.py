"""What bounds and certificates issue is proved in ball arithmetic, and a hair beyond it is not."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from certmix.bounds import BOUNDS, beta_binomial, bounds_of, clopper_pearson
from certmix.bounds.means import own_values
from certmix.bounds.statistics import plan, start, update
from certmix.radii import CERTIFICATES
from certmix.radii.constant import CONSTANTS_OF, constant_radius
from certmix.selftests.cases import alphas, cases, seeds, sigmas, simplex_pairs
from certmix.verification.proofs.check_proof import FORMULAS, proved
from certmix.verification.proofs.proof import INEQUALITIES, seen_of

HAIR = Fraction(1, 10**6)
deltas = st.floats(-9, -0.05).map(lambda power: 10.0**power)


def holds(name, seen, *numbers):
    return proved(FORMULAS[name], json.dumps(seen), *map(Fraction, numbers))


def beyond(at):
    """A little above a lower bound, measured by the nearer end of [0, 1]."""
    at = Fraction(at)
    return at + HAIR * min(at, 1 - at)


def test_every_formula_is_written_down():
    assert set(FORMULAS) == set(INEQUALITIES)
    assert {*bounds_of("hard"), *bounds_of("soft"), *CERTIFICATES} <= set(INEQUALITIES)


@pytest.mark.parametrize("kind", [clopper_pearson, beta_binomial])
@cases
@given(st.integers(1, 10**6), st.floats(0, 1), deltas)
def test_bounds_of_votes(kind, n, share, delta):
    k = round(share * n)
    name = {clopper_pearson: "clopper-pearson", beta_binomial: "beta-binomial"}[kind]
    low, high = (float(kind.lower_bound(k, n, delta)), float(kind.upper_bound(n - k, n, delta)))
    if low > 0:
        assert holds(name, {"samples": n, "votes": k}, delta, low)
        assert not holds(name, {"samples": n, "votes": k}, delta, beyond(low))
    if high < 1:  # k votes against
        assert holds(name, {"samples": n, "votes": k}, delta, 1 - Fraction(high))


@pytest.mark.parametrize("name", bounds_of("soft", distribution=False))
@cases
@given(seeds, st.integers(2, 5), st.integers(2, 3000), st.floats(-2, 1.5), deltas)
def test_bounds_of_scores(name, random, classes, n, power, delta):
    scores = random.dirichlet(10.0**power * random.uniform(0.1, 3, classes), size=n + 30)
    kept = update(plan(update(start(classes, 0), scores[:30])), scores[30:])
    low = BOUNDS[name].compute.keywords["lower"](own_values(kept), delta, 1.0)
    assume(low > 0)
    seen = seen_of(kept, kept.selected, {"bound": name, "samples": n})
    assert holds(name, seen, delta, low)
    assert not holds(name, seen, delta, low + HAIR)


@pytest.mark.parametrize("name", CERTIFICATES)
@cases
@given(simplex_pairs(), alphas, sigmas)
def test_certificates(name, pair, alpha, sigma):
    radius = float(CERTIFICATES[name].radius(*pair, sigma, alpha))
    assume(0 < radius < math.inf)
    mu, t = 1 / Fraction(alpha) - 1, Fraction(radius) / Fraction(sigma)
    assert holds(name, [1, 1], mu, t, *pair)
    assert not holds(name, [1, 1], mu, t * (1 + HAIR) + HAIR**2, *pair)


@pytest.mark.parametrize("of", CONSTANTS_OF)
@cases
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), alphas, sigmas)
def test_certificates_from_a_constant(of, logits, alpha, constant):
    z = sorted(logits, reverse=True)
    radius = float(constant_radius([z], alpha, constant, of)[0][0])
    assume(0 < radius < math.inf)
    mu, t = 1 / Fraction(alpha) - 1, Fraction(radius) * Fraction(constant)
    assert holds(f"constant of {of}", None, mu, t, *z)
    if alpha > 0.51:  # at 1/2 nothing is certified, and rounding near it takes more
        assert not holds(f"constant of {of}", None, mu, t * (1 + HAIR) + HAIR**2, *z)
