"""Damaged inputs for every reader of files, by the tables of tests/fuzz: what comes of them, and the cost."""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from fuzz.harness import fuzz, judged, lay, mutate, one_odd, scratch
from fuzz.readers import READERS, Reader
from hypothesis import given, seed, settings
from unplotted import empty_plots

from certmix.errors import CertmixError

LIMIT = 60  # seconds of wall time after which a reader is taken to hang
TOGETHER = 1000  # cases of one run of hypothesis, which remembers them
DRAWN = 20  # one of so many cases draws its plots, which take a hundred times as long as all else
BYTES = 3  # files with damaged bytes beside each that hypothesis draws


@dataclass
class Read:
    """What came of a reader's inputs; `wrong` is of those neither read nor refused in one line."""

    read: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    megabytes: float = 0.0
    seconds: float = 0.0
    spent: float = 0.0

    @property
    def cases(self) -> int:
        """Inputs so far."""
        return self.read + self.refused + len(self.wrong)


def peak(reset: bool = False) -> float:
    """Return the most memory that this process has held since the last reset, in MB; 0 where Linux is not."""
    with suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        told = Path("/proc/self/status").read_text()
        return int(told.partition("VmHWM:")[2].split()[0]) / 1024
    return 0.0


def _late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {LIMIT} seconds")


def read_all(reader: Reader, place: Path, first: int, cases: int, until: float, found: Read) -> None:
    """Hand so many damaged inputs to all functions of a reader, or fewer when it is late."""
    good, files = reader.made(), reader.damaged()
    seeds = iter(range(first, first + 2 * cases))

    def some(odd: tuple[str, bytes]) -> None:
        one(*odd)
        for _ in range(BYTES):  # bytes are damaged much faster than hypothesis draws
            one(odd[0], mutate(files[odd[0]], next(seeds)))

    def one(name: str, content: bytes) -> None:
        if time.monotonic() > until:
            return
        folder = lay(place, reader.settle({**good, name: content}))
        before, begun, refused = peak(reset=True), time.process_time(), False
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        try:
            with empty_plots() if found.cases % DRAWN else nullcontext():
                for read in reader.reads:
                    refused |= isinstance(judged(partial(read, folder), place), CertmixError)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name} line {last.lineno}"
            found.wrong.append(f"{name}: {where}: {type(error).__name__}: {error}"[:300])
        else:
            found.refused += refused
            found.read += not refused
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        found.seconds = max(found.seconds, time.process_time() - begun)
        found.megabytes = max(found.megabytes, peak() - before)

    drawn = settings(fuzz, max_examples=-(-cases // (BYTES + 1)), derandomize=False)
    seed(first)(drawn(given(one_odd(files))(some)))()


def apart(name: str, cases: int, first: int, until: float) -> Read:
    """Do the same in a process of its own, so that a reader that ends its process is seen."""
    readable, writable = os.pipe()
    if pid := os.fork():
        os.close(writable)
        with open(readable, "rb") as pipe:
            sent = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return pickle.loads(sent) if sent else Read(wrong=[f"the process ended: {code}"])
    try:
        signal.signal(signal.SIGALRM, _late)
        found, begun = Read(), time.process_time()
        with scratch() as place:
            while found.cases < cases and time.monotonic() < until:
                many = min(TOGETHER, cases - found.cases)
                read_all(READERS[name], place, first + found.cases, many, until, found)
        found.spent = time.process_time() - begun
        with open(writable, "wb") as pipe:
            pipe.write(pickle.dumps(found))
    finally:
        os._exit(1)


def read_damaged(names: list[str], cases: int, first: int, seconds: float) -> Iterator[tuple[str, Read]]:
    """Yield what came of each reader; the time that all may take is shared among those that are left."""
    end = time.monotonic() + seconds
    for k, name in enumerate(names):
        READERS[name].made()
        share = max(1.0, (end - time.monotonic()) / (len(names) - k))
        yield name, apart(name, cases, 1_000_003 * first, time.monotonic() + share)
