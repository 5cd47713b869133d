"""Runs with --compile: the same counts where rounding is the same; recorded, resumed, verified."""

from __future__ import annotations

import json

import pytest
from forged import certified, copied, edit_counts, inflate, sources

import certmix
from certmix.certification.shards import merge
from certmix.sampling import compiling
from certmix.verification.checks import Outcome
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import resample

AGAIN = VerifyRequest(device="cpu", resample=10, new_seed=5, run_code=True)


@pytest.fixture
def calls(monkeypatch):
    """Let `torch.compile` give the model back; count how often it is asked."""
    asked = []
    monkeypatch.setattr(compiling.torch, "compile", lambda module, **options: asked.append(options) or module)
    return asked


def described(folder):
    return json.loads((folder / "run.json").read_text())


def holds(run):
    return all(result.outcome is Outcome.HOLDS for result in resample(run, AGAIN))


def test_counts_are_those_of_the_model_and_the_run_says_how(problem, command, calls):
    found = {}
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        options = (*problem.options, "--inputs", 6, "--samples", 400, "--output", name, "--format", "csv")
        done = command("certify", *options, *more)
        assert done.code == 0
        told = described(problem.folder / name)
        found[name] = done.out, told["identity"]
        assert told["compiled"] is (name == "compiled")
    assert found["plain"] == found["compiled"]
    assert calls == [{"fullgraph": True, "dynamic": False, "options": {"freezing": True}}]


def test_a_run_goes_on_compiled_or_not(problem, command, calls):
    options, run = (*problem.options, "--samples", 400, "--output", "run"), problem.folder / "run"
    command("certify", *options, "--inputs", 3)
    for more in (("--compile",), ()):
        assert command("certify", *options, "--inputs", 6, *more).code == 0
        assert described(run)["compiled"] == "partly"
    assert len(calls) == 1
    assert holds(run)


def test_a_model_that_cannot_be_compiled_ends_with_a_remedy(problem, command, monkeypatch):
    def fail(batch):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiling.torch, "compile", lambda module, **options: fail)
    failed = command("certify", *problem.options, "--inputs", 3, "--output", "run", "--compile")
    assert failed.code == 2
    assert failed.err.strip().splitlines()[-1].startswith("Error: the robust model cannot be compiled here")
    assert "use --compile off" in failed.err


def test_merging_says_which_shards_were_compiled(tmp_path, calls):
    folders, said = [tmp_path / "1", tmp_path / "2"], []
    for number, folder in enumerate(folders, 1):
        more = {"shard": f"{number}/2", "compiled": number == 2, "samples": 200, "inputs": "all"}
        certmix.certify(sigma=0.5, alpha=0.76, output=folder, **more, **sources(tmp_path))
    merge(folders, tmp_path / "whole", say=said.append)
    assert any("shards differ in compiled (False and True)" in line for line in said)
    assert [part["compiled"] for part in described(tmp_path / "whole")["merged"]] == [False, True]


def test_verifying_a_compiled_run_compiles_nothing(tmp_path, calls):
    run = certified(tmp_path / "run", sources(tmp_path), samples=400, goal="fixed", compiled=True)
    calls.clear()
    assert holds(run)
    assert not calls
    forged = copied(run, tmp_path / "forged")
    edit_counts(forged, lambda selection, estimation: [inflate(votes) for votes in estimation.values()])
    assert any(r.outcome is Outcome.FAILS for r in resample(forged, AGAIN))
