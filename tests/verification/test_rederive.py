"""Deriving runs again: an untouched run passes every check, and each kind of tampering fails one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged import certified, copied, edit_counts, edit_json, edit_vectors, records, sql
from planted import TAMPERED, WRONG, Plant, described

from certmix.certification.proved_table import stored_outcomes
from certmix.data import load
from certmix.errors import RunError
from certmix.verification.checks import Outcome
from certmix.verification.rederive import recheck, rederive

GIVEN = dict(certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2")


@pytest.fixture
def run(runs, tmp_path) -> Path:
    return copied(runs["sequential"], tmp_path / "run")


def failing(run: Path) -> dict[str, str]:
    return {r.check: r.message for r in rederive(run, run_code=True) if r.outcome is Outcome.FAILS}


def about(run: Path, check: str):
    return next(result for result in rederive(run, run_code=True) if result.check == check)


def assert_untouched(run: Path) -> None:
    results = rederive(run, run_code=True)
    assert {r.check: r.message for r in results if r.outcome is not Outcome.HOLDS} == {}
    assert len({r.check for r in results}) == len(results) >= 14
    for result in results:
        assert json.loads(json.dumps(result.as_dict()))["check"] == result.check
        assert "\n" not in result.message


@pytest.mark.parametrize("kind", ["sequential", "fixed", "lipschitz", "margin"])
def test_an_untouched_run_holds(runs, kind):
    assert_untouched(runs[kind])


@pytest.mark.parametrize(
    "options",
    [
        dict(bound="clopper-pearson-two-sided", goal="radius", samples=300, relative_precision=0.2),
        dict(bound="beta-binomial", samples=300, failure_probability=0.05),
        dict(bound="clopper-pearson-two-sided", goal="fixed", samples=250, standard=None),
        pytest.param(dict(scores="soft", samples=200), marks=pytest.mark.long),
        dict(scores="soft", samples=200, bound="betting-fixed", goal="fixed", score_temperature=0.5),
        pytest.param(dict(scores="soft", samples=200, bound="relative-entropy", goal="radius"), marks=pytest.mark.long),
        dict(scores="soft", samples=200, bound="layers", goal="fixed", certificates=("exact",)),
        {**GIVEN, "sigma": None, "lipschitz_constant": 9, "norm": "linf", "constant_of": "each-logit"},
        {**GIVEN, "sigma": None, "lipschitz_constant": 3.5, "constant_of": "probabilities", "alpha": 0.9},
    ],
    ids=lambda options: "-".join(str(options[k]) for k in ("scores", "bound", "goal", "norm") if k in options),
)  # fmt: skip
def test_every_kind_of_run_holds(named, tmp_path, options):
    assert_untouched(certified(tmp_path / "run", named, **{"inputs": 4, "sigma": 0.25, **options}))


def first_input(run: Path) -> int:
    """An input with several looks."""
    return min(index for index, record in records(run).items() if len(record.estimation) > 1)


@pytest.mark.parametrize("case", TAMPERED)
def test_each_kind_of_tampering_fails_its_check(run, case):
    tamper, check, told = TAMPERED[case]
    tamper(run, first_input(run))
    assert told in failing(run)[check]


def test_a_fixed_size_that_was_not_planned(runs, tmp_path):
    other = copied(runs["fixed"], tmp_path / "other")
    sql(other, "UPDATE facts SET value = '500' WHERE key = 'fixed_samples'")
    assert "planned for 500" in failing(other)["fixed design"]


def test_data_and_models_that_changed(run, named, tmp_path):
    text = Path(named["robust"].rpartition(":")[0]).read_text()
    (tmp_path / "nets.py").write_text(text.replace("-0.8", "-0.7"))
    edit_json(run / "run.json", lambda d: d["sources"].update(robust=f"{tmp_path / 'nets.py'}:linear"))
    assert set(failing(run)) == {"robust model checksum"}
    with np.load(named["data"]) as stored:
        held = {name: stored[name].copy() for name in stored.files}
    held["inputs"][0, 0] += 0.01
    held["labels"][1] = 2
    np.savez(tmp_path / "points.npz", **held)
    edit_json(run / "run.json", lambda d: d["sources"].update(data=str(tmp_path / "points.npz")))
    assert {"data checksum", "input checksums", "labels"} <= set(failing(run))
    assert about(run, "input checksums").inputs == (0,)


def test_the_digest_in_the_folders_name(run, tmp_path):
    digest = about(run, "identity digest").message[:8]
    assert re.fullmatch("[0-9a-f]{8}", digest)
    for shown, outcome in ((digest, Outcome.HOLDS), ("0" * 8, Outcome.FAILS)):
        kept = copied(run, tmp_path / f"points-nets-sigma0.25-seed0-{shown}")
        assert about(kept, "identity digest").outcome is outcome


def test_what_is_not_there_is_unchecked(runs, named, tmp_path):
    shard = certified(tmp_path / "run", named, inputs=4, samples=100, goal="fixed", shard="1/2")
    assert about(shard, "inputs").message.startswith("partial: 2 of 4 inputs")
    dropped = [copied(runs[kind], tmp_path / kind) for kind in ("fixed", "lipschitz")]
    for run in dropped:
        sql(run, "DELETE FROM cells WHERE idx = 0 AND cell NOT GLOB 'standard *'")
    for run in (shard, *dropped):
        assert about(run, "inputs").outcome is Outcome.UNCHECKED
        assert failing(run) == {}
    edit_json(
        dropped[0] / "run.json",
        lambda d: d["sources"].update(data="/nowhere/points.npz", robust="/nowhere.py:net"),
    )
    results = {r.check: r.outcome for r in rederive(dropped[0], run_code=True)}
    assert Outcome.FAILS not in results.values()
    assert {check for check, outcome in results.items() if outcome is Outcome.UNCHECKED} == {
        "data checksum", "robust model checksum", "robust model logits", "standard model logits", "labels",
        "input checksums", "inputs", "published files",
    }  # fmt: skip


@pytest.mark.parametrize("check, wrong", [(check, one) for check, wrong in WRONG.items() for one in wrong])
def test_whatever_the_product_derives_wrongly_is_found(runs, monkeypatch, check, wrong):
    monkeypatch.setattr("certmix.certification.publish.evaluate", wrong)
    assert check in failing(runs["sequential"])


@pytest.mark.parametrize("kind", ["lipschitz", "margin"])
def test_a_wrong_radius_without_samples_is_found(runs, monkeypatch, kind):
    def wrong(*given: Any) -> Any:
        found = stored_outcomes(*given)
        radii = found.radii[1]
        return replace(found, radii=(found.radii[0], replace(radii, radius=radii.radius + 1e-6)))

    monkeypatch.setattr("certmix.verification.figures.stored_outcomes", wrong)
    assert "radii" in failing(runs[kind])


@pytest.mark.parametrize("value, check", [(9.0, "robust model logits"), (np.nan, "logits")])
def test_logits_that_cannot_be(runs, tmp_path, value, check):
    run = copied(runs["lipschitz"], tmp_path / "run")
    edit_vectors(run, "robust logits", lambda z: np.array([value, *z[1:]]), [0])
    assert check in failing(run)


def test_without_an_answer_of_g_its_shares_are_unknown(runs, tmp_path):
    run = copied(runs["lipschitz"], tmp_path / "run")
    sql(run, "DELETE FROM cells WHERE cell LIKE 'standard logits %' AND idx = 0")
    assert failing(run) == {}


@pytest.mark.parametrize("change", [(0.1, 2.0), (-0.1, 0.0), (99.0, 2.0), (0.01, 0.0)])
def test_margins_that_cannot_be(runs, tmp_path, change):
    run, cell = copied(runs["margin"], tmp_path / "run"), "margin, alpha 0.76"
    flat = next(
        index for index, raw in sql(run, "SELECT idx, data FROM cells WHERE cell = ?", cell)
        if np.frombuffer(raw, "<f8")[0] == 0
    )  # fmt: skip
    edit_vectors(run, cell, lambda v: np.array([*change, v[2]]), [flat])
    assert about(run, "radii").inputs == (flat,)


@pytest.mark.parametrize(
    "break_it",
    [
        described(lambda d: d.pop("models")),
        described(lambda d: d["sources"].update(nonsense=1)),
        lambda run, _: (run / "numbers.sqlite").unlink(),
        lambda run, _: edit_vectors(run, "votes@100", lambda votes: votes[:-1], [0]),
        lambda run, _: edit_vectors(run, "sampling", lambda numbers: numbers * [1, 1, 0, 1, 1], [0]),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(run, break_it: Plant):
    break_it(run, 0)
    with pytest.raises(RunError, match=r"\A.*\Z"):
        rederive(run)


def test_what_is_rechecked_without_models(runs, named, tmp_path):
    dataset = load(named["data"])
    for kind in ("fixed", "lipschitz"):
        found = recheck(runs[kind], dataset)
        assert {r.check: r.message for r in found if r.outcome is not Outcome.HOLDS} == {}
    run = copied(runs["fixed"], tmp_path / "a")
    edit_counts(run, lambda selection, estimation: estimation["400"].update({"0": 401}))
    assert "counts" in {r.check for r in recheck(run, dataset) if r.outcome is Outcome.FAILS}
    edit_json(run / "run.json", lambda d: d.pop("request"))
    assert recheck(run, dataset) == []
