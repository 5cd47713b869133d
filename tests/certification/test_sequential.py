"""Sequential sampling: valid whatever stops it, reproducible, and it stops."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from planes import run
from scipy.special import ndtr, ndtri
from scipy.stats import binom

import certmix
from certmix.bounds import bound_counts, bounds_of
from certmix.certification.evaluate import bound_records, ceilings, expectations
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stopping import Rule, Walk, give_up_below, thresholds
from certmix.errors import ParameterError, RunError
from certmix.radii import MARGIN_SLACK
from certmix.runs import InputRecord
from certmix.sampling.schedule import look, looks, share

rule = lru_cache(Rule)


def request(**changes) -> CertifyRequest:
    return CertifyRequest(**{"sigma": 0.5, "alpha": 0.76, "samples": 2000, **changes})


def walked(p: float, seed: int, asked: CertifyRequest) -> tuple[Walk, dict[int, np.ndarray]]:
    """One input whose votes are Bernoulli(p), sampled until its rule stops."""
    rng, walk = np.random.default_rng(seed), Walk(rule(asked), [np.zeros(1, int)], np.zeros(1, int))
    votes, drawn, kept = 0, 0, {}
    for number, samples in enumerate(walk.rule.looks):
        if not walk.active[0]:
            break
        votes, drawn = votes + rng.binomial(samples - drawn, p), samples
        kept[samples] = np.array([votes, samples - votes])
        walk.step(number, np.zeros(1, int), [kept[samples][None]])
    return walk, kept


def test_shares_sum_to_less_than_one_and_look_numbers_agree():
    numbers = np.arange(400)
    total = sum(share(k) for k in numbers)
    assert 0.99 < total < 1
    assert all(share(k) > 0 for k in numbers)
    assert looks(10_000)[-1] == look(len(looks(10_000)) - 1)


@pytest.mark.parametrize("bound", bounds_of("hard"))
@pytest.mark.parametrize("p", [0.3, 0.66, 0.95])
def test_exact_failure_rate_over_all_looks(bound, p):
    """P(any look's bound exceeds p), by exact recursion over counts, at a large failure probability.

    No stopping rule can fail more often than some look does.
    """
    delta, numbers = 0.1, range(6)
    counts = np.arange(look(5) + 1)
    alive, drawn, failed = np.array([1.0]), 0, 0.0
    for number in numbers:
        samples = look(number)
        increments = binom.pmf(np.arange(samples - drawn + 1), samples - drawn, p)
        alive, drawn = np.convolve(alive, increments), samples
        votes = np.stack([counts[: samples + 1], samples - counts[: samples + 1]], 1)
        lower = bound_counts(votes, np.zeros(samples + 1, int), delta, bound, number).p_lower
        wrong = lower > p
        failed += alive[wrong].sum()
        alive = np.where(wrong, 0.0, alive)
    assert failed <= delta
    assert failed + alive.sum() == pytest.approx(1.0)
    assert failed > 0, "a bound that never fails at 10 % would be far from tight"


@pytest.mark.parametrize("bound", bounds_of("hard"))
def test_failure_rate_with_the_real_rule(bound):
    """Issued radii beyond the truth, over many simulated inputs next to a threshold."""
    asked = request(bound=bound, failure_probability=0.05, samples=1000)
    p, inputs = float(thresholds("exact", 0.5, 0.76, [0.5])[0]) - 1e-9, np.zeros(300, int)
    rng, walk = np.random.default_rng(0), Walk(rule(asked), [inputs], inputs)
    votes, drawn = inputs.copy(), 0
    for number, samples in enumerate(walk.rule.looks):
        rows = np.flatnonzero(walk.active)
        votes[rows], drawn = votes[rows] + rng.binomial(samples - drawn, p, len(rows)), samples
        walk.step(number, rows, [np.stack([votes[rows], samples - votes[rows]], 1)])
    failures = int(np.sum(walk.p > p))
    assert binom.sf(failures - 1, len(inputs), 0.05) > 1e-6


def test_thresholds_are_those_of_the_closed_form():
    radii = np.array([0.0, 0.25, 1.0])
    expected = ndtr(radii / 0.5 + ndtri((1 + 0.24 / 0.76 + MARGIN_SLACK) / 2))
    np.testing.assert_allclose(thresholds("exact", 0.5, 0.76, radii), expected, rtol=1e-9)
    assert thresholds("smoothing", 0.5, 0.76, [0.5])[0] == 1.0
    assert thresholds("exact", 0.5, 0.5, [0.0])[0] == 1.0


def test_sure_inputs_stop_early_and_hopeless_ones_earlier():
    samples = {
        p: int(walked(p, 0, request(samples=100_000))[0].samples[0]) for p in (0.2, 0.5, 0.90, 0.9999999)
    }
    assert samples[0.2] == 100
    assert samples[0.5] < 5000, "on the border of h's own first column"
    assert samples[0.90] < 20_000
    assert samples[0.9999999] < 60_000


def test_goal_radius_reaches_its_precision():
    asked = request(goal="radius", samples=100_000, relative_precision=0.05)
    walk, _ = walked(0.9, 1, asked)
    radius = certmix.exact_radius(walk.p[0], walk.q[0], 0.5, 0.76)[0]
    truth = 0.5 * (ndtri(0.9) - ndtri(1 / 1.52))
    assert 0.9 * truth < radius <= truth
    assert walk.samples[0] < 100_000


def test_giving_up_depends_on_the_price():
    steps, spent, levels = looks(100_000), (1e-5,) * len(looks(100_000)), (0.66, 0.9, 0.99)
    cheap, dear = (give_up_below(steps, spent, levels, price) for price in (1e-8, 1e-5))
    assert np.all(dear[:-1] >= cheap[:-1])
    assert np.any(dear[:-1] > cheap[:-1])
    assert np.all(np.isinf(cheap[-1]))


def record(kept: dict[int, np.ndarray]) -> InputRecord:
    return InputRecord(0, 0, "", np.array([100, 0]), kept)


def test_a_table_does_not_depend_on_what_other_requests_drew():
    """Stored looks beyond this request's own stopping point are not used."""
    asked = request()
    walk, kept = walked(0.97, 3, asked)
    more = dict(kept)
    for samples in looks(5000):
        more.setdefault(samples, np.array([samples, 0]))
    few, many = (bound_records([record(k)], asked) for k in (kept, more))
    assert few.bounds.p_lower[0] == many.bounds.p_lower[0] == walk.p[0, 0]
    assert few.samples[0] == many.samples[0]
    assert not few.waiting[0]


def test_missing_looks_make_an_input_wait():
    asked = request()
    _, kept = walked(0.85, 3, asked)
    assert len(kept) > 2
    shorter = dict(list(kept.items())[:-1])
    assert bound_records([record(shorter)], asked).waiting[0]


def test_raising_the_cap_goes_on_where_it_stopped(tmp_path: Path):
    short = run(output=tmp_path / "run", goal="radii", samples=400)
    long = run(output=tmp_path / "run", goal="radii", samples=1500)
    fresh = run(goal="radii", samples=1500)
    assert long.summary.rows == fresh.summary.rows
    for before, after in zip(short.records, long.records, strict=True):
        for samples, counts in before.estimation.items():
            np.testing.assert_array_equal(after.estimation[samples], counts)


def test_fixed_after_sequential_is_refused_and_sequential_after_fixed_is_not(tmp_path: Path):
    run(output=tmp_path / "a", goal="radii", samples=400)
    with pytest.raises(RunError, match="sampled sequentially"):
        run(output=tmp_path / "a", goal="fixed")
    run(output=tmp_path / "b", goal="fixed")
    with pytest.warns(certmix.CertmixWarning, match="exactly"):
        run(output=tmp_path / "b", goal="radii", samples=1000)


def test_bounds_that_need_a_fixed_size_are_refused():
    with pytest.raises(ParameterError, match="hoeffding.*is unknown"):
        bound_counts(np.array([[90, 10]]), np.zeros(1, int), 0.001, "hoeffding", 0)


def test_the_number_of_samples_named_is_enough_and_not_far_from_least():
    few = CertifyRequest(0.5, 0.55, samples=30, goal="fixed")
    (warning, *_) = [w for w in expectations(few, 10)[0] if w.startswith("mixed, exact")]
    enough = int(warning.split("about ")[1].split()[0])
    reach = {
        n: ceilings(CertifyRequest(0.5, 0.55, samples=n, goal="fixed"), 10) for n in (enough, enough // 2)
    }
    assert reach[enough][1][2] > 0
    assert reach[enough // 2][1][2] == 0


def test_columns_out_of_reach_are_named():
    _, notes = expectations(CertifyRequest(0.5, 0.76, samples=1000, goal="fixed"), 10)
    assert any(
        note.startswith("mixed, exact: 1,000 samples an input can certify at most radius 1.02")
        for note in notes
    )
    assert not expectations(CertifyRequest(0.5, 0.76, samples=1000, goal="fixed", radii=(0.0, 0.25)), 10)[1]
