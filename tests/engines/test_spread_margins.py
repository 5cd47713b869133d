"""Certificates without samples by workers: the same numbers as alone, whoever dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from planes import plane

import certmix
from certmix.certification import deterministic_spread
from certmix.certification.deterministic_request import Margin
from certmix.certification.deterministic_spread import Batch, Elsewhere
from certmix.data import load
from certmix.engines import EngineChoice, SerialEngine
from certmix.engines.worker import handled, opened
from certmix.errors import ParameterError, RunError
from certmix.runs import Store
from certmix.runs.elsewhere import Named
from certmix.runs.sources import Sources, load_models

CPU = torch.device("cpu")


def options(problem, **more):
    nets = f"{problem.folder / 'nets.py'}:linear"
    data = str(problem.folder / "points.npz")
    given = {"data": data, "standard": nets, "robust": nets, "images": "all", "batch_size": 3, "norm": "linf"}
    return {**given, **more}


def certify(problem, folder, certificate="margin", **more):
    given = options(problem, **more)
    return certmix.certify(None, 0.76, certificates=(certificate,), output=problem.folder / folder, **given)


def cells(folder):
    store = Store(folder / "numbers.sqlite", read_only=True)
    try:
        indices = {cell: sorted(store.known(cell)) for cell in store.cells()}
        return {cell: (held, store.read(cell, held)) for cell, held in indices.items()}
    finally:
        store.close()


def same(first, second):
    a, b = cells(first), cells(second)
    assert a.keys() == b.keys()
    for cell in a:
        assert a[cell][0] == b[cell][0]
        np.testing.assert_allclose(a[cell][1], b[cell][1], rtol=0, atol=1e-12, err_msg=cell)


@pytest.mark.parametrize(
    "certificate, more",
    [("margin", {"radii": (0.0, 0.01, 0.05, 0.1)}), ("lipschitz-constant", {"lipschitz_constant": 50.0})],
)
def test_numbers_are_those_of_one_process_though_a_worker_is_killed(problem, certificate, more):
    if certificate == "lipschitz-constant":
        more = {**more, "norm": "l2"}
    alone = certify(problem, "alone", certificate, **more)
    shown = []

    def kill(progress):
        if not shown:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        shown.append(progress.done)

    both = certify(problem, "both", certificate, workers=2, progress=kill, **more)
    same(problem.folder / "alone", problem.folder / "both")
    assert both.summary == alone.summary
    assert (problem.folder / "both" / "radii.tsv").read_bytes() == (
        problem.folder / "alone" / "radii.tsv"
    ).read_bytes()
    assert sorted(shown) == shown and shown[-1] == 12
    assert json.loads((problem.folder / "both" / "run.json").read_text())["engine"]["workers"] == 2
    assert not multiprocessing.active_children()


class Inline:
    """An engine whose only worker is this process, with all that is sent pickled."""

    remote = True

    def __init__(self):
        self.sent = []

    def run(self, work, items, take):
        handler = opened(pickle.dumps(work), "cpu")
        items = pickle.loads(pickle.dumps(items))
        self.sent += items
        while items:
            done = handled(handler, items)
            if not hasattr(done, "rest"):
                raise done.error
            for found in pickle.loads(pickle.dumps(done.results)):
                take(found)
            items = done.rest

    def describe(self):
        return {"name": "inline", "workers": 1}


@pytest.fixture
def inline(monkeypatch):
    engine = Inline()
    monkeypatch.setattr("certmix.certification.deterministic.make_engine", lambda choice, device: engine)
    return engine


def test_only_what_is_lacking_is_sent_with_what_is_known(problem, inline):
    certify(problem, "run", images=4)
    first = list(inline.sent)
    assert [item.known for item in first] == [{}, {}]
    inline.sent.clear()
    certify(problem, "run", images="all")
    known = set[int]().union(*(batch.known.get("robust logits", ((), None))[0] for batch in inline.sent))
    assert known <= {0, 3, 6, 9}
    assert len(inline.sent) == 4
    assert all(list(batch.known) == [] or "standard" not in "".join(batch.known) for batch in inline.sent)
    inline.sent.clear()
    certify(problem, "run", images="all")
    assert inline.sent == []


def test_an_interrupt_keeps_what_came_and_the_rest_is_done_later(problem, inline):
    def stop(progress):
        if progress.done == 6:
            raise KeyboardInterrupt

    partial = certify(problem, "run", progress=stop)
    assert (partial.summary.complete, partial.summary.images) == (False, 6)
    inline.sent.clear()
    whole = certify(problem, "run")
    assert whole.summary.complete
    assert len(inline.sent) == 2
    certify(problem, "other")
    same(problem.folder / "run", problem.folder / "other")


def test_time_ends_a_task_after_a_batch(problem):
    given = options(problem)
    sources = Sources(**{key: given[key] for key in ("data", "standard", "robust")})
    loaded = load_models(sources, sources.robust, CPU, lambda message: None)
    named = Named.of(sources, sources.robust, loaded)
    request = Margin(0.76, norm="linf")
    batches = [Batch(np.arange(k, k + 3), k, {}) for k in (0, 3, 6)]
    handler, found = Elsewhere(request, named, "cpu", 3).open("cpu"), []
    assert [batch.index for batch in handler(batches, 0.0, found.append)] == [3, 6]
    assert handler(batches[1:], 1e9, found.append) == []
    assert [list(one.positions) for one in found] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    for part, message in (("data_checksum", "another data"), ("robust_checksum", "another robust model")):
        with pytest.raises(RunError, match=f"a worker loaded {message} than the driver"):
            Elsewhere(request, replace(named, **{part: "0" * 64}), "cpu", 3).open("cpu")


def test_the_default_model_is_named_for_workers(problem):
    dataset = load("cifar10-sample", "test")
    sources = Sources(data="cifar10-sample", standard=None)
    loaded = load_models(sources, "cifar10-interval-linf", CPU, lambda message: None)
    named = Named.of(sources, "cifar10-interval-linf", loaded)
    assert named.robust == "cifar10-interval-linf"
    assert named.data_checksum == dataset.checksum


def test_objects_that_cannot_be_sent_are_refused(problem):
    net = plane([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    net.held = lambda: None
    with pytest.raises(ParameterError, match="data or models given as objects cannot be sent to workers"):
        certmix.certify(
            None, 0.76, certificates=("lipschitz-constant",), lipschitz_constant=9.0,
            **{**options(problem), "standard": None, "robust": net, "norm": "l2"}, workers=2,
        )  # fmt: skip


def test_the_serial_engine_sends_nothing(problem, monkeypatch):
    monkeypatch.setattr(deterministic_spread, "unfinished", lambda *a: pytest.fail("asked"))
    assert EngineChoice() == EngineChoice("local", 1)
    assert SerialEngine().remote is False
    assert certify(problem, "run").summary.complete
