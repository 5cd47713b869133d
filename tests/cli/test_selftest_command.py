"""`certmix selftest`: output, exit codes."""

from __future__ import annotations

import json

import pytest

from certmix.radii import exact
from certmix.verification.selftests import SUITES


def test_text_names_machine_suites_and_slack(command):
    done = command("selftest", "--suite", "exact", "--suite", "margin-lemma", "--cases", 5)
    assert done.code == 0, done.err
    assert "torch: " in done.out and "float64 (numba): round to nearest, subnormals kept" in done.out
    assert "exact: the exact certificate" in done.out and "clopper-pearson" not in done.out
    assert done.out.count("worst slack") >= 8
    assert done.err.strip().endswith("all hold")


def test_json_is_one_object(command):
    done = command("selftest", "--suite", "clopper-pearson", "--cases", 3, "--seed", 4, "--format", "json")
    content = json.loads(done.out)
    assert (content["outcome"], content["seed"], content["cases"]) == ("holds", 4, 3)
    (suite,) = content["suites"]
    assert suite["suite"] == "clopper-pearson" and suite["error"] is None
    assert all(one["failures"] == 0 and one["worst_slack"] >= 0 for one in suite["properties"])
    assert content["machine"]["float64 (numpy)"] == "round to nearest, subnormals kept"


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_fault_gives_exit_code_1_and_the_cases(command, monkeypatch, format_):
    honest = exact.exact_loop
    monkeypatch.setattr(exact, "exact_loop", lambda *given: honest(*given) * 1.01)
    done = command("selftest", "--suite", "exact", "--cases", 5, "--format", format_)
    assert done.code == 1
    assert "exact" in done.err and "Do not trust" in done.err
    if format_ == "json":
        assert json.loads(done.out)["outcome"] == "fails"
    else:
        assert "! fails  no g flips the mix just inside" in done.out and "alpha 0." in done.out


def test_errors_are_one_line(command):
    for arguments in (("--cases", 0), ("--seed", -1), ("--suite", "exat")):
        done = command("selftest", *arguments)
        assert done.code == 2
        assert done.out == ""


def test_help_lists_the_suites(command):
    shown = command("selftest", "--help").out
    assert all(name in shown for name in SUITES)
