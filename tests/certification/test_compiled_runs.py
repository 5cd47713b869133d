"""Runs with --compile: the same counts where rounding is the same; recorded, resumed, verified."""

from __future__ import annotations

import json

import pytest
from forged import certified, copied, edit_counts, inflate, sources

import certmix
from certmix.certification.shards import merge
from certmix.errors import ParameterError
from certmix.sampling import compiling
from certmix.verification.checks import Outcome
from certmix.verification.resample import resample


@pytest.fixture
def calls(monkeypatch):
    """Let `torch.compile` give the model back; count how often it is asked."""
    asked = []

    def compile_(module, **options):
        asked.append(options)
        return module

    monkeypatch.setattr(compiling.torch, "compile", compile_)
    return asked


def nothing_compiles(monkeypatch):
    def compile_(module, **options):
        def fail(batch):
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr(compiling.torch, "compile", compile_)


def described(folder):
    return json.loads((folder / "run.json").read_text())


def test_counts_are_those_of_the_model_and_the_run_says_how(problem, command, calls):
    options = (*problem.options, "--images", 6, "--samples", 400)
    plain = command("certify", *options, "--output", "plain", "--format", "csv")
    compiled = command("certify", *options, "--output", "compiled", "--format", "csv", "--compile")
    assert (plain.code, compiled.code) == (0, 0)
    assert plain.out == compiled.out
    assert len(calls) == 1
    assert calls[0] == {"fullgraph": True, "dynamic": False, "options": {"freezing": True}}
    assert described(problem.folder / "plain")["compiled"] is False
    assert described(problem.folder / "compiled")["compiled"] is True
    assert (
        described(problem.folder / "plain")["identity"] == described(problem.folder / "compiled")["identity"]
    )


def test_a_run_goes_on_compiled_or_not(problem, command, calls):
    options = (*problem.options, "--samples", 400, "--output", "run")
    command("certify", *options, "--images", 3)
    run = problem.folder / "run"
    assert command("certify", *options, "--images", 6, "--compile").code == 0
    assert len(calls) == 1
    assert described(run)["compiled"] == "partly"
    assert command("certify", *options, "--images", 6).code == 0
    assert described(run)["compiled"] == "partly"
    assert all(result.outcome is Outcome.HOLDS for result in resample(run, device="cpu", new_seed=5))


def test_what_draws_nothing_does_not_change_how_samples_were_drawn(problem, command, calls):
    options = (*problem.options[:-2], "--samples", 400, "--goal", "fixed", "--output", "run", "--images", 3)
    command("certify", *options, "--alpha", 0.76, "--compile")
    command("certify", *options, "--alpha", 0.9)
    assert described(problem.folder / "run")["compiled"] is True
    assert described(problem.folder / "run")["request"]["alpha"] == 0.9


def test_certificates_without_samples_refuse_it(problem, command):
    refused = command(
        "certify", *problem.options[:6], "--alpha", 0.76, "--certificate", "margin", "--compile"
    )
    assert refused.code == 2
    assert "--compile is not for certificate margin: leave it out" in refused.err
    with pytest.raises(ParameterError, match="leave out shard and compiled"):
        certmix.certify(None, 0.76, certificates="margin", compiled=True)


def test_a_model_that_cannot_be_compiled_ends_with_a_remedy(problem, command, monkeypatch):
    nothing_compiles(monkeypatch)
    failed = command("certify", *problem.options, "--images", 3, "--output", "run", "--compile")
    assert failed.code == 2
    assert failed.err.strip().splitlines()[-1].startswith("Error: the robust model cannot be compiled here")
    assert "leave --compile out" in failed.err


def test_merging_says_which_shards_were_compiled(tmp_path, calls):
    given = sources(tmp_path)
    for number in (1, 2):
        certmix.certify(
            0.5, 0.76, output=tmp_path / f"{number}", shard=f"{number}/2", compiled=number == 2, samples=200,
            images="all", **given,
        )  # fmt: skip
    said = []
    merge([tmp_path / "1", tmp_path / "2"], tmp_path / "whole", say=said.append)
    assert any("shards differ in compiled (False and True)" in line for line in said)
    assert [part["compiled"] for part in described(tmp_path / "whole")["merged"]] == [False, True]


def test_verifying_a_compiled_run_compiles_nothing(tmp_path, calls):
    run = certified(tmp_path / "run", sources(tmp_path), samples=400, goal="fixed", compiled=True)
    calls.clear()
    assert all(result.outcome is Outcome.HOLDS for result in resample(run, device="cpu", new_seed=5))
    assert not calls
    forged = copied(run, tmp_path / "forged")
    edit_counts(forged, lambda selection, estimation: [inflate(votes) for votes in estimation.values()])
    assert any(r.outcome is Outcome.FAILS for r in resample(forged, device="cpu", new_seed=5))
