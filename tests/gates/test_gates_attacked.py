"""Votes behind a gate under suspicion: faults planted in code and in what is stored, and each is caught."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forged import certified, copied, records, sources, sql
from hypothesis import given
from hypothesis import strategies as st
from planes import INPUTS, LABELS, NET, plane, points
from scipy.stats import multinomial
from torch import nn

import certmix.bounds
from certmix.bounds import BOUNDS, bound_counts
from certmix.bounds.bound import allow_for_noise
from certmix.bounds.clopper_pearson import TWO_SIDED
from certmix.certification.analysis.audit import audit
from certmix.certification.analysis.trade_off import read_mixable
from certmix.certification.evaluate import evaluate, outcomes_of
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.shards import merge
from certmix.certification.stored import recertify
from certmix.errors import CertmixError, ModelError, ParameterError, RunError
from certmix.runs import Store
from certmix.runs.records import Records
from certmix.runs.store import InputRecord, is_look
from certmix.sampling import Sampler
from certmix.sampling import sampler as sampler_module
from certmix.sampling.ballots import LEVELS, Ballots, Cast
from certmix.sampling.rows import ballots_of
from certmix.types import ConfidenceBounds
from certmix.verification.checks import Outcome
from certmix.verification.falsify.attack import Target
from certmix.verification.falsify.falsify import (
    attack_claims,
    read_claims,
    read_finding,
    replay,
    write_finding,
)
from certmix.verification.figures import write_proof
from certmix.verification.proofs.check_proof import binomial
from certmix.verification.rederive import rederive
from certmix.verification.request import FalsifyRequest, VerifyRequest
from certmix.verification.resample import measured, resample, sure_votes

GATE, TUNED = 0.8, "0.8,0,0.6"
EXACT = {"certificates": ["exact"]}


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> dict[str, str]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def honest(named, tmp_path_factory) -> Path:
    """A finished run with a tuned row."""
    return certified(tmp_path_factory.mktemp("gated") / "run", named, samples=1000, tuned=TUNED, **EXACT)


@pytest.fixture
def run(honest, tmp_path) -> Path:
    return copied(honest, tmp_path / "run")


def failed(checks: list[Any]) -> set[str]:
    return {one.check for one in checks if one.outcome is Outcome.FAILS}


def test_an_honest_run_holds(honest):
    checks = [*rederive(honest, run_code=True), *again(honest)]
    assert {one.outcome for one in checks} == {Outcome.HOLDS}


def again(run: Path, **asked: Any) -> list[Any]:
    return resample(
        run, VerifyRequest(**{"device": "cpu", "resample": 10, "run_code": True, "new_seed": 5, **asked})
    )


# What lies in a store.


def edit(run: Path, cell: str, change: Callable[[Ballots], Any], index: int | None = None) -> None:
    """Change the ballots of an input in a cell: the first that is right, if none is named."""
    with closing(Store(run / "numbers.sqlite")) as store:
        kept = store.inputs(ballots=True)
        at = index if index is not None else next(i for i, one in kept.items() if len(one.ballots) > 2)
        before = (
            kept[at].selection_ballots if "selection" in cell else kept[at].ballots[int(cell.split("@")[1])]
        )
        found = change(before)
        store.write(cell, [at], [found.as_vector() if isinstance(found, Ballots) else found])


def raised(ballots: Ballots) -> Ballots:
    """All ballots as sure as can be, of the same classes."""
    return Ballots.of(np.repeat(ballots.codes // LEVELS * LEVELS + LEVELS - 1, ballots.counts))


def unsure_of(ballots: Ballots) -> Ballots:
    """All ballots at level 8."""
    return Ballots.of(np.repeat(ballots.codes // LEVELS * LEVELS + 8, ballots.counts))


def moved(ballots: Ballots) -> Ballots:
    """All ballots for the class of most."""
    top = int(ballots.votes(3).argmax())
    return Ballots(np.array([top * LEVELS + LEVELS - 1]), np.array([ballots.counts.sum()]))


def fewer(ballots: Ballots) -> Ballots:
    """The abstentions are left out, so that the rest looks unanimous."""
    sure = ballots.codes % LEVELS >= 16
    return Ballots(ballots.codes[sure], ballots.counts[sure])


MALFORMED: dict[str, Callable[[Ballots], Any]] = {
    "codes that do not increase": lambda b: np.concatenate([b.codes[::-1], b.counts]).astype(np.uint32),
    "a class that is none": lambda b: np.array([3 * LEVELS, b.counts.sum()], np.uint32),
    "a count of nothing": lambda b: np.concatenate([b.codes, 0 * b.counts]).astype(np.uint32),
    "an odd number": lambda b: b.as_vector()[:-1],
    "signed numbers": lambda b: -b.as_vector().astype(np.int64),
    "floats": lambda b: b.as_vector().astype(float),
}


@pytest.mark.parametrize("cell", ["ballots@100", "selection ballots"])
@pytest.mark.parametrize("fault", MALFORMED)
def test_what_are_no_ballots_is_refused_by_name(run, fault, cell):
    edit(run, cell, MALFORMED[fault])
    for read in (recertify, partial(rederive, run_code=True), read_claims_of):
        with pytest.raises(RunError, match=f"{cell} of input .* is damaged"):
            read(run)


def read_claims_of(run: Path) -> Any:
    return read_claims(run, FalsifyRequest("all", gate=GATE))


@pytest.mark.parametrize("cell", ["ballots@100", "ballots@300", "selection ballots"])
def test_ballots_that_do_not_add_up_are_refused(run, cell):
    """An input whose abstentions are gone would look unanimous."""
    edit(run, cell, fewer)
    for read in (recertify, partial(recertify, gate=0.5), read_claims_of, partial(read_mixable, gate=GATE)):
        with pytest.raises(RunError, match="do not add up"):
            read(run)
    assert "counts" in failed(rederive(run, run_code=True))


@pytest.mark.parametrize("cell", ["ballots@100", "ballots@300", "selection ballots"])
def test_ballots_of_other_votes_are_caught(run, cell):
    edit(run, cell, moved)
    assert "counts" in failed(rederive(run, run_code=True))


def test_ballots_of_some_looks_only_are_refused(run):
    sql(run, "DELETE FROM cells WHERE cell = 'ballots@200'")
    with pytest.raises(RunError, match="no ballots"):
        recertify(run)
    assert "counts" in failed(rederive(run, run_code=True))


def test_ballots_of_more_looks_than_votes_count_nowhere(run):
    before = recertify(run).rows
    held = records(run, ballots=True)
    index = next(i for i, one in held.items() if 1000 in one.estimation)
    sql(run, "UPDATE cells SET cell = 'ballots@1200' WHERE cell = 'ballots@1000' AND idx = ?", index)
    assert "counts" in failed(rederive(run, run_code=True))
    with pytest.raises(RunError, match="no ballots"):
        recertify(run)
    sql(
        run,
        "INSERT INTO cells SELECT 'ballots@1000', idx, dtype, data FROM cells WHERE cell = 'ballots@1200'",
    )
    sql(
        run,
        "INSERT INTO cells SELECT 'selection ballots@1000', idx, dtype, data FROM cells WHERE cell = 'ballots@100'",
    )
    assert recertify(run).rows == before


def test_ballots_that_are_surer_than_they_were_are_caught_by_sampling(run):
    """Votes, sums and looks are consistent, and every figure of plain votes is right."""
    with closing(Store(run / "numbers.sqlite")) as store:
        for one in store.inputs(ballots=True).values():
            surer = {n: raised(ballots) for n, ballots in one.ballots.items()}
            store.write_inputs([replace(one, ballots=surer, selection_ballots=raised(one.selection_ballots))])
    assert failed(rederive(run, run_code=True)) <= {"records"}
    assert failed(again(run, new_seed=6)) == {"same seed", "new seed"}


def test_a_few_ballots_that_are_surer_are_caught_where_they_are_drawn(run):
    at = [i for i, one in records(run, ballots=True).items() if len(one.ballots) > 2][:3]
    for index in at:
        edit(run, "selection ballots", raised, index)
    found = again(run, new_seed=6)[0]
    assert found.outcome is Outcome.FAILS and set(found.inputs) <= set(at)


def test_selection_ballots_alone_do_not_replace_an_earlier_run():
    assert not is_look("selection ballots") and not is_look("selection")
    assert is_look("ballots@100") and is_look("votes@100")


def test_shards_with_other_ballots_of_an_input_are_not_merged(named, tmp_path):
    parts = [certified(tmp_path / f"{k}", named, samples=300, shard=f"{k}/2", **EXACT) for k in (1, 2)]
    twin = copied(parts[0], tmp_path / "twin")
    merge([*parts, twin], tmp_path / "whole")
    for cell in ("selection ballots", "ballots@100"):
        edit(twin, cell, raised)
        with pytest.raises(RunError, match="different counts"):
            merge([*parts, twin], tmp_path / "other")
        twin = copied(parts[0], tmp_path / f"twin of {cell}")
    assert failed(rederive(tmp_path / "whole", run_code=True)) == set()
    assert recertify(tmp_path / "whole", gate=GATE).inputs == 10


def test_more_answers_than_a_store_holds_are_refused():
    most = Ballots(np.array([7]), np.array([2**32 - 1]))
    assert Ballots.from_vector(most.as_vector(), 3).counts.tolist() == [2**32 - 1]
    with pytest.raises(ParameterError, match=r"2\^32"):
        (most + Ballots.of([7])).as_vector()


# Each fault of the product is seen by verify.


def one_lower(self: Cast, classes: int, gate: float) -> Any:
    found = np.zeros((len(self), classes + 1), np.int64)
    owner = np.repeat(np.arange(len(self)), np.diff(self.ends))
    column = np.where(self.codes % LEVELS >= 11, self.codes // LEVELS, classes)
    np.add.at(found, (owner, column), self.counts)
    return found if gate else found[:, :classes]


def simplex(counts: Any, selected: Any, delta: float) -> Any:
    """p >= 1 - (c - 1) q, as if votes added up to 1."""
    p, q = TWO_SIDED.behind_gate(counts, selected, delta)
    return np.maximum(p, 1 - (counts.shape[1] - 2) * q), q


def of_votes_alone(counts: Any, selected: Any, delta: float) -> Any:
    """Abstentions are no samples."""
    return TWO_SIDED.behind_gate(counts * np.array([1] * (counts.shape[1] - 1) + [0]), selected, delta)


def whole(counts: Any, selected: Any, delta: float) -> Any:
    """All of delta for p and all for q."""
    return TWO_SIDED.behind_gate(counts, selected, 2 * delta)


def no_rival(counts: Any, selected: Any, delta: float) -> Any:
    p, _ = TWO_SIDED.behind_gate(counts, selected, delta)
    return p, np.zeros_like(p)


def bounded_by(fault: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    name = "clopper-pearson-two-sided"
    return lambda patch: patch.setitem(BOUNDS.data, name, replace(TWO_SIDED, behind_gate=fault))


PLANTED: dict[str, tuple[Callable[[pytest.MonkeyPatch], object], str]] = {
    "a lower gate": (lambda patch: patch.setattr(Cast, "votes", one_lower), "radii"),
    "a sum of one": (bounded_by(simplex), "radii"),
    "abstentions left out": (bounded_by(of_votes_alone), "radii"),
    "delta spent twice": (bounded_by(whole), "radii"),
    "no rival": (bounded_by(no_rival), "radii"),
    "all of delta at each look": (lambda p: p.setattr(certmix.bounds, "share", lambda look: 1.0), "radii"),
    "g as it is": (
        lambda p: p.setattr("certmix.models.temperature.sharpened", lambda g, t: g), "clean accuracy",
    ),
    "shares of votes, not of samples": (
        lambda p: p.setattr(Records, "frequencies", property(
            lambda self: self._of_classes / np.maximum(self._of_classes.sum(1, keepdims=True), 1)
        )), "clean accuracy",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def unsure(tmp_path_factory) -> Path:
    """A run whose net is seldom sure, of three classes that all get votes, and whose g is no one-hot."""
    folder = tmp_path_factory.mktemp("unsure")
    given = sources(folder)
    (folder / "g.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    g = nn.Linear(2, 3)\n    with torch.no_grad():\n"
        "        g.weight.copy_(torch.tensor([[0.3, 0.0], [-0.3, 0.4], [-0.3, -0.4]]))\n"
        "        g.bias.copy_(torch.tensor([-0.2, 0.1, 0.1]))\n    return g\n"
    )
    given["standard"] = f"{folder / 'g.py'}:net"
    return certified(folder / "run", given, samples=1000, inputs="all", tuned="0.7,0,0.55", **EXACT)


def test_the_run_of_faults_is_honest(unsure):
    assert failed(rederive(unsure, run_code=True)) == set()


@pytest.mark.parametrize("fault", PLANTED)
def test_what_follows_from_a_fault_in_the_product_is_not_proved(unsure, monkeypatch, fault):
    plant, check = PLANTED[fault]
    plant(monkeypatch)
    assert failed(rederive(unsure, run_code=True)) & {check, "records"}


# Bounds.


@pytest.mark.parametrize("truth", [(0.5, 0.2, 0.2, 0.1), (0.3, 0.3, 0.0, 0.4), (0.15, 0.05, 0.1, 0.7)])
@pytest.mark.parametrize("name", ["clopper-pearson", "beta-binomial"])
def test_the_best_of_two_looks_fails_no_more_often_than_it_says(monkeypatch, truth, name):
    """Exactly, over all pairs of counts: best p and best q so far, with a runner-up that the counts name."""
    monkeypatch.setattr(certmix.bounds, "share", lambda look: 0.5)
    delta, n, width = 0.2, 6, len(truth)
    one = np.array([c for c in product(range(n + 1), repeat=width) if sum(c) == n])
    chance, own = multinomial.pmf(one, n, truth), np.zeros(len(one), np.int64)
    first = bound_counts(one, own, delta, name, 0, gated=True)
    failure = 0.0
    for k in range(len(one)):
        both = one + one[k]
        second = bound_counts(both, own, delta, name, 1, gated=True)
        p, q = np.maximum(first.p_lower, second.p_lower[:]), np.minimum(first.q_upper, second.q_upper)
        wrong = (p > truth[0]) | (q < max(truth[1:-1]))
        failure += float(chance[k] * chance[wrong].sum())
    assert failure <= delta * (1 + 1e-9)


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2), st.sampled_from([-1, 1]), st.sampled_from([-1, 1])
)
def test_bounds_hold_for_every_law_that_is_near_the_drawn_one(p, q, eps, up, down):
    """h_y and h_i of a law within eps of the drawn one, where some abstain."""
    q = min(q, 1 - p)
    issued = ConfidenceBounds(np.array([p]), np.array([q]), 0.001, "clopper-pearson-two-sided", {})
    wider = allow_for_noise(issued, np.array([eps]))
    y, i = np.clip(p + up * eps, 0, 1), np.clip(q + down * eps, 0, 1)
    if y + i <= 1:
        assert wider.p_lower[0] <= y and wider.q_upper[0] >= i - 1e-15


@pytest.mark.parametrize("name", ["clopper-pearson", "clopper-pearson-two-sided", "beta-binomial"])
def test_abstentions_are_no_class_and_one_class_is_no_choice(name):
    for counts, selected in (([[5, 5, 90]], [2]), ([[50, 50]], [0]), ([[5, 5, 90]], [-1])):
        with pytest.raises(ParameterError):
            bound_counts(np.array(counts), np.array(selected), 0.001, name, gated=True)


@pytest.mark.parametrize("name", ["clopper-pearson", "beta-binomial"])
def test_no_bound_gains_by_an_abstention(name):
    """Bounds lie around the shares of all samples, abstentions among them, and add up to at most 1."""
    counts = np.array([c for c in product(range(0, 40, 3), repeat=3) if c[2]])
    found = bound_counts(counts, np.zeros(len(counts), np.int64), 0.01, name, gated=True)
    shares, (p, q) = counts / counts.sum(1, keepdims=True), (found.p_lower, found.q_upper)
    assert np.all((p >= 0) & (p <= shares[:, 0]) & (shares[:, 1] <= q) & (p + q <= 1 + 1e-12))


def added(name: str, **more: Any) -> Any:
    """A bound that a user adds: Clopper-Pearson of half the samples, which is honest."""
    return replace(
        TWO_SIDED, name=name, formula=more.pop("formula", None), behind_gate=more.pop("behind_gate", None)
    )


def test_a_bound_that_is_not_for_abstentions_is_refused(monkeypatch):
    monkeypatch.setitem(BOUNDS.data, "mine", added("mine"))
    assert CertifyRequest(0.5, 0.76, bound="mine").bound == "mine"
    for gated in ({"gate": GATE}, {"tuned": TUNED}):
        with pytest.raises(ParameterError, match="may abstain: use clopper-pearson-two-sided, beta-binomial"):
            CertifyRequest(0.5, 0.76, bound="mine", **gated)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_bound_that_is_for_them_is_derived_by_its_own_formula(monkeypatch, named, tmp_path, wrong):
    seen = []

    def formula(of, delta, m):
        seen.append(of["votes"])
        return binomial(of, delta / 1000 if wrong else delta, m)

    mine = added("mine", formula=formula, behind_gate=TWO_SIDED.behind_gate)
    monkeypatch.setitem(BOUNDS.data, "mine", mine)
    run = certified(tmp_path / "run", named, samples=300, bound="mine", tuned=TUNED, **EXACT)
    assert ("radii" in failed(rederive(run, run_code=True))) is wrong
    assert len(set(seen)) > 2
    with pytest.raises(ParameterError, match="mine: check_proof.py knows no inequality"):
        write_proof(run, tmp_path / "proof.json")


# Levels.


@pytest.mark.parametrize("logits, classes, level", [
    ([1e300, 0.0], 2, 19), ([-1e300, 1e300], 2, 19), ([3.0, 3.0], 2, 10), ([2.0] * 10, 10, 2),
    ([5e38, 4e38, -5e38], 3, 19), ([88.0, 0.0, 0.0], 3, 19),
])  # fmt: skip
def test_the_level_of_logits_at_the_edge(logits, classes, level):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        rows = torch.tensor([logits], dtype=torch.float64).to(dtype)
        if not rows.isfinite().all():
            continue
        code = int(ballots_of(rows)[0])
        assert 0 <= code // LEVELS < classes and code % LEVELS == level, dtype
    ballots = Ballots.of(ballots_of(torch.tensor([logits], dtype=torch.float64)).numpy())
    assert ballots.votes(classes, level / LEVELS)[-1] == 0, "at its own level a copy votes"


class Odd(nn.Module):
    """Logits that are no numbers where the first input is large."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, inputs):
        logits = torch.cat([inputs[:, :1], -inputs[:, :1]], 1)
        return torch.where(inputs[:, :1] > 1.0, self.value, logits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_no_abstention(value):
    with pytest.raises(ModelError, match="not finite"):
        Sampler(Odd(value), 2, 0.5, batch_size=10).votes(torch.tensor([0.5]), 0, [200], gate=0.6)


def test_a_ballot_is_of_a_whole_batch_whatever_the_number_of_samples(monkeypatch):
    """The rounding of a sum may depend on how many rows there are, and h is to be one function."""
    shapes = set()

    def seen(logits):
        shapes.add(tuple(logits.shape))
        return ballots_of(logits)

    monkeypatch.setattr(sampler_module, "ballots_of", seen)
    sampler = Sampler(plane(NET), 2, 0.5, batch_size=64)
    votes = sampler.votes(torch.tensor([0.2, 0.0]), 0, [10, 65, 100, 131], gate=0.6)
    assert shapes == {(64, 2)} and votes.sum(1).tolist() == [10, 65, 100, 131]


# Records.


def record(codes: list[int], label: int = 0, index: int = 0) -> InputRecord:
    """An input of three classes, of which each sample, and 100 of selection, are like one another."""
    chosen = Ballots.of(codes * (100 // len(codes)))
    return InputRecord(
        index, label, "0" * 64, chosen.votes(3), {100: chosen.votes(3)}, ballots={100: chosen},
        selection_ballots=chosen,
    )  # fmt: skip


def test_records_behind_a_gate_stay_behind_it():
    """Else the abstentions would be one class more, and often the largest."""
    kept = Records.of([record([19, 3, LEVELS + 19, 2 * LEVELS + 5]), record([3], index=1)])
    behind = kept.behind(GATE)
    assert behind.selected.tolist() == [0, -1]
    for same in (
        Records.of(list(behind)),
        pickle.loads(pickle.dumps(behind)),
        behind[:],
        behind.take(np.arange(2)),
    ):
        assert same.gate == GATE and same.selected.tolist() == [0, -1]
        assert [one.selected for one in same] == [0, -1]
    twice = kept.behind(0.2).behind(GATE)
    assert twice.selection.tolist() == behind.selection.tolist()
    assert twice.votes[100].of(np.arange(2)).tolist() == behind.votes[100].of(np.arange(2)).tolist()
    assert kept.behind(0.2).behind(0.0).selection.tolist() == kept.selection.tolist()


def test_an_input_without_a_class_behind_one_gate_has_it_behind_the_other():
    silent = record([3, 3, 3, 3])
    for goal in ("radii", "fixed"):
        request = CertifyRequest(0.5, 0.76, samples=100, goal=goal, tuned=TUNED)
        found = evaluate([silent], {0: np.array([0.2, 0.5, 0.3])}, request, 1)
        assert found.views[0.0].selected.tolist() == [0] and found.views[GATE].selected.tolist() == [-1]
        *others, gated = found.summary.rows
        assert gated.certified_accuracy == (0.0,) * len(request.radii)
        assert others[0].certified_accuracy[0] == 1.0
        assert found.outcomes.gated[1].tolist() == [1], "g alone answers"
        alone = evaluate([silent], {}, request.replace(gate=GATE, tuned="none"), 1)
        assert alone.summary.rows[0].certified_accuracy[0] == 0.0 and alone.outcomes.robust.tolist() == [-1]


def test_h_alone_that_abstains_answers_nothing(tmp_path):
    """At alpha = 1 the mix is h, whose abstention is no vote for the first class."""
    silent, g = record([3, 3, 3, 3]), {0: np.array([0.2, 0.5, 0.3])}
    request = CertifyRequest(0.5, 1.0, samples=100, gate=GATE, tuned="none")
    found = outcomes_of([silent], g, request.rows())
    assert found.mixed.tolist() == found.robust.tolist() == [-1]
    assert evaluate([silent], g, request, 1).summary.clean_accuracy.mixed == 0.0


def test_trade_off_and_verify_count_no_abstention_as_right(named, tmp_path):
    run = certified(
        tmp_path / "run", named, sigma=0.5, samples=300, alpha=1.0, gate=0.95, tuned="none", **EXACT
    )
    for index in list(records(run))[:2]:
        edit(run, "selection ballots", unsure_of, index)
    kept = Records.of(records(run, ballots=True).values()).behind(0.95)
    right = float((kept.selected == kept.labels).mean())
    assert (kept.selected < 0).any(), "the test is no empty one"
    assert read_mixable(run).clean_accuracy(1.0) == right == recertify(run).clean_accuracy.mixed
    assert "clean accuracy" not in failed(rederive(run, run_code=True))


def test_more_samples_behind_another_gate_are_those_of_a_run_that_had_it(named, tmp_path):
    """A run that goes on for a gated row draws the same ballots, and its looks are those of the schedule."""
    run = certified(tmp_path / "run", named, samples=300, tuned="none", **EXACT)
    certified(run, named, samples=1000, tuned=TUNED, **EXACT)
    alone = certified(tmp_path / "alone", named, samples=1000, tuned=TUNED, **EXACT)
    assert recertify(run).rows == recertify(alone).rows
    assert failed([*rederive(run, run_code=True), *again(run, resample=2, resample_samples=300)]) == set()


def test_a_gate_that_the_run_was_not_made_with_is_pointed_out(honest, run):
    def told(summary) -> bool:
        return any("made with gates 0, 0.8" in note for note in summary.notes)

    assert (
        not told(recertify(run)) and not told(recertify(run, gate=GATE)) and not told(recertify(run, gate=0))
    )
    assert told(recertify(run, gate=0.5)) and told(recertify(run, tuned="0.9,1,0.7"))
    assert any("made with gates" in note for note in read_mixable(run, gate=0.5).stored.notes)


def test_a_plan_like_a_run_with_a_gated_row(command, honest):
    planned = command("plan", "--like", honest, "--inputs", 12, "--format", "json")
    assert planned.code == 0, planned.err
    assert any("gate" in one for one in json.loads(planned.out)["assumptions"])


# Logs.


def test_radii_of_gated_votes_are_never_read_as_p_and_q(named, tmp_path):
    run = certified(tmp_path / "run", named, samples=300, gate=GATE, tuned="none", **EXACT)
    text = (run / "records.tsv").read_text()
    header, *rows = text.splitlines()
    assert header.split("\t")[-2:] == ["bound", "gate"]
    assert {tuple(row.split("\t")[-2:]) for row in rows} == {("clopper-pearson-two-sided", "0.8")}
    lines = {  # as it is; with a bound that it cannot be; without one
        "as it is": text, "one-sided": text.replace("clopper-pearson-two-sided", "clopper-pearson"),
        "no bound": "\n".join("\t".join([*(w := line.split("\t"))[:-2], w[-1]]) for line in [header, *rows]) + "\n",
    }  # fmt: skip
    for name, content in lines.items():
        log = tmp_path / f"{name}.tsv"
        log.write_text(content)
        with pytest.raises(CertmixError, match="not a one-sided one"):
            recertify(log, sigma=0.25, alpha=0.76)
        assert recertify(log, sigma=0.25, alpha=1.0, certificates=["exact"]).rows
    (run / "records.tsv").write_text(text.replace("\t0.8\n", "\t0.7\n"))
    assert any("records.tsv" in one.message for one in audit(run).findings)


# Sampling again on another machine.


class Nudged(nn.Module):
    """A model whose logits are a little off, as on another machine."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, inputs):
        logits = self.model(inputs)
        return logits + self.by * torch.sin(1e4 * logits)


@pytest.mark.parametrize("by", [1e-7, 3e-6, 3e-5])
def test_an_honest_run_of_another_machine_is_not_accused(tmp_path, by):
    """Also where the one vote that nearly ties moves, which changes all its levels at once."""
    given = dict(data=points(INPUTS, LABELS), standard=None, robust=plane(NET))
    run = certified(tmp_path / "run", given, 0.5, inputs="all", goal="fixed", samples=2000)
    found = resample(
        run, VerifyRequest(device="cpu", resample=10, new_seed=1), dataset=given["data"],
        models={"robust": Nudged(plane(NET), by)},
    )  # fmt: skip
    assert failed(found) == set(), found


def test_a_vote_that_moves_may_take_its_levels_with_it(tmp_path):
    """A net that knows nothing but by how little: of 200 ties one moves, which is 20 sums of levels."""

    class Tied(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def forward(self, inputs):
            gap = 4 * inputs[:, :1]
            gap = torch.where(gap.abs() < 0.002, self.by * torch.sign(gap + 1e-9), gap)
            return torch.cat([gap, -gap], 1)

    given = dict(data=points(INPUTS, LABELS), standard=None, robust=Tied(1e-6))
    run = certified(tmp_path / "run", given, 0.5, inputs="all", goal="fixed", samples=2000)
    found = resample(
        run, VerifyRequest(device="cpu", resample=10, new_seed=1), dataset=given["data"],
        models={"robust": Tied(-1e-6)},
    )[0]  # fmt: skip
    assert found.outcome is Outcome.HOLDS, found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_brackets_hold_what_any_rounding_makes_of_levels(seed, scale):
    rng = np.random.default_rng(seed)
    logits, lead, order = scale * rng.normal(size=(500, 7)).round(1), 0.1, np.array([2, 0, 3, 1, 6, 5, 4])
    low, here, high = measured(torch.from_numpy(logits), order, lead, [], None)[0]["sure"]
    told = sure_votes(Ballots.of(ballots_of(torch.from_numpy(logits)).numpy()), order)
    assert here.tolist() == told.tolist()
    for _ in range(20):
        moved = torch.from_numpy(logits + rng.uniform(-lead / 2, lead / 2, logits.shape))
        found = sure_votes(Ballots.of(ballots_of(moved).numpy()), order)
        assert np.all(low <= found) and np.all(found <= high)
    tight = measured(torch.from_numpy(scale * rng.normal(size=(500, 7))), order, 1e-9, [], None)[0]["sure"]
    assert (tight[2] - tight[0]).sum() <= 2


# Attacks on certificates of gated votes.


def test_a_finding_against_a_gated_certificate_is_judged_by_its_own_gate(run):
    """The certified radii are made three times too large; the finding's file says which votes it is about."""
    asked = FalsifyRequest("all", 0.6, gate=0.9, steps=3, copies=8, samples=2000)
    claims = read_claims(run, asked)
    assert claims.gate == 0.9 and claims.claims
    wrong = claims._replace(claims=tuple(replace(one, radius=3 * one.radius) for one in claims.claims))
    target, data = target_of(run)
    found = [one for one in attack_claims(target, wrong, lambda claim: data[claim.index], asked) if one.found]
    assert found, "radii that are three times too large are refuted"
    assert len(found[0].counts) == 4 and found[0].counts.sum() == found[0].samples
    assert not [
        one for one in attack_claims(target, claims, lambda claim: data[claim.index], asked) if one.found
    ]
    path = write_finding(run / "falsify", run, found[0], wrong, asked, target)
    other = write_finding(run / "falsify", run, found[0], wrong._replace(gate=0.8), asked, target)
    assert other != path and read_finding(path)[2].gate == 0.9
    told = replay(path, run_code=True, device="cpu")
    votes = next(check for check in told.checks if check.check == "votes")
    assert votes.outcome is Outcome.HOLDS and "the same votes" in votes.message
    assert len(told.attacked.counts) == 4


def target_of(run: Path) -> tuple[Target, dict[int, torch.Tensor]]:
    """The network of a run, and its inputs by index."""
    described = json.loads((run / "run.json").read_text())
    folder = Path(described["sources"]["data"]).parent
    space: dict[str, Any] = {}
    exec((folder / "nets.py").read_text(), space)
    inputs = np.load(folder / "points.npz", allow_pickle=True)["inputs"]
    return Target(space["linear"]().eval(), 3, torch.device("cpu")), dict(
        enumerate(map(torch.from_numpy, inputs))
    )
