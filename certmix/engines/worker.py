"""What runs in a worker process; it ends when its driver does."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from contextlib import suppress
from multiprocessing import connection, parent_process
from typing import Any

from certmix.engines.interface import Handler, Work
from certmix.engines.places import Place
from certmix.engines.queue import SECONDS
from certmix.engines.supervise import Done, Failed, Ready
from certmix.errors import ModelError
from certmix.memory import keep_freed_memory

__all__ = ["handled", "opened", "portable", "serve"]


def serve(pipe: connection.Connection, payload: bytes, place: Place) -> None:
    """Load the work, then do tasks from the pipe until it closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends Ctrl-C to all: the driver ends its workers
    os.environ.update(place.environment)
    keep_freed_memory()
    threading.Thread(target=_end_with_driver, daemon=True).start()
    with suppress(EOFError, OSError):  # the driver is gone
        try:
            handler = opened(payload, place.device)
        except Exception as error:
            pipe.send(Failed(portable(error)))
            return
        pipe.send(Ready())
        while True:
            pipe.send(handled(handler, pipe.recv()))


def _end_with_driver() -> None:
    """End this process when the driver ends, however it ends, and whatever this process is at."""
    driver = parent_process()
    if driver is not None:
        connection.wait([driver.sentinel])
        os._exit(1)


def opened(payload: bytes, device: str | None) -> Handler:
    """Return the handler of a packed work.

    Raises
    ------
    CertmixError
        If it cannot be loaded here.
    """
    try:
        work: Work = pickle.loads(payload)
    except (AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"a worker cannot load the data or models given as objects ({reason}): name them instead (a "
            "path, file.py:factory), define their classes in a module that can be imported, or use 1 worker"
        ) from None
    return work.open(device)


def handled(handler: Handler, task: list[Any]) -> Done | Failed:
    """Do one task."""
    results: list[Any] = []
    try:
        rest = handler(task, SECONDS, results.append)
    except Exception as error:
        return Failed(portable(error))
    return Done(results, rest)


def portable(error: Exception) -> Exception:
    """Return an error that can be sent, with its traceback as a note: itself if it survives the way."""
    told = "".join(traceback.format_exception(error))
    found = error if _travels(error) else RuntimeError(f"{type(error).__name__}: {error}")
    found.add_note(f"In a worker:\n{told}")
    return found


def _travels(error: Exception) -> bool:
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:  # unpickling runs code of the error's class
        return False
