"""Deriving runs again: an untouched run passes every check, and each kind of tampering fails one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged import (
    certified,
    copied,
    edit_counts,
    edit_json,
    edit_record,
    edit_vectors,
    records,
    sources,
    sql,
)  # fmt: skip

from certmix.certification.evaluate import evaluate
from certmix.certification.proved_table import stored_outcomes
from certmix.data import load
from certmix.errors import RunError
from certmix.verification.checks import Outcome
from certmix.verification.rederive import recheck, rederive


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def original(named, tmp_path_factory) -> Path:
    """A sequential run with three tables, the first of them partial at heart: fewer images."""
    run = tmp_path_factory.mktemp("runs") / "sequential"
    certified(run, named, images=4, samples=400)
    certified(run, named, samples=2000, alpha=0.9)
    return certified(run, named, samples=1000)


@pytest.fixture
def run(original, tmp_path) -> Path:
    return copied(original, tmp_path / "run")


@pytest.fixture(scope="module")
def fixed(named, tmp_path_factory) -> Path:
    return certified(tmp_path_factory.mktemp("runs") / "fixed", named, samples=400, goal="fixed")


def failing(run: Path) -> dict[str, str]:
    return {r.check: r.message for r in rederive(run) if r.outcome is Outcome.FAILS}


def about(run: Path, check: str):
    return next(result for result in rederive(run) if result.check == check)


def assert_untouched(run: Path) -> None:
    results = rederive(run)
    assert {r.check: r.message for r in results if r.outcome is not Outcome.HOLDS} == {}
    assert len({r.check for r in results}) == len(results) >= 14


def test_an_untouched_run_holds(original, fixed):
    assert_untouched(original)
    assert_untouched(fixed)


@pytest.mark.parametrize(
    "options",
    [
        dict(bound="clopper-pearson-two-sided", goal="radius", samples=500, relative_precision=0.2),
        dict(bound="beta-binomial", samples=500, failure_probability=0.05),
        dict(bound="clopper-pearson-two-sided", goal="fixed", samples=250, standard=None),
        dict(scores="soft", samples=300),
        dict(scores="soft", samples=300, bound="betting-fixed", goal="fixed", temperature=0.5),
        dict(scores="soft", samples=300, bound="relative-entropy", goal="radius"),
        dict(scores="soft", samples=300, bound="layers", goal="fixed", certificates=("exact",)),
    ],
    ids=lambda options: "-".join(str(options.get(k, "")) for k in ("scores", "bound", "goal")),
)  # fmt: skip
def test_every_kind_of_sampled_run_holds(named, tmp_path, options):
    assert_untouched(certified(tmp_path / "run", named, **{"images": 6, **options}))


@pytest.mark.parametrize(
    "options",
    [
        dict(certificates=["margin"], norm="linf"),
        dict(certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2"),
        dict(
            certificates=["lipschitz-constant"], lipschitz_constant=9, norm="linf", constant_of="each-logit"
        ),
        dict(
            certificates=["lipschitz-constant"],
            lipschitz_constant=3.5,
            constant_of="probabilities",
            alpha=0.9,
        ),
    ],
)
def test_every_kind_of_run_without_samples_holds(named, tmp_path, options):
    assert_untouched(certified(tmp_path / "run", named, None, **options))


def first_image(run: Path) -> int:
    """An image with several looks."""
    return min(index for index, record in records(run).items() if len(record.estimation) > 1)


def test_a_count_that_does_not_add_up(run):
    at = first_image(run)

    def edit(selection, estimation):
        estimation["200"]["0"] += 1

    edit_counts(run, edit, [at])
    assert about(run, "counts").outcome is Outcome.FAILS
    assert about(run, "counts").images == (at,)


def test_more_votes_than_before_are_needed_at_every_look(run):
    def edit(selection, estimation):
        estimation["100"], estimation["200"] = {"0": 95, "1": 5}, {"0": 199, "1": 1}

    edit_counts(run, edit, [first_image(run)])
    assert "fewer votes" in failing(run)["counts"]


def test_selection_votes_must_be_as_many_as_asked_for(run):
    def edit(selection, estimation):
        selection["0"] = selection.get("0", 0) + 7

    edit_counts(run, edit, [first_image(run)])
    assert "selection adds up" in failing(run)["counts"]


def test_the_checksum_of_the_data(run):
    edit_json(run / "run.json", lambda d: (
        d["data"].update(checksum="0" * 64), d["identity"].update(data_checksum="0" * 64)))  # fmt: skip
    assert "data checksum" in failing(run)


def test_data_that_changed(run, named, tmp_path):
    with np.load(named["data"]) as stored:
        held = {name: stored[name].copy() for name in stored.files}
    held["inputs"][0, 0] += 0.01
    held["labels"][1] = 2
    np.savez(tmp_path / "points.npz", **held)
    edit_json(run / "run.json", lambda d: d["sources"].update(data=str(tmp_path / "points.npz")))
    found = failing(run)
    assert {"data checksum", "input checksums", "labels"} <= set(found)
    assert about(run, "input checksums").images == (0,)


def test_a_model_that_changed(run, named, tmp_path):
    text = Path(named["robust"].rpartition(":")[0]).read_text()
    (tmp_path / "nets.py").write_text(text.replace("-0.8", "-0.7"))
    edit_json(run / "run.json", lambda d: d["sources"].update(robust=f"{tmp_path / 'nets.py'}:linear"))
    assert set(failing(run)) == {"robust model checksum"}


def test_the_checksum_of_a_model(run):
    edit_json(run / "run.json", lambda d: (
        d["models"]["robust"].update(checksum="0" * 64), d["identity"].update(robust_checksum="0" * 64)))  # fmt: skip
    assert set(failing(run)) == {"robust model checksum"}


def test_the_checksum_of_an_input(run):
    edit_record(run, 0, input_checksum="0" * 64)
    assert set(failing(run)) == {"input checksums"}
    assert about(run, "input checksums").images == (0,)


@pytest.mark.parametrize("change", [{"noise_error": 0.0}, {"lost": 1e-12}])
def test_what_the_noise_costs(run, change):
    edit_record(run, first_image(run), **change)
    assert "noise" in failing(run)


def test_the_size_of_the_inputs_that_noise_is_drawn_for(run):
    edit_json(run / "run.json", lambda d: d["noise"].update(coordinates=1))
    assert "run.json says otherwise" in failing(run)["noise"]


def test_a_split_that_spends_more(run):
    edit_json(run / "run.json", lambda d: d["failure_budget"].update(split={"p": 0.001, "q": 0.001}))
    assert set(failing(run)) == {"failure budget"}


def test_a_look_schedule(run):
    def edit(selection, estimation):
        estimation["250"] = estimation.pop("200")
        estimation["250"]["0"] += 50

    edit_counts(run, edit, [first_image(run)])
    assert "250 samples, which is no look" in failing(run)["look schedule"]


def test_a_look_left_out(run):
    def edit(selection, estimation):
        del estimation["100"]

    edit_counts(run, edit, [first_image(run)])
    assert "lacks its look at 100" in failing(run)["look schedule"]


def test_a_schedule_of_another_kind(run):
    edit_json(run / "run.json", lambda d: d["failure_budget"].update(looks=None))
    assert set(failing(run)) == {"failure budget"}


def test_a_fixed_size_that_was_not_planned(run, fixed, tmp_path):
    other = copied(fixed, tmp_path / "other")
    sql(other, "UPDATE facts SET value = '500' WHERE key = 'fixed_samples'")
    assert "planned for 500" in failing(other)["fixed design"]
    edit_json(run / "run.json", lambda d: d["request"].update(goal="fixed", samples=1000))
    assert "sequential looks" in failing(run)["fixed design"]


def test_the_digest_in_the_folders_name(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    certified(Path("run"), named, images=3, samples=200)
    digest = about(Path("run"), "identity digest").message[:8]
    kept = copied(Path("run"), tmp_path / f"points-nets-sigma0.25-seed0-{digest}")
    assert about(kept, "identity digest").outcome is Outcome.HOLDS
    moved = copied(Path("run"), tmp_path / "points-nets-sigma0.25-seed0-00000000")
    assert about(moved, "identity digest").outcome is Outcome.FAILS


def test_a_share_of_the_images_does_not_pass_as_a_whole_run(named, tmp_path):
    run = certified(tmp_path / "run", named, images=4, samples=200, goal="fixed", shard="1/2")
    assert failing(run) == {}
    found = about(run, "images")
    assert found.outcome is Outcome.UNCHECKED
    assert found.message.startswith("partial: 2 of 4 images")


def test_results_are_plain_data(original):
    for result in rederive(original):
        assert json.loads(json.dumps(result.as_dict()))["check"] == result.check
        assert "\n" not in result.message


def test_a_label(run):
    at = first_image(run)
    edit_record(run, at, label=(records(run)[at].label + 1) % 3)
    found = about(run, "labels")
    assert found.outcome is Outcome.FAILS and found.images == (at,)


def test_sigma(run):
    edit_json(run / "run.json", lambda d: d["request"].update(sigma=0.5))
    assert "identity" in failing(run)


def test_the_failure_probability(run):
    edit_json(run / "run.json", lambda d: d["request"].update(failure_probability=0.1))
    assert "failure budget" in failing(run)


def test_stored_outputs_of_the_standard_model(run):
    [cell] = [name for (name,) in sql(run, "SELECT DISTINCT cell FROM cells WHERE cell GLOB 'standard *'")]
    edit_vectors(run, cell, lambda row: np.array([0.2, 0.8, 0.0]), [first_image(run)])
    assert "standard model logits" in failing(run)


def test_an_image_that_the_data_do_not_have(run):
    sql(run, "INSERT INTO cells SELECT cell, 99, dtype, data FROM cells WHERE idx = 0")
    assert about(run, "labels").images == (99,)


@pytest.mark.parametrize("kind", ["fixed", "lipschitz"])
def test_a_dropped_image_leaves_the_run_unfinished(request, tmp_path, kind):
    run = copied(request.getfixturevalue(kind), tmp_path / "run")
    sql(run, "DELETE FROM cells WHERE idx = 0 AND cell NOT GLOB 'standard *'")
    assert about(run, "images").outcome is Outcome.UNCHECKED
    assert failing(run) == {}


@pytest.fixture(scope="module")
def lipschitz(named, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "lipschitz"
    return certified(
        run, named, None, certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2", images=6
    )


def product(radii: Any, summary: Any, **changes: Any) -> Callable[..., Any]:
    """The product's evaluation with another first radius and other figures in its table."""

    def wrong(*given: Any, **named: Any) -> Any:
        found = evaluate(*given, **named)
        rows, kept = list(found.summary.rows), list(found.radii)
        for place, change in radii.items():
            first = kept[place].radius.copy()
            first[np.argmax(first)] += change
            kept[place] = replace(kept[place], radius=first)
        for place, change in summary.items():
            rows[place] = replace(rows[place], **change(rows[place]))
        told = replace(found.summary, rows=tuple(rows), **{k: v(found.summary) for k, v in changes.items()})
        return replace(found, radii=tuple(kept), summary=told)

    return wrong


WRONG = {
    "radii": [product({0: 1e-6}, {}), product({1: 1e-6}, {}), product({1: -0.05}, {})],
    "certified accuracy": [
        product({}, {1: lambda row: {"certified_accuracy": (1.0, *row.certified_accuracy[1:-1], 0.1)}})
    ],
    "intervals": [product({}, {0: lambda row: {"interval": ((0.99, 1.0), *row.interval[1:])}})],
    "mean radii": [
        product({}, {2: lambda row: {"mean_certified_radius": row.mean_certified_radius * (1 + 1e-5)}})
    ],
    "clean accuracy": [
        product({}, {}, clean_accuracy=lambda summary: replace(summary.clean_accuracy, mixed=0.05))
    ],
    "records": [
        product({}, {}, abstained=lambda summary: summary.abstained + 1),
        product({}, {}, mean_samples=lambda summary: summary.mean_samples - 1),
    ],
}


@pytest.mark.parametrize("check, wrong", [(check, one) for check, wrong in WRONG.items() for one in wrong])
def test_whatever_the_product_derives_wrongly_is_found(original, monkeypatch, check, wrong):
    monkeypatch.setattr("certmix.verification.figures.evaluate", wrong)
    assert check in failing(original)


@pytest.mark.parametrize("certificate", ["lipschitz-constant", "margin"])
def test_a_wrong_radius_without_samples_is_found(lipschitz, named, tmp_path, monkeypatch, certificate):
    run = lipschitz
    if certificate == "margin":
        run = certified(tmp_path / "margin", named, None, certificates=["margin"], norm="linf", images=6)

    def wrong(*given: Any) -> Any:
        found = stored_outcomes(*given)
        radii = found.radii[1]
        return replace(found, radii=(found.radii[0], replace(radii, radius=radii.radius + 1e-6)))

    monkeypatch.setattr("certmix.verification.figures.stored_outcomes", wrong)
    assert "radii" in failing(run)


def tampered_vectors(run: Path, cell: str, index: int, edit: Callable[[np.ndarray], None]) -> None:
    def edited(values):
        edit(values)
        return values

    edit_vectors(run, cell, edited, [index])


def test_tampering_with_a_lipschitz_run(lipschitz, tmp_path):
    run = copied(lipschitz, tmp_path / "a")
    tampered_vectors(run, "robust logits", 0, lambda z: z.__setitem__(0, z[0] + 1))
    assert "robust model logits" in failing(run)
    tampered_vectors(run, "robust logits", 0, lambda z: z.__setitem__(0, np.nan))
    assert "logits" in failing(run)
    other = copied(lipschitz, tmp_path / "b")
    sql(other, "DELETE FROM cells WHERE cell LIKE 'standard logits %' AND idx = 0")
    assert failing(other) == {}  # g lacks an answer: its shares are unknown, and so the product says


@pytest.mark.parametrize("change", [(0.1, 2.0), (-0.1, 0.0), (99.0, 2.0), (0.01, 0.0)])
def test_margins_that_cannot_be(named, tmp_path, change):
    run = certified(tmp_path / "run", named, None, certificates=["margin"], norm="linf", images=6)
    cell = "margin, alpha 0.76"
    flat = next(
        index for index, raw in sql(run, "SELECT idx, data FROM cells WHERE cell = ?", cell)
        if np.frombuffer(raw, "<f8")[0] == 0
    )  # fmt: skip
    tampered_vectors(run, cell, flat, lambda v: v.__setitem__(slice(0, 2), change))
    assert about(run, "radii").images == (flat,)


def test_what_cannot_be_loaded_is_unchecked(run):
    edit_json(
        run / "run.json", lambda d: d["sources"].update(data="/nowhere/points.npz", robust="/nowhere.py:net")
    )
    results = {r.check: r.outcome for r in rederive(run)}
    assert Outcome.FAILS not in results.values()
    assert {check for check, outcome in results.items() if outcome is Outcome.UNCHECKED} == {
        "data checksum", "robust model checksum", "robust model logits", "standard model logits", "labels",
        "input checksums", "images",
    }  # fmt: skip


@pytest.mark.parametrize(
    "break_it",
    [
        lambda run: (run / "run.json").write_text("{"),
        lambda run: (run / "run.json").write_text("[]"),
        lambda run: edit_json(run / "run.json", lambda d: d.pop("models")),
        lambda run: edit_json(run / "run.json", lambda d: d.update(format_version=99)),
        lambda run: edit_json(run / "run.json", lambda d: d["request"].update(alpha="much")),
        lambda run: edit_json(run / "run.json", lambda d: d["sources"].update(nonsense=1)),
        lambda run: (run / "numbers.sqlite").unlink(),
        lambda run: (run / "numbers.sqlite").write_bytes(b"not a database" * 100),
        lambda run: sql(run, "UPDATE cells SET data = x'00' WHERE idx = 0 AND cell = 'selection'"),
        lambda run: edit_vectors(run, "votes@100", lambda votes: votes[:-1], [0]),
        lambda run: edit_vectors(run, "input", lambda numbers: numbers - [9, 0, 0, 0, 0], [0]),
        lambda run: edit_vectors(run, "sampling", lambda numbers: numbers * [1, 1, 0, 1, 1], [0]),
        lambda run: sql(run, "DROP TABLE facts"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(run, break_it: Callable[[Path], object]):
    break_it(run)
    with pytest.raises(RunError) as raised:
        rederive(run)
    assert "\n" not in str(raised.value)


def test_what_is_rechecked_without_models(fixed, lipschitz, named, tmp_path):
    dataset = load(named["data"])
    for original in (fixed, lipschitz):
        found = recheck(original, dataset)
        assert {r.check: r.message for r in found if r.outcome is not Outcome.HOLDS} == {}
    run = copied(fixed, tmp_path / "a")
    edit_counts(run, lambda selection, estimation: estimation["400"].update({"0": 401}))
    assert {"counts"} <= {r.check for r in recheck(run, dataset) if r.outcome is Outcome.FAILS}
    edit_json(run / "run.json", lambda d: d.pop("request"))
    assert recheck(run, dataset) == []
