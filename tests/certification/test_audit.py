"""What is said of stored sources before they are trusted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from forged import edit_record, records

from certmix.bounds import bound_counts, clopper_pearson
from certmix.certification.analysis.audit import (
    Audit,
    audit,
    ceiling,
    failure_probability_at,
    find_saturation,
)
from certmix.errors import ParameterError
from certmix.radii import exact_radius
from certmix.runs.logs import HEADER, read_log, write_log

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"
Row = tuple[int, int, int, str]


def write(path: Path, rows: list[Row], correct: list[int] | None = None, end: str = "\n") -> Path:
    """Write (idx, label, predict, radius) as a log."""
    marks = [int(label == guess) for _, label, guess, _ in rows] if correct is None else correct
    lines = [f"{i}\t{y}\t{g}\t{r}\t{mark}\t14.1" for (i, y, g, r), mark in zip(rows, marks, strict=True)]
    path.write_text("\n".join([HEADER, *lines]) + end)
    return path


def simulated(sigma: float, samples: int, delta: float, inputs: int = 500) -> list[Row]:
    """Rows of a log that was made as its numbers say; one input in five is unanimous."""
    rng = np.random.default_rng(1)
    votes = np.where(rng.random(inputs) < 0.2, samples, rng.binomial(samples, 0.6 + 0.4 * rng.random(inputs)))
    p = clopper_pearson.lower_bound(votes, samples, delta)
    radii = exact_radius(p, 1 - p, sigma, 1.0)
    return [(20 * i, 1, 1 if r > 0 else -1, f"{r:.3}") for i, r in enumerate(radii)]


def checks(found: Audit) -> dict[str, bool]:
    """Whether each check's finding changes a table; every finding ends with what to do."""
    assert all(finding.remedy and finding.remedy[-1] not in ".;" for finding in found.findings)
    names = [finding.check for finding in found.findings]
    return {name: any(one.changes_table for one in found.findings if one.check == name) for name in names}


def test_the_ceiling_and_the_failure_probability_are_inverse():
    assert ceiling(0.5, 100_000, 0.001) == pytest.approx(0.5 * 3.811, abs=5e-4)
    for samples, delta in ((1000, 0.001), (100_000, 0.01), (100, 0.2)):
        assert failure_probability_at(ceiling(1.0, samples, delta), samples) == pytest.approx(delta, rel=1e-9)
        votes = clopper_pearson.lower_bound(samples, samples, delta)
        assert ceiling(2.0, samples, delta) == pytest.approx(float(exact_radius(votes, 1 - votes, 2.0, 1.0)))


@pytest.mark.parametrize(
    "samples, delta", [(100_000, 0.001), (10_000, 0.05), (1000, 0.001), (100_000, 0.0137)]
)
def test_the_effective_failure_probability_is_found_and_one_that_fits_is_proposed(tmp_path, samples, delta):
    path = write(tmp_path / "log", simulated(0.25, samples, delta))
    found = audit(path, sigma=0.25, samples=samples, failure_probability=delta)
    low, high = found.facts["effective_failure_probability"]
    assert low <= delta <= high
    assert not {"failure probability", "ceiling"} & set(checks(found))
    other = audit(path, sigma=0.25, samples=samples, failure_probability=delta / 20)
    assert checks(other)["failure probability"]
    assert checks(other)["ceiling"]
    (finding,) = [one for one in other.findings if one.check == "failure probability"]
    proposed = float(finding.remedy.split("--failure-probability ")[1].split(",")[0])
    fits = audit(path, sigma=0.25, samples=samples, failure_probability=proposed)
    assert "failure probability" not in checks(fits)


def test_without_a_pile_up_at_the_top_nothing_is_inferred(tmp_path):
    rows = [row for row in simulated(0.25, 100_000, 0.001) if float(row[3]) < 0.95]
    found = audit(write(tmp_path / "log", rows), sigma=0.25)
    assert found.facts["effective_failure_probability"] is None
    assert checks(found)["failure probability"] is False
    close = [(k, 1, 1, f"{0.6 + 0.001 * (k // 3):.3}") for k in range(30)]
    assert find_saturation(read_log(write(tmp_path / "close", close))) is None
    alone = [row for row in close if row[3] in ("0.609", "0.6")]
    assert find_saturation(read_log(write(tmp_path / "alone", alone))).rows == 3


def test_a_sigma_that_does_not_fit(tmp_path):
    path = write(tmp_path / "log", simulated(0.25, 100_000, 0.001))
    for sigma in (0.12, 0.3, 1.0):
        found = audit(path, sigma=sigma)
        assert checks(found)["sigma"]
        (message,) = [finding.message for finding in found.findings if finding.check == "sigma"]
        assert f"cannot be those of sigma = {sigma:g}, sigma = 0.25 would fit" in message
        assert found.facts["effective_failure_probability"] is None
    assert "sigma" not in checks(audit(path, sigma=0.25))
    sound = audit(path, sigma=0.25, radii=[0, 0.2501, 0.5001])
    assert not sound.changes_table, sound.findings


GAPS: list[Row] = [(i, 1, 1, "0.3") for i in range(100) if i not in (4, 50)]
FOUR: list[Row] = [(0, 1, 1, "0.3"), (1, 1, 0, "0.3"), (2, 1, 1, "0.3"), (3, 1, 1, "0.3")]
ABOVE: list[Row] = [(0, 1, 1, "0.9"), (1, 1, 1, "0.953"), (2, 1, 1, "0.99"), (3, 1, 0, "1.2")]
AT: list[Row] = [(0, 1, 1, "0.25"), (1, 1, 0, "0.5"), (2, 1, 1, "0.75"), (3, 1, 1, "0.3")]


@pytest.mark.parametrize(
    "rows, log, options, check, changes, inputs, words",
    [
        ([], {}, {}, "rows", True, (), "a header and no rows"),
        (FOUR, {}, {"rows": 6}, "rows", True, (), "2 missing"),
        (GAPS, {}, {}, "rows", True, (), "98 rows of 100"),
        (FOUR, {"end": "\n4\t1\t1"}, {}, "rows", True, (), "cut off"),
        ([*GAPS, (7, 1, 1, "0.3")], {}, {}, "repeated", True, (7, 7), "counts them twice"),
        ([*GAPS, (7, 1, 1, "0.31")], {}, {}, "repeated", True, (7,), "disagree"),
        ([*GAPS, (7, 1, 1, "0.3")], {}, {}, "order", False, (), "joined"),
        (FOUR, {}, {}, "correct", None, (), ""),
        (FOUR, {"correct": [1, 1, 2, 3]}, {}, "correct", True, (1, 2, 3), "running total"),
        (FOUR, {"correct": [1, 1, 1, 1]}, {}, "correct", True, (1,), "contradicts"),
        (AT, {}, {}, "threshold", True, (0, 2), "1 at 0.25, 1 at 0.75"),
        (AT, {}, {"radii": [0.3]}, "threshold", True, (3,), "1 at 0.3"),
        (AT, {}, {"radii": [0, 0.1]}, "threshold", None, (), ""),
        ([(0, 1, -1, "0.3"), (1, 1, 1, "0.0")], {}, {}, "abstentions", False, (0, 1), "taken to abstain"),
        (FOUR, {}, {}, "bound", False, (), "q = 1 - p"),
        (ABOVE, {}, {"sigma": 0.25}, "ceiling", True, (2, 3), "2 radii lie above 0.95"),
        (ABOVE, {}, {"sigma": 0.1}, "ceiling", True, (0, 1, 2, 3), "cannot be those of sigma = 0.1"),
    ],
)  # fmt: skip
def test_findings_of_a_log(tmp_path, rows, log, options, check, changes, inputs, words):
    found = audit(write(tmp_path / "log", rows, **log), **options)
    assert checks(found).get(check) is changes
    assert found.facts["rows"] == len(rows)
    told = [(finding.inputs, finding.message) for finding in found.findings if finding.check == check]
    assert any(about == inputs and words in message for about, message in told) == (changes is not None)


def test_class_counts(tmp_path):
    (tmp_path / "counts").write_text("90 10 0\n50 40 1\n")
    found = audit(tmp_path / "counts")
    assert found.kind == "class counts"
    assert checks(found) == {"samples": True, "selection": False}
    assert found.facts["samples"] == [90, 100]
    assert "rows" in checks(audit(tmp_path / "counts", rows=3))
    (tmp_path / "short").write_text("90 10 0\n50 4")
    assert "cut off" in audit(tmp_path / "short").findings[0].message


def test_stated_numbers_are_checked(tmp_path):
    for options in ({"sigma": -1.0}, {"samples": 0}, {"failure_probability": 1.0}, {"radii": []}):
        with pytest.raises(ParameterError):
            audit(write(tmp_path / "log", FOUR), **options)


def test_an_own_log_has_no_thresholds_and_knows_its_ceiling(tmp_path):
    request = {
        "sigma": 0.5, "alpha": 0.76, "inputs": 2, "samples": 1000, "goal": "fixed", "failure_probability": 0.001,
        "bound": "clopper-pearson", "certificates": ["exact"], "radii": [0.0, 0.25],
    }  # fmt: skip
    run = {"format_version": 2, "request": request, "data": {"inputs": 9, "class_names": ["a", "b"]}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    write_log(tmp_path / "records.tsv", [(1, 0, 0, 0.25, 1.0), (5, 1, 1, 0.5, 1.0)], "clopper-pearson")
    found = audit(tmp_path / "records.tsv")
    assert not found.changes_table
    assert found.facts["ceiling"] == pytest.approx(ceiling(0.5, 1000, 0.001), rel=1e-9)
    write_log(tmp_path / "records.tsv", [(1, 0, 0, 1.25, 1.0)], "clopper-pearson")
    assert checks(audit(tmp_path / "records.tsv")) == {"rows": True, "ceiling": True}
    with pytest.raises(ParameterError, match="drop --sigma"):
        audit(tmp_path / "records.tsv", sigma=0.25)


@pytest.mark.parametrize("bound", ["clopper-pearson-two-sided", "betting", "layers"])
def test_a_bound_that_is_not_one_sided_changes_tables(tmp_path, bound):
    """And nothing is inferred from where its radii pile up: that holds of one-sided bounds."""
    votes = np.array([[1000, 0, 0]] * 5)
    p = bound_counts(votes, np.zeros(5, int), 0.001, "clopper-pearson-two-sided").p_lower
    rows = [(k, 1, 1, r, 1.0) for k, r in enumerate(exact_radius(p, 1 - p, 0.5, 1.0).tolist())]
    write_log(tmp_path / "log.tsv", rows, bound)
    found = audit(tmp_path / "log.tsv", sigma=0.5, samples=1000)
    assert checks(found)["bound"]
    assert "failure probability" not in checks(found)
    assert (found.facts["effective_failure_probability"], found.facts["bound"]) == (None, bound)
    write_log(tmp_path / "log.tsv", rows, "clopper-pearson")
    assert "bound" not in checks(audit(tmp_path / "log.tsv", sigma=0.5))


CIFAR = "gaussian-resnet110-cifar10-sigma"
PUBLISHED = {
    f"{CIFAR}0.25-10000.tsv": (0.25, {"threshold"}),
    f"{CIFAR}0.50-10000.tsv": (0.5, {"threshold"}),
    f"{CIFAR}1.00-10000.tsv": (1.0, {"threshold"}),
    f"{CIFAR}0.25-500.tsv": (0.25, {"failure probability", "ceiling"}),
    f"{CIFAR}0.50-500.tsv": (0.5, {"failure probability", "ceiling", "threshold"}),
    f"{CIFAR}1.00-500.tsv": (1.0, {"threshold"}),
    "gaussian-resnet50-imagenet-sigma0.25-truncated.tsv": (
        0.25, {"rows", "failure probability", "ceiling", "threshold"},
    ),
    "header-only.tsv": (0.25, {"rows"}),
}  # fmt: skip


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_logs(name):
    sigma, expected = PUBLISHED[name]
    found = audit(LOGS / name, sigma=sigma)
    assert {check for check, changes in checks(found).items() if changes} == expected
    low, high = found.facts["effective_failure_probability"] or (0, 1)
    if name.endswith("10000.tsv"):
        assert low <= 0.001 <= high < 0.002
    elif "failure probability" in expected:
        assert 0.0099 < low < 0.01 < high < 0.015
        assert math.isclose(found.facts["largest_radius_in_sigma"], 3.912, rel_tol=3e-3)


# the command line


def test_json_and_exit_codes(command, tmp_path):
    sound = write(tmp_path / "sound.tsv", [(0, 1, 1, "0.3"), (1, 2, -1, "0.0")])
    empty = write(tmp_path / "empty.tsv", [])
    done = command("audit", sound, "--sigma", 0.25, "--format", "json")
    (source,) = json.loads(done.out)["sources"]
    assert (done.code, source["changes_table"], source["facts"]["rows"]) == (0, False, 2)
    both = command("audit", sound, empty, "--sigma", 0.25, "--format", "json")
    assert [one["changes_table"] for one in json.loads(both.out)["sources"]] == [False, True]
    assert both.code == 1
    missing = command("audit", tmp_path / "nothing")
    assert (missing.code, missing.out, missing.err[:7]) == (2, "", "Error: ")


def test_a_run_folder(command, problem):
    options = (*problem.options, "--samples", 400, "--inputs", 5, "--output", "run")
    assert command("certify", *options).code == 0
    sound = command("audit", "run")
    assert sound.code == 0, sound.out
    assert "plots: not looked at; certmix verify run checks them" in sound.out
    assert "(assumed)" not in sound.out
    index = min(records(Path("run")))
    edit_record(Path("run"), index, selection=np.array([0, 0, 99]))
    broken = command("audit", "run")
    assert broken.code == 1
    assert f"do not add up to their number of samples (idx {index})" in broken.out
    log = Path("run/records.tsv")
    log.write_text(log.read_text().replace("\t0.", "\t1.", 1))
    assert "published files: certified-accuracy.json, " in command("audit", "run").out
