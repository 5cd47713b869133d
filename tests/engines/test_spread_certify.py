"""Certification by workers: the same records as alone, whoever dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forged import images_in
from planes import INPUTS, LABELS, plane, points
from spreading import rows
from toy_work import alive

import certmix
from certmix.certification.request import CertifyRequest
from certmix.certification.rounds import Job
from certmix.certification.workload import Elsewhere
from certmix.engines import EngineChoice, make_engine
from certmix.engines.worker import handled, opened
from certmix.errors import ParameterError, RunError
from certmix.runs.sources import Sources, load_sources
from certmix.sampling.passes import Passes

CPU = torch.device("cpu")


def options(problem):
    nets = f"{problem.folder / 'nets.py'}:linear"
    data = str(problem.folder / "points.npz")
    return {
        "data": data,
        "standard": nets,
        "robust": nets,
        "images": "all",
        "samples": 3000,
        "batch_size": 200,
    }


def test_images_are_named_by_their_index():
    from certmix.certification.workload import Elsewhere

    name = Elsewhere.name
    assert name(None, Job(50, 5, None)) == "image 50"
    assert name(None, Job(5, 2, None)) == "image 5"


def test_records_are_those_of_a_serial_run_though_a_worker_is_killed(problem):
    given, shown = options(problem), []
    alone = certmix.certify(0.25, 0.76, output=problem.folder / "alone", **given)

    def kill(progress):
        if not shown:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        shown.append(progress)

    both = certmix.certify(0.25, 0.76, output=problem.folder / "both", workers=2, progress=kill, **given)
    assert rows(problem.folder / "both") == rows(problem.folder / "alone")
    assert both.summary == alone.summary
    assert [shown[-1].done, shown[-1].total] == [12, 12]
    assert shown[-1].certified > 0
    assert not multiprocessing.active_children()


def work(problem, **request):
    given = options(problem)
    names = {key: given[key] for key in ("data", "standard", "robust")}
    asked = CertifyRequest(0.25, 0.76, images="all", **request)
    sources = Sources(**names)
    loaded = load_sources(sources, 0.25, CPU, lambda message: None)
    return asked, loaded, Elsewhere.of(asked, sources, loaded, Passes(CPU, 200))


@pytest.mark.parametrize("request_", [{"samples": 3000}, {"samples": 400, "scores": "soft"}], ids=str)
def test_tasks_that_are_cut_short_go_on_where_they_were(problem, request_):
    """With no time at all a task is one round; records grow from task to task as in one go."""
    spread = work(problem, **request_)[2]
    handler, jobs, newest, finished = spread.open("cpu"), [Job(10 * p, p, None) for p in range(12)], {}, []
    while jobs:
        before, found = len(finished), []
        jobs = handler(jobs, 0.02, found.append)
        newest.update((record.index, record) for record in found[0].records)
        finished += found[0].finished
        assert len(finished) == len(newest) - sum(job.record is not None for job in jobs) >= before
    whole = []
    assert spread.open("cpu")([Job(10 * p, p, None) for p in range(12)], 1e9, whole.append) == []
    for expected in whole[0].records:
        found = newest[expected.index]
        assert (found.selection == expected.selection).all()
        assert found.estimation.keys() == expected.estimation.keys()
        assert all((found.estimation[n] == expected.estimation[n]).all() for n in found.estimation)
        assert found.scores.keys() == expected.scores.keys()


def test_a_worker_that_loads_something_else_refuses(problem):
    spread = work(problem, samples=300)[2]
    for part, message in (("data_checksum", "another data"), ("robust_checksum", "another robust model")):
        with pytest.raises(RunError, match=f"a worker loaded {message} than the driver") as refused:
            replace(spread, named=replace(spread.named, **{part: "0" * 64})).open("cpu")
        assert "\n" not in str(refused.value)


def test_objects_that_can_be_sent_are_sent(problem):
    import pickle

    asked = CertifyRequest(0.5, 0.76, images="all", samples=300)
    sources = Sources(data=options(problem)["data"], standard=None, robust=torch.nn.Linear(2, 3))
    loaded = load_sources(sources, 0.5, CPU, lambda message: None)
    payload = pickle.dumps(Elsewhere.of(asked, sources, loaded, Passes(CPU)))
    done = handled(opened(payload, "cpu"), [Job(0, 0, None)])
    assert done.results[0].records[0].index == 0


def test_objects_that_cannot_be_sent_are_refused_and_named():
    with pytest.raises(ParameterError, match="data or models given as objects cannot be sent to workers"):
        certmix.certify(
            0.5, 0.76, data=points(INPUTS, LABELS), standard=None, robust=plane([[1.0, 0.0], [-1.0, 0.0]]),
            images="all", samples=400, goal="fixed", workers=2,
        )  # fmt: skip


@pytest.mark.parametrize(
    "choice, text",
    [
        ({"workers": 0}, "workers = 0: at least 1"),
        ({"engine": "magic"}, "engine 'magic' is unknown: use local or ray"),
        ({"gpus_per_worker": 1}, "--gpus-per-worker is for --engine ray"),
        ({"ray_address": "x"}, "--ray-address is for --engine ray"),
        ({"engine": "ray", "gpus_per_worker": -1}, "GPUs per worker = -1"),
    ],
    ids=str,
)
def test_choices_out_of_range(choice, text):
    with pytest.raises(ParameterError, match=text):
        EngineChoice(**choice)


def test_gpus_are_counted_for_cuda_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    engine = make_engine(EngineChoice(workers=5), torch.device("cuda"))
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in engine.places] == ["0", "1"]
    assert [place.device for place in make_engine(EngineChoice(workers=5), CPU).places] == ["cpu"]
    assert make_engine(EngineChoice(), torch.device("cuda")).remote is False


def test_certificates_without_samples_have_no_shards(command, problem):
    model = f"{problem.folder / 'nets.py'}:linear"
    done = command("certify", "--certificate", "margin", "--alpha", 0.76, "--robust", model, "--shard", "1/2")
    assert done.code == 2
    assert "--shard is not for certificate margin" in done.err
    with pytest.raises(ParameterError, match="leave out shard"):
        certmix.certify(None, 0.76, certificates=["margin"], norm="linf", robust=model, shard="1/2")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_killed_driver_leaves_no_worker_and_a_run_that_resumes(command, problem):
    given = [*problem.options[:4], "--robust", f"{problem.folder / 'nets.py'}:Slow", *problem.options[6:]]
    given += ["--samples", "600", "--goal", "fixed", "--batch-size", "20", "--images", "all"]
    run, code = problem.folder / "run", "from certmix_cli.main import main; main()"
    driver = subprocess.Popen(
        [sys.executable, "-c", code, "certify", *given, "--workers", "2", "--output", str(run)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(600):
        time.sleep(0.1)
        if images_in(run / "numbers.sqlite") >= 1:
            break
    children = _children(driver.pid)
    driver.kill()
    driver.wait()
    kept = images_in(run / "numbers.sqlite")
    assert 1 <= kept < 12
    assert len(children) >= 2
    for _ in range(100):
        if not any(map(alive, children)):
            break
        time.sleep(0.1)
    assert not any(map(alive, children))
    resumed = command("certify", *given, "--output", run, "--format", "json")
    assert resumed.code == 0, resumed.err
    assert images_in(run / "numbers.sqlite") == 12


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
