"""Deriving runs again: an untouched run passes every check, and each kind of tampering fails one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forged import (
    certified,
    copied,
    edit_counts,
    edit_json,
    edit_log,
    edit_record,
    edit_vectors,
    inflate,
    products,
    records,
    sources,
    sql,
)

from certmix.data import load
from certmix.errors import RunError
from certmix.verification.checks import Outcome
from certmix.verification.rederivation.rederive import recheck, rederive


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
    assert len({r.check for r in results}) == len(results) >= 16


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


def test_votes_that_were_moved_between_classes(fixed, tmp_path):
    run = copied(fixed, tmp_path / "run")

    def edit(selection, estimation):
        votes = estimation["400"]
        for label in [k for k in votes if k != "0"]:
            votes["0"] += votes.pop(label)

    edit_counts(run, edit, [index for index, record in records(run).items() if record.label == 0][:2])
    assert {"radii", "mean radii"} <= set(failing(run))


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


@pytest.mark.parametrize("change", [1e-6, 0.05, -0.05])
def test_a_radius_in_the_log(run, change):
    def edit(lines):
        cells = [line.split("\t") for line in lines]
        row = next(row for row in cells if float(row[3]) > 0.1)
        row[3] = f"{float(row[3]) + change:.6f}"
        return ["\t".join(row) for row in cells]

    edit_log(run, "records.tsv", edit)
    assert ("exceeds" if change > 0 else "below") in failing(run)["radii"]


def test_a_bound_in_the_log(run):
    """A log that calls its bound one-sided would be read as q = 1 - p."""
    edit_log(
        run, "records.tsv", lambda lines: [line.rpartition("\t")[0] + "\tbeta-binomial" for line in lines]
    )
    assert "bound 'beta-binomial'" in failing(run)["records"]


def test_an_abstention_that_became_a_prediction(run):
    at = min(index for index, record in records(run).items() if len(record.estimation) < 2)

    def edit(lines):
        cells = [line.split("\t") for line in lines]
        return ["\t".join([*row[:2], row[1], *row[3:]] if int(row[0]) == at else row) for row in cells]

    edit_log(run, "records.tsv", edit)
    assert "records" in failing(run)


@pytest.mark.parametrize(
    "path, check",
    [
        (("rows", 1, "certified_accuracy", 1), "certified accuracy"),
        (("rows", 0, "interval", 0, 0), "intervals"),
        (("rows", 2, "mean_certified_radius"), "mean radii"),
        (("clean_accuracy", "mixed"), "clean accuracy"),
        (("abstained",), "records"),
        (("mean_samples",), "records"),
    ],
)
def test_a_cell_of_the_table(run, path, check):
    def edit(table):
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = table[path[-1]] + 0.1 if table[path[-1]] < 0.9 else table[path[-1]] - 0.1

    for table in products(run, "certified-accuracy.json"):
        edit_json(table, edit)
    found = failing(run)
    assert check in found
    assert "printed tables" in found or path[0] in ("abstained", "mean_samples")


def test_a_printed_table_that_rounds_in_its_favour(run):
    for table in products(run, "certified-accuracy.md"):
        text = table.read_text()
        assert "mean radius" in text
        table.write_text(text.replace(" 0.0 [0.0, ", " 0.1 [0.0, ", 1))
    assert set(failing(run)) == {"printed tables"}


def test_sigma(run):
    edit_json(run / "run.json", lambda d: d["request"].update(sigma=0.5))
    assert {"identity", "published requests"} <= set(failing(run))
    edit_json(run / "run.json", lambda d: d["identity"].update(sigma=0.5))
    assert {"published requests"} <= set(failing(run))


def test_sigma_everywhere(run):
    """All copies of sigma agree: the digests and the radii still tell."""
    edit_json(run / "run.json", lambda d: (d["request"].update(sigma=0.5), d["identity"].update(sigma=0.5)))
    for table in products(run, "certified-accuracy.json"):
        edit_json(table, lambda t: t.update(sigma=0.5))
    assert {"published requests", "radii", "mean radii"} <= set(failing(run))


def test_a_label(run):
    at = first_image(run)
    edit_record(run, at, label=(records(run)[at].label + 1) % 3)
    found = about(run, "labels")
    assert found.outcome is Outcome.FAILS and found.images == (at,)
    assert {"labels", "records"} <= set(failing(run))


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


def test_stored_outputs_of_the_standard_model(run):
    [cell] = [name for (name,) in sql(run, "SELECT DISTINCT cell FROM cells WHERE cell GLOB 'standard *'")]
    edit_vectors(run, cell, lambda row: np.array([0.2, 0.8, 0.0]), [first_image(run)])
    assert "standard model logits" in failing(run)


def test_a_dropped_image(run):
    sql(run, "DELETE FROM cells WHERE idx = 0 AND cell NOT GLOB 'standard *'")
    assert "images" in failing(run)
    edit_log(run, "records.tsv", lambda lines: [line for line in lines if not line.startswith("0\t")])
    assert "images" in failing(run)
    for table in products(run, "certified-accuracy.json"):
        edit_json(table, lambda t: t.update(images=t["images"] - 1))
    assert "complete with" in failing(run)["images"]


def test_an_extra_image(run):
    extra = next(index for index in range(12) if index not in records(run))
    sql(run, "INSERT INTO cells SELECT cell, ?, dtype, data FROM cells WHERE idx = 0", extra)
    assert about(run, "stored images").images == (extra,)
    edit_log(run, "records.tsv", lambda lines: [*lines, f"{extra}\t" + lines[0].split("\t", 1)[1]])
    assert {"stored images", "images"} <= set(failing(run))


def test_the_failure_probability(run):
    edit_json(run / "run.json", lambda d: d["request"].update(failure_probability=0.1))
    assert "failure budget" in failing(run)
    edit_json(
        run / "run.json", lambda d: d["failure_budget"].update(failure_probability=0.1, split={"p": 0.1})
    )
    assert "failure budget" not in failing(run)
    for table in products(run, "certified-accuracy.json"):
        edit_json(table, lambda t: t.update(failure_probability=0.1))
    assert {"published requests", "radii", "mean radii"} <= set(failing(run))


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


def test_a_seed(run):
    edit_json(run / "run.json", lambda d: (d["request"].update(seed=5), d["identity"].update(seed=5)))
    assert "published requests" in failing(run)
    for table in products(run, "certified-accuracy.json"):
        edit_json(table, lambda t: t.update(seed=5))
    assert "published requests" in failing(run)


def test_the_digest_in_the_folders_name(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    certified(Path("run"), named, images=3, samples=200)
    digest = about(Path("run"), "identity digest").message[:8]
    kept = copied(Path("run"), tmp_path / f"points-nets-sigma0.25-seed0-{digest}")
    assert about(kept, "identity digest").outcome is Outcome.HOLDS
    moved = copied(Path("run"), tmp_path / "points-nets-sigma0.25-seed0-00000000")
    assert about(moved, "identity digest").outcome is Outcome.FAILS


def test_an_interrupted_request_is_unchecked_not_refuted(run):
    edit_json(run / "run.json", lambda d: d["request"].update(alpha=0.8))
    assert failing(run) == {}
    assert about(run, "newest products").outcome is Outcome.UNCHECKED


def test_what_cannot_be_loaded_is_unchecked(run):
    edit_json(
        run / "run.json", lambda d: d["sources"].update(data="/nowhere/points.npz", robust="/nowhere.py:net")
    )
    results = {r.check: r.outcome for r in rederive(run)}
    assert Outcome.FAILS not in results.values()
    unknown = {
        "data checksum",
        "robust model checksum",
        "robust model logits",
        "standard model logits",
        "labels",
        "input checksums",
        "images",
        "stored images",
    }
    assert {check for check, outcome in results.items() if outcome is Outcome.UNCHECKED} == unknown


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
        lambda run: products(run, "certified-accuracy.json")[1].write_text("{}"),
        lambda run: products(run, "records.tsv")[1].write_text("idx\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(run, break_it: Callable[[Path], object]):
    break_it(run)
    with pytest.raises(RunError) as raised:
        rederive(run)
    assert "\n" not in str(raised.value)


def tampered_vectors(run: Path, cell: str, index: int, edit: Callable[[np.ndarray], None]) -> None:
    def edited(values):
        edit(values)
        return values

    edit_vectors(run, cell, edited, [index])


def test_tampering_with_a_lipschitz_run(named, tmp_path):
    run = certified(
        tmp_path / "run", named, None, certificates=["lipschitz-constant"], lipschitz_constant=6.0, norm="l2"
    )
    tampered_vectors(copied(run, tmp_path / "a"), "robust logits", 0, lambda z: z.__setitem__(0, z[0] + 1))
    assert "radii" in failing(tmp_path / "a")
    edit_log(
        copied(run, tmp_path / "b"), "radii.tsv",
        lambda lines: [lines[0][:-1] + "9", *lines[1:-1], "\t".join([*lines[-1].split("\t")[:-1], "0.3"])],
    )  # fmt: skip
    assert "radii" in failing(tmp_path / "b")
    edit_json(copied(run, tmp_path / "c") / "run.json", lambda d: d["request"].update(lipschitz_constant=3.0))
    assert about(tmp_path / "c", "newest products").outcome is Outcome.UNCHECKED
    for path in products(copied(run, tmp_path / "d"), "certified-accuracy.json"):
        path.write_text(path.read_text().replace("verified: 6 is", "verified: 12 is"))
    assert {"published requests", "radii"} <= set(failing(tmp_path / "d"))
    sql(copied(run, tmp_path / "e"), "DELETE FROM cells WHERE idx = 0")
    assert "images" in failing(tmp_path / "e")


def test_tampering_with_a_margin_run(named, tmp_path):
    run = certified(tmp_path / "run", named, None, certificates=["margin"], norm="linf")
    edit_log(copied(run, tmp_path / "a"), "radii.tsv", lambda lines: [lines[0][:-6], *lines[1:]])
    assert "radii" in failing(tmp_path / "a")
    flat = next(
        index for index, raw in sql(run, "SELECT idx, data FROM cells WHERE cell = 'margin, alpha 0.76'")
        if np.frombuffer(raw, "<f8")[0] == 0
    )  # fmt: skip
    other = copied(run, tmp_path / "b")
    tampered_vectors(other, "margin, alpha 0.76", flat, lambda v: v.__setitem__(slice(0, 2), [0.1, 2.0]))
    assert "with a clean margin of" in failing(other)["radii"]


@pytest.fixture(scope="module")
def lipschitz(named, tmp_path_factory) -> Path:
    """Two tables of one run without samples."""
    run = tmp_path_factory.mktemp("runs") / "lipschitz"
    for alpha in (0.9, 0.76):
        certified(
            run, named, None, alpha=alpha, certificates=["lipschitz-constant"], lipschitz_constant=6.0,
            norm="l2", images=6,
        )  # fmt: skip
    return run


@pytest.mark.parametrize("which", [0, 1])
def test_labels_of_every_log_are_those_of_the_data(lipschitz, tmp_path, which):
    run = copied(lipschitz, tmp_path / "run")
    assert failing(run) == {}
    log = sorted(run.glob("results/*/radii.tsv"))[which]
    lines = log.read_text().splitlines()
    cells = lines[1].split("\t")
    cells[1] = str((int(cells[1]) + 1) % 3)
    log.write_text("\n".join([lines[0], "\t".join(cells), *lines[2:]]) + "\n")
    found = about(run, "labels")
    assert found.outcome is Outcome.FAILS
    assert found.images == (int(cells[0]),)


def left_out(run: Path, log: str, index: int) -> None:
    """Drop an image from every table, and call them partial."""
    edit_log(run, log, lambda lines: [line for line in lines if not line.startswith(f"{index}\t")])
    for table in products(run, "certified-accuracy.json"):
        edit_json(table, lambda t: t.update(images=t["images"] - 1, complete=False))


@pytest.mark.parametrize("kind", ["fixed", "lipschitz"])
def test_a_partial_table_that_leaves_out_a_finished_image(request, tmp_path, kind):
    run = copied(request.getfixturevalue(kind), tmp_path / "run")
    left_out(run, "records.tsv" if kind == "fixed" else "radii.tsv", 0)
    assert "left out" in failing(run)["images"]
    assert about(run, "images").images[0] == 0


def test_a_share_of_the_images_does_not_pass_as_a_whole_run(named, tmp_path):
    run = certified(tmp_path / "run", named, images=4, samples=200, goal="fixed", shard="1/2")
    assert failing(run) == {}
    found = about(run, "images")
    assert found.outcome is Outcome.UNCHECKED
    assert found.message.startswith("partial: 2 of 4 images")


@pytest.mark.parametrize("kind", ["fixed", "lipschitz"])
@pytest.mark.parametrize("field", ["data", "robust", "standard", "norm"])
def test_names_in_a_table_are_those_of_the_run(request, tmp_path, kind, field):
    run = copied(request.getfixturevalue(kind), tmp_path / "run")
    for table in products(run, "certified-accuracy.json"):
        edit_json(table, lambda t: t.update({field: "l1" if field == "norm" else "another"}))
    if (kind, field) == ("lipschitz", "norm"):
        with pytest.raises(RunError, match="another norm"):
            rederive(run)
    else:
        assert "published requests" in failing(run)


def test_a_missing_row_of_standard_logits_hides_no_clean_accuracy(lipschitz, tmp_path):
    run = copied(lipschitz, tmp_path / "run")
    sql(run, "DELETE FROM cells WHERE cell LIKE 'standard logits %' AND idx = 0")
    assert set(failing(run)) == {"clean accuracy"}


def test_what_is_rechecked_without_models(fixed, lipschitz, named, tmp_path):
    dataset = load(named["data"])
    for original in (fixed, lipschitz):
        found = recheck(original, dataset)
        assert {r.check: r.message for r in found if r.outcome is not Outcome.HOLDS} == {}
    run = copied(fixed, tmp_path / "a")
    edit_counts(run, lambda selection, estimation: inflate(estimation["400"]))
    assert {"radii"} <= {r.check for r in recheck(run, dataset) if r.outcome is Outcome.FAILS}
    edit_json(run / "run.json", lambda d: d.pop("request"))
    assert [r.outcome for r in recheck(run, dataset)] == [Outcome.FAILS]


def test_results_are_plain_data(original):
    for result in rederive(original):
        assert json.loads(json.dumps(result.as_dict()))["check"] == result.check
        assert "\n" not in result.message
