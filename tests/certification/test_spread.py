"""Certification by workers: the same numbers as alone, whoever dies, with samples and without."""

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
from spreading import Inline, cells, rows

import certmix
from certmix.certification import proved
from certmix.certification.request.proved import Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.sampled import Job, Sampling
from certmix.errors import ParameterError, RunError
from certmix.runs.cells import Part
from certmix.runs.engine import Engine, EngineChoice
from certmix.runs.opening import Named
from certmix.runs.sources import Sources, load_models, load_sources
from certmix.sampling.devices import Passes

CPU = torch.device("cpu")
KINDS = {
    "sampled": {"sigma": 0.25, "samples": 1200, "batch_size": 200},
    "margin": {"sigma": None, "certificates": ("margin",), "radii": (0.0, 0.01, 0.05, 0.1), "norm": "linf"},
    "constant": {"sigma": None, "certificates": ("lipschitz-constant",), "lipschitz_constant": 50.0},
}


def certify(problem, folder, kind="margin", **more):
    nets = f"{problem.folder / 'nets.py'}:linear"
    given = {"data": str(problem.folder / "points.npz"), "standard": nets, "robust": nets, "inputs": "all"}
    given = {**given, "batch_size": 3, **KINDS[kind], **more}
    return certmix.certify(alpha=0.76, output=problem.folder / folder, **given)


def same(problem, kind, first, second):
    first, second = problem.folder / first, problem.folder / second
    if kind == "sampled":
        assert rows(first) == rows(second)
        return
    a, b = cells(first), cells(second)
    assert a.keys() == b.keys()
    for cell in a:
        assert a[cell][0] == b[cell][0]
        seen = slice(2) if cell.startswith("margin") else slice(None)  # a batch's evaluations are shared
        np.testing.assert_allclose(a[cell][1][:, seen], b[cell][1][:, seen], rtol=0, atol=1e-12, err_msg=cell)
    assert (first / "radii.tsv").read_bytes() == (second / "radii.tsv").read_bytes()


@pytest.mark.parametrize(
    ("kind", "killed"),
    [("sampled", False), *(pytest.param(k, True, marks=pytest.mark.long) for k in KINDS)],
)
def test_numbers_are_those_of_one_process_though_a_worker_is_killed(problem, kind, killed):
    alone, shown = certify(problem, "alone", kind), []

    def kill(progress):
        if killed and not shown:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        shown.append(progress.done / progress.total)

    both = certify(problem, "both", kind, workers=2, progress=kill)
    same(problem, kind, "alone", "both")
    assert both.summary == alone.summary
    assert sorted(shown) == shown
    assert shown[-1] == 1
    engine = json.loads((problem.folder / "both" / "run.json").read_text())["engine"]
    assert engine == {"name": "local", "workers": 2}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("kind", KINDS)
def test_an_executor_of_the_user_does_what_is_lacking(problem, kind):
    certify(problem, "alone", kind)
    executor = Inline()
    certify(problem, "run", kind, inputs=4, executor=executor)
    assert len({one.index for one in executor.sent}) == (
        4 if kind == "sampled" else 2
    )  # what takes long comes again
    executor.sent.clear()
    certify(problem, "run", kind, executor=executor)
    if kind == "sampled":
        assert len(executor.sent) >= 8
    else:
        known = [number[:2] for part in executor.sent for number in part.known]
        assert {index for cell, index in known if cell == "robust logits"} <= {0, 3, 6, 9}
        assert len({part.index for part in executor.sent}) == 4
        assert not any(cell.startswith("standard") for cell, _ in known)
    executor.sent.clear()
    certify(problem, "run", kind, executor=executor)
    assert executor.sent == []
    same(problem, kind, "alone", "run")


@pytest.mark.parametrize("executor", [None, Inline()], ids=["alone", "spread"])
def test_an_interrupt_keeps_what_came_and_the_rest_is_done_later(problem, executor):
    def stop(progress):
        if progress.cell == "label" and 2 * progress.done == progress.total:
            raise KeyboardInterrupt

    partial = certify(problem, "run", progress=stop, executor=executor)
    assert (partial.summary.complete, partial.summary.inputs) == (False, 6)
    assert certify(problem, "run", executor=executor).summary.complete
    certify(problem, "other")
    same(problem, "margin", "run", "other")


def sampling(problem, **request):
    nets = f"{problem.folder / 'nets.py'}:linear"
    sources = Sources(data=str(problem.folder / "points.npz"), standard=nets, robust=nets)
    asked = CertifyRequest(0.25, 0.76, inputs="all", precision="fp32", **request)
    loaded = load_sources(sources, 0.25, CPU, lambda message: None)
    return recipe(asked, sources, loaded, 200).elsewhere()


def recipe(asked, sources, loaded, batch_size=None):
    engine = Engine(EngineChoice(), CPU)
    return Sampling(asked, sources, loaded, Passes(CPU, batch_size), engine, lambda message: None)


@pytest.mark.parametrize("request_", [{"samples": 1200}, {"samples": 400, "scores": "soft"}], ids=str)
def test_tasks_that_are_cut_short_go_on_where_they_were(problem, request_):
    """With next to no time a task is a round; records grow from task to task as in one go."""
    spread = sampling(problem, **request_)
    handler, jobs, newest, finished = spread("cpu"), [Job(p, p, None) for p in range(12)], {}, 0
    while jobs:
        found = []
        jobs = handler(jobs, 0.02, found.append)
        for one in found:
            newest.update(((cell, index), vector) for cell, index, vector in one.numbers)
            finished += one.done
        inputs = {index for _, index in newest}
        assert finished == len(inputs) - sum(job.record is not None for job in jobs)
    whole = []
    assert spread("cpu")([Job(p, p, None) for p in range(12)], 1e9, whole.append) == []
    expected = {(cell, index): vector for one in whole for cell, index, vector in one.numbers}
    assert newest.keys() == expected.keys()
    for (cell, index), vector in expected.items():
        if cell.startswith(("input", "selection", "votes")):
            np.testing.assert_array_equal(newest[cell, index], vector)


def test_time_ends_a_task_after_a_batch_and_another_model_or_data_are_refused(problem):
    nets = f"{problem.folder / 'nets.py'}:linear"
    sources = Sources(data=str(problem.folder / "points.npz"), standard=nets, robust=nets)
    loaded = load_models(sources, sources.robust, CPU, lambda message: None)
    named = Named.of(sources, sources.robust, loaded)
    request = Margin(0.76, norm="linf")
    parts = [Part(np.arange(k, k + 3), k) for k in (0, 3, 6)]
    handler, found = proved._load(request, named, 3, None, "cpu"), []
    assert [part.index for part in handler(parts, 0.0, found.append)] == [3, 6]
    assert handler(parts[1:], 1e9, found.append) == []
    assert [index for one in found for cell, index, _ in one.numbers if cell == "label"] == list(range(9))
    for part in ("data", "robust model"):
        with pytest.raises(RunError, match=f"a worker loaded another {part} than the driver") as refused:
            replace(named, checksums={**named.checksums, part: "0" * 64}).load(CPU)
        assert "\n" not in str(refused.value)


def test_objects_that_can_be_sent_are_sent_and_others_refused(problem):
    asked = CertifyRequest(0.5, 0.76, inputs="all", samples=300, precision="fp32")
    net = torch.nn.Linear(2, 3)
    sources = Sources(data=str(problem.folder / "points.npz"), standard=None, robust=net)
    loaded, found = load_sources(sources, 0.5, CPU, lambda message: None), []
    sent = pickle.loads(pickle.dumps(recipe(asked, sources, loaded).elsewhere()))
    sent("cpu")([Job(0, 0, None)], 9.0, found.append)
    assert {index for _, index, _ in found[0].numbers} == {0}
    local = plane([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    local.held = lambda: None
    for kind in ("sampled", "constant"):
        with pytest.raises(ParameterError, match="data or models given as objects cannot be sent to workers"):
            certify(problem, kind, kind, standard=None, robust=local, workers=2)
