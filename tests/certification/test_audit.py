"""What is said of stored sources before they are trusted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from forged import edit_record, records

from certmix.bounds import bound_counts, clopper_pearson
from certmix.certification.audit import audit, ceiling, failure_probability_at, find_saturation
from certmix.errors import CertmixError, ParameterError
from certmix.radii import exact_radius
from certmix.runs.logs import HEADER, read_log, write_log

LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")
NAME = "gaussian-resnet110-cifar10-sigma"


def write(path: Path, *rows: tuple[int, int, int, str], correct: list[int] | None = None) -> Path:
    """Write (idx, label, predict, radius) as a log."""
    marks = [int(label == guess) for _, label, guess, _ in rows] if correct is None else correct
    lines = [f"{i}\t{y}\t{g}\t{r}\t{mark}\t14.1" for (i, y, g, r), mark in zip(rows, marks, strict=True)]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def simulated(sigma: float, samples: int, delta: float, images: int = 500) -> list[tuple[int, int, int, str]]:
    """Rows of a log that was made as its numbers say; one image in five is unanimous."""
    rng = np.random.default_rng(1)
    votes = np.where(rng.random(images) < 0.2, samples, rng.binomial(samples, 0.6 + 0.4 * rng.random(images)))
    p = clopper_pearson.lower_bound(votes, samples, delta)
    radii = exact_radius(p, 1 - p, sigma, 1.0)
    return [(20 * i, 1, 1 if r > 0 else -1, f"{r:.3}") for i, r in enumerate(radii)]


def checks(found) -> dict[str, bool]:
    return {finding.check: finding.changes_table for finding in found.findings}


def test_the_ceiling_and_the_failure_probability_are_inverse():
    assert ceiling(0.5, 100_000, 0.001) == pytest.approx(0.5 * 3.811, abs=5e-4)
    for samples, delta in ((1000, 0.001), (100_000, 0.01), (100, 0.2)):
        assert failure_probability_at(ceiling(1.0, samples, delta), samples) == pytest.approx(delta, rel=1e-9)
        votes = clopper_pearson.lower_bound(samples, samples, delta)
        assert ceiling(2.0, samples, delta) == pytest.approx(float(exact_radius(votes, 1 - votes, 2.0, 1.0)))


@pytest.mark.parametrize("samples, delta", [(100_000, 0.001), (100_000, 0.01), (10_000, 0.05), (1000, 0.001)])
def test_the_effective_failure_probability_is_found(tmp_path, samples, delta):
    path = write(tmp_path / "log", *simulated(0.25, samples, delta))
    found = audit(path, sigma=0.25, samples=samples, failure_probability=delta)
    low, high = found.facts["effective_failure_probability"]
    assert low <= delta <= high
    assert "failure probability" not in checks(found)
    assert "ceiling" not in checks(found)
    other = audit(path, sigma=0.25, samples=samples, failure_probability=delta / 20)
    assert checks(other)["failure probability"]
    assert checks(other)["ceiling"]


def test_without_a_pile_up_nothing_is_inferred(tmp_path):
    rows = [row for row in simulated(0.25, 100_000, 0.001) if float(row[3]) < 0.95]
    log = write(tmp_path / "log", *rows)
    assert find_saturation(read_log(log)) is None
    assert audit(log, sigma=0.25).facts["effective_failure_probability"] is None
    assert checks(audit(log, sigma=0.25))["failure probability"] is False


def test_equal_radii_without_a_gap_below_are_no_pile_up(tmp_path):
    rows = [(k, 1, 1, f"{0.6 + 0.001 * (k // 3):.3}") for k in range(30)]
    assert find_saturation(read_log(write(tmp_path / "log", *rows))) is None
    alone = [row for row in rows if row[3] in ("0.609", "0.6")]
    assert find_saturation(read_log(write(tmp_path / "alone", *alone))).rows == 3


@pytest.mark.parametrize("sigma", [0.12, 0.2, 0.3, 0.5, 1.0])
def test_a_sigma_that_does_not_fit(tmp_path, sigma):
    path = write(tmp_path / "log", *simulated(0.25, 100_000, 0.001))
    found = audit(path, sigma=sigma)
    assert checks(found)["sigma"]
    assert any("sigma = 0.25 would fit" in finding.message for finding in found.findings)
    assert any(f"cannot be those of sigma = {sigma:g}" in finding.message for finding in found.findings)
    assert found.facts["effective_failure_probability"] is None
    assert "sigma" not in checks(audit(path, sigma=0.25))


def test_radii_above_the_ceiling_are_named(tmp_path):
    path = write(tmp_path / "log", (0, 1, 1, "0.9"), (1, 1, 1, "0.953"), (2, 1, 1, "0.99"), (3, 1, 0, "1.2"))
    (found,) = [f for f in audit(path, sigma=0.25).findings if f.check == "ceiling"]
    assert found.images == (2, 3)
    assert found.count == 2


def test_missing_and_repeated_rows(tmp_path):
    rows = [(i, 1, 1, "0.3") for i in range(100) if i not in (4, 50)]
    found = audit(write(tmp_path / "gaps", *rows), sigma=0.25)
    assert checks(found)["rows"]
    assert found.facts["expected_rows"] == 100
    again = audit(write(tmp_path / "again", *rows, (7, 1, 1, "0.3")), sigma=0.25)
    assert checks(again)["repeated"]
    assert checks(again)["order"] is False
    clash = audit(write(tmp_path / "clash", *rows, (7, 1, 1, "0.31")), sigma=0.25)
    assert any("disagree" in finding.message for finding in clash.findings)
    assert "rows" in checks(audit(write(tmp_path / "few", *rows[:4]), sigma=0.25, rows=6))


def test_a_log_that_was_cut_off(tmp_path):
    path = write(tmp_path / "log", (0, 1, 1, "0.3"), (1, 1, 1, "0.3"))
    path.write_text(path.read_text() + "2\t1\t1")
    assert any("cut off" in finding.message and finding.changes_table for finding in audit(path).findings)


def test_header_only(tmp_path):
    found = audit(write(tmp_path / "log"), sigma=0.25)
    assert checks(found) == {"rows": True}
    assert found.facts["rows"] == 0


def test_the_column_correct(tmp_path):
    rows = [(0, 1, 1, "0.3"), (1, 1, 0, "0.3"), (2, 1, 1, "0.3"), (3, 1, 1, "0.3")]
    assert "correct" not in checks(audit(write(tmp_path / "fine", *rows)))
    running = audit(write(tmp_path / "running", *rows, correct=[1, 1, 2, 3]))
    assert any("running total" in finding.message and finding.changes_table for finding in running.findings)
    wrong = audit(write(tmp_path / "wrong", *rows, correct=[1, 1, 1, 1]))
    assert any("contradicts" in finding.message and finding.images == (1,) for finding in wrong.findings)


def test_rows_at_a_threshold(tmp_path):
    path = write(tmp_path / "log", (0, 1, 1, "0.25"), (1, 1, 0, "0.5"), (2, 1, 1, "0.75"), (3, 1, 1, "0.3"))
    (found,) = [f for f in audit(path).findings if f.check == "threshold"]
    assert found.images == (0, 2)
    assert found.changes_table
    (other,) = [f for f in audit(path, radii=[0.3]).findings if f.check == "threshold"]
    assert other.images == (3,)
    assert "threshold" not in checks(audit(path, radii=[0, 0.1]))


def test_a_sound_log_has_nothing_that_changes_a_table(tmp_path):
    rows = simulated(0.25, 100_000, 0.001)
    found = audit(write(tmp_path / "log", *rows), sigma=0.25, radii=[0, 0.2501, 0.5001])
    assert not found.changes_table, found.findings


def test_odd_abstentions(tmp_path):
    found = audit(write(tmp_path / "log", (0, 1, -1, "0.3"), (1, 1, 1, "0.0")))
    assert checks(found)["abstentions"] is False


def test_class_counts(tmp_path):
    (tmp_path / "counts").write_text("90 10 0\n50 40 1\n")
    found = audit(tmp_path / "counts")
    assert found.kind == "class counts"
    assert checks(found) == {"samples": True, "selection": False}
    assert found.facts["samples"] == [90, 100]
    assert "rows" in checks(audit(tmp_path / "counts", rows=3))


def test_stated_numbers_are_checked(tmp_path):
    path = write(tmp_path / "log", (0, 1, 1, "0.3"))
    for options in ({"sigma": -1.0}, {"samples": 0}, {"failure_probability": 1.0}, {"radii": []}):
        with pytest.raises(ParameterError):
            audit(path, **options)
    with pytest.raises(CertmixError):
        audit(tmp_path / "nothing")


def test_an_own_log_has_no_thresholds_and_knows_its_ceiling(tmp_path):
    request = {
        "sigma": 0.5, "alpha": 0.76, "images": 2, "samples": 1000, "goal": "fixed", "failure_probability": 0.001,
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


@pytest.mark.parametrize("bound", ["clopper-pearson-two-sided", "betting", "layers"])
def test_a_bound_that_is_not_one_sided_changes_tables(tmp_path, bound):
    """And nothing is inferred from where its radii pile up: that holds of one-sided bounds."""
    p = bound_counts(
        np.array([[1000, 0, 0]] * 5), np.zeros(5, int), 0.001, "clopper-pearson-two-sided"
    ).p_lower
    radii = exact_radius(p, 1 - p, 0.5, 1.0).tolist()
    write_log(tmp_path / "log.tsv", [(k, 1, 1, r, 1.0) for k, r in enumerate(radii)], bound)
    found = audit(tmp_path / "log.tsv", sigma=0.5, samples=1000)
    assert checks(found)["bound"]
    assert "failure probability" not in checks(found)
    assert found.facts["effective_failure_probability"] is None
    assert found.facts["bound"] == bound
    write_log(tmp_path / "log.tsv", [(k, 1, 1, r, 1.0) for k, r in enumerate(radii)], "clopper-pearson")
    assert "bound" not in checks(audit(tmp_path / "log.tsv", sigma=0.5))


def test_a_log_that_names_no_bound_is_said_to_be_taken_as_one_sided(tmp_path):
    found = audit(write(tmp_path / "log", (0, 1, 1, "0.3")), sigma=0.25)
    assert not checks(found)["bound"]
    assert any("q = 1 - p" in finding.message for finding in found.findings)


PUBLISHED = {
    f"{NAME}0.25-10000.tsv": (0.25, {"threshold"}),
    f"{NAME}0.50-10000.tsv": (0.5, {"threshold"}),
    f"{NAME}1.00-10000.tsv": (1.0, {"threshold"}),
    f"{NAME}0.25-500.tsv": (0.25, {"failure probability", "ceiling"}),
    f"{NAME}0.50-500.tsv": (0.5, {"failure probability", "ceiling", "threshold"}),
    f"{NAME}1.00-500.tsv": (1.0, {"threshold"}),
    "gaussian-resnet50-imagenet-sigma0.25-truncated.tsv": (
        0.25, {"rows", "failure probability", "ceiling", "threshold"},
    ),
    "header-only.tsv": (0.25, {"rows"}),
}  # fmt: skip


@needs_logs
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_logs(name):
    sigma, expected = PUBLISHED[name]
    found = audit(LOGS / name, sigma=sigma)
    assert {finding.check for finding in found.findings if finding.changes_table} == expected
    low, high = found.facts["effective_failure_probability"] or (0, 1)
    if name.endswith("10000.tsv"):
        assert low <= 0.001 <= high < 0.002
    elif "failure probability" in expected:
        assert 0.0099 < low < 0.01 < high < 0.015
        assert math.isclose(found.facts["largest_radius_in_sigma"], 3.912, rel_tol=3e-3)


def test_every_finding_ends_with_what_to_do(command, tmp_path):
    rows = simulated(0.25, 100_000, 0.01)
    paths = [
        write(tmp_path / "empty"), write(tmp_path / "low", *rows),
        write(tmp_path / "gaps", *[(i, 1, 1, "0.25") for i in range(100) if i != 7], (4, 1, 1, "0.25")),
        write(tmp_path / "odd", (0, 1, -1, "0.3"), (1, 1, 1, "9.0"), (1, 1, 1, "8.0"), correct=[1, 2, 3]),
    ]  # fmt: skip
    (tmp_path / "cut").write_text(paths[2].read_text() + "100\t1\t1")
    (tmp_path / "counts").write_text("90 10 0\n50 40 1\n")
    (tmp_path / "short").write_text("90 10 0\n50 4")
    found = [audit(path, sigma=0.25) for path in (*paths, tmp_path / "cut")]
    found += [audit(paths[3]), audit(tmp_path / "counts", rows=3), audit(tmp_path / "short")]
    findings = [finding for one in found for finding in one.findings]
    assert {finding.check for finding in findings} == {
        "rows", "order", "repeated", "sigma", "failure probability", "ceiling", "correct", "threshold",
        "abstentions", "samples", "selection", "bound",
    }  # fmt: skip
    for finding in findings:
        assert finding.remedy
        assert finding.remedy[-1] not in ".;"
    lines = command("audit", paths[1], "--sigma", 0.25).out.splitlines()
    marked = [line for line in lines if line.startswith(("!", "-"))]
    remedies = [finding.remedy for finding in audit(paths[1], sigma=0.25).findings]
    assert [line.endswith(f"; {text}") for line, text in zip(marked, remedies, strict=True)] == [True] * len(
        marked
    )


@pytest.mark.parametrize("delta", [0.01, 0.0137, 0.2])
def test_the_failure_probability_that_is_proposed_is_one_that_fits(tmp_path, delta):
    path = write(tmp_path / "log", *simulated(0.25, 100_000, delta))
    (finding,) = [one for one in audit(path, sigma=0.25).findings if one.check == "failure probability"]
    proposed = float(finding.remedy.split("--failure-probability ")[1].split(",")[0])
    assert "failure probability" not in checks(audit(path, sigma=0.25, failure_probability=proposed))


def test_radii_far_above_the_ceiling_are_not_those_of_this_sigma(tmp_path):
    path = write(tmp_path / "log", (0, 1, 1, "3.56"), (1, 1, 1, "3.2"), (2, 1, 1, "0.4"))
    (found,) = [one for one in audit(path, sigma=0.25).findings if one.check == "ceiling"]
    assert "cannot be those of sigma = 0.25" in found.message
    assert found.remedy == "give the log's own --sigma"
    (near,) = [one for one in audit(path, sigma=0.9).findings if one.check == "ceiling"]
    assert "cannot" not in near.message


# the command line


def test_what_is_assumed_of_a_log_is_marked(command, tmp_path):
    log = write(tmp_path / "log.tsv", (0, 1, 1, "0.3"), (1, 2, -1, "0.0"))
    lines = command("audit", log, "--samples", 1000).out.splitlines()
    assert "  samples: 1,000" in lines
    assert "  failure probability: 0.001 (assumed)" in lines
    lines = command("audit", log, "--failure-probability", 0.001).out.splitlines()
    assert "  samples: 100,000 (assumed)" in lines
    assert "  failure probability: 0.001" in lines


def test_help_says_what_checks_published_tables(command):
    shown = command("audit", "--help").out
    assert "checked by certmix verify RUN" in " ".join(shown.split())


def test_json_and_exit_codes(command, tmp_path):
    sound = write(tmp_path / "sound.tsv", (0, 1, 1, "0.3"), (1, 2, -1, "0.0"))
    done = command("audit", sound, "--sigma", 0.25, "--format", "json")
    assert done.code == 0, done.err
    (source,) = json.loads(done.out)["sources"]
    assert source["changes_table"] is False
    assert source["facts"]["rows"] == 2
    empty = write(tmp_path / "empty.tsv")
    both = command("audit", sound, empty, "--sigma", 0.25, "--format", "json")
    assert both.code == 1
    assert [one["changes_table"] for one in json.loads(both.out)["sources"]] == [False, True]
    text = command("audit", empty)
    assert text.code == 1
    assert "! rows: the log holds a header and no rows" in text.out
    missing = command("audit", tmp_path / "nothing")
    assert (missing.code, missing.out) == (2, "")
    assert missing.err.startswith("Error: ")


def test_a_run_folder(command, problem):
    options = (*problem.options, "--samples", 400, "--images", 5, "--output", "run")
    assert command("certify", *options).code == 0
    sound = command("audit", "run")
    assert sound.code == 0, sound.out
    assert "published tables: not looked at; certmix verify run checks them" in sound.out
    assert "(assumed)" not in sound.out
    index = min(records(Path("run")))
    edit_record(Path("run"), index, selection=np.array([0, 0, 99]))
    broken = command("audit", "run")
    assert broken.code == 1
    assert f"do not add up to their number of samples (idx {index})" in broken.out
