"""Sampling again: honest runs hold, counts that were made up do not, however consistent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import (  # fmt: skip
    certified,
    copied,
    edit_counts,
    edit_json,
    edit_record,
    edit_vectors,
    inflate,
    more_votes,
    records,
    swap,
)
from planes import INPUTS, LABELS, NET, plane, points
from scipy.stats import hypergeom
from torch import nn

from certmix.bounds.statistics import start, update
from certmix.errors import ModelError, ParameterError, RunError
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.rederive import rederive
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import Sums, choose_inputs, e_value, measured, resample, weights_of
from certmix.verification.stored import load

ALL_HOLD = dict.fromkeys(("same seed", "new seed"), Outcome.HOLDS)
FORGED = dict.fromkeys(ALL_HOLD, Outcome.FAILS)


def again(run: Path, **options) -> list[CheckResult]:
    handed = {name: options.pop(name) for name in ("dataset", "models", "progress") if name in options}
    return resample(
        run, VerifyRequest(**{"device": "cpu", "resample": 10, "run_code": True, **options}), **handed
    )


def outcomes(run: Path, **options) -> dict[str, Outcome]:
    return {r.check: r.outcome for r in again(run, **options)}


def in_memory(folder: Path, robust: nn.Module, **options):
    """A run of points and a module in a folder, and what must be handed over to check it."""
    given = dict(data=points(INPUTS, LABELS), standard=None, robust=robust)
    run = certified(folder / "run", given, 0.5, **{"inputs": "all", "goal": "fixed", **options})
    return run, dict(dataset=given["data"], models={"robust": robust})


def test_honest_runs_hold_and_are_only_read(runs):
    fixed, sequential = runs["fixed"], runs["sequential"]
    before = {path: path.read_bytes() for path in sorted(fixed.rglob("*")) if path.is_file()}
    assert outcomes(fixed, new_seed=11) == ALL_HOLD
    assert outcomes(sequential, new_seed=12, resample=4, resample_samples=300) == ALL_HOLD
    assert {path: path.read_bytes() for path in sorted(fixed.rglob("*")) if path.is_file()} == before


def test_what_was_done_is_reported(runs):
    fixed = runs["fixed"]
    seen: list[tuple[int, int]] = []
    same, new = again(fixed, new_seed=77, resample=3, progress=lambda done, total: seen.append((done, total)))
    assert "10 inputs chosen by seed 77, 2,200 samples: 22 stretches whole, 0 in part" in same.message
    assert "(e-value 0." in new.message and "refuted from 2000)" in new.message
    assert seen == [(k, len(seen)) for k in range(1, len(seen) + 1)]
    seeds = {
        again(fixed, resample=1, resample_samples=10)[1].message.partition("seed ")[2][:12] for _ in range(2)
    }
    assert len(seeds) == 2
    with pytest.raises(ParameterError, match="not the run's own"):
        again(fixed, new_seed=0)


def mean_radius(run: Path) -> float:
    return json.loads((run / "certified-accuracy.json").read_text())["rows"][0]["mean_certified_radius"]


def inflated(share: float):
    def edit(selection, estimation):
        top = max(selection, key=lambda label: selection[label])
        for votes in (selection, *estimation.values()):
            inflate(votes, share, top)

    return lambda run: edit_counts(run, edit)


FORGERIES = {
    "all votes for the top class": ("fixed", inflated(1.0)),
    "most votes for the top class": ("fixed", inflated(0.8)),
    "three percent more votes": ("fixed", lambda run: more_votes(run, 0.03)),
    "three percent more of later votes": ("sequential", lambda run: more_votes(run, 0.03, 1000)),
}


@pytest.mark.parametrize(
    "forgery", [pytest.param(f, marks=[pytest.mark.long] * f.startswith("most")) for f in FORGERIES]
)
def test_a_consistent_forgery_is_caught_by_sampling_alone(runs, repeat, tmp_path, forgery):
    """All derivations hold of what certmix itself publishes of such counts, on whatever machine."""
    kind, forge = FORGERIES[forgery]
    run, honest = copied(runs[kind], tmp_path / "run"), runs[kind]
    forge(run)
    repeat(kind, run)
    assert {r.outcome for r in rederive(run, run_code=True)} == {Outcome.HOLDS}
    assert mean_radius(run) > mean_radius(honest)
    expected = FORGED if "top class" in forgery else {"same seed": Outcome.FAILS}
    assert expected.items() <= outcomes(run, new_seed=5).items()
    edit_json(run / "run.json", lambda d: d.update(threads=99, device="cuda", device_name="H100"))
    for index in records(run):
        edit_record(run, index, device="cuda")
    assert expected.items() <= outcomes(run, new_seed=6).items()


def test_more_votes_in_stretches_that_are_too_long_to_draw_whole(tmp_path):
    """One stretch of 5,000 samples an input, of which at most 300 are drawn."""
    run, handed = in_memory(tmp_path, plane(NET), samples=6000)

    def edit(_, looks):
        for n in [n for n in looks if int(n) not in (1000, 6000)]:
            del looks[n]

    edit_counts(run, edit)
    assert outcomes(run, new_seed=1, resample_samples=300, **handed) == ALL_HOLD
    more_votes(run, 0.08, after=1000)
    told = again(run, new_seed=2, resample_samples=300, **handed)[0]
    assert told.outcome is Outcome.FAILS
    assert "counts are not what their seeds give" in told.message


@pytest.mark.parametrize("kind", ["fixed", "sequential"])
def test_two_inputs_that_were_swapped_are_caught(runs, tmp_path, kind):
    run = copied(runs[kind], tmp_path / "run")
    by_class: dict[int, int] = {}
    for index, record in records(run).items():
        by_class.setdefault(record.selected, index)
    pair = list(by_class.values())[:2]
    swap(run, *pair)
    found = again(run, new_seed=1)[0]
    assert (found.check, found.outcome, set(found.inputs)) == ("same seed", Outcome.FAILS, set(pair))


def test_inputs_near_a_column_are_chosen_more_often(runs):
    run = load(runs["sequential"])
    weights = weights_of(run.records, run.request)
    assert set(weights) == set(run.records.indices.tolist()) and max(weights.values()) > 3 * min(
        weights.values()
    )
    known = range(0, 4000, 10)
    near = dict.fromkeys(known[::2], 9.0)
    chosen = choose_inputs({**dict.fromkeys(known, 1.0), **near}, 40, 3)
    assert len(set(chosen)) == 40 and sum(index in near for index in chosen) > 30
    chosen = choose_inputs(dict.fromkeys(known, 1.0), 40, 3)
    assert len(set(chosen)) == 40 and sum(index in near for index in chosen) < 30


class Rounded(nn.Module):
    """A model whose logits are a little off, as on another machine."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, inputs):
        logits = self.model(inputs)
        return logits + self.by * torch.sin(1e4 * logits)


@pytest.mark.parametrize("scores", ["hard", "soft"])
def test_a_vote_may_move_where_logits_nearly_tie_and_nowhere_else(tmp_path, scores):
    run, handed = in_memory(tmp_path, plane(NET), samples=2000, scores=scores)
    for by, outcome in ((1e-6, Outcome.HOLDS), (0.05, Outcome.FAILS)):
        handed["models"] = {"robust": Rounded(plane(NET), by)}
        assert outcomes(run, new_seed=1, **handed)["same seed"] is outcome


def test_votes_that_rounding_leaves_open_are_no_tick(tmp_path):
    """All logits are equal: any counts would do."""
    run, handed = in_memory(tmp_path, plane([[0.0, 0.0], [0.0, 0.0]]), samples=200)
    found = again(run, new_seed=1, **handed)[0]
    assert found.outcome is Outcome.UNCHECKED
    assert "rounding may change too many votes" in found.message


class ByPlace(nn.Module):
    """The first row of a batch that is not small has more of its first logit."""

    def forward(self, inputs):
        logits = torch.cat([inputs[:, :1], -inputs[:, :1]], 1)
        return logits + (len(inputs) > 50) * torch.eye(len(inputs), 2)[:, :1] * torch.tensor([0.5, 0.0])


def test_rows_that_depend_on_their_place_must_be_in_the_record(tmp_path):
    run, handed = in_memory(tmp_path, ByPlace(), samples=400, selection_samples=100, batch_size=100)
    assert outcomes(run, new_seed=1, resample_samples=150, **handed) == ALL_HOLD
    for index in records(run):
        edit_record(run, index, places=1)
    assert outcomes(run, new_seed=1, resample_samples=200, **handed)["same seed"] is Outcome.UNCHECKED
    edit_json(run / "run.json", lambda d: d.update(batch_size=-3))
    with pytest.raises(RunError, match="batch size -3"):
        again(run, **handed)


def test_another_seed_in_a_consistent_description_is_caught(runs, repeat, tmp_path):
    """The counts of seed 0, published as those of seed 1 in a folder of its own."""
    run = repeat("fixed", tmp_path / "run", seed=1)
    for index, record in records(runs["fixed"]).items():
        edit_record(run, index, selection=record.selection, estimation=record.estimation)
    repeat("fixed", run, seed=1)
    assert {r.outcome for r in rederive(run, run_code=True)} == {Outcome.HOLDS}
    assert outcomes(run, new_seed=5) == {**ALL_HOLD, "same seed": Outcome.FAILS}


def test_soft_scores(named, tmp_path):
    run = certified(tmp_path / "run", named, samples=300, inputs=5, scores="soft", goal="fixed")
    assert outcomes(run, new_seed=4) == ALL_HOLD
    edit_counts(
        run, lambda _, looks: [inflate(votes, 1.0, max(votes, key=votes.get)) for votes in looks.values()]
    )
    assert outcomes(run, new_seed=4)["same seed"] is Outcome.FAILS


@pytest.mark.parametrize("samples", [300, 3000])
def test_forged_sums_of_soft_scores(tmp_path, samples):
    """Statistics of a far better model under the votes of the true one."""
    options = dict(samples=samples, scores="soft")
    (tmp_path / "better").mkdir()
    better, _ = in_memory(tmp_path / "better", plane([[10.0, 0.0], [-10.0, 0.0]]), **options)
    run, handed = in_memory(tmp_path, plane(NET), **options)
    for index, record in records(better).items():
        edit_record(run, index, scores=record.scores)
    assert outcomes(run, new_seed=4, resample_samples=100, **handed)["same seed"] is Outcome.FAILS


@pytest.mark.parametrize("seed", range(3))
def test_brackets_hold_what_any_rounding_gives(seed):
    """Logits that move by less than half of the lead: votes, sums, squares and bins stay in between."""
    rng = np.random.default_rng(seed)
    logits, lead, order = rng.normal(size=(500, 4)).round(1), 0.1, np.array([2, 0, 3, 1])
    kept = start(4, 2, [0])
    bracket, ties = measured(torch.from_numpy(logits), order, lead, [2, 0], 1.5)
    for _ in range(20):
        moved = torch.from_numpy(logits + rng.uniform(-lead / 2, lead / 2, logits.shape))
        votes = np.bincount(moved.argmax(1).numpy(), minlength=4)[order]
        found = update(kept, (moved / 1.5).softmax(1).numpy())
        tails = found.bin_counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:].ravel()
        given = dict(votes=votes, totals=found.totals[order], squares=found.squares[order], tails=tails)
        for name, (low, _, high) in bracket.items():
            assert np.all(low <= given[name]) and np.all(given[name] <= high), name
    assert 0 < ties < 500 and ties == 500 - bracket["votes"][0].sum()


def test_runs_without_samples(runs, repeat, tmp_path):
    lipschitz, margin = (copied(runs[kind], tmp_path / kind) for kind in ("lipschitz", "margin"))
    for run in (lipschitz, margin):
        assert outcomes(run) == {"radii again": Outcome.HOLDS}
    edit_vectors(lipschitz, "robust logits", lambda logits: 2 * logits)
    with pytest.raises(ModelError, match="6 of 6 inputs differ"):  # no table is made of them
        repeat("lipschitz", lipschitz)
    assert "robust model logits" in {
        r.check for r in rederive(lipschitz, run_code=True) if r.outcome is Outcome.FAILS
    }
    assert outcomes(lipschitz) == {"radii again": Outcome.FAILS}
    edit_vectors(margin, "margin, alpha 0.76", lambda values: values * [1.05, 1, 1])
    repeat("margin", margin)
    assert outcomes(margin) == {"radii again": Outcome.FAILS}


def test_objects_are_handed_over(tmp_path):
    run, handed = in_memory(tmp_path, plane(NET), samples=200)
    assert set(outcomes(run).values()) == {Outcome.UNCHECKED}
    assert outcomes(run, **handed) == ALL_HOLD
    checks = rederive(run, **handed)
    unknown = {r.check for r in checks if r.outcome is not Outcome.HOLDS}
    assert unknown == {"robust model checksum"}  # nothing vouches for an object
    assert Outcome.FAILS not in {r.outcome for r in checks}


# E-values of parts: at most one in mean by enumeration, and large where parts are unlike.


def part(votes, samples, mean, off=0) -> Sums:
    """Of one class and the rest, where `off` votes are open."""
    counts = np.array([votes, samples - votes], float)
    return Sums("votes", samples, np.array([mean, 1 - mean]), counts - off, counts + off)


@pytest.mark.parametrize("length, drawn, held", [(30, 10, 27), (17, 9, 8), (40, 3, 40), (12, 12, 5)])
def test_the_e_value_of_honest_parts_is_at_most_one_in_mean(length, drawn, held):
    """E[e] <= 1 exactly, by enumerating the votes of two parts without replacement."""
    weights = hypergeom.pmf(np.arange(drawn + 1), length, held, drawn)
    parts = [part(k, drawn, held / length) for k in range(drawn + 1)]
    pairs = [(w * v, e_value([a, b])) for w, a in zip(weights, parts, strict=True)
             for v, b in zip(weights, parts, strict=True) if w * v > 0]  # fmt: skip
    assert sum(weight * e for weight, e in pairs) <= 1 + 1e-12


def test_e_values_of_parts_that_are_unlike():
    assert 2000 < e_value([part(70, 100, 0.9, off=3)]) < e_value([part(70, 100, 0.9)])
    for mean, count in ((0.93, 100), (0.53, 250)):  # three percent of the votes of many stretches
        assert e_value([part(100 * (mean - 0.03), 100, mean)] * count) > 2000
        assert e_value([part(100 * mean, 100, mean)] * count) < 1
    honest = [part(90, 100, 0.9)] * 100
    assert e_value(honest) < 1 < 2000 < e_value([*honest, part(45, 100, 0.9)])
    assert e_value([]) == 1.0
