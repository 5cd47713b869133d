"""Votes behind a gate: counted, bounded, certified, deployed and attacked as one fixed function of the input.

The base network is a plane in closed form: two classes whose logits differ by 2 k u.x, so that the largest
softmax probability is at least tau where |u.x| >= logit(tau) / (2 k), and the rest abstains.
"""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import certified, records, sources, sql
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binom, multinomial

from certmix.bounds import bound_counts
from certmix.certification.analysis.trade_off import read_mixable
from certmix.certification.evaluate import bound_records, evaluate
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stored import recertify
from certmix.errors import CertmixError, ParameterError, RunError
from certmix.models.temperature import sharpened
from certmix.radii import exact_radius
from certmix.runs.records import InputRecord, Records
from certmix.sampling.ballots import LEVELS, Ballots, Behind, Cast, level_of
from certmix.sampling.rows import ballots_of
from certmix.verification import plain
from certmix.verification.proofs.check_proof import fails
from certmix.verification.proofs.proof import proof_of

STEEP, SIGMA = 3.0, 0.5
GATES = [k / LEVELS for k in range(LEVELS)]


def reach(gate: float) -> float:
    """The distance from the plane from which on a noisy copy is sure enough."""
    return max(0.0, math.log(gate / (1 - gate))) / (2 * STEEP) if gate else 0.0


def smoothed(x: float, gate: float) -> tuple[float, float]:
    """h of both classes at a distance x on the side of the first."""
    return float(ndtr((x - reach(gate)) / SIGMA)), float(ndtr((-x - reach(gate)) / SIGMA))


def plane() -> torch.nn.Module:
    net = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[STEEP], [-STEEP]]))
    return net.eval()


@given(st.lists(st.integers(0, 4 * LEVELS - 1), min_size=1, max_size=60), st.sampled_from(GATES))
def test_votes_behind_a_gate_are_those_that_are_sure_enough(codes, gate):
    ballots, classes = Ballots.of(codes), 4
    votes = ballots.votes(classes, gate)
    expected = [sum(c // LEVELS == y and c % LEVELS >= level_of(gate) for c in codes) for y in range(classes)]
    assert votes[:classes].tolist() == expected
    assert votes.sum() == len(codes) and len(votes) == classes + (gate > 0)
    assert Ballots.from_vector(ballots.as_vector(), classes).votes(classes, gate).tolist() == votes.tolist()
    assert plain.votes_behind(Cast.of([ballots]), classes, gate)[0, :classes].tolist() == expected
    looser = [ballots.votes(classes, one)[:classes] for one in GATES if one <= gate]
    assert all(np.all(more >= votes[:classes]) for more in looser), "a higher gate lets no more votes through"


@given(
    st.lists(st.lists(st.integers(0, 3 * LEVELS - 1), min_size=1, max_size=9), min_size=1, max_size=6),
    st.data(),
)
def test_many_inputs_ballots_are_those_of_each(inputs, data):
    each = [Ballots.of(codes) for codes in inputs]
    vectors = [one.as_vector() for one in each]
    cast, bad = Cast.from_vectors(np.concatenate(vectors), np.array([len(v) for v in vectors]), 3)
    assert len(bad) == 0
    gate = data.draw(st.sampled_from(GATES[1:]))
    places = np.array(data.draw(st.lists(st.integers(0, len(each) - 1), min_size=1, max_size=5)))
    found = Behind(cast, 3, gate)[places]
    assert found.tolist() == [each[k].votes(3, gate).tolist() for k in places.tolist()]


def test_the_level_is_that_of_the_largest_softmax_probability():
    logits = torch.randn(2000, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    codes = ballots_of(logits).numpy()
    largest = logits.softmax(1).amax(1).numpy()
    assert (codes // LEVELS == logits.argmax(1).numpy()).all()
    near = np.abs(largest * LEVELS - np.round(largest * LEVELS)) < 1e-5
    assert (codes % LEVELS == np.minimum(np.floor(largest * LEVELS), LEVELS - 1))[
        ~near
    ].all() and near.mean() < 0.01


@pytest.mark.parametrize("wrong", [-0.05, 1.0, 0.62, math.nan])
def test_gates_that_are_none_are_refused(wrong):
    with pytest.raises(ParameterError):
        level_of(wrong)
    with pytest.raises(ParameterError):
        CertifyRequest(0.5, 0.76, gate=wrong)


@pytest.mark.parametrize("name", ["clopper-pearson", "clopper-pearson-two-sided", "beta-binomial"])
@pytest.mark.parametrize("delta", [0.3, 0.05])
@pytest.mark.parametrize(
    "truth", [(0.6, 0.1, 0.3), (0.3, 0.3, 0.4), (0.05, 0.02, 0.93), (0.5, 0.5, 0.0), (0.2, 0.1, 0.1, 0.6)]
)
def test_bounds_with_abstentions_hold_together_by_enumeration(name, delta, truth):
    """P[p > h_y or q < max of the rivals] over all counts of n samples, the last of which abstained."""
    n, classes = 12, len(truth) - 1
    counts = np.array([c for c in itertools.product(range(n + 1), repeat=classes) if sum(c) <= n])
    counts = np.column_stack([counts, n - counts.sum(1)])
    found = bound_counts(counts, np.zeros(len(counts), np.int64), delta, name, gated=True)
    wrong = (found.p_lower > truth[0]) | (found.q_upper < max(truth[1:-1]))
    assert multinomial.pmf(counts, n, truth)[wrong].sum() <= delta * (1 + 1e-9)
    assert found.method != "clopper-pearson", "with q = 1 - p every abstention is the rival's"


def test_that_probabilities_add_up_says_nothing_of_p_behind_a_gate():
    """Nearly all abstain: p >= 1 - (c - 1) q would claim nearly 1."""
    counts = np.array([[3, 2, 995]])
    gated = bound_counts(counts, np.array([0]), 0.001, "clopper-pearson-two-sided", gated=True)
    assert gated.p_lower[0] < 0.003 and gated.q_upper[0] < 0.02
    all_votes = bound_counts(counts[:, :2], np.array([0]), 0.001, "clopper-pearson-two-sided")
    assert all_votes.p_lower[0] > 0.003, "without abstentions 3 of 5"


@pytest.mark.parametrize("alpha", [0.6, 0.76, 1.0])
@pytest.mark.parametrize("gate", [0.6, 0.9])
def test_the_exact_radius_is_that_of_two_half_spaces_between_which_all_abstain(alpha, gate):
    """Just within it no g flips the mix, just beyond it some g does: the worst case is this network itself."""
    x = 0.9
    p, q = smoothed(x, gate)
    radius, mu = float(exact_radius(p, q, SIGMA, alpha)), (1 - alpha) / alpha
    assert 0 < radius < x
    inside, beyond = (smoothed(x - factor * radius, gate) for factor in (0.999, 1.001))
    assert inside[0] - inside[1] > mu > beyond[0] - beyond[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run with a tuned row."""
    folder = tmp_path_factory.mktemp("gated")
    return certified(folder / "run", sources(folder), samples=1000, tuned="0.8,0,0.6")


def test_the_tuned_row_stands_beside_those_that_were_asked(run):
    summary = recertify(run)
    *others, gated = summary.rows
    assert (gated.classifier, gated.certificate, gated.alpha, gated.gate) == ("gated", "exact", 0.6, 0.8)
    assert gated.standard_temperature == 0.0
    plainly = recertify(run, tuned="none")
    assert [row.certified_accuracy for row in others] == [row.certified_accuracy for row in plainly.rows]
    alone = recertify(run, gate=0.8, standard_temperature=0, alpha=0.6, tuned="none")
    mixed = next(row for row in alone.rows if (row.classifier, row.certificate) == ("mixed", "exact"))
    assert mixed.certified_accuracy == gated.certified_accuracy
    assert mixed.clean_accuracy == gated.clean_accuracy
    assert alone.bound == "clopper-pearson"


def test_gate_zero_is_plain_votes(run):
    assert recertify(run, gate=0.0).rows == recertify(run).rows
    kept = Records.of(records(run).values())
    assert kept.behind(0.0) is kept


def test_every_command_counts_the_same_votes(run):
    """Table, trade-off and the proof, at a gate that nobody asked the run for."""
    gate, alpha = 0.9, 0.7
    row = next(
        row for row in recertify(run, gate=gate, alpha=alpha, radii=(0.0, 0.1)).rows
        if (row.classifier, row.certificate) == ("mixed", "exact")
    )  # fmt: skip
    [mix] = read_mixable(run, gate=gate).mixes([alpha], ("exact",), 0.1)
    assert mix.certified[0].accuracy == row.certified_accuracy[1]
    assert mix.clean_accuracy == row.clean_accuracy
    request = CertifyRequest(0.25, alpha, samples=1000, gate=gate)
    held = list(records(run, ballots=True).values())
    every = evaluate(held, {}, request, len(held))
    assert len(every.records)
    assert list(plain.other_votes(Records.of(held), gate)) == []
    assert list(fails(proof_of(request, 2, every.outcomes, every.summary.rows, every))) == []


def test_an_input_of_which_all_selection_samples_abstain_has_no_class():
    silent = Ballots(np.array([10]), np.array([100]))  # class 0 at level 10
    record = InputRecord(
        0,
        0,
        "0" * 64,
        np.array([100, 0]),
        {100: np.array([100, 0])},
        ballots={100: silent},
        selection_ballots=silent,
    )
    for goal in ("radii", "fixed"):
        seen = bound_records([record], CertifyRequest(0.5, 0.76, samples=100, goal=goal, gate=0.6))
        assert seen.first.selected.tolist() == [-1]
        assert (seen.bounds.p_lower[0], seen.bounds.q_upper[0]) == (0.0, 1.0)


def test_a_run_without_ballots_is_refused_by_name(run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    sql(folder, "DELETE FROM cells WHERE cell GLOB '*ballots*'")
    with pytest.raises(RunError, match="no ballots"):
        recertify(folder)
    with pytest.raises(RunError, match="no ballots"):
        recertify(folder, gate=0.6)
    log = (folder / "records.tsv").rename(tmp_path / "log.tsv")
    with pytest.raises(CertmixError, match="for run folders"):
        recertify(log, sigma=0.25, gate=0.6)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 4.0])
def test_a_temperature_divides_gs_logits(temperature):
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 4
    g = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = sharpened(g, temperature)
    if temperature:
        powers = np.exp(logits / temperature)
        np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), rtol=1e-9)
    else:
        assert found.tolist() == np.eye(4)[logits.argmax(1)].tolist()
    np.testing.assert_allclose(plain.sharpened(g, temperature), found, rtol=1e-9, atol=1e-300)
    assert sharpened(np.array([[0.4, 0.4, 0.2]]), 0.0).tolist() == [[1.0, 0.0, 0.0]], "the first of equals"


def test_certificates_of_a_tuned_mix_fail_no_more_often_than_they_say():
    """Gate, temperature and alpha fixed, as tuning does; each of 3,000 certificates is held against the truth.

    Votes of three kinds are drawn from the closed form, with the looks and the stopping rule of a run.
    """
    delta, gate, alpha, x, inputs = 0.1, 0.9, 0.6, 0.9, 3000
    p, q = smoothed(x, gate)
    true = float(exact_radius(p, q, SIGMA, alpha))
    rng = np.random.default_rng(1)
    stops = [0, 100, 200, 300, 400, 500, 600, 700, 800, 1000]
    codes = np.array([19, LEVELS + 19, 0])  # sure of the first, sure of the second, not sure
    made = []
    for index in range(inputs):
        chosen, total, ballots = Ballots(codes[[0]], np.array([100])), np.zeros(3, np.int64), {}
        for before, n in itertools.pairwise(stops):
            total = total + rng.multinomial(n - before, [p, q, 1 - p - q])
            some = np.flatnonzero(total)
            order = some[np.argsort(codes[some])]
            ballots[n] = Ballots(codes[order], total[order])
        votes = {n: one.votes(2) for n, one in ballots.items()}
        made.append(
            InputRecord(
                index, 0, "0" * 64, np.array([100, 0]), votes, ballots=ballots, selection_ballots=chosen
            )
        )
    request = CertifyRequest(
        SIGMA, alpha, samples=1000, failure_probability=delta, gate=gate, radii=(0.0, 0.1, 0.2)
    )
    seen = bound_records(made, request)
    radius = exact_radius(seen.bounds.p_lower, seen.bounds.q_upper, SIGMA, alpha)
    wrong = int((radius > true).sum())
    assert binom.sf(wrong - 1, inputs, delta) > 1e-6
    assert (radius > 0).mean() > 0.5 and true > 0.1, "most are certified: the test is no empty one"
    assert len(set(seen.samples.tolist())) > 1, "inputs stop at several looks"
    assert ndtri(p) > ndtri(q)
