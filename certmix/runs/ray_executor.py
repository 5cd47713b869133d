"""Actors of a Ray cluster as a `concurrent.futures.Executor`: GPUs are resources, nodes may die."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from types import ModuleType
from typing import Any

from certmix.errors import ParameterError, RunError, brief, install
from certmix.memory import keep_freed_memory
from certmix.signals import kept

STORE_BYTES = 100_000_000
"""Of a local Ray: records travel through it, they are small."""


def ray() -> ModuleType:
    """Return ray; ParameterError if it is not installed."""
    try:
        import ray
    except ImportError:
        remedy = f"{install('ray')}, or use --engine local"
        raise ParameterError(f"engine 'ray' needs Ray, which is not installed: {remedy}") from None
    found: ModuleType = ray
    return found


class _Actor:
    """What runs in a Ray worker process."""

    def __init__(self) -> None:
        keep_freed_memory()

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        """Return the function's result, or the error that it raised: errors of Ray itself are deaths."""
        try:
            return function(*args), None
        except Exception as error:
            return None, error


class RayExecutor(Executor):
    """Actors with one CPU and `gpus` each, one for each task under way; dead ones are replaced.

    A Ray that is started, and ended, here has `workers` CPUs; actors that find no free resources wait for
    them; `address` None is ``RAY_ADDRESS``, else a local Ray.  ParameterError if Ray is not installed or has
    no such GPUs on this machine, RunError without a connection.
    """

    def __init__(self, workers: int, gpus: float, address: str | None) -> None:
        self._ray, address = ray(), address or os.environ.get("RAY_ADDRESS") or None
        self._connected_before = self._ray.is_initialized()
        if not self._connected_before:
            local = {"num_cpus": workers, "object_store_memory": STORE_BYTES, "include_dashboard": False}
            where = local if address is None else {"address": address}
            try:
                with kept():  # Ray's own handler of SIGTERM ends the program
                    self._ray.init(log_to_driver=False, logging_level="ERROR", **where)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise RunError(
                    f"no connection to Ray at {address or 'this machine'} "
                    f"({brief(error)}): check --ray-address, or use --engine local"
                ) from None
        self._kind = self._ray.remote(_Actor).options(num_cpus=1, num_gpus=gpus, max_restarts=0)
        self._actors: set[Any] = set()
        self._idle: list[Any] = []
        there = self._ray.cluster_resources().get("GPU", 0.0)
        if address is None and gpus > there:
            self.shutdown()
            raise ParameterError(
                f"a worker wants {gpus:g} GPUs, Ray finds {there:g} here: lower --gpus-per-worker, or "
                "name a cluster with --ray-address"
            )

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give a task to an idle actor, or to a new one."""
        actor = self._idle.pop() if self._idle else self._kind.remote()
        self._actors.add(actor)
        answer: Future[Any] = Future()
        answer.set_running_or_notify_cancel()

        def done(told: Future[tuple[Any, Exception | None]]) -> None:
            try:
                result, error = told.result()
            except self._ray.exceptions.RayError as death:
                self._actors.discard(actor)
                answer.set_exception(BrokenExecutor(brief(death)))
                return
            self._idle.append(actor)
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        actor.call.remote(function, args).future().add_done_callback(done)
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all actors, whatever they do, and Ray if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()
        if not self._connected_before:
            self._ray.shutdown()
