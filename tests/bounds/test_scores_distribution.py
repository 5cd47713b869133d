"""Bounds of distributions, layer by layer, and the radii they give."""

import re
from pathlib import Path

import numpy as np
import pytest
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import beta

from certmix.bounds import bound_scores, hoeffding
from certmix.bounds.layers import LAYERS, bound_layers, layer_means, layered_radii
from certmix.bounds.statistics import BINS, ROW_SLACK, SCALE, plan, start, update
from certmix.errors import ParameterError
from certmix.radii import Smoothing, exact_radius
from certmix.types import Status
from certmix.verification.proofs import check_proof
from certmix.verification.proofs.proof import noise_of

DOCS = Path(__file__).parents[2] / "docs" / "bounds.md"
DELTA = 0.001
CASES = [
    Smoothing("gaussian", 0.25, "linf", 12), Smoothing("laplace", 0.25), Smoothing("uniform", 0.5),
    Smoothing("uniform", 0.5, "linf", 12), Smoothing("ablation", 3, dimension=200),
]  # fmt: skip
quick = settings(deadline=None, max_examples=25)


def kept(rows, rivals=(1,)):
    return update(start(np.shape(rows)[1], 0, rivals), rows)


def dirichlet(seed, n=400, weights=(9, 1, 0.5, 0.3)):
    return np.random.default_rng(seed).dirichlet(weights, n)


# ------------------------------------------------------------------- layers


@pytest.mark.parametrize("layers", [1, 4, 16, 64])
def test_layer_means_are_averages_of_the_empirical_tail(layers):
    rows = dirichlet(0)
    whole, edges = kept(rows), np.arange(layers + 1) / layers
    for row, steps in ((0, np.floor(rows[:, 0] * SCALE)), (1, np.ceil(rows[:, 1] * SCALE))):
        parts = np.clip(steps[:, None] / SCALE * layers - edges[:-1] * layers, 0, 1).mean(0)
        np.testing.assert_allclose(layer_means(whole, row, layers), parts, rtol=0, atol=1e-14)
        assert layer_means(whole, row, layers).mean() == pytest.approx(whole.means()[row], abs=1e-14)


@quick
@given(st.integers(0, 999), st.integers(1, 500), st.sampled_from([0.5, 0.01]))
def test_bounds_enclose_the_layers_and_are_monotone(seed, n, delta):
    rows = dirichlet(seed, n, (2, 1, 0.05, 0.3))
    whole = kept(rows, [1, 2])
    bounds, wider = bound_layers([whole], delta), bound_layers([whole], delta / 10)
    assert np.all(bounds.own_lower[0] <= layer_means(whole, 0, LAYERS) + 1e-14)
    for k in (0, 1):
        assert np.all(bounds.rival_upper[0, k] >= layer_means(whole, 1 + k, LAYERS) - 1e-14)
    assert np.all(np.diff(bounds.own_lower[0]) <= 0)
    assert np.all(np.diff(bounds.rival_upper[0]) <= 0)
    assert np.all((wider.own_lower <= bounds.own_lower) & (wider.own_lower >= 0))
    assert np.all((wider.rival_upper >= bounds.rival_upper - 1e-15) & (wider.rival_upper <= 1))
    assert wider.rest_upper[0] >= bounds.rest_upper[0] >= whole.means()[3]
    assert bounds.method == "layers"


@pytest.mark.parametrize("rivals, groups", [([], 1), ([1], 2), ([2, 3], 3), ([1, 2, 3], 3)])
def test_budget_is_split_over_the_groups_of_rivals(rivals, groups):
    bounds = bound_layers([kept(dirichlet(1), rivals)] * 2, 0.01)
    share = 0.005 / groups
    assert bounds.split == {"own": 0.005, "each rival": share, "rest": share}
    assert bounds.rival_upper.shape == (2, len(rivals), bounds.own_lower.shape[1])
    whole = kept(dirichlet(1), rivals)
    rest = [i for i in (1, 2, 3) if i not in rivals]
    expected = hoeffding.entropy_upper_bound(whole.means()[rest].max(), 400, share) if rest else 0.0
    assert bounds.rest_upper.tolist() == [expected] * 2
    if rivals:
        means = layer_means(whole, 1, LAYERS)
        upper = hoeffding.entropy_upper_bound(means, 400, share / LAYERS)
        np.testing.assert_array_equal(bounds.rival_upper[0, 0], upper)


# -------------------------------------------------------------------- radii


def margin(bounds, t):
    """Written from the definition, with scipy."""
    own = ndtr(ndtri(bounds.own_lower[0]) - t).mean()
    uppers = [ndtr(ndtri(row) + t).mean() for row in bounds.rival_upper[0]]
    uppers.append(ndtr(ndtri(bounds.rest_upper[0]) + t))
    return own - min(max(uppers), 1 - own + ROW_SLACK)


@quick
@given(st.integers(0, 999), st.sampled_from([0.51, 0.76, 0.9, 1.0]), st.sampled_from([0.1, 1.0, 3.0]))
def test_radius_is_the_root(seed, alpha, sigma):
    rng = np.random.default_rng(seed)
    weights = rng.uniform([3, 0.1, 0.1, 0.1], [30, 1, 1, 0.2])
    for rivals in ([1, 2], []):
        bounds = bound_layers([kept(dirichlet(seed, 3000, weights), rivals)], 0.01)
        found, mu = layered_radii(bounds, sigma=sigma, alpha=alpha), (1 - alpha) / alpha
        if margin(bounds, 0.0) <= mu:
            assert found.radius[0] == 0
            continue
        root = sigma * brentq(lambda t: margin(bounds, t) - mu, 0, 60, xtol=1e-14)  # noqa: B023
        assert found.radius[0] <= root + 1e-15
        assert found.radius[0] == pytest.approx(root, abs=1e-10 * sigma)
        assert margin(bounds, found.radius[0] / sigma) > mu
        assert found.status[0] == Status.CERTIFIED


@pytest.mark.parametrize("noise", CASES, ids=str)
def test_radii_of_other_noise_are_at_least_those_of_the_mean_and_roots(noise):
    """G_t is convex in p: by Jensen each layer's own curve gives no less than the mean of all; one layer is it."""
    rows = dirichlet(3, 3000, (60, 0.3, 0.2, 0.2))
    bounds = bound_layers([kept(rows, [1, 2])], 0.01)
    own, rival = bounds.own_lower.mean(1), max(*bounds.rival_upper.mean(2)[0], *bounds.rest_upper)
    for alpha in (0.7, 1.0):
        found = layered_radii(bounds, sigma=noise, alpha=alpha)
        plain = noise.radius("exact", own, np.array([rival]), alpha)
        assert found.radius[0] >= plain[0] * (1 - 1e-9) and found.norm == noise.norm and found.radius[0] > 0
        t, mu = (
            found.radius * np.sqrt(noise.stretch) / (1 if noise.entry.whole else noise.scale),
            1 / alpha - 1,
        )
        further = t + 1 if noise.entry.whole else t * 1.001

        def margin(t):
            left = noise.moved(bounds.own_lower, t[:, None]).mean()
            uppers = [noise.moved(row, t, up=True).mean() for row in bounds.rival_upper[0]]
            uppers.append(noise.moved(bounds.rest_upper, t, up=True)[0])
            return left - min(max(uppers), 1 - left + ROW_SLACK)

        assert margin(t) > mu >= margin(further)
        means = [*bounds.own_lower[0], *bounds.rival_upper[0].ravel(), *bounds.rest_upper]
        exact, of, *_ = check_proof.noise_of(noise_of(noise))
        of |= {"groups": [LAYERS, LAYERS, LAYERS, 1]}
        proof = check_proof.FORMULAS[f"{exact}, layers"]
        assert proof(of, arb(mu), arb(float(t[0])), *map(arb, means)) > 0, "proved by balls"
        assert not proof(of, arb(mu), arb(float(further[0])), *map(arb, means)) > 0


def test_status():
    rows = np.array([[[0.9, 0.05, 0.05]], [[0.55, 0.3, 0.15]], [[0.3, 0.4, 0.3]]]).repeat(2000, axis=1)
    bounds = bound_layers([kept(x) for x in rows], DELTA)
    found = layered_radii(bounds, sigma=0.5, alpha=0.76)
    assert found.status.tolist() == [Status.CERTIFIED, Status.NOT_CERTIFIED, Status.ABSTAIN]
    assert np.array_equal(found.radius > 0, [True, False, False])
    assert layered_radii(bounds, sigma=0.5, alpha=0.5).radius.tolist() == [0, 0, 0]
    assert (found.certificate, found.norm, found.sigma, found.alpha) == ("layers", "l2", 0.5, 0.76)
    assert layered_radii(bound_layers([], 0.1), sigma=1.0, alpha=0.8).radius.shape == (0,)


@pytest.mark.parametrize("ones", [700, 900, 999, 1000])
@pytest.mark.parametrize("alpha", [0.76, 1.0])
def test_votes_give_the_mean_only_radius_at_the_same_bound(ones, alpha):
    """All layers of a 0/1 score are equal: the exact certificate, up to how the mean is bounded."""
    rows = np.repeat([[1.0, 0.0], [0.0, 1.0]], [ones, 1000 - ones], axis=0)
    p = hoeffding.entropy_lower_bound(ones / 1000, 1000, DELTA / 2 / LAYERS)
    found = layered_radii(bound_layers([kept(rows)], DELTA), sigma=0.5, alpha=alpha)
    assert found.radius[0] == pytest.approx(exact_radius(p, 1 - p, 0.5, alpha), abs=1e-5)


def test_one_large_score_more_never_shortens_the_radius():
    rng = np.random.default_rng(3)
    rows = dirichlet(5, 300, (9, 1))
    for _ in range(30):
        raised = rows.copy()
        i = rng.integers(300)
        raised[i, 0] += (1 - raised[i, 0]) * rng.random()
        raised[i, 1] = 1 - raised[i, 0]
        pair = bound_layers([kept(rows), kept(raised)], 0.01)
        before, after = layered_radii(pair, sigma=1.0, alpha=0.8).radius
        assert after >= before - 1e-12


# ----------------------------------------------------------- the docs' table


def quantiles(a, b, n):
    """A sample without chance: the quantiles of a beta law, and two classes."""
    own = beta.ppf((np.arange(n) + 0.5) / n, a, b)
    return np.stack([own, 1 - own], 1)


def radii_of(a, b, n, alpha):
    """Radii at sigma = 1 of one row of the table in docs/bounds.md."""
    pilot = plan(update(start(2, 0), quantiles(a, b, 100)))
    whole = update(pilot, quantiles(a, b, n))
    found = []
    for name in ("hoeffding", "bernstein", "betting-fixed"):
        bounds = bound_scores([whole], DELTA, name)
        found.append(exact_radius(bounds.p_lower, bounds.q_upper, 1.0, alpha)[0])
    found.append(layered_radii(bound_layers([whole], DELTA), sigma=1.0, alpha=alpha).radius[0])
    return found


def limits_of(a, b, alpha):
    """What n to infinity gives: the exact radius of the mean, and the root for the distribution."""
    mean, s = a / (a + b), (np.arange(4000) + 0.5) / 4000
    tails = ndtri(beta.sf(s, a, b))
    root = brentq(lambda t: 2 * ndtr(tails - t).mean() - 1 - (1 - alpha) / alpha, 0, 30)
    return float(exact_radius(mean, 1 - mean, 1.0, alpha)), root


def table():
    """Rows of the docs' table: (a, b, alpha), n or None for the limits, figures."""
    rows = []
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\| Beta\(([\d.]+), ([\d.]+)\), \$\\alpha = ([\d.]+)\$ \| (\S+) \|(.*)\|$", line)
        if match:
            a, b, alpha, n, rest = match.groups()
            figures = [None if x.strip() == "" else float(x) for x in rest.split("|")]
            samples = None if n == "∞" else int(n.replace(",", ""))
            rows.append((float(a), float(b), float(alpha), samples, figures))
    return rows


def test_table_of_the_docs():
    rows = table()
    assert {n for *_, n, _ in rows} == {1000, 10_000, 100_000, None}
    for a, b, alpha, n, figures in rows:
        if n is None:
            mean, law = limits_of(a, b, alpha)
            assert figures[:2] == [None, None]
            assert figures[2] == pytest.approx(mean, abs=0.0011)
            assert figures[3] == pytest.approx(law, abs=0.0011)
        else:
            found = radii_of(a, b, n, alpha)
            assert all(0 <= x - printed < 0.0011 for x, printed in zip(found, figures, strict=True)), (
                a,
                b,
                n,
            )


# ------------------------------------------------------------------- errors


def test_bad_arguments_are_refused():
    whole = kept(dirichlet(0))
    for call in (
        lambda: bound_layers([whole], 0.0),
        lambda: bound_layers([start(3, 0)], 0.1),
        lambda: bound_layers([whole, kept(dirichlet(0), [])], 0.1),
        lambda: layered_radii(bound_layers([whole], 0.1), sigma=0.0, alpha=0.8),
        lambda: layered_radii(bound_layers([whole], 0.1), sigma=1.0, alpha=0.4),
    ):
        with pytest.raises(ParameterError) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert BINS % LAYERS == 0
