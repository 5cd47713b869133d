"""``--precision auto``: one arithmetic a run, that of the device that draws, or of the run that is there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from forged import sources
from torch import nn

import certmix
from certmix.certification.publish import repeat_command
from certmix.certification.shards import merge
from certmix.errors import ParameterError, RunError
from certmix.runs.engine import Engine, EngineChoice
from certmix.sampling import compiling
from certmix.verification.guarantees.guarantee import parse_guarantee


@pytest.fixture
def native(monkeypatch):
    """Return a function that says whether this machine computes bf16 natively."""
    return lambda does: monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: does)


def described(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("named, first, then", [(True, "bf16", "fp32"), (False, "fp32", "bf16")])
def test_a_run_goes_on_in_the_precision_it_was_begun_in(problem, command, native, named, first, then):
    options = (*problem.options, "--samples", 200, *(("--output", "runs/one") if named else ()))
    for precision, inputs, said in ((first, 1, False), (then, 2, True), (then, 2, False)):
        native(precision == "bf16")
        done = command("certify", *options, "--inputs", inputs)
        assert done.code == 0
        assert (f"the run goes on in {first}, in which it was begun; --precision {then}" in done.err) == said
    (folder,) = (problem.folder / "runs").iterdir()
    told = described(folder)
    assert told["identity"]["precision"] == told["request"]["precision"] == first
    assert f"--precision {first}" in repeat_command(folder, told)
    other = command("certify", *options, "--inputs", 2, "--precision", then)
    if named:
        assert other.code == 2
        assert f"precision is {first} there, {then} asked" in other.err
    else:
        assert other.code == 0  # two runs: auto takes that of its own
        assert command("certify", *options, "--inputs", 3).code == 0
        assert {described(one)["request"]["inputs"] for one in (problem.folder / "runs").iterdir()} == {2, 3}
    assert command("certify", *options, "--inputs", 1, "--fresh").code == 0
    assert then in {described(one)["identity"]["precision"] for one in (problem.folder / "runs").iterdir()}


def test_shards_of_machines_that_differ_are_not_merged(tmp_path, native):
    for number in (1, 2):
        native(number == 2)
        certmix.certify(
            sigma=0.5, alpha=0.76, output=tmp_path / str(number), shard=f"{number}/2", samples=200, inputs="all",
            **sources(tmp_path),
        )  # fmt: skip
    with pytest.raises(
        RunError,
        match="precision is bf16 there, fp32 here: do one of them again with the other's --precision",
    ):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "whole")


def test_an_executor_s_worker_says_what_its_device_computes(tmp_path, native):
    class Elsewhere(ThreadPoolExecutor):
        def submit(self, function, *given):
            native(True)
            return super().submit(function, *given)

    with Elsewhere(1) as pool:
        result = certmix.certify(
            sigma=0.5,
            alpha=0.76,
            output=tmp_path / "run",
            samples=200,
            inputs="all",
            executor=pool,
            **sources(tmp_path),
        )
    assert result.summary.complete
    assert described(tmp_path / "run")["identity"]["precision"] == "bf16"
    native(False)
    assert Engine(EngineChoice(workers=2), torch.device("cpu")).ask(str) == "cpu"


GUARANTEE = """
version = 1
requirements = ["certified_accuracy@0.1 >= 0"]
[robust]
model = "nets.py:linear"
[certificate]
alpha = 1.0
sigma = 0.5
"""


def test_tf32_is_asked_for_and_part_of_the_identity(problem, command, monkeypatch):
    options = (*problem.options, "--samples", 200, "--inputs", 3, "--precision", "tf32", "--output", "run")
    done = command("certify", *options)
    assert (done.code, "precision tf32: cpu has none" in done.err) == (2, True)
    monkeypatch.setattr("certmix.certification.run.refuse_tf32", lambda *given: None)
    assert command("certify", *options).code == 0
    told = described(problem.folder / "run")
    assert told["identity"]["precision"] == told["request"]["precision"] == "tf32"
    assert "--precision tf32" in repeat_command(problem.folder / "run", told)
    assert command("verify", "run", "--run-code").code == 0


def test_a_guarantee_names_its_arithmetic():
    assert parse_guarantee(GUARANTEE).request.precision == "fp32"
    with pytest.raises(
        ParameterError, match=r"line 10: .*auto.* other machines: name one of fp32, bf16, fp16, tf32"
    ):
        parse_guarantee(f'{GUARANTEE}\n[sampling]\nprecision = "auto"\n'.replace("\n\n", "\n"))


def test_auto_of_a_smoothed_classifier(native):
    native(True)
    net, x = nn.Linear(2, 2), torch.zeros(1, 2)
    counts = [
        certmix.SmoothedClassifier(net, 0.5, precision=name).counts(x, 300).tolist()
        for name in ("auto", "bf16")
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "words, expected",
    [
        (("certify", "--certificate", "lipschitz-constant", "--lipschitz-constant", 20), {"ieee"}),
        (("attack", "--steps", 2, "--eps", 0.1), {"ieee"}),
        (("certify", "--sigma", 0.25, "--samples", 200), {"ieee"}),
    ],
    ids=["constant", "attack", "votes"],
)
def test_what_is_not_sampled_is_float32_without_tf32(problem, command, monkeypatch, words, expected):
    told: set[str] = set()
    forward = nn.Linear.forward

    def telling(self, x):
        told.add(torch.backends.cudnn.conv.fp32_precision)
        return forward(self, x)

    monkeypatch.setattr(nn.Linear, "forward", telling)
    assert command(*words, "--alpha", 0.76, "--inputs", 6, *problem.options[:6]).code == 0
    assert told == expected


@pytest.fixture
def repaid(monkeypatch):
    """Let compilation always pay."""
    from certmix.certification import sampled

    monkeypatch.setattr(sampled, "pays", lambda *given: True)


def test_auto_compiles_where_it_pays_and_says_so(problem, command, monkeypatch, repaid):
    asked = []
    monkeypatch.setattr(compiling.torch, "compile", lambda module, **options: asked.append(1) or module)
    options = (*problem.options, "--inputs", 3, "--samples", 200, "--workers", 1)
    for name, more, compiled in (("a", (), True), ("b", ("--compile", "off"), False)):
        assert command("certify", *options, "--output", name, *more).code == 0
        told = described(problem.folder / name)
        assert told["compiled"] is compiled
        assert told["compile"] == ("off" if more else "auto")
    assert len(asked) == 1
    assert "--compile off" in repeat_command(problem.folder / "b", told)


def test_a_compiled_model_whose_rows_depend_on_their_place_is_left(problem, command, monkeypatch, repaid):
    """The shift of one row would make h another average, which samples drawn before are no part of."""

    def shifting(module, **options):
        return lambda batch: module(batch) + 1e-3 * torch.arange(len(batch))[:, None] * torch.eye(3)[0]

    options = (*problem.options, "--inputs", 3, "--samples", 200, "--workers", 1, "--format", "csv")
    plain = command("certify", *options, "--output", "plain", "--compile", "off")
    monkeypatch.setattr(compiling.torch, "compile", shifting)
    monkeypatch.setattr(compiling, "TOLERANCE", 1e9)
    done = command("certify", *options, "--output", "run")
    assert (done.code, done.out) == (0, plain.out)
    assert "rows of the compiled model depend on their place in a batch: it runs as it is" in done.err
    assert described(problem.folder / "run")["compiled"] is False


def test_a_model_that_cannot_be_compiled_runs_as_it_is_where_that_was_not_asked(
    problem, command, monkeypatch, repaid
):
    def fail(batch):
        raise RuntimeError("no C++ compiler")

    options = (*problem.options, "--inputs", 3, "--samples", 200, "--workers", 1, "--format", "csv")
    plain = command("certify", *options, "--output", "plain", "--compile", "off")
    monkeypatch.setattr(compiling.torch, "compile", lambda module, **options: fail)
    done = command("certify", *options, "--output", "run")
    assert (done.code, done.out) == (0, plain.out)
    assert "cannot be compiled here (RuntimeError: no C++ compiler): it runs as it is" in done.err
    assert described(problem.folder / "run")["compiled"] is False
