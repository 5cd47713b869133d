"""Workers that are actors of a Ray cluster: GPUs as resources, other nodes, deaths of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from certmix.engines.interface import Handler, Take, Work
from certmix.engines.local import packed
from certmix.engines.queue import Queue
from certmix.engines.supervise import Died, Done, Failed, Ready, supervise
from certmix.engines.worker import handled, opened, portable
from certmix.errors import ParameterError, RunError
from certmix.memory import keep_freed_memory

__all__ = ["RayEngine"]

STORE_BYTES = 100_000_000
"""Of a local Ray: records travel through it, they are small."""
WAIT = 1.0
"""Seconds between two looks at a cluster where nothing happens."""


def _ray() -> ModuleType:
    """Return ray.

    Raises
    ------
    ParameterError
        If it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ParameterError(
            "engine 'ray' needs Ray, which is not installed: pip install 'certmix[ray]', or use "
            "--engine local"
        ) from None
    found: ModuleType = ray
    return found


class _Actor:
    """What runs in a Ray worker process."""

    def __init__(self) -> None:
        self._handler: Handler | None = None

    def open(self, payload: bytes, device: str) -> Ready | Failed:
        """Load the work."""
        try:
            keep_freed_memory()
            self._handler = opened(payload, device)
        except Exception as error:
            return Failed(portable(error))
        return Ready()

    def handle(self, task: list[Any]) -> Done | Failed:
        """Do one task."""
        assert self._handler is not None
        return handled(self._handler, task)


@dataclass(eq=False)
class _Worker:
    """An actor, and the answer that is awaited of it."""

    actor: Any
    answer: Any


class _Crew:
    """Actors; Ray places them wherever their resources are free, now or later."""

    def __init__(self, ray: ModuleType, payload: bytes, size: int, device: str, gpus: float) -> None:
        self.size, self._ray, self._payload, self._device = size, ray, ray.put(payload), device
        self._kind = ray.remote(_Actor).options(num_cpus=1, num_gpus=gpus, max_restarts=0)
        self._workers: list[_Worker] = []

    def hire(self) -> _Worker:
        """Ask for an actor; it may have to wait for resources."""
        actor = self._kind.remote()
        worker = _Worker(actor, actor.open.remote(self._payload, self._device))
        self._workers.append(worker)
        return worker

    def send(self, worker: _Worker, task: list[Any]) -> None:
        """Send a task; a death is noticed by `events`."""
        worker.answer = worker.actor.handle.remote(task)

    def events(self) -> list[tuple[_Worker, Ready | Done | Failed | Died]]:
        """Wait for answers; a dead actor's is an error."""
        awaited = {worker.answer: worker for worker in self._workers if worker.answer is not None}
        ready, _ = self._ray.wait(list(awaited), num_returns=1, timeout=WAIT)
        return [(awaited[answer], self._hear(awaited[answer])) for answer in ready]

    def _hear(self, worker: _Worker) -> Ready | Done | Failed | Died:
        try:
            found: Ready | Done | Failed = self._ray.get(worker.answer)
        except self._ray.exceptions.RayError as error:
            self._workers.remove(worker)
            self._ray.kill(worker.actor)
            return Died(" ".join(str(error).split())[:200] or type(error).__name__)
        worker.answer = None
        return found

    def dismiss(self) -> None:
        """End all actors."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers.clear()


class RayEngine:
    """Workers that are actors of a cluster, or of a Ray that is started and ended here.

    Parameters
    ----------
    workers
        How many; those that find no free resources wait for them.
    device
        The driver's; workers with a GPU use that.
    gpus_per_worker
        GPUs of a worker, fractions allowed; None for 1 where the device is ``cuda``.
    address
        Of a cluster; None for ``RAY_ADDRESS``, else a local Ray.

    Raises
    ------
    ParameterError
        If Ray is not installed.
    """

    remote = True

    def __init__(self, workers: int, device: str, gpus_per_worker: float | None, address: str | None) -> None:
        self._ray = _ray()
        self.workers, self.address = workers, address or os.environ.get("RAY_ADDRESS") or None
        self.gpus = float(device.startswith("cuda")) if gpus_per_worker is None else gpus_per_worker
        self.device = "cuda" if self.gpus > 0 else device

    def run(self, work: Work, items: list[Any], take: Take) -> None:
        """Do all items; see `certmix.engines.Engine`."""
        if not items:
            return
        payload = packed(work)
        with self._connected():
            self._refuse_impossible()
            crew = _Crew(self._ray, payload, self.workers, self.device, self.gpus)
            supervise(crew, Queue(items, self.workers, work.name), take)

    def _refuse_impossible(self) -> None:
        """Refuse to wait for GPUs that a Ray of this machine alone will never have."""
        there = self._ray.cluster_resources().get("GPU", 0.0)
        if self.address is None and self.gpus > there:
            raise ParameterError(
                f"a worker wants {self.gpus:g} GPUs, Ray finds {there:g} here: lower --gpus-per-worker, or "
                "name a cluster with --ray-address"
            )

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Be connected to Ray; a connection that was there before stays."""
        if self._ray.is_initialized():
            yield
            return
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        try:
            if self.address is not None:
                self._ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
            else:
                self._ray.init(num_cpus=self.workers, object_store_memory=STORE_BYTES, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(
                f"no connection to Ray at {self.address or 'this machine'} "
                f"({' '.join(str(error).split())[:200]}): check --ray-address, or use --engine local"
            ) from None
        try:
            yield
        finally:
            self._ray.shutdown()

    def describe(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return {"name": "ray", "workers": self.workers, "gpus_per_worker": self.gpus}
