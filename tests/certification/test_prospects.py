"""What more samples could give: calibrated, nothing where all were drawn, and a range wherever it is more."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom, poisson

from certmix.bounds import clopper_pearson
from certmix.certification import stopping
from certmix.certification.evaluate import radii_of
from certmix.certification.request.parts import usual_radii
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stopping import Prospects, Rule, Walk
from certmix.tables.table import Quantity, Share, printed
from certmix.tables.words import settled, share_of
from certmix.types import ConfidenceBounds, FloatArray

INPUTS, SAMPLES, TABLES = 40, 1500, 15


def asked(**changes) -> CertifyRequest:
    return CertifyRequest(**{"sigma": 0.5, "alpha": 0.76, "samples": SAMPLES, **changes})


class Simulated:
    """Inputs (m,) of given probabilities, all samples drawn, walked as far as a request wants.

    Behind a gate half of the votes that are not for the class abstain.
    """

    def __init__(self, request: CertifyRequest, p: FloatArray, seed: int, rule: Rule | None = None) -> None:
        self.request, self.rule, self.right = request, rule or Rule(request), np.ones(len(p), bool)
        parts = np.stack([p, (1 - p) / 2, (1 - p) / 2] if request.gate else [p, 1 - p], 1)
        rng, self.votes, before = np.random.default_rng(seed), [np.zeros(parts.shape, np.int64)], 0
        for samples in self.rule.looks:
            self.votes.append(self.votes[-1] + rng.multinomial(samples - before, parts))
            before = samples

    def walk(self, all_looks: bool = False) -> Walk:
        zeros = np.zeros(len(self.right), np.int64)
        walk = Walk(self.rule, [zeros], zeros)
        for number in range(len(self.rule.looks)):
            rows = np.flatnonzero(self.right if all_looks else walk.active)
            walk.step(number, rows, [self.votes[number + 1][rows]])
        return walk

    def bounds(self, walk: Walk) -> ConfidenceBounds:
        return ConfidenceBounds(
            walk.p[0], walk.q[0], self.request.failure_probability, self.request.bound, {}
        )

    def prospects(self, walk: Walk) -> Prospects:
        return Prospects.of(self.request, self.bounds(walk), walk.standing(0), self.right, self.request.gate)


def hits(radius: FloatArray, columns: FloatArray) -> np.ndarray:
    return np.array([np.sum((radius >= r) & (radius > 0)) for r in columns])


@pytest.mark.parametrize(
    ("settle", "goal", "gate"),
    [
        ("exact", "radii", 0.0),
        ("exact", "radii", 0.6),
        *(pytest.param(*of, 0.0, marks=pytest.mark.long) for of in (("all", "radii"), ("exact", "radius"))),
    ],
)
def test_all_samples_give_more_than_foretold_in_few_tables(settle, goal, gate):
    """Drawn to the end, a table exceeds what it could reach with probability 2.5 %, counted over all cells."""
    request = asked(settle=settle, goal=goal, gate=gate)
    rule, columns, rng = Rule(request), np.array(request.radii), np.random.default_rng(3)
    over, cells, grown, gains, gained = 0, 0, 0, 0, 0
    for seed in range(TABLES):
        one = Simulated(request, np.clip(1.2 * rng.beta(3, 1, INPUTS), 0, 1), seed, rule)
        walk, whole = one.walk(), one.walk(all_looks=True)
        prospects = one.prospects(walk)
        for row in request.rows():
            about = {"sigma": 0.5, "alpha": row.alpha, "certificate": row.certificate}
            now, end = (radii_of(one.bounds(w), **about).radius for w in (walk, whole))
            gain, growth = prospects.reach(now, radii_of(prospects.bounds, **about).radius, columns)
            more = hits(end, columns) - hits(now, columns)
            over, cells = over + int((more > gain).sum()), cells + len(columns)
            gains, gained = gains + int(gain.sum()), gained + int(more.sum())
            grown += bool(end.sum() - now.sum() <= growth)
    assert binom.sf(over - 1, cells, 0.025) > 1e-4
    assert grown >= 0.97 * TABLES * len(request.rows())
    assert gains <= 3 * gained + 3 * cells, "a range that is always wide says nothing"


def test_nothing_is_open_where_all_samples_are_drawn():
    one = Simulated(asked(), np.linspace(0.4, 1, INPUTS), 1)
    assert not one.prospects(one.walk(all_looks=True)).counts.size
    radius = np.ones(INPUTS)
    gain, growth = one.prospects(one.walk(all_looks=True)).reach(radius, np.zeros(0), np.array([0.0, 2.0]))
    assert gain.tolist() == [0, 0] and growth == 0


def test_an_input_that_all_samples_surely_certify_counts():
    """100 votes of 100: all samples reach a bit more with near certainty, and no more than the ceiling ever."""
    request = asked(radii=(0.0, 0.25, 3.0))
    one = Simulated(request, np.ones(1), 0)
    walk = Walk(one.rule, [np.zeros(1, np.int64)], np.zeros(1, np.int64))
    walk.step(0, np.zeros(1, np.int64), [np.array([[100, 0]])])
    prospects = one.prospects(walk)
    about = {"sigma": 0.5, "alpha": 0.76, "certificate": "exact"}
    now, ahead = (radii_of(b, **about).radius for b in (one.bounds(walk), prospects.bounds))
    gain, growth = prospects.reach(now, ahead, np.array([0.0, now[0] + 0.05, 3.0]))
    assert gain.tolist() == [int(now[0] == 0), 1, 0] and growth > 0.2


def short_of(radius: FloatArray, ahead: FloatArray, columns: FloatArray, nodes: FloatArray) -> FloatArray:
    """`stopping._short_of`, an array operation a column."""
    found, step, rows = np.empty((len(columns), len(radius))), nodes[1] - nodes[0], np.arange(len(radius))
    for k, column in enumerate(columns.tolist()):
        below = (ahead < column if column > 0 else ahead <= 0).sum(1)
        high, low = np.minimum(below, len(nodes) - 1), np.maximum(below - 1, 0)
        rise = ahead[rows, high] - ahead[rows, low]
        part = np.where(rise > 0, (column - ahead[rows, low]) / np.where(rise > 0, rise, 1.0), 0.0)
        z = -(nodes[low] + step * part)
        z = np.where(below == 0, np.inf, np.where(below == len(nodes), -np.inf, z))
        found[k] = np.where(radius >= column if column > 0 else radius > 0, -np.inf, z)
    return found


def test_the_kernel_is_its_plain_twin_and_inputs_that_are_alike_are_one():
    rng, nodes = np.random.default_rng(5), np.linspace(-4.0, 4.0, 33)
    ahead = np.sort(np.maximum(rng.normal(0.4, 0.3, (200, 33)), 0.0), 1)
    ahead[:3] = [[0.0] * 33, [0.25] * 33, [0.3] * 16 + [np.inf] * 17]
    radius, columns = np.where(rng.random(200) < 0.5, ahead[:, 3], 0.0), np.array([0.0, 0.1, 0.25, 0.7, 2.0])
    given = radius, ahead, columns, nodes
    assert (stopping._short_of(*given) == short_of(*given)).all()
    spread, other = np.array([np.nan, np.nan, 1.0, np.nan, np.nan]), np.array([2, 1, 2, 2, 1])
    rows, counts, _ = stopping.alike(np.array([0, 1, 2, 3]), (spread, other))
    assert dict(zip(rows.tolist(), counts.tolist(), strict=True)) in ({0: 2, 1: 1, 2: 1}, {3: 2, 1: 1, 2: 1})
    assert stopping._most(np.array([1.0, 0.2]), np.array([2, 40])) == 2 + binom.ppf(0.975, 40, 0.2)


@pytest.mark.parametrize(
    ("chances", "quantile"),
    [
        (np.full(40, 0.2), binom.ppf(0.975, 40, 0.2)),
        (np.full(5000, 1e-4), poisson.ppf(0.975, 0.5)),
        (np.array([1.0, 1.0, 0.0]), 2),
        (np.zeros(0), 0),
        (np.full(2000, 0.3), binom.ppf(0.975, 2000, 0.3)),
    ],
)
def test_the_quantile_of_a_number_of_events(chances, quantile):
    assert abs(stopping._most(chances, np.ones(len(chances), np.int64)) - quantile) <= (len(chances) == 2000)


@pytest.mark.parametrize(
    ("value", "most", "inputs", "alone"),
    [
        (0.40, 0.41, 100, True), (0.40, 0.42, 100, False), (0.40, 0.41, 50, True), (0.4, 0.42, 50, False),
        (0.400, 0.405, 1000, True), (0.400, 0.406, 1000, False), (1.0, 1.0, 1, True),
    ],
)  # fmt: skip
def test_a_figure_stands_alone_where_it_is_settled(value, most, inputs, alone):
    """At most half a point, or one input in a hundred; 50 inputs have no half point and 0.41 of 50 is none."""
    assert settled(value, most, inputs) is alone
    cell = share_of(value, (0.1, 0.6), most, inputs)
    assert (cell.most is None) is alone
    if not alone:
        high = clopper_pearson.interval(np.array([round(most * inputs)]), inputs)[1][0]
        assert cell.interval == (0.1, 0.6) and cell.most == (most, high), (
            "the interval's upper end is that of what could be"
        )


def test_ranges_in_print_round_outwards():
    assert printed(Share(0.4, None, (0.43, 0.5))).text == "40-43"
    assert printed(Share(0.4, (0.3, 0.5), (0.4301, 0.53))).text == "40.0-43.1"
    assert printed(Share(0.4, (0.3, 0.5), (0.4301, 0.53))).interval == ("30.0", "53.0")
    assert printed(Quantity(0.41239, 3, rounding="down", most=0.45001)).text == "0.412-0.451"


@pytest.mark.parametrize(
    ("largest", "last", "count"), [(1.53, 1.5, 7), (0.77, 0.7, 8), (3.1, 3, 7), (7.9, 7, 8)]
)
def test_usual_columns_are_round_and_end_where_samples_do(largest, last, count):
    assert usual_radii(largest)[-1] == last and len(usual_radii(largest)) == count


@pytest.mark.parametrize("sigma", [0.12, 0.25, 1.0])
@pytest.mark.parametrize("samples", [100, 1000, 100_000])
def test_usual_columns_are_within_reach(sigma, samples):
    request = CertifyRequest(sigma, 1.0, samples=samples)
    zeros = np.zeros(1, np.int64)
    walk = Walk(Rule(request), [zeros], zeros)
    for number, drawn in enumerate(walk.rule.looks):
        walk.step(number, zeros, [np.array([[drawn, 0]])])
    most = radii_of(
        ConfidenceBounds(walk.p[0], walk.q[0], 0.001, request.bound, {}),
        sigma=sigma,
        alpha=1.0,
        certificate="exact",
    ).radius[0]
    assert 0.5 * most < request.radii[-1] <= most
    assert 5 <= len(request.radii) <= 9


def test_a_run_shows_ranges_and_settling_all_narrows_them(command, problem, tmp_path):
    """The same inputs, first with the default rule and then --settle all: no row falls, none exceeds its range."""
    options = [*problem.options, "--samples", "1000", "--output", tmp_path / "run"]
    rows = [
        json.loads(command("certify", *options, *more, "--format", "json").out)["rows"]
        for more in ([], ["--settle", "all"])
    ]
    widths = []
    for part in rows:
        for row in part:
            assert all(a <= b for a, b in zip(row["certified_accuracy"], row["could_reach"], strict=True))
            assert row["mean_certified_radius"] <= row["mean_radius_could_reach"]
        widths.append(sum(sum(row["could_reach"]) - sum(row["certified_accuracy"]) for row in part))
    assert widths[1] <= widths[0]
    for first, then in zip(*rows, strict=True):
        assert first["certified_accuracy"] <= then["certified_accuracy"]
        assert {"clean_accuracy", "could_reach"} <= first.keys()
    other = json.loads(command("certify", *options, "--alpha", "0.9", "--format", "json").out)["rows"][0]
    reach = rows[0][0]["could_reach"]
    assert all(a <= b for a, b in zip(other["certified_accuracy"], reach, strict=True)), (
        "h alone at another alpha"
    )
    table = command("certify", *options).out
    assert len([line for line in table.split("\n\n")[-1].splitlines() if line]) <= 8  # five notes, folded
    assert "Run: data" in command("certify", *options, "--details").out and "Run: data" not in table


def test_the_kernel_of_what_is_worth_more_samples_is_its_plain_twin():
    rng = np.random.default_rng(3)
    radii, wanted = rng.choice([0.0, 0.25, 0.5, 0.7], (2, 400)), np.array([0.0, 0.25, 0.6])
    levels, attainable, border = rng.uniform(0.5, 0.9, 6), rng.random(6) < 0.8, rng.normal(0, 2, 6)
    mean, spread = rng.uniform(0.4, 1.0, 400), np.where(rng.random(400) < 0.5, np.nan, 0.3)
    open_ = ~np.concatenate([np.where(wanted > 0, r[:, None] >= wanted, r[:, None] > 0) for r in radii], 1)
    deviation = np.where(np.isnan(spread)[:, None], np.sqrt(levels * (1 - levels)), spread[:, None])
    plain = (open_ & attainable & (10.0 * (mean[:, None] - levels) / deviation >= border)).any(1)
    found = stopping._worth_it(radii, wanted, attainable, levels, border, mean, spread, 10.0)
    assert 0 < plain.sum() < 400
    assert np.array_equal(found, plain)
