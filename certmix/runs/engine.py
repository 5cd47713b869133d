"""Who does a run's work: this process, processes of this machine, or any `concurrent.futures.Executor`.

Importing this module imports neither torch nor ray.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import cycle
from multiprocessing import connection, get_all_start_methods, resource_tracker, set_start_method
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from msgspec import Meta

from certmix import guard
from certmix.errors import ModelError, ParameterError, RunError, brief
from certmix.memory import keep_freed_memory
from certmix.runs.settings import Count, Option, Settings
from certmix.signals import postponed

if TYPE_CHECKING:
    import torch

__all__ = ["ENGINES", "Engine", "EngineChoice", "Handler", "Open", "Take", "Work"]

ENGINES = {
    "local": "processes of this machine",
    "ray": "actors of a Ray cluster, or of a local Ray (pip install ray)",
}

SECONDS = 3.0
"""After which a worker gives back what is left of a task."""
TRIES = 3
"""Times that workers may die while they hold an item."""
MOST, MOST_ON_GPUS = (64, 8, 1), (1024, 8, 1)
"""Items of a task by deaths so far: enough to fill batches; what may kill workers takes few along."""
ALONE, PAYS = 5.0, 15.0
"""Seconds after which a run of one process thinks of workers, and what must be left of it for them to pay."""
MOST_WORKERS = 16
"""Processes that are started unasked: each loads a model of its own."""

Take = Callable[[Any], None]
"""Takes one result."""
Handler = Callable[[list[Any], float, Take], list[Any]]
"""Works on items for about so many seconds, hands over results, and returns the items that want more.

What is done twice, because a worker died, must give the same results twice.
"""
T = TypeVar("T")
Open = Callable[[str], Handler]
"""Loads in a worker, on a device, what is needed; picklable."""


class EngineChoice(Settings, frozen=True):
    """How many workers, and of which kind, a name in `ENGINES`; ParameterError for what that does not take.

    One worker of the engine ``local`` is this process itself; None stands for a process a core of a CPU, as
    soon as a run has shown that it takes long enough for them to pay, else for 1.  None of `gpus_per_worker`
    is 1 where the device is ``cuda``, else 0; of `ray_address` it is ``RAY_ADDRESS``, else a Ray of its own.
    """

    engine: Annotated[
        str,
        Option(
            f"What workers are. {'; '.join(f'{name}: {meaning}' for name, meaning in ENGINES.items())}.",
            choices=ENGINES,
        ),
    ] = "local"
    workers: Annotated[
        Count | None,
        Option(
            "Processes that share the work, one CPU thread each; with --device cuda they take the GPUs in "
            "turn. Samples are the same for any number.",
            shown="on a CPU one a core, once a run has lasted some seconds and many are left; else 1",
        ),
    ] = 1
    gpus_per_worker: Annotated[
        Annotated[float, Meta(ge=0, le=1000)] | None,
        Option(
            "ray: GPUs that a worker takes, 1 or 0.5.", example="0.5", shown="1 with --device cuda, else 0"
        ),
    ] = None
    ray_address: Annotated[
        str | None, Option("ray: the cluster.", metavar="ADDRESS", shown="RAY_ADDRESS, or else a local Ray")
    ] = None

    def check(self) -> None:
        """Refuse what only Ray takes."""
        for name in ("gpus_per_worker", "ray_address"):
            if self.engine != "ray" and getattr(self, name) is not None:
                raise ParameterError(f"--{name.replace('_', '-')} is for --engine ray: leave it out")


@dataclass(frozen=True)
class Work:
    """What an engine gets done: `here` returns what handles items in this process, `elsewhere` what workers
    are sent to make such a handler of their own; each is asked only if it is needed.  `name` is for messages.
    """

    here: Callable[[], Handler]
    elsewhere: Callable[[], Open]
    name: Callable[[Any], str]


class Engine:
    """Gets items done, as was chosen, for a driver whose device is `device`; by `executor` if there is one.

    `described` is plain data for ``run.json``, `device` names the one that workers compute on, `begins_alone`
    says whether this process works for some seconds before workers are thought of.  ParameterError if Ray is
    asked for and not installed, or beside an executor.
    """

    def __init__(self, choice: EngineChoice, device: torch.device, executor: Executor | None = None) -> None:
        self.device, workers, self._alone = str(device), choice.workers or 1, 0.0
        self._elsewhere = executor is not None
        start: Callable[[], AbstractContextManager[Executor]]
        if executor is not None:
            if choice.engine != "local":
                raise ParameterError("an executor is an engine of its own: leave engine out")
            name, workers = type(executor).__name__, max(workers, getattr(executor, "_max_workers", 1))
            start = lambda: nullcontext(executor)  # noqa: E731
        elif choice.engine == "ray":
            from certmix.runs.ray_executor import RayExecutor, ray

            gpus = choice.gpus_per_worker
            gpus = float(device.type == "cuda") if gpus is None else gpus
            self.device = "cuda" if gpus > 0 else self.device
            address = choice.ray_address or os.environ.get("RAY_ADDRESS")
            self._elsewhere = bool(address) or ray().is_initialized()
            name, start = "ray", partial(RayExecutor, workers, gpus, choice.ray_address)
        else:
            if choice.workers is None and device.type == "cpu" and not _script_runs_again():
                import torch

                workers, self._alone = min(torch.get_num_threads(), MOST_WORKERS), ALONE
            if workers == 1:
                self._alone = math.inf
            shown = _gpus(device) if workers > 1 else []
            name, start = "serial" if workers == 1 else "local", partial(_Processes, workers, shown)
        self._workers, self._start = workers, start
        self.begins_alone = 0 < self._alone < math.inf
        self.described: dict[str, Any] = {"name": name, "workers": workers}
        if choice.engine == "ray":
            self.described["gpus_per_worker"] = gpus

    def ask(self, question: Callable[[str], T]) -> T:
        """Return what a worker answers of its device, or this process where workers are on its machine."""
        if not self._elsewhere:
            return question(self.device)
        with self._start() as executor:
            try:
                return executor.submit(question, self.device).result()
            except BrokenExecutor as error:
                raise _lost(error) from None

    def run(self, work: Work, items: list[Any], take: Take) -> None:
        """Do all items and hand every result to `take`, in this process, in any order.

        CertmixError as the work itself raises it; RunError if workers keep dying.
        """
        here, begin, total = None, time.monotonic(), len(items)
        while items and self._alone:
            here = here or work.here()
            spent, done = time.monotonic() - begin, total - len(items)
            if spent >= self._alone and spent * len(items) >= PAYS * done:
                break
            items = here(items, max(1.0, self._alone - spent), take)
        if items:
            try:
                payload = pickle.dumps(work.elsewhere())
            except Exception as error:  # pickling runs code of the objects
                raise ParameterError(
                    f"data or models given as objects cannot be sent to workers ({brief(error)}): name them "
                    "instead (a path, file.py:factory), define their classes at the top of a module, or use "
                    "1 worker"
                ) from None
            with self._start() as executor:
                self._spread(executor, payload, work.name, deque(items), take, here)

    def _spread(
        self,
        executor: Executor,
        payload: bytes,
        name: Callable[[Any], str],
        waiting: deque[Any],
        take: Take,
        here: Handler | None,
    ) -> None:
        """Hand out tasks, again where workers died; work `here` until the first of them has done one."""
        held: dict[Future[tuple[list[Any], list[Any]]], list[Any]] = {}
        deaths: Counter[str] = Counter()
        alive, do = False, partial(_do, limit=guard.limit())
        most = MOST_ON_GPUS if self.device.startswith("cuda") else MOST
        try:
            while waiting or held:
                last_try = False  # is done alone, so that no other item is blamed
                while waiting and len(held) < self._workers and not last_try:
                    died = deaths[name(waiting[0])]
                    last_try = died == TRIES - 1
                    if last_try and held:
                        break
                    size = min(most[died], math.ceil(len(waiting) / self._workers))
                    task = [waiting.popleft()]
                    # blame is shared by equals alone
                    while len(task) < size and deaths[name(waiting[0])] == died:
                        task.append(waiting.popleft())
                    try:
                        held[executor.submit(do, payload, self.device, task)] = task
                    except BrokenExecutor as error:
                        raise _lost(error) from None
                while here is not None and waiting and not any(future.done() for future in held):
                    waiting = deque(here(list(waiting), 1.0, take))
                here = None
                for future in wait(held, return_when=FIRST_COMPLETED).done:
                    task = held.pop(future)
                    try:
                        results, rest = future.result()
                    except BrokenExecutor:
                        deaths.update(map(name, task))
                        if deadly := [n for n in map(name, task) if deaths[n] >= TRIES]:
                            hint = " (a script must call certmix under if __name__ == '__main__':)"
                            raise RunError(
                                f"workers died {TRIES} times while they held {', '.join(deadly[:5])}"
                                f"{', ...' * (len(deadly) > 5)}: use fewer --workers or a smaller "
                                "--batch-size if memory is short, or --workers 1 to see why"
                                f"{'' if alive else hint}; what is done is kept: repeat to go on"
                            ) from None
                        results, rest = [], task
                    else:
                        alive = True
                    waiting.extendleft(reversed(rest))
                    for result in results:
                        take(result)
        finally:
            for future in held:
                future.cancel()


def _script_runs_again() -> bool:
    """Whether workers, which import the main script, would run all of it: one without a guard."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:
        return False
    try:
        return b"__main__" not in Path(file).read_bytes()
    except OSError:  # no script, such as an .exe that holds one
        return False


def _lost(error: Exception) -> RunError:
    return RunError(
        f"the executor cannot take tasks any more ({brief(error)}): make a new one; what is done is kept: "
        "repeat to go on"
    )


_ONE_AT_A_TIME = threading.Lock()
"""Of a process: a model may keep values between its layers, where another thread would find them."""


def _do(payload: bytes, device: str, task: list[Any], *, limit: float | None) -> tuple[list[Any], list[Any]]:
    """Do one task in a worker; return results, and the items that want more.  `limit` is that of `guard`."""
    results: list[Any] = []

    def work() -> tuple[list[Any], list[Any]]:
        with _ONE_AT_A_TIME, guard.failing_closed():
            return results, _opened(payload, device)(task, SECONDS, results.append)

    try:
        return guard.within(limit, work)
    except Exception as error:
        try:
            portable = str(pickle.loads(pickle.dumps(error))) == str(error)
        except Exception:  # unpickling runs code of the error's class
            portable = False
        if portable:
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=1)
def _opened(payload: bytes, device: str) -> Handler:
    """Return the handler of a worker, loaded once."""
    try:
        work: Open = pickle.loads(payload)
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"a worker cannot load the data or models given as objects ({brief(error)}): name them instead "
            "(a path, file.py:factory), define their classes in an importable module, or use 1 worker"
        ) from None
    return work(device)


VISIBLE = "CUDA_VISIBLE_DEVICES"


def _gpus(device: torch.device) -> list[str]:
    """Return the names of the GPUs that workers take in turn, MIG slices each: all, for a plain ``cuda``."""
    if str(device) != "cuda":
        return []
    import torch

    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()] or _slices()
    if any(name.startswith("MIG-") for name in named):
        return named  # of which CUDA shows a process, and torch counts, the first alone
    count = torch.cuda.device_count()
    return named[:count] if len(named) >= count else [str(k) for k in range(count)]


def _slices() -> list[str]:
    """Return this machine's MIG slices, and its undivided GPUs besides; nothing where none is divided."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[list[str]] = []
    for name in re.findall(r"\(UUID: *((?:GPU|MIG)-[^)\s]+)\)", told):
        if name.startswith("GPU-") or not found:
            found.append([])
        found[-1].append(name)
    divided = any(len(names) > 1 for names in found)
    return [name for names in found for name in (names[1:] or names)] if divided else []


class _Worker(SpawnProcess):
    """A process that begins with one thread and one GPU: what it imports first may look at both."""

    gpu: str | None = None

    def start(self) -> None:
        """Begin, as `multiprocessing` does."""
        own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | (
            {} if self.gpu is None else {VISIBLE: self.gpu}
        )
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            super().start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


class _Context(SpawnContext):
    """Starts workers, which take GPUs in turn."""

    def __init__(self, gpus: Sequence[str]) -> None:
        super().__init__()
        self._turns = cycle(gpus or [None])

    def Process(self, *given: Any, **more: Any) -> _Worker:  # type: ignore[override]  # noqa: N802
        """Return a worker that is not begun."""
        worker = _Worker(*given, **more)
        worker.gpu = next(self._turns)
        return worker


class _Processes(Executor):
    """A `ProcessPoolExecutor` that is made anew when a worker died, and whose workers end at once."""

    def __init__(self, workers: int, gpus: Sequence[str]) -> None:
        self._workers, self._context = workers, _Context(gpus)
        with starting():  # its first semaphore starts a process that keeps track of them
            self._begin()

    def _begin(self) -> None:
        heard, self._lifeline = self._context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(self._workers, self._context, _begin_worker, (heard,))

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand out a task; processes are started as they are needed."""
        with postponed(), starting():
            try:
                return self._pool.submit(function, *args, **kwargs)
            except BrokenExecutor:
                self.shutdown()
                self._begin()
                return self._pool.submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """End all workers, whatever they do."""
        self._lifeline.close()
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


_SAFE_PATH, _OURS = "PYTHONSAFEPATH", "for certmix"
"""A variable of Python's, and what is put there for as long as a process starts."""


@contextmanager
def starting() -> Iterator[None]:
    """Let a process start so that no file of the current folder is taken for a module of Python's.

    It is also deaf to what a terminal sends to all, Ctrl-C and that it closes: its driver ends it.
    """
    set_here = _SAFE_PATH not in os.environ
    os.environ.setdefault(_SAFE_PATH, _OURS)  # python -c starts it, which then gets this process's sys.path
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask and mask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        if mask:
            resource_tracker.ensure_running()  # else its start, within that of the process, lifts the block
            mask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)
        if set_here:
            del os.environ[_SAFE_PATH]


def started() -> None:
    """Give a process that was started so the environment of its driver."""
    if os.environ.get(_SAFE_PATH) == _OURS:
        del os.environ[_SAFE_PATH]


def _begin_worker(lifeline: connection.Connection) -> None:
    """Begin a process, which ends when its driver does or says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started()
    # The default; the "spawn" that is inherited warns of semaphores of libraries when this process ends.
    set_start_method(get_all_start_methods()[0], force=True)
    keep_freed_memory()
    end_with(lifeline)


def end_with(lifeline: connection.Connection) -> None:
    """Let this process end when the other end of a connection is closed; nothing is ever sent."""

    def end() -> None:
        connection.wait([lifeline])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
