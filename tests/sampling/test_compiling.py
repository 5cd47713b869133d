"""Compiled models: the same function but for rounding, or refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from planes import plane
from small_nets import normalised_net
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling import Sampler, compiling
from certmix.sampling.compiling import CHECKED, CompiledModel, CompileError

CPU = torch.device("cpu")
X = torch.tensor([0.2, -0.1])

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="torch.compile needs a C++ compiler"
)


@pytest.fixture
def fake(monkeypatch):
    """Let `torch.compile` give back what the test says, and count calls of it and of the model."""

    def install(make):
        calls = {"compiled": 0, "model": 0}
        net = plane([[1.0, -0.5], [-1.0, 0.5]])
        forward = net.forward

        def counted(batch):
            calls["model"] += 1
            return forward(batch)

        net.forward = counted

        def compiled(batch):
            calls["compiled"] += 1
            return make(forward, batch)

        monkeypatch.setattr(compiling.torch, "compile", lambda module, **options: compiled)
        return net, calls

    return install


def test_votes_are_the_model_s_and_checks_end(fake):
    net, calls = fake(lambda forward, batch: forward(batch))
    plain = Sampler(plane([[1.0, -0.5], [-1.0, 0.5]]), 2, 0.5, batch_size=50).votes(X, 3, [500])
    found = Sampler(net, 2, 0.5, batch_size=50, compiled=True).votes(X, 3, [500])
    assert (found == plain).all()
    assert calls == {"compiled": 7 + 10, "model": CHECKED}  # seven for the check of rows


def test_each_shape_is_checked(fake):
    net, calls = fake(lambda forward, batch: forward(batch))
    model = CompiledModel(net, CPU, "fp32")
    with torch.inference_mode():
        for size in (4, 4, 4, 4, 5, 5, 5, 5):
            model(torch.zeros(size, 2))
    assert calls == {"compiled": 8, "model": 2 * CHECKED}


def wrong_later(call):
    seen = []

    def make(forward, batch):
        seen.append(1)
        return forward(batch) * (-1.0 if len(seen) == call else 1.0)

    return make


@pytest.mark.parametrize(
    "make",
    [
        lambda forward, batch: forward(batch) * 1.05,
        lambda forward, batch: forward(batch).flip(1),
        lambda forward, batch: forward(batch)[:-1],
        lambda forward, batch: torch.full_like(forward(batch), float("nan")),
        wrong_later(2), wrong_later(CHECKED),
    ],
    ids=["scaled", "swapped", "short", "nan", "second", "replayed"],
)  # fmt: skip
def test_another_function_is_refused(fake, make):
    net, _ = fake(make)
    with pytest.raises(CompileError, match="use --compile off"):
        Sampler(net, 2, 0.5, batch_size=50, compiled=True).votes(X, 0, [500])


def test_rounding_is_allowed_more_in_half_precision(fake):
    net, _ = fake(lambda forward, batch: forward(batch) * 1.02)
    assert Sampler(net, 2, 0.5, precision="bf16", compiled=True).votes(X, 0, [100]).sum() == 100


def fail(error):
    def raising(*given):
        raise error

    return raising


def test_failures_are_told_in_one_line(fake):
    net, _ = fake(fail(RuntimeError("no compiler\nat all")))
    with pytest.raises(CompileError, match=r"cannot be compiled here \(RuntimeError: no compiler at all\)"):
        Sampler(net, 2, 0.5, compiled=True).votes(X, 0, [100])
    net, _ = fake(lambda forward, batch: forward(batch))
    net.forward = fail(ValueError("mine"))
    with pytest.raises(ModelError, match="ValueError: mine"):
        Sampler(net, 2, 0.5, compiled=True).votes(X, 0, [100])
    net, _ = fake(lambda forward, batch: forward(batch) / 0.0)
    net.forward = lambda batch: torch.full((len(batch), 2), torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        Sampler(net, 2, 0.5, compiled=True).votes(X, 0, [100])
    with pytest.raises(ParameterError, match="not compiled for device 'mps'"):
        CompiledModel(nn.Linear(2, 2), torch.device("mps"), "fp32")


def test_running_out_of_memory_still_halves_the_batch(fake):
    def tight(forward, batch):
        if len(batch) > 30:
            raise torch.OutOfMemoryError("full")
        return forward(batch)

    net, _ = fake(tight)
    sampler = Sampler(net, 2, 0.5, batch_size=100, compiled=True)
    plain = Sampler(plane([[1.0, -0.5], [-1.0, 0.5]]), 2, 0.5, batch_size=25).votes(X, 0, [500])
    assert (sampler.votes(X, 0, [500]) == plain).all()
    assert sampler.batch_size == 25


@needs_compiler
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_net_compiled_in_earnest_answers_as_before_with_the_weights_of_its_time():
    net, input = normalised_net(), torch.rand(3, 8, 8)
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for weights in net[5].parameters():
                weights.mul_(sign)
        plain = Sampler(net, 3, 0.5, batch_size=64).votes(input, 1, [100, 1000])
        sampler = Sampler(net, 3, 0.5, batch_size=64, compiled=True)
        found = sampler.votes(input, 1, [100, 1000])
        assert np.abs(found - plain).sum() <= 4  # two votes at near ties may turn
        assert (sampler.votes(input, 1, [100, 1000]) == found).all()


class Offset(nn.Module):
    """Four classes of like size, far from 0, and one that is masked."""

    def __init__(self, offset, mask):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.offset, self.mask = nn.Linear(2, 4), offset, mask

    def forward(self, batch):
        logits = self.inner(batch) + self.offset
        return torch.cat([logits, torch.full_like(logits[:, :1], self.mask)], 1)


@pytest.mark.parametrize("offset, mask", [(0.0, -1e4), (1e3, -1e4), (1e3, 1e3 - 50), (0.0, float("-1e30"))])
def test_neither_offsets_nor_masked_classes_hide_another_function(monkeypatch, offset, mask):
    model = Offset(offset, mask).eval()

    def install(change):
        monkeypatch.setattr(compiling.torch, "compile", lambda whole, **options: lambda x: change(whole(x)))

    install(lambda logits: torch.cat([logits[:, :4].flip(1), logits[:, 4:]], 1))
    with pytest.raises(CompileError, match="differ by"):
        Sampler(model, 5, 0.5, compiled=True).votes(X, 0, [200])
    install(lambda logits: logits * (1 + 1e-7))
    assert Sampler(model, 5, 0.5, compiled=True).votes(X, 0, [200]).sum() == 200


@pytest.fixture
def by_dynamo(monkeypatch):
    """Trace as `torch.compile` does, and run what was traced as it is: no compiler is needed."""
    original = torch.compile
    monkeypatch.setattr(
        compiling.torch, "compile",
        lambda whole, options, **rest: original(whole, backend="eager", **rest),
    )  # fmt: skip


def test_every_model_of_a_class_is_compiled_on_its_own(by_dynamo):
    for seed in range(4):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
        plain = Sampler(model, 2, 0.5).votes(X, seed, [300])
        assert (Sampler(model, 2, 0.5, compiled=True).votes(X, seed, [300]) == plain).all()


class Prints(nn.Module):
    def forward(self, batch):
        return batch if float(batch.sum()) > 0 else -batch


class Counts(nn.Module):
    """Another function of its own state at every call, so that it is compiled again and again."""

    calls = 0

    def forward(self, batch):
        self.calls += 1
        return batch


@pytest.mark.parametrize("model", [Prints(), Counts()])
def test_what_is_not_compiled_as_a_whole_or_again_and_again_is_refused(by_dynamo, model):
    with pytest.raises(CompileError, match="cannot be compiled here") as refused:
        Sampler(model.eval(), 2, 0.5, batch_size=10, compiled=True).votes(X, 0, [500])
    assert "\n" not in str(refused.value)
