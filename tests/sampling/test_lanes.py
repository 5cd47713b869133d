"""Batches side by side: the same counts as one after another, whatever the model keeps and wherever."""

from __future__ import annotations

import copy
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from planes import plane
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.models.architectures import ARCHITECTURES, build
from certmix.models.normalize import Normalized
from certmix.sampling import Draw, Sampler, lanes
from certmix.sampling.stateless import keeps_nothing

DRAWS = [
    Draw(torch.tensor([0.1, 0.3]), 4, (100, 130, 400)),
    Draw(torch.tensor([0.2, -0.3]), 9, (60,), stream="selection"),
    Draw(torch.tensor([-0.4, 0.3]), 5, (75, 200), start=25),
    Draw(torch.tensor([0.4, 0.0]), 6, (7, 9), start=3),
]


def net():
    return plane([[1.0, -0.5], [-1.0, 0.5]]).eval()


def counted(model, count, **settings):
    return Sampler(model, 2, 0.5, lanes=count, **settings).submit(DRAWS).result()


def equal(first, second):
    return all((a == b).all() for a, b in zip(first, second, strict=True))


class Base(nn.Module):
    """A plane, and a moment in which another thread may come between."""

    def __init__(self):
        super().__init__()
        self.inner = net()

    def later(self):
        time.sleep(0.002)


class View(Base):
    """Its logits are its input: memory that the next batch overwrites."""

    def forward(self, batch):
        return batch


class KeepsInItself(Base):
    def forward(self, batch):
        self.kept = batch * 1.0
        self.later()
        return self.inner(self.kept)


class KeepsInItsClass(Base):
    cache: dict = {}  # noqa: RUF012

    def forward(self, batch):
        self.cache["x"] = batch * 1.0
        self.later()
        return self.inner(self.cache["x"])


class KeepsInAHook(Base):
    """The usual way to take features: a plain function that writes into a dict of the model."""

    def __init__(self):
        super().__init__()
        self.first, self.features = nn.Identity(), {}
        self.first.register_forward_hook(lambda m, i, o: self.features.update(x=o * 1.0))

    def forward(self, batch):
        self.first(batch)
        self.later()
        return self.inner(self.features["x"])


class Parent(Base):
    """A child that reads what its parent was given, through a weak reference."""

    def __init__(self):
        super().__init__()
        self.parent = weakref.ref(self)

    def forward(self, batch):
        self.parent().kept = batch * 1.0
        self.later()
        return self.inner(self.parent().kept)


KEPT = {}


class KeepsGlobally(Base):
    def forward(self, batch):
        KEPT["x"] = batch * 1.0
        self.later()
        return self.inner(KEPT["x"])


class Locked(KeepsInItself):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def with_a_forward_of_its_own():
    model = Base()

    def forward(batch):
        model.kept = batch * 1.0
        model.later()
        return model.inner(model.kept)

    model.forward = forward
    return model


STATEFUL = [
    KeepsInItself, KeepsInItsClass, KeepsInAHook, KeepsGlobally, Parent, Locked, with_a_forward_of_its_own,
]  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [7, 25, 100])
def test_counts_do_not_depend_on_the_number_of_lanes(count, batch_size):
    one = counted(net(), 1, batch_size=batch_size)
    assert equal(counted(net(), count, batch_size=batch_size), one)


@pytest.mark.parametrize("model", [View, *STATEFUL])
def test_models_that_keep_or_return_what_they_see(model):
    assert equal(counted(model().eval(), 4, batch_size=10), counted(model().eval(), 1, batch_size=10))


@pytest.mark.parametrize("model", STATEFUL)
def test_running_the_model_itself_in_threads_would_be_seen(model, monkeypatch):
    monkeypatch.setattr("certmix.sampling.runner.keeps_nothing", lambda module: True)
    alone = counted(model().eval(), 1, batch_size=10)
    assert any(not equal(counted(model().eval(), 4, batch_size=10), alone) for _ in range(5))


LAYERS = [
    nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.GroupNorm(2, 4),
    nn.Flatten(), nn.Linear(36, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2),
]  # fmt: skip


def usual():
    return nn.Sequential(*copy.deepcopy(LAYERS)).eval()


@pytest.mark.parametrize(
    "model",
    [usual(), Normalized(usual(), (0.5,), (0.25,)).eval(), *(build(name).eval() for name in ARCHITECTURES)],
    ids=lambda model: type(model).__name__,
)
def test_torch_s_layers_and_our_nets_keep_nothing_and_count_alike(model):
    assert keeps_nothing(model)
    size = 32 if isinstance(model, tuple(ARCHITECTURES.values())) else 8
    draws = [Draw(torch.rand(3, size, size), 0, (60,))]
    classes = 10 if size == 32 else 2
    one, many = (Sampler(model, classes, 0.5, lanes=k, batch_size=20).submit(draws).result() for k in (1, 3))
    assert np.abs(one[0] - many[0]).sum() <= 2  # torch's threads differ


class Foreign(nn.Linear):
    """Like torch's own, by name."""


Foreign.__module__, Foreign.__name__ = "torch.nn.modules.linear", "Linear"


def hooked(model):
    model[0].register_forward_hook(lambda *given: None)


def prepared(model):
    model[0].register_forward_pre_hook(lambda *given: None)


def patched(model):
    model[2].forward = torch.neg


def wrapped(model):
    model.forward = lambda batch: batch


def parametrized(model):
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Identity())


def foreign(model):
    model[-1] = Foreign(8, 2).eval()


def subclassed(model):
    model[-1].weight = nn.Parameter(torch.zeros(2, 8).as_subclass(Marked))


def recurrent(model):
    model.append(nn.LSTM(2, 2).eval())


class Marked(torch.Tensor):
    """A tensor with a class of its own."""


@pytest.mark.parametrize(
    "change",
    [
        hooked, prepared, patched, wrapped, parametrized, foreign, recurrent, subclassed,
        lambda m: m.train(), lambda m: m[3].train(), lambda m: setattr(m[2], "__class__", KeepsInItself),
        lambda m: m.append(KeepsInItself().eval()),
    ],
)  # fmt: skip
def test_whatever_is_changed_is_not_trusted(change):
    model = usual()
    assert keeps_nothing(model)
    change(model)
    assert not keeps_nothing(model)


def test_layers_that_were_written_anew_are_not_trusted(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, batch: batch)
    assert not keeps_nothing(usual())


def test_hooks_and_modes_of_a_thread_are_not_trusted():
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, given=(), named=None):
            return function(*given, **(named or {}))

    model = usual()
    with Mode():
        assert not keeps_nothing(model)
    handle = nn.modules.module.register_module_forward_hook(lambda *given: None)
    assert not keeps_nothing(model)
    handle.remove()
    assert keeps_nothing(model)


class Scaled(Base):
    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, batch):
        return self.inner(batch * self.scale)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "scale", -1.0), lambda m: m.inner.weight.data.mul_(-1.0),
        lambda m: setattr(m, "inner", plane([[-1.0, 0.2], [1.0, 0.3]]).eval()),
    ],
)  # fmt: skip
def test_a_model_that_changes_between_two_calls_is_taken_as_it_is_then(change):
    found = []
    for count in (1, 3):
        model = Scaled().eval()
        sampler = Sampler(model, 2, 0.5, lanes=count, batch_size=10)
        before = sampler.submit(DRAWS).result()
        with torch.no_grad():
            change(model)
        found.append((before, sampler.submit(DRAWS).result()))
    assert not equal(*found[0])
    assert equal(found[0][0], found[1][0]) and equal(found[0][1], found[1][1])


def test_modes_and_running_statistics_are_those_of_the_moment():
    def normalised():
        return nn.Sequential(nn.BatchNorm1d(2), net())

    found = []
    for count in (1, 3):
        model = normalised()
        sampler = Sampler(model, 2, 0.5, lanes=count, batch_size=100)
        model.eval()
        first = sampler.submit(DRAWS).result()
        model[0].running_mean += 0.5
        found.append((first, sampler.submit(DRAWS).result()))
    assert equal(found[0][0], found[1][0]) and equal(found[0][1], found[1][1])
    assert not equal(*found[0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_sampler_may_be_asked_twice_at_once(count):
    long = [Draw(torch.tensor([0.1, 0.3]), 1, (2000,)), Draw(torch.tensor([-0.1, 0.2]), 2, (2000,))]
    sampler = Sampler(net(), 2, 0.5, lanes=count, batch_size=10)
    alone = [[logits for _, logits in sampler.logits([draw])] for draw in long]
    both = list(zip(sampler.logits(long[:1]), sampler.logits(long[1:]), strict=True))
    for k in range(2):
        assert all((pair[k][1] == own).all() for pair, own in zip(both, alone[k], strict=True))
    found = {}

    def ask(k):
        found[k] = sampler.submit([long[k]]).result()[0]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        assert (found[k] == Sampler(net(), 2, 0.5, lanes=1).submit([long[k]]).result()[0]).all()


def test_logits_come_in_order():
    for model in (net(), View().eval()):
        side = list(Sampler(model, 2, 0.5, lanes=3, batch_size=10).logits(DRAWS))
        alone = list(Sampler(model, 2, 0.5, lanes=1, batch_size=10).logits(DRAWS))
        assert [part for part, _ in side] == [part for part, _ in alone]
        assert all((a == b).all() for (_, a), (_, b) in zip(side, alone, strict=True))


@pytest.fixture
def watched(monkeypatch):
    """Let the tests' own modules run in threads, and say what each call shall do."""

    class Watched(nn.Module):
        act = staticmethod(lambda batch: None)

        def forward(self, batch):
            self.act(batch)
            return batch

    monkeypatch.setattr("certmix.sampling.runner.keeps_nothing", lambda module: True)
    return Watched().eval()


def test_threads_are_given_back_and_each_lane_has_its_share(watched):
    before, seen = torch.get_num_threads(), set()
    watched.act = lambda batch: seen.add(torch.get_num_threads()) if len(batch) == 10 else None
    Sampler(watched, 2, 0.5, lanes=2, batch_size=10).submit(DRAWS)
    assert seen == {max(1, before // 2)}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("mine"), ModelError), (KeyboardInterrupt("mine"), KeyboardInterrupt)]
)
def test_an_error_in_a_lane_is_the_error(watched, error, kind):
    def fail(batch):
        if batch.mean() > 0.05:
            raise error

    watched.act, before = fail, torch.get_num_threads()
    with pytest.raises(kind, match="mine"):
        counted(watched, 3, batch_size=10)
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]
    with pytest.raises(ModelError, match=r"expected logits of shape \(10, 3\)"):
        Sampler(net(), 3, 0.5, lanes=3, batch_size=10).submit(DRAWS)


def test_whoever_stops_asking_stops_the_lanes(watched):
    calls = []
    watched.act = calls.append
    logits = Sampler(watched, 2, 0.5, lanes=2, batch_size=10).logits([Draw(torch.zeros(2), 0, (100_000,))])
    next(logits)
    logits.close()
    done = len(calls)
    time.sleep(0.05)
    assert len(calls) == done < 20


def test_a_lane_a_thread_by_default_and_at_least_one():
    def lanes_of(model, **settings):
        return Sampler(model, 2, 0.5, **settings).width([2]) / 1000

    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 64):
            torch.set_num_threads(threads)
            assert lanes_of(net()) == (1 if threads == 1 else 2 * min(threads, lanes.MOST_LANES))
            assert lanes_of(Base().eval()) == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ParameterError, match="lanes = 0: at least 1 is needed"):
        Sampler(net(), 2, 0.5, lanes=0)


def test_nothing_asked_for_is_nothing():
    assert Sampler(net(), 2, 0.5, lanes=2).submit([]).result() == []
    empty = Sampler(net(), 2, 0.5, lanes=2).submit([Draw(torch.zeros(2), 0, (5,), start=5)]).result()
    assert np.array_equal(empty[0], [[0, 0]])
