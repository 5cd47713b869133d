"""`certmix falsify`: exit codes, reports, findings as files, replay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from forged import more_votes

QUICK = ("--inputs", "all", "--steps", 3, "--copies", 8, "--samples", 2000)


@pytest.fixture
def run(command, problem) -> Path:
    """A finished run on the twelve points, with wide noise so that margins are moderate."""
    options = [*problem.options, "--goal", "fixed", "--samples", 1000, "--inputs", "all"]
    done = command("certify", *options, "--alpha", 1, "--output", "run")
    assert done.code == 0, done.err
    return Path.cwd() / "run"


@pytest.fixture
def findings(command, run) -> list[Path]:
    """What is found once the votes are inflated."""
    more_votes(run, 0.5)
    done = command("falsify", "--run-code", run, *QUICK)
    assert done.code == 1, done.out + done.err
    return sorted((run / "falsify").glob("*.json"))


def test_an_honest_run_exits_with_0_and_its_report_is_one_json_object(command, run):
    done = command("falsify", "--run-code", run, *QUICK, "--format", "json")
    assert done.code == 0 and not (run / "falsify").exists(), done.err
    report = json.loads(done.out)
    assert report["schema_version"] == 1
    assert report["falsified"] is False
    assert report["findings"] == 0
    assert report["attacked"] == report["certified"] == len(report["attacks"]) > 5
    assert report["inputs"] == 12
    for attack in report["attacks"]:
        assert attack["distance"] < attack["radius"]
        assert attack["margin"] > report["threshold"] - 0.1
    again = json.loads(command("falsify", "--run-code", run, *QUICK, "--format", "json").out)
    assert again == report


def test_inflated_votes_are_found_and_written_down(command, run, findings):
    assert len(findings) >= 2
    said = json.loads(findings[0].read_text())
    point = np.load(findings[0].with_suffix(".npz"))["point"]
    input = np.load(run.parent / "points.npz")["inputs"][said["input"]]
    away = np.linalg.norm(point.astype(np.float64) - input.astype(np.float64))
    assert away == pytest.approx(said["distance"], abs=1e-4)  # the larger of two: from the grid, too
    assert said["distance"] < said["certified_radius"]
    assert said["margin_upper"] < said["threshold"]
    assert sum(said["votes"]) == said["samples"] == 2000
    assert said["worst_standard_classifier"]["one_hot"] != said["predicted"]


def test_a_finding_stands_when_it_is_replayed(command, findings):
    for arguments in ([], ["--seed", 5]):
        done = command("falsify", "--run-code", "--replay", findings[0], *arguments, "--format", "json")
        assert done.code == 1, done.err
        report = json.loads(done.out)
        assert report["stands"]
        names = [check["check"] for check in report["checks"]]
        assert names == ["class", "distance", "margin", "votes"]
        assert report["failure_probability"] == 0.001
        assert report["seed"] == 5 or not arguments
        assert all(check["outcome"] == "holds" for check in report["checks"])
    assert (
        "stands: this certificate is wrong" in command("falsify", "--run-code", "--replay", findings[0]).out
    )


def test_a_replay_draws_noise_of_its_own(command, findings):
    """Two verdicts rest on different noise, and a reported seed gives the same one again."""
    reports = [
        json.loads(command("falsify", "--run-code", "--replay", findings[0], "--format", "json", *seed).out)
        for seed in ([], [], ["--seed", 5], ["--seed", 5])
    ]
    assert reports[0]["seed"] != reports[1]["seed"]
    assert reports[2] == reports[3]
    assert f"seed {reports[0]['seed']}" in reports[0]["checks"][2]["message"]


def test_what_users_can_mend_is_one_line(command, run, tmp_path):
    (tmp_path / "broken.json").write_text("{}")
    for arguments in (
        ["falsify"], ["falsify", tmp_path / "nothing"], ["falsify", run, "--steps", 0],
        ["falsify", "--replay", tmp_path / "broken.json"], ["falsify", run, "--certificate", "margin"],
        ["falsify", run, "--alpha", 0.3],
    ):  # fmt: skip
        done = command(*arguments)
        assert done.code == 2, arguments
        assert done.err.startswith("Error: ")
        assert len(done.err.splitlines()) == 1
        assert not done.out


def test_a_log_is_no_run_and_other_runs_are_named(command, tmp_path):
    (tmp_path / "cohen.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    done = command("falsify", "cohen.tsv")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: cohen.tsv is a file: name the folder of a run of certmix certify")
    assert "Errno" not in done.err
    assert "run.json" not in done.err
    (tmp_path / "run.json").write_text('{"format_version": 2, "identity": {"study": "nuts-fit"}}')
    assert "is a run of certmix nuts fit: name a run of certmix certify" in command("falsify", tmp_path).err
