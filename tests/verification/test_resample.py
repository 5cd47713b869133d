"""Sampling again: honest runs hold, counts that were made up do not, however consistent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import (
    certified,
    copied,
    edit_counts,
    edit_json,
    edit_record,
    edit_vectors,
    inflate,
    more_votes,
    records,
    sources,
    swap,
)  # fmt: skip
from planes import INPUTS, LABELS, NET, plane, points
from scipy.stats import hypergeom
from torch import nn

from certmix.bounds.statistics import start, update
from certmix.errors import ModelError, ParameterError, RunError
from certmix.verification.checks import Outcome
from certmix.verification.rederive import rederive
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import Sums, choose_images, e_value, measured, resample, weights_of
from certmix.verification.stored import load

FIXED, SEQUENTIAL = dict(samples=400, goal="fixed"), dict(samples=2000, goal="radius")
ALL_HOLD = dict.fromkeys(("same seed", "new seed"), Outcome.HOLDS)
FORGED = dict.fromkeys(ALL_HOLD, Outcome.FAILS)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def fixed(named, tmp_path_factory) -> Path:
    return certified(tmp_path_factory.mktemp("runs") / "fixed", named, **FIXED)


@pytest.fixture(scope="module")
def sequential(named, tmp_path_factory) -> Path:
    return certified(tmp_path_factory.mktemp("runs") / "sequential", named, **SEQUENTIAL)


def outcomes(run: Path, **options) -> dict[str, Outcome]:
    return {r.check: r.outcome for r in resample(run, **{"device": "cpu", **options})}


def message(run: Path, check: str, **options) -> str:
    return next(r.message for r in resample(run, device="cpu", **options) if r.check == check)


def in_memory(folder: Path, robust: nn.Module, **options):
    """A run of points and a module in a folder, and what must be handed over to check it."""
    given = dict(data=points(INPUTS, LABELS), standard=None, robust=robust)
    run = certified(folder / "run", given, 0.5, **{"images": "all", "goal": "fixed", **options})
    return run, dict(dataset=given["data"], models={"robust": robust})


@pytest.mark.parametrize("new_seed", [11, 12])
def test_honest_runs_hold_and_are_only_read(fixed, sequential, new_seed):
    before = {path: path.read_bytes() for path in sorted(fixed.rglob("*")) if path.is_file()}
    assert outcomes(fixed, new_seed=new_seed) == ALL_HOLD
    assert outcomes(sequential, new_seed=new_seed, images=4, samples=300) == ALL_HOLD
    assert {path: path.read_bytes() for path in sorted(fixed.rglob("*")) if path.is_file()} == before


def test_what_was_done_is_reported(fixed, sequential):
    told = message(fixed, "new seed", new_seed=77, images=3, samples=200)
    assert "6 images, new samples of seed 77 (e-value 0." in told and "refuted from 2000)" in told
    seen: list[tuple[int, int]] = []
    told = message(
        fixed, "same seed", new_seed=77, images=3, progress=lambda done, total: seen.append((done, total))
    )
    assert "10 images chosen by seed 77, 2,200 samples: 22 stretches whole, 0 in part" in told
    assert seen == [(k, len(seen)) for k in range(1, len(seen) + 1)]
    seeds = {message(fixed, "new seed", images=1, samples=10).partition("seed ")[2][:12] for _ in range(3)}
    assert len(seeds) == 3
    assert "(e-value 0." in message(sequential, "same seed", new_seed=1, samples=50)


def published_anew(run: Path, named: dict[str, str], **options) -> float:
    """Have certmix itself publish what follows from counts; return the robust row's mean radius."""
    certified(run, named, **options)
    assert {r.outcome for r in rederive(run)} == {Outcome.HOLDS}
    return json.loads((run / "certified-accuracy.json").read_text())["rows"][0]["mean_certified_radius"]


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_a_consistent_forgery_is_caught_by_sampling_alone(fixed, named, tmp_path, share):
    """Counts of all looks have an inflated top class, whatever machine the run says it had."""
    run = copied(fixed, tmp_path / "run")

    def edit(selection, estimation):
        top = max(selection, key=lambda label: selection[label])
        for votes in (selection, *estimation.values()):
            inflate(votes, share, top)

    honest = published_anew(copied(fixed, tmp_path / "honest"), named, **FIXED)
    edit_counts(run, edit)
    assert published_anew(run, named, **FIXED) > honest + 0.02
    assert outcomes(run, new_seed=5) == FORGED
    edit_json(run / "run.json", lambda d: d.update(threads=99, device="cuda", device_name="H100"))
    for index in records(run):
        edit_record(run, index, device="cuda")
    assert outcomes(run, new_seed=6) == FORGED


@pytest.mark.parametrize("kind, after", [("fixed", 0), ("sequential", 1000)])
def test_three_percent_more_votes_are_caught(request, named, tmp_path, kind, after):
    """In all looks or in later ones alone, on whatever device."""
    run = copied(request.getfixturevalue(kind), tmp_path / "run")
    more_votes(run, 0.03, after)
    published_anew(run, named, **(SEQUENTIAL if after else FIXED))
    for new_seed in (1, 2, 3):
        assert outcomes(run, new_seed=new_seed)["same seed"] is Outcome.FAILS
        for index in records(run):
            edit_record(run, index, device="cuda")


def test_more_votes_in_stretches_that_are_too_long_to_draw_whole(tmp_path):
    """One stretch of 5,000 samples an image, of which at most 300 are drawn."""
    run, handed = in_memory(tmp_path, plane(NET), samples=6000)

    def edit(_, looks):
        for n in [n for n in looks if int(n) not in (1000, 6000)]:
            del looks[n]

    edit_counts(run, edit)
    for new_seed in (1, 2):
        assert outcomes(run, new_seed=new_seed, samples=300, **handed) == ALL_HOLD
    more_votes(run, 0.08, after=1000)
    told = resample(run, new_seed=2, samples=300, device="cpu", **handed)[0]
    assert told.outcome is Outcome.FAILS
    assert "counts are not what their seeds give" in told.message


@pytest.mark.parametrize("kind", ["fixed", "sequential"])
def test_two_images_that_were_swapped_are_caught(request, tmp_path, kind):
    run = copied(request.getfixturevalue(kind), tmp_path / "run")
    by_class: dict[int, int] = {}
    for index, record in records(run).items():
        by_class.setdefault(record.selected, index)
    pair = list(by_class.values())[:2]
    swap(run, *pair)
    for new_seed in (1, 2, 3):
        found = resample(run, device="cpu", new_seed=new_seed)[0]
        assert (found.check, found.outcome, set(found.images)) == ("same seed", Outcome.FAILS, set(pair))


def test_images_near_a_column_are_chosen_more_often(sequential):
    run = load(sequential)
    weights = weights_of(list(run.images.values()), run.request)
    assert set(weights) == set(run.images) and max(weights.values()) > 3 * min(weights.values())
    known = range(0, 4000, 10)
    near = dict.fromkeys(known[::2], 9.0)
    chosen = choose_images({**dict.fromkeys(known, 1.0), **near}, 40, 3)
    assert len(set(chosen)) == 40 and sum(index in near for index in chosen) > 30
    chosen = choose_images(dict.fromkeys(known, 1.0), 40, 3)
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
    found = resample(run, device="cpu", new_seed=1, **handed)[0]
    assert found.outcome is Outcome.UNCHECKED
    assert "rounding may change too many votes" in found.message


class ByPlace(nn.Module):
    """The first row of a batch that is not small has more of its first logit."""

    def forward(self, inputs):
        logits = torch.cat([inputs[:, :1], -inputs[:, :1]], 1)
        return logits + (len(inputs) > 50) * torch.eye(len(inputs), 2)[:, :1] * torch.tensor([0.5, 0.0])


def test_rows_that_depend_on_their_place_must_be_in_the_record(tmp_path):
    run, handed = in_memory(tmp_path, ByPlace(), samples=400, selection_samples=100, batch_size=100)
    assert outcomes(run, new_seed=1, samples=150, **handed) == ALL_HOLD
    for index in records(run):
        edit_record(run, index, places=1)
    assert outcomes(run, new_seed=1, samples=200, **handed)["same seed"] is Outcome.UNCHECKED
    edit_json(run / "run.json", lambda d: d.update(batch_size=-3))
    with pytest.raises(RunError, match="batch size -3"):
        resample(run, device="cpu", **handed)


def test_another_seed_in_a_consistent_description_is_caught(fixed, named, tmp_path):
    """The counts of seed 0, published as those of seed 1 in a folder of its own."""
    run = certified(tmp_path / "run", named, **FIXED, seed=1)
    for index, record in records(fixed).items():
        edit_record(run, index, selection=record.selection, estimation=record.estimation)
    published_anew(run, named, **FIXED, seed=1)
    assert outcomes(run, new_seed=5) == {**ALL_HOLD, "same seed": Outcome.FAILS}


def test_soft_scores(named, tmp_path):
    run = certified(tmp_path / "run", named, samples=300, images=5, scores="soft", goal="fixed")
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
    assert outcomes(run, new_seed=4, samples=100, **handed)["same seed"] is Outcome.FAILS


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


def test_runs_without_samples(named, tmp_path):
    given = dict(certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2")
    proved = dict(certificates=["margin"], norm="linf", max_radius=0.5)
    lipschitz, margin = (
        certified(tmp_path / how["certificates"][0], named, None, **how) for how in (given, proved)
    )
    for run in (lipschitz, margin):
        assert outcomes(run) == {"radii again": Outcome.HOLDS}
    edit_vectors(lipschitz, "robust logits", lambda logits: 2 * logits)
    with pytest.raises(ModelError, match="10 of 10 inputs differ"):  # no table is made of them
        certified(lipschitz, named, None, **given)
    assert "robust model logits" in {r.check for r in rederive(lipschitz) if r.outcome is Outcome.FAILS}
    assert outcomes(lipschitz) == {"radii again": Outcome.FAILS}
    edit_vectors(margin, "margin, alpha 0.76", lambda values: values * [1.05, 1, 1])
    certified(margin, named, None, **proved)
    assert outcomes(margin) == {"radii again": Outcome.FAILS}


def test_objects_are_handed_over(tmp_path):
    run, handed = in_memory(tmp_path, plane(NET), samples=200)
    assert set(outcomes(run).values()) == {Outcome.UNCHECKED}
    assert outcomes(run, **handed) == ALL_HOLD
    checks = rederive(run, **handed)
    unknown = {r.check for r in checks if r.outcome is not Outcome.HOLDS}
    assert unknown == {"robust model checksum"}  # nothing vouches for an object
    assert Outcome.FAILS not in {r.outcome for r in checks}


@pytest.mark.parametrize(
    "options", [dict(images=0), dict(samples=0), dict(error_rate=0.0), dict(new_seed=0), dict(new_seed=-1)]
)
def test_parameters_out_of_range(fixed, options):
    with pytest.raises(ParameterError):
        resample(fixed, **options)


@pytest.mark.parametrize(
    "wrong",
    [dict(error_rate=2.0), dict(images=0, error_rate=0.0), dict(new_seed=-1), dict(images=-1), dict(samples=0)],
)  # fmt: skip
def test_settings_are_checked_before_anything_is_drawn(wrong):
    with pytest.raises(ParameterError):
        VerifyRequest(**wrong)


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
