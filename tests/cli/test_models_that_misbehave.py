"""Commands whose models fail, leave, or change their input: one line and exit code 2, or the right result."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from unittest import SkipTest
from xml.etree import ElementTree

import numpy as np
import pytest
from torch import nn

import certmix
from certmix.errors import Interrupted, ModelError
from certmix.verification import asserting

NETS = """
import os
import sys
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.net, self.first = nn.Linear(2, 3), first
        with torch.no_grad():
            self.net.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]))
            self.net.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))

    def forward(self, x):
        return self.net(self.first(x))


def in_range(x):
    assert x.min() >= 0 and x.max() <= 1, "inputs must lie in [0, 1]"
    return x


def late(x):
    if x.min() < 0:
        sys.exit(0)
    return x


def asked(x):
    if os.environ.get("CERTMIX_TEST_LEAVE"):
        sys.exit(0)
    return x


PASSES = [0]
RAISED = {
    "ValueError": ValueError("no"), "SystemExit": SystemExit(0), "GeneratorExit": GeneratorExit(),
    "KeyboardInterrupt": KeyboardInterrupt(), "BaseException": BaseException("no"), "EOFError": EOFError(),
    "Exit": __import__("click").exceptions.Exit(0), "MemoryError": MemoryError(),
}


def raising(x):
    PASSES[0] += 1
    if PASSES[0] >= int(os.environ.get("CERTMIX_TEST_PASS", "10000")):
        kind = os.environ["CERTMIX_TEST_RAISES"]
        if kind == "RecursionError":
            raising(x)
        if kind == "RuntimeError":
            torch.empty(1 << 58)
        raise RAISED[kind]
    return x


def narrow(x):
    if len(x) > 9:
        raise RuntimeError("at most 9 rows")
    return x


def plain(): return Net(lambda x: x)
def ranged(): return Net(in_range)
def failing(): return Net(raising)
def failing_when_made(): return Net(raising(lambda x: x))
def leaving(): return Net(late)
def asking(): return Net(asked)
def small(): return Net(narrow)
def half(): return Net(lambda x: x).half()
def in_place(): return Net(lambda x: x.add_(0.0))
def at_once(): sys.exit(0)
def asking_at_once():
    asked(None)
    return plain()
"""
ATTACK = ("attack", "--inputs", 4, "--steps", 2)


@pytest.fixture
def nets(problem):
    path = problem.folder / "odd.py"
    path.write_text(NETS)
    return path


@pytest.fixture
def certify(problem, command, nets):
    def run(factory, *more, standard="plain"):
        return command(
            "certify", *problem.options, "--robust", f"{nets}:{factory}", "--standard", f"{nets}:{standard}",
            "--inputs", 4, "--samples", 300, "--output", f"run-{factory}-{standard}", *more,
        )  # fmt: skip

    return run


def one_line(done, *words):
    assert done.code == 2
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in last


@pytest.mark.parametrize("factory", ["leaving", "at_once"])
def test_a_model_that_exits_ends_the_command_with_2(certify, command, nets, problem, factory):
    one_line(certify(factory), "SystemExit: 0")
    standard = certify("plain", standard=factory)
    if factory == "at_once":
        one_line(standard, "SystemExit: 0")
        one_line(
            command(*ATTACK, "--robust", f"{nets}:{factory}", "--data", problem.options[1]), "SystemExit: 0"
        )


@pytest.mark.parametrize("factory", ["asking", "asking_at_once"])
def test_verify_fails_closed_where_a_model_exits(certify, command, factory, monkeypatch):
    assert certify(factory).code == 0
    assert command("verify", "--run-code", f"run-{factory}-plain").code == 0
    monkeypatch.setenv("CERTMIX_TEST_LEAVE", "1")
    assert command("verify", "--run-code", f"run-{factory}-plain").code == 2


KINDS = (
    "ValueError", "SystemExit", "GeneratorExit", "KeyboardInterrupt", "BaseException", "EOFError", "Exit",
    "MemoryError", "RecursionError", "RuntimeError",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_model_raises_is_one_line_and_2_at_once_and_late(certify, monkeypatch, kind):
    monkeypatch.setenv("CERTMIX_TEST_RAISES", kind)
    for at, factory in ((1, "failing_when_made"), (1, "failing"), (9, "failing")):
        monkeypatch.setenv("CERTMIX_TEST_PASS", str(at))
        one_line(certify(factory, "--fresh"), f"odd:{factory}" if factory == "failing" else factory, kind)


def test_verify_reports_whatever_a_model_raises(certify, command, monkeypatch):
    assert certify("failing").code == 0
    late = {"SystemExit", "KeyboardInterrupt", "BaseException", "MemoryError"}
    for kind, at in [
        *((kind, 9 if kind in ("ValueError", "Exit") else 1) for kind in KINDS),
        *product(late, [9]),
    ]:
        monkeypatch.setenv("CERTMIX_TEST_RAISES", kind)
        monkeypatch.setenv("CERTMIX_TEST_PASS", str(at))
        done = command(
            "verify", "run-failing-plain", "--run-code", "--format", "json", "--report", "junit=verify.xml"
        )
        assert done.code == 2
        assert "Traceback" not in done.err
        found, [error, *_] = json.loads(done.out), ElementTree.parse("verify.xml").getroot().iter("error")
        assert (found["outcome"], found["exit_code"]) == ("unchecked", 2)
        assert kind in error.get("message")
        assert any(kind in one["message"] for one in found["checks"])


COMMANDS = (
    "attack", "attack --alpha 0.76", "mix-sweep", "compare-trust", "confidence", "lipschitz --restarts 1",
    "nuts fit --output mix", "nuts fit --published cifar10 --output mix", "falsify run-failing-failing",
    "reproduce run-failing-failing", "verify run-failing-failing", "verify guarantee.toml", "nuts evaluate fitted",
)  # fmt: skip


def test_every_command_that_runs_a_model_ends_with_2_where_it_leaves(
    certify, command, nets, problem, monkeypatch
):
    few = ("--inputs", 4, "--data", problem.options[1], "--robust", f"{nets}:failing")
    assert certify("failing", standard="failing").code == 0
    assert command("guarantee", "init", "run-failing-failing", "--slack", 0.01).code == 0
    both = ("--standard", f"{nets}:failing")
    assert command("nuts", "fit", *few, *both, "--steps", 1, "--output", "fitted").code == 0
    monkeypatch.setenv("CERTMIX_TEST_RAISES", "SystemExit")
    monkeypatch.setenv("CERTMIX_TEST_PASS", "1")
    for line in COMMANDS:
        name, *words = line.split()
        given = few if name not in ("falsify", "reproduce", "verify", "nuts") or "fit" in words else ()
        given = few[4:] if "--published" in words else given
        standard = both if given and name != "lipschitz" and line != "attack" else ()
        done = command(name, *words, *(given or ["--run-code"]), *standard)
        assert done.code == 2, line
        assert "SystemExit" in done.err + done.out, (line, done.err)
        assert "Traceback" not in done.err, line


def test_reports_of_an_earlier_time_say_nothing_of_this_one(certify, command, monkeypatch):
    assert certify("plain").code == 0
    report = ("--report", "json=verify.json", "--resample", 0, "--run-code")
    assert command("verify", "run-plain-plain", *report).code == 0
    assert json.loads(Path("verify.json").read_text())["outcome"] == "holds"
    seen = []

    def ended(*given, **named):
        seen.append(json.loads(Path("verify.json").read_text()))
        raise Interrupted("by the user")

    monkeypatch.setattr("certmix.verification.verify.verify", ended)
    assert command("verify", "run-plain-plain", *report).code == 130
    found = [*seen, json.loads(Path("verify.json").read_text())]
    assert [one["exit_code"] for one in found] == [2, 2]
    assert [one["checks"][0]["message"][:11] for one in found] == ["it has not ", "interrupted"]


def test_a_process_that_a_model_ends_is_reported(certify, command, nets):
    assert certify("plain").code == 0
    nets.write_text(NETS.replace("def plain(): return", "def plain(): os._exit(0)\ndef plainer(): return"))
    done = command("verify", "run-plain-plain", "--isolated", "--run-code", "--report", "json=verify.json")
    one_line(done, "left with exit code 0 (os._exit)")
    assert "left with exit code 0" in Path("verify.json").read_text()


def test_a_check_of_the_range_is_named_under_noise(certify):
    one_line(certify("ranged"), "inputs must lie in [0, 1]", "as noise makes them", "x.clamp(0, 1)")


@pytest.mark.parametrize("factory", ["small", "half", "in_place"])
def test_models_of_small_batches_half_precision_or_changed_inputs_give_the_same_table(certify, factory):
    done, plain = certify(factory, standard=factory), certify("plain")
    assert done.code == 0
    assert ("odd:in_place changes its input in place" in done.err) == (factory == "in_place")
    if factory != "half":
        assert done.out.splitlines()[:12] == plain.out.splitlines()[:12]


def test_rounding_outside_the_range_is_clipped_and_said(certify, command, problem, nets):
    with np.load(problem.options[1]) as held:
        arrays = dict(held)
    arrays["inputs"][0, 0] = -3e-8
    np.savez(problem.folder / "rounded.npz", **arrays)
    data = ("--data", str(problem.folder / "rounded.npz"))
    for done in (
        certify("plain", *data),
        command(*ATTACK, *data, "--robust", f"{nets}:plain", "--output", "run"),
    ):
        assert done.code == 0
        assert "by rounding outside 0,1, and were clipped to it" in done.err


class Ranged(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, x):
        assert x.min() >= 0, "negative inputs"
        return self.net(x)


class Leaving(Ranged):
    def forward(self, x):
        raise SystemExit(0)


class Skipping(Ranged):
    def forward(self, x):
        pytest.skip("not today")


class SkippedElsewhere(Ranged):
    def train(self, mode=True):
        raise SkipTest


class Odd(Ranged):
    def train(self, mode=True):
        assert mode, "always in training mode"
        return self


@pytest.mark.parametrize("model", [Ranged(), Leaving(), Skipping(), SkippedElsewhere(), Odd()])
@pytest.mark.parametrize("how", [{"sigma": 0.25, "samples": 200}, {"certificate": "margin"}])
def test_a_model_s_own_assertion_is_no_verdict(model, how, problem):
    with pytest.raises(ModelError):
        certmix.assert_certified(
            model, radius=0.1, at_least=0.1, alpha=0.76, data=problem.options[1], inputs=4, **how
        )


def test_an_assertion_elsewhere_is_no_verdict_either(problem, monkeypatch):
    monkeypatch.setattr(
        asserting, "run_certify", lambda *given, **named: (_ for _ in ()).throw(AssertionError())
    )
    with pytest.raises(ModelError, match="nothing was certified: AssertionError"):
        certmix.assert_certified(
            nn.Linear(2, 3),
            radius=0.1,
            at_least=0.1,
            sigma=0.25,
            alpha=0.76,
            data=problem.options[1],
            inputs=4,
        )
