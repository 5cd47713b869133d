"""Batches side by side: the same counts as one after another, whatever the model keeps and wherever."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
import pytest
import torch
from planes import plane
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling import Draw, Sampler, lanes
from certmix.sampling.tracing import agrees, fingerprint, traced

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
    monkeypatch.setattr("certmix.sampling.runner.traced", lambda module: module)
    alone = counted(model().eval(), 1, batch_size=10)
    assert any(not equal(counted(model().eval(), 4, batch_size=10), alone) for _ in range(5))


def test_the_usual_layers_are_traced_and_agree():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    graph = traced(model)
    assert agrees(model, graph, [torch.rand(5, 3, 8, 8)])
    assert not agrees(model, nn.Sequential(graph, nn.Softmax(1)), [torch.rand(5, 3, 8, 8)])


class Branches(Base):
    def forward(self, batch):
        return self.inner(batch if batch.sum() > 0 else -batch)


class Draws(Base):
    def forward(self, batch):
        return self.inner(batch + torch.randn(2))


class Foreign(nn.Linear):
    """Not torch's own, but traced through."""


def test_what_cannot_be_trusted_is_not_traced():
    assert traced(net()) is not None
    assert traced(Foreign(2, 2).eval()) is not None
    assert traced(net().train()) is None
    assert traced(Branches().eval()) is None
    hooked = Base().eval()
    hooked.inner.register_forward_hook(lambda *given: None)
    assert traced(hooked) is None
    assert traced(Draws().eval()) is None


def test_tracing_leaves_the_model_as_it_was():
    model = KeepsInItself().eval()
    model.kept = "mine"
    traced(model)
    assert model.kept == "mine"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.train(), lambda m: setattr(m, "scale", 3.0), lambda m: setattr(m, "inner", net()),
        lambda m: m.inner.register_forward_hook(lambda *given: None),
        lambda m: setattr(m.inner, "bias", nn.Parameter(torch.zeros(2))),
    ],
)  # fmt: skip
def test_changes_of_a_model_are_noticed(change):
    model = Base().eval()
    model.scale = 2.0
    before = fingerprint(model)
    assert fingerprint(model) == before
    change(model)
    assert fingerprint(model) != before


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

    monkeypatch.setattr("certmix.sampling.runner.traced", lambda module: module)
    return Watched().eval()


def test_threads_are_given_back_and_each_lane_has_its_share(watched):
    before, seen = torch.get_num_threads(), set()
    watched.act = lambda batch: seen.add(torch.get_num_threads()) if len(batch) == 10 else None
    Sampler(watched, 2, 0.5, lanes=2, batch_size=10).submit(DRAWS)
    assert seen == {max(1, before // 2)}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_in_a_lane_is_the_error(watched, error):
    def fail(batch):
        if len(batch) == 10 and batch.mean() > 0.05:
            raise error

    watched.act, before = fail, torch.get_num_threads()
    with pytest.raises(type(error)):
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
            assert lanes_of(Branches().eval()) == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ParameterError, match="lanes = 0: at least 1 is needed"):
        Sampler(net(), 2, 0.5, lanes=0)


def test_nothing_asked_for_is_nothing():
    assert Sampler(net(), 2, 0.5, lanes=2).submit([]).result() == []
    empty = Sampler(net(), 2, 0.5, lanes=2).submit([Draw(torch.zeros(2), 0, (5,), start=5)]).result()
    assert np.array_equal(empty[0], [[0, 0]])
