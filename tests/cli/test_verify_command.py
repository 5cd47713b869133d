"""`certmix verify` and `certmix guarantee`: exit codes, formats that parse, text that cannot escape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from forged import edit_record, records
from hypothesis import given
from hypothesis import strategies as st

from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.guarantees.requirements import parse_requirement
from certmix.verification.judge import Judgement
from certmix.verification.outputs import FORMATS, SAMPLED_AGAIN, github, junit, markdown, text
from certmix.verification.verify import Sampling, Verification

GUARANTEE = """\
version = 1
requirements = [
    "robust.clean_accuracy >= 0.2",
    "certified_accuracy@0.25 >= {threshold} on value",
]
data = {{ name = "points.npz", inputs = 4 }}
standard = {{ model = "nets.py:linear" }}
robust = {{ model = "nets.py:linear" }}
certificate = {{ alpha = 0.76, sigma = 0.25 }}
sampling = {{ samples = 200 }}
"""


@pytest.fixture
def guarantee(problem, monkeypatch) -> Path:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    path = problem.folder / "guarantee.toml"
    path.write_text(GUARANTEE.format(threshold=0.25))
    return path


def test_every_format_in_one_go_and_exit_0(command, guarantee):
    reports = [f"--report={name}=out/{name}" for name in FORMATS]
    done = command("verify", "--run-code", guarantee, "--resample", 2, "--new-seed", 5, *reports)
    assert done.code == 0, done.out + done.err
    assert "\u2713 certified_accuracy@0.25 >= 0.25 on value: value " in done.out
    assert "No run of these data, model and noise" in done.err
    out = guarantee.parent / "out"
    found = json.loads((out / "json").read_text())
    assert (found["outcome"], found["exit_code"], found["schema_version"]) == ("holds", 0, 1)
    assert found["sampling"]["drawn_inputs"] == 4
    assert found["sampling"]["why"]
    assert [r["outcome"] for r in found["requirements"]] == ["holds", "holds"]
    suite = ElementTree.parse(out / "junit").getroot().find("testsuite")
    cases = suite.findall("testcase")
    assert len(cases) == int(suite.get("tests")) == len(found["checks"]) + 2
    assert suite.get("failures") == suite.get("errors") == "0"
    every = (out / "text").read_text().splitlines()
    assert len([line for line in every if line[0] in "\u2713\u2717?"]) == len(found["checks"]) + 2
    kept = [line for line in done.out.splitlines() if not line.startswith("  ")]
    assert {line.split(":")[0] for line in kept} >= {"\u2713 same seed", "\u2713 new seed"}
    assert set(kept) - set(every) == {line for line in kept if "(see --details)" in line} != set()
    assert (out / "github").read_text().startswith("::notice title=certmix verify%3A holds::")
    assert (out / "markdown").read_text().startswith("## certmix verify")
    claim = found["claim"]
    assert (claim["confidence"], claim["bounds"], claim["failure_probability"]) == (0.95, 1, 0.001)
    told = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert told == {name: str(value) for name, value in claim.items() if value is not None}
    for one in ("text", "markdown", "github", "junit"):
        shown = (out / one).read_text().replace("\\", "")
        assert "4 of 12 inputs of points, test" in shown and "2 numbers in [0, 1]" in shown, one
    names = {check["check"] for check in found["checks"]}
    assert len(names) > 10
    again = command("verify", "--run-code", guarantee, "--resample", 2, "--new-seed", 5, "--details")
    assert again.out.splitlines()[-len(names) :] == every[-len(names) :]
    assert command("verify", "--run-code", guarantee, "--resample", 0, "--format", "json").code == 0


def test_what_falls_short_is_1_and_annotated_at_its_line(command, guarantee, monkeypatch, tmp_path):
    guarantee.write_text(GUARANTEE.format(threshold=1))
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    done = command(
        "verify", "--run-code", guarantee, "--resample", 0, "--format", "github", "--report", "junit=j.xml"
    )
    assert done.code == 1
    first = done.out.splitlines()[0]
    assert first.startswith("::error file=guarantee.toml,line=4,title=certmix%3A requirement does not hold::")
    assert all(line.startswith(("::error ", "::notice ")) for line in done.out.splitlines())
    assert summary.read_text().startswith("before\n## certmix verify")
    [failure] = ElementTree.parse("j.xml").getroot().iter("failure")
    assert "below 1" in failure.get("message")


def test_a_run_that_was_tampered_with_is_1(command, guarantee):
    command("verify", "--run-code", guarantee, "--resample", 0)
    [run] = (guarantee.parent / "runs").iterdir()
    assert command("verify", "--run-code", run, "--resample", 0).code == 0
    edit_record(run, min(records(run)), label=2)
    for target in (run, guarantee):
        done = command("verify", "--run-code", target, "--resample", 0)
        assert done.code == 1
        assert "\u2717 labels" in done.out


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text("version = "), "not TOML"),
        (lambda path: (path.parent / "nets.py").unlink(), "nets.py"),
        (lambda path: (path.parent / "points.npz").write_bytes(b"x"), "points.npz"),
    ],
)
def test_what_cannot_be_checked_is_2_with_one_line_and_its_reports(command, guarantee, spoil, expected):
    spoil(guarantee)
    done = command("verify", "--run-code", guarantee, "--format", "json", "--report", "junit=j.xml")
    assert done.code == 2
    errors = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in done.err
    assert json.loads(done.out)["outcome"] == "unchecked"
    assert len(list(ElementTree.parse("j.xml").getroot().iter("error"))) == 1


@pytest.mark.parametrize("value", ["xml=a", "json", "json=", "=a"])
def test_reports_are_a_format_and_a_file(command, guarantee, value):
    done = command("verify", "--run-code", guarantee, "--report", value)
    assert done.code == 2
    assert "FORMAT=FILE" in done.err


def test_init_check_and_verify_a_guarantee(command, guarantee):
    command("verify", "--run-code", guarantee, "--resample", 0)
    [run] = (guarantee.parent / "runs").iterdir()
    assert command("guarantee", "init", run, "--output", "ci/new.toml", "--pin").code == 0
    assert 'model = "../nets.py:linear"' in Path("ci/new.toml").read_text()
    checked = command("guarantee", "check", "ci/new.toml")
    assert checked.code == 0
    assert checked.out.startswith("clean_accuracy >= ")
    again = command("guarantee", "init", run, "--output", "ci/new.toml")
    assert (again.code, "exists" in again.err) == (2, True)
    assert command("guarantee", "init", run, "--output", "ci/new.toml", "--force").code == 0
    printed = command("guarantee", "init", run, "--output", "-")
    assert printed.out.startswith("# A guarantee")
    assert command("verify", "--run-code", "ci/new.toml", "--resample", 0).code == 0
    assert command("guarantee", "init", run, "--slack", 2, "--output", "-").code == 2


def test_check_names_the_line_and_warns_of_what_no_run_can_show(command, guarantee):
    guarantee.write_text(GUARANTEE.format(threshold=0.25).replace('>= 0.2"', '>= 0.95"'))
    warned = command("guarantee", "check", guarantee)
    assert warned.code == 0
    assert "with 4 inputs no lower bound exceeds" in warned.err
    guarantee.write_text(GUARANTEE.format(threshold=25))
    wrong = command("guarantee", "check", guarantee)
    assert wrong.code == 2
    assert "line 4" in wrong.err


HOSTILE = (
    "a\n::error::b", "]]>", "<script>", "100%0A::set-env name=x::y", "\x1b[31m", "\ud800", "\ufffe", "a|b`c`", "::",
)  # fmt: skip
hostile = st.text(max_size=40) | st.sampled_from(HOSTILE)
outcomes = st.sampled_from(list(Outcome))


def made(name, message, outcome):
    asked = parse_requirement("clean_accuracy >= 0.5")
    checks = (CheckResult(name, outcome, message, (1, 2), 9),)
    judged = (Judgement(asked, outcome, None, None, message),)
    return Verification(
        name, "guarantee", Path("r"), Sampling(1, 2, 3, 4, (message,)), checks, judged, {str(asked): 3}
    )


@given(hostile, hostile, outcomes)
def test_no_text_breaks_out_of_any_format(name, message, outcome):
    found = made(name, message, outcome)
    assert json.loads(FORMATS["json"](found))["checks"][0]["message"] == message
    root = ElementTree.fromstring(junit(found))
    assert len(list(root.iter("testcase"))) == int(root.get("tests")) == 2
    assert int(root.get("failures")) + int(root.get("errors")) == (0 if outcome is Outcome.HOLDS else 2)
    commands = github(found).splitlines()
    assert len(commands) == (1 if outcome is Outcome.HOLDS else 3)
    assert all(re.match(r"::(error|notice) [^:]*::", line) for line in commands)
    assert text(found).encode("utf-8")
    assert all(not re.match(r"::", line) for line in text(found).splitlines())
    rows = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in rows)


def test_what_does_not_hold_keeps_its_line_without_details():
    checks = tuple(CheckResult(f"check {o}", o, f"it {o}") for o in Outcome)
    again = tuple(CheckResult(name, Outcome.HOLDS, f"{name} held") for name in SAMPLED_AGAIN)
    found = Verification("t", "run", None, None, checks + again)
    short = text(found, details=False)
    assert "\u2717 check fails: it fails\n" in short
    assert "? check unchecked: it unchecked\n" in short
    assert "it holds" not in short
    assert short.index("it fails") < short.index("it unchecked") < short.index("same seed held")
    assert "check holds (see --details): check holds" in " ".join(short.split())
    assert all(f"\u2713 {name}: {name} held\n" in short for name in SAMPLED_AGAIN)
