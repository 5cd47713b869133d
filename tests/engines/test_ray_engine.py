"""Ray: the same records, whoever dies.  Skipped where Ray is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from spreading import rows
from toy_work import Toy, workers

import certmix
from certmix.engines.ray_engine import RayEngine
from certmix.errors import ParameterError, RunError

SMALL = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}


def test_without_ray_the_remedy_is_named(command, problem, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command("certify", *problem.options, "--engine", "ray")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert "pip install 'certmix[ray]'" in lines[0]


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


pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def test_items_of_a_node_that_dies_are_done_by_others(cluster, tmp_path: Path):
    node, results = cluster.add_node(**SMALL), []

    def take(result):
        if not results:
            cluster.remove_node(node, allow_graceful=False)
        results.append(result)

    RayEngine(2, "cpu", None, cluster.address).run(
        Toy(str(tmp_path), crowd=2, pause=0.1), list(range(40)), take
    )
    assert sorted(result[:2] for result in results) == [(i, i * i) for i in range(40)]
    assert len(workers(tmp_path)) >= 2


def test_a_killed_actor_is_replaced_and_errors_are_raised_here(cluster, tmp_path: Path):
    engine, results = RayEngine(1, "cpu", 0, cluster.address), []
    engine.run(Toy(str(tmp_path), kill_once=3), list(range(8)), results.append)
    assert sorted(result[0] for result in results) == list(range(8))
    assert len(workers(tmp_path)) == 2
    with pytest.raises(RunError, match="3 workers died while they held item 0"):
        engine.run(Toy(str(tmp_path), kill_always=0), [0], results.append)
    with pytest.raises(ParameterError, match="item: choose another"):
        engine.run(Toy(str(tmp_path), raises=(0, "mendable")), [0], results.append)


def test_records_are_those_of_a_serial_run(cluster, problem):
    nets = f"{problem.folder / 'nets.py'}:linear"
    given = {
        "data": str(problem.folder / "points.npz"), "standard": nets, "robust": nets, "images": "all",
        "samples": 2000, "batch_size": 200,
    }  # fmt: skip
    alone = certmix.certify(0.25, 0.76, output=problem.folder / "alone", **given)
    spread = certmix.certify(
        0.25,
        0.76,
        output=problem.folder / "spread",
        engine="ray",
        workers=1,
        ray_address=cluster.address,
        **given,
    )
    assert rows(problem.folder / "spread") == rows(problem.folder / "alone")
    assert spread.summary == alone.summary


def test_gpus_per_worker(cluster):
    assert RayEngine(2, "cpu", None, None).gpus == 0
    assert (RayEngine(2, "cuda", None, None).gpus, RayEngine(2, "cuda", None, None).device) == (1, "cuda")
    assert (RayEngine(2, "cpu", 0.5, None).gpus, RayEngine(2, "cpu", 0.5, None).device) == (0.5, "cuda")


def test_an_address_where_nothing_is(tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(RunError, match="no connection to Ray at no-such-scheme://x") as refused:
        RayEngine(1, "cpu", None, "no-such-scheme://x").run(Toy(str(tmp_path)), [1], print)
    assert "\n" not in str(refused.value)
