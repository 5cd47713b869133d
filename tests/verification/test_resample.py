"""Sampling again: honest runs hold, counts that were made up do not, however consistent."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from forged import certified, copied, edit_counts, edit_json, edit_log, inflate, sources, sql
from planes import INPUTS, LABELS, NET, plane, points

from certmix.errors import ModelError, ParameterError, RunError
from certmix.verification.checks import Outcome
from certmix.verification.rederivation.rederive import rederive
from certmix.verification.resampling.resample import resample
from certmix.verification.result import Settings


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def fixed(named, tmp_path_factory) -> Path:
    return certified(tmp_path_factory.mktemp("runs") / "fixed", named, samples=400, goal="fixed")


@pytest.fixture(scope="module")
def sequential(named, tmp_path_factory) -> Path:
    return certified(tmp_path_factory.mktemp("runs") / "sequential", named, samples=1000, goal="radius")


def outcomes(run: Path, **options) -> dict[str, Outcome]:
    return {r.check: r.outcome for r in resample(run, **{"device": "cpu", **options})}


def message(run: Path, check: str, **options) -> str:
    return next(r.message for r in resample(run, device="cpu", **options) if r.check == check)


ALL_HOLD = dict.fromkeys(("same seed", "new seed", "standard outputs again"), Outcome.HOLDS)


@pytest.mark.parametrize("new_seed", [11, 12, 13])
def test_honest_runs_hold(fixed, sequential, new_seed):
    assert outcomes(fixed, new_seed=new_seed) == ALL_HOLD
    assert outcomes(sequential, new_seed=new_seed, images=4, samples=300) == ALL_HOLD


def test_what_was_done_is_reported(fixed):
    told = message(fixed, "new seed", new_seed=77, images=3, samples=200)
    assert "3 images and 200 new samples each, seed 77" in told and "family-wise error rate 0.001" in told
    assert "counts are equal: 3 images chosen by seed 77" in message(
        fixed, "same seed", new_seed=77, images=3
    )
    seeds = {message(fixed, "new seed", images=1, samples=10).partition("seed ")[2][:12] for _ in range(3)}
    assert len(seeds) == 3


def test_progress_counts_images(fixed):
    seen: list[tuple[int, int]] = []
    resample(
        fixed, device="cpu", images=3, samples=10, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("share, samples", [(1.0, 1000), (0.8, 1000)])
def test_a_consistent_forgery_is_caught_by_sampling_alone(fixed, named, tmp_path, share, samples):
    """Counts of all looks have an inflated top class, and certmix itself publishes what follows."""
    run = copied(fixed, tmp_path / "run")

    def edit(selection, estimation):
        for votes in (selection, *estimation.values()):
            inflate(votes, share)

    edit_counts(run, edit)
    certified(run, named, samples=400, goal="fixed")
    assert {r.outcome for r in rederive(run)} == {Outcome.HOLDS}
    mean = json.loads((run / "certified-accuracy.json").read_text())["rows"][0]["mean_certified_radius"]
    honest = json.loads((fixed / "certified-accuracy.json").read_text())["rows"][0]["mean_certified_radius"]
    assert mean > honest + 0.02
    found = outcomes(run, samples=samples, new_seed=5)
    assert found["same seed"] is Outcome.FAILS and found["new seed"] is Outcome.FAILS
    edit_json(run / "run.json", lambda d: d.update(threads=99))
    found = outcomes(run, samples=samples, new_seed=6)
    assert found["new seed"] is Outcome.FAILS
    assert "threads 99 there" in message(run, "same seed", images=2)


def move(votes: dict[str, int], count: int) -> None:
    """Move so many votes from the class that has most to another."""
    top = max(votes, key=lambda label: votes[label])
    other = next(label for label in "012" if label != top)
    votes[top] -= count
    votes[other] = votes.get(other, 0) + count


@pytest.mark.parametrize("share, outcome", [(0.03, Outcome.FAILS), (0.0, Outcome.HOLDS)])
def test_few_votes_may_move_whatever_surroundings_a_run_claims(fixed, tmp_path, share, outcome):
    """The run says by itself how many threads it had: that must not switch the comparison off."""
    run = copied(fixed, tmp_path / "run")

    def edit(selection, estimation):
        for votes in (selection, *estimation.values()):
            move(votes, round(share * sum(votes.values())))

    edit_counts(run, edit)
    edit_counts(run, lambda selection, _: move(selection, 1), "idx % 3 = 0")
    assert outcomes(run, new_seed=6)["same seed"] is Outcome.FAILS
    edit_json(run / "run.json", lambda d: d.update(threads=99, device="cuda", device_name="H100"))
    edit_json(run / "run.json", lambda d: d["versions"].update(torch="0.1"))
    assert outcomes(run, new_seed=6)["same seed"] is outcome
    told = message(run, "same seed", new_seed=6)
    assert ("rounding may move" if outcome is Outcome.FAILS else "votes in all (device_name H100") in told


@pytest.mark.parametrize("where", ["1", "idx % 2"])
def test_images_of_another_type_of_device_are_tested_statistically(fixed, named, tmp_path, where):
    """Other noise under the same seed is what another type of device draws."""
    run = copied(fixed, tmp_path / "run")
    other = certified(tmp_path / "other", named, samples=400, goal="fixed", seed=1)
    for row in sql(other, f"SELECT selection, estimation, idx FROM images WHERE {where}"):
        sql(run, "UPDATE images SET selection = ?, estimation = ? WHERE idx = ?", *row)
    assert outcomes(run, new_seed=5)["same seed"] is Outcome.FAILS
    sql(run, f"UPDATE images SET device = 'cuda:0' WHERE {where}")
    assert outcomes(run, new_seed=5) == ALL_HOLD
    told = message(run, "same seed", new_seed=5)
    ((compared,),) = sql(run, "SELECT COUNT(*) FROM images WHERE device = 'cpu'")
    assert f"{10 - compared} images were sampled on another type of device (cuda at the end there" in told
    assert (f"counts of {compared} images are equal" in told) == (compared > 0)


def test_counts_that_are_not_redrawn_are_named(sequential):
    told = message(sequential, "same seed", new_seed=12, samples=1)
    assert "0 estimation samples; all estimation counts rest on the new-seed test" in told
    told = message(sequential, "same seed", new_seed=12, samples=100)
    assert re.search(r"up to look (\d+); counts after look \1 rest on the new-seed test", told), told


def test_a_sequential_forgery_is_caught(sequential, named, tmp_path):
    run = copied(sequential, tmp_path / "run")

    def edit(selection, estimation):
        for votes in (selection, *estimation.values()):
            inflate(votes)

    edit_counts(run, edit)
    certified(run, named, samples=1000, goal="radius")
    found = outcomes(run, new_seed=5)
    assert found["same seed"] is Outcome.FAILS and found["new seed"] is Outcome.FAILS


def test_another_seed_in_a_consistent_description_is_caught(fixed, named, tmp_path):
    """The counts of seed 0, published as those of seed 1 in a folder of its own."""
    run = certified(tmp_path / "run", named, samples=400, goal="fixed", seed=1)
    rows = sql(fixed, "SELECT selection, estimation, idx FROM images")
    for row in rows:
        sql(run, "UPDATE images SET selection = ?, estimation = ? WHERE idx = ?", *row)
    certified(run, named, samples=400, goal="fixed", seed=1)
    assert {r.outcome for r in rederive(run)} == {Outcome.HOLDS}
    found = outcomes(run, new_seed=5)
    assert found["same seed"] is Outcome.FAILS and found["new seed"] is Outcome.HOLDS


def test_other_surroundings_make_the_same_seed_a_statistical_test(fixed, tmp_path):
    run = copied(fixed, tmp_path / "run")
    edit_json(run / "run.json", lambda d: d["versions"].update(torch="0.1"))
    told = message(run, "same seed", new_seed=3)
    assert "torch 0.1 there" in told and "one distribution" in told
    assert outcomes(run, new_seed=3) == ALL_HOLD


def test_stored_outputs_of_the_standard_model_are_computed_again(fixed, tmp_path):
    run = copied(fixed, tmp_path / "run")
    sql(run, "UPDATE standard SET probabilities = '[0.0, 1.0, 0.0]', prediction = 1")
    assert outcomes(run)["standard outputs again"] is Outcome.FAILS
    sql(run, "DELETE FROM standard")
    assert outcomes(run)["standard outputs again"] is Outcome.UNCHECKED


def test_outputs_that_are_not_stored_are_not_counted(fixed, tmp_path):
    run = copied(fixed, tmp_path / "run")
    sql(run, "DELETE FROM standard WHERE idx IN (SELECT idx FROM standard LIMIT 3)")
    assert outcomes(run) == {**ALL_HOLD, "standard outputs again": Outcome.UNCHECKED}
    told = message(run, "standard outputs again")
    assert "on 7 images, and are not stored for 3 more" in told


def test_soft_scores(named, tmp_path):
    run = certified(tmp_path / "run", named, samples=300, images=5, scores="soft", goal="fixed")
    assert outcomes(run, new_seed=4) == ALL_HOLD

    def edit(selection, estimation):
        for votes in estimation.values():
            inflate(votes)

    edit_counts(run, edit)
    assert outcomes(run, new_seed=4)["same seed"] is Outcome.FAILS


def test_a_forged_bin_of_soft_scores_is_found_by_a_new_seed(tmp_path):
    """Statistics of a far better model under the votes of the true one."""
    named = sources(tmp_path / "own")
    good = {**named, "robust": named["robust"].replace(":linear", ":sure")}
    nets = Path(named["robust"].rpartition(":")[0])
    nets.write_text(nets.read_text() + "\n\ndef sure():\n    return nn.Sequential(linear(), nn.Threshold(-99, 0), Tenfold())\n"
                    "\n\nclass Tenfold(nn.Module):\n    def forward(self, x):\n        return 10 * x\n")  # fmt: skip
    options = dict(samples=300, images=4, scores="soft", goal="fixed", standard=None)
    better = certified(tmp_path / "better", good, **options)
    run = certified(tmp_path / "run", named, **options)
    for scores, index in sql(better, "SELECT scores, idx FROM images"):
        sql(run, "UPDATE images SET scores = ? WHERE idx = ?", scores, index)
    assert outcomes(run, new_seed=4)["new seed"] is Outcome.FAILS


def test_lipschitz_runs(named, tmp_path):
    run = certified(
        tmp_path / "run", named, None, certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2"
    )
    assert outcomes(run) == {"logits again": Outcome.HOLDS, "radii again": Outcome.HOLDS}
    forged = copied(run, tmp_path / "forged")
    for index, raw in sql(forged, "SELECT idx, vector FROM vectors WHERE cell = 'robust logits'"):
        better = 2 * np.frombuffer(raw, "<f8")
        sql(
            forged,
            "UPDATE vectors SET vector = ? WHERE cell = 'robust logits' AND idx = ?",
            better.tobytes(),
            index,
        )
    with pytest.raises(ModelError, match="10 of 10 inputs differ"):  # no table is made of them
        certified(forged, named, None, certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2")
    assert "robust model logits" in {r.check for r in rederive(forged) if r.outcome is Outcome.FAILS}
    assert outcomes(forged)["logits again"] is Outcome.FAILS


def test_logits_that_are_not_stored_are_not_counted(named, tmp_path):
    options = dict(certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2")
    run = certified(tmp_path / "run", named, None, **options)
    sql(
        run,
        "DELETE FROM vectors WHERE cell LIKE 'standard logits %' AND idx = (SELECT MAX(idx) FROM vectors)",
    )
    assert outcomes(run) == {"logits again": Outcome.UNCHECKED, "radii again": Outcome.HOLDS}
    assert "are not stored for 1 of 10 images" in message(run, "logits again")


def test_margin_runs(named, tmp_path):
    run = certified(tmp_path / "run", named, None, certificates=["margin"], norm="linf", max_radius=0.5)
    assert outcomes(run) == {"logits again": Outcome.HOLDS, "radii again": Outcome.HOLDS}
    forged = copied(run, tmp_path / "forged")
    cell = "margin, alpha 0.76"
    for index, raw in sql(forged, "SELECT idx, vector FROM vectors WHERE cell = ?", cell):
        values = np.frombuffer(raw, "<f8") * [1.05, 1, 1]
        sql(forged, "UPDATE vectors SET vector = ? WHERE cell = ? AND idx = ?", values.tobytes(), cell, index)
    certified(forged, named, None, certificates=["margin"], norm="linf", max_radius=0.5)
    assert outcomes(forged)["radii again"] is Outcome.FAILS


def test_radii_in_the_file_alone_are_propagated(named, tmp_path):
    run = certified(tmp_path / "run", named, None, certificates=["margin"], norm="linf", max_radius=0.5)

    def edit(lines):
        return ["\t".join([*line.split("\t")[:3], "0.49", "0.49"]) for line in lines]

    edit_log(run, "radii.tsv", edit)
    assert outcomes(run)["radii again"] is Outcome.FAILS


def test_objects_are_handed_over(tmp_path):
    given = dict(data=points(INPUTS, LABELS), standard=plane(NET), robust=plane(NET))
    certified(tmp_path / "run", given, 0.5, samples=200, images="all", goal="fixed")
    without = outcomes(tmp_path / "run")
    assert set(without.values()) == {Outcome.UNCHECKED}
    handed = dict(dataset=given["data"], models={"robust": plane(NET), "standard": plane(NET)})
    assert outcomes(tmp_path / "run", **handed) == ALL_HOLD
    checks = rederive(tmp_path / "run", **handed)
    unknown = {r.check for r in checks if r.outcome is not Outcome.HOLDS}
    assert unknown == {"robust model checksum", "standard model checksum"}  # nothing vouches for an object
    assert Outcome.FAILS not in {r.outcome for r in checks}


@pytest.mark.parametrize(
    "options", [dict(images=0), dict(samples=0), dict(error_rate=0.0), dict(new_seed=0), dict(new_seed=-1)]
)
def test_parameters_out_of_range(fixed, options):
    with pytest.raises(ParameterError):
        resample(fixed, **options)


@pytest.mark.parametrize(
    "wrong",
    [dict(error_rate=2.0), dict(error_rate=0.0), dict(new_seed=-1), dict(images=-1), dict(samples=0)],
)
def test_settings_are_checked_before_anything_is_drawn(wrong):
    with pytest.raises(ParameterError):
        Settings(**wrong)
    if "error_rate" in wrong:
        with pytest.raises(ParameterError, match="error rate"):
            Settings(images=0, **wrong)


def test_a_run_is_only_read(fixed, tmp_path):
    run = copied(fixed, tmp_path / "run")
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    rederive(run)
    resample(run, device="cpu", images=2, samples=100)
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before


def test_a_batch_size_that_is_none_is_refused(fixed, tmp_path):
    run = copied(fixed, tmp_path / "run")
    edit_json(run / "run.json", lambda d: d.update(batch_size=-3))
    with pytest.raises(RunError):
        resample(run, device="cpu")
