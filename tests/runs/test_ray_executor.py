"""Ray: every item is done, whoever dies; with Ray where it is installed, else with a stand-in for what is used of it."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from toy_work import Toy, workers

from certmix.errors import ParameterError, RunError
from certmix.runs.engine import Engine, EngineChoice

CPU = torch.device("cpu")
SMALL = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}


def test_without_ray_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParameterError, match=r"^engine 'ray' needs Ray, .*: pip install 'ray>=2.5', or use"):
        Engine(EngineChoice("ray"), CPU)


class StandIn(ModuleType):
    """A Ray of threads: actors that answer one call after another, and die at the calls that are told."""

    class exceptions:  # noqa: N801  (Ray's name)
        class RayError(Exception):
            pass

    def __init__(self, deaths=(), gpus=0.0):
        super().__init__("ray")
        self.deaths, self.gpus, self.calls, self.log, self.options = set(deaths), gpus, 0, [], {}

    def is_initialized(self):
        return False

    def init(self, **settings):
        if settings.get("address") == "nowhere":
            raise ConnectionError("nobody\nanswers")
        self.log.append(settings)

    def cluster_resources(self):
        return {"GPU": self.gpus}

    def shutdown(self):
        self.log.append("shutdown")

    def kill(self, actor):
        self.log.append("kill")
        actor.thread.shutdown()

    def remote(self, kind):
        def options(**given):
            self.options = given
            return SimpleNamespace(remote=lambda: Actor(self, kind()))

        return SimpleNamespace(options=options)


class Actor:
    def __init__(self, ray, held):
        self.thread = ThreadPoolExecutor(1)

        def call(*args):
            ray.calls += 1
            if ray.calls in ray.deaths:
                raise ray.exceptions.RayError("the actor died")
            return held.call(*args)

        submit = self.thread.submit
        self.call = SimpleNamespace(remote=lambda *args: SimpleNamespace(future=lambda: submit(call, *args)))


def run(ray, monkeypatch, toy, items=40, device=CPU, **choice):
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    results = []
    engine = Engine(EngineChoice("ray", **{"workers": 2, **choice}), device)
    try:
        engine.run(toy.work(), list(range(items)), results.append)
    finally:
        assert ray.log[-1:] in ([], ["shutdown"])
    return sorted(result[:2] for result in results)


def test_items_of_an_actor_that_dies_are_done_by_others(tmp_path: Path, monkeypatch):
    ray = StandIn({2, 5})
    assert run(ray, monkeypatch, Toy(str(tmp_path))) == [(i, i * i) for i in range(40)]
    assert ray.log == [{**ray.log[0]}, "kill", "kill", "shutdown"]
    assert (ray.log[0]["num_cpus"], ray.options["num_gpus"]) == (2, 0.0)


def test_errors_of_the_work_and_of_ray(tmp_path: Path, monkeypatch):
    with pytest.raises(ParameterError, match="item: choose another"):
        run(StandIn(), monkeypatch, Toy(str(tmp_path), raises=(0, "mendable")))
    with pytest.raises(RunError, match="workers died 3 times while they held item"):
        run(StandIn(range(99)), monkeypatch, Toy(str(tmp_path)))
    with pytest.raises(RunError, match=r"no connection to Ray at nowhere \(nobody answers\)"):
        run(StandIn(), monkeypatch, Toy(str(tmp_path)), ray_address="nowhere")


@pytest.mark.parametrize(
    "device, asked, there, expected",
    [("cpu", None, 0, 0), ("cuda", None, 2, 1), ("cpu", 0.5, 1, 0.5), ("cuda", 2, 1, None)],
)
def test_gpus_per_worker(tmp_path: Path, monkeypatch, device, asked, there, expected):
    ray, toy = StandIn(gpus=there), Toy(str(tmp_path))
    more = {"device": torch.device(device), "gpus_per_worker": asked}
    if expected is None:
        with pytest.raises(ParameterError, match="a worker wants 2 GPUs, Ray finds 1 here"):
            run(ray, monkeypatch, toy, **more)
        return
    run(ray, monkeypatch, toy, **more)
    assert ray.options["num_gpus"] == expected
    assert {path.read_text() for path in tmp_path.glob("device-*")} == {"cuda" if expected else "cpu"}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node with one CPU, to which tests add others."""
    pytest.importorskip("ray", reason="Ray is not installed")
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # nodes must find toy_work
        made = Cluster(initialize_head=True, head_node_args=SMALL)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_real_cluster_whose_node_and_actors_die(cluster, tmp_path: Path):
    node, results = cluster.add_node(**SMALL), []

    def take(result):
        if not results:
            cluster.remove_node(node, allow_graceful=False)
        results.append(result)

    chosen = {"gpus_per_worker": 0, "ray_address": cluster.address}
    toy = Toy(str(tmp_path), crowd=2, pause=0.1, kill_once=7)
    Engine(EngineChoice("ray", 2, **chosen), CPU).run(toy.work(), list(range(40)), take)
    assert sorted(result[:2] for result in results) == [(i, i * i) for i in range(40)]
    assert len(workers(tmp_path)) >= 3
    with pytest.raises(ParameterError, match="item: choose another"):
        Engine(EngineChoice("ray", 1, **chosen), CPU).run(
            Toy(str(tmp_path), raises=(0, "mendable")).work(), [0], print
        )
