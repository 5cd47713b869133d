"""Commands that are killed at random moments and repeated, beside the same commands undisturbed.

A command runs in a fork of a process that has imported all it needs, so that moments fall into its work: at
a random time, or just before a random one of its writes (a file opened to write, moved or deleted, or a
statement of SQLite).
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import pkgutil
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from forged import sources

from certmix.runs.database import Database
from certmix.runs.vectors import Kept

Database.block = 5  # so that these small runs have blocks, too
POINTS, SWEEP = 12, "--eps 0.2 --steps 4 --restarts 2 --inputs all --batch-size 4"
MODELS = "--data points.npz --standard nets.py:linear --robust nets.py:linear"
CERTIFY = (
    f"certify {MODELS} --sigma 0.25 --alpha 0.76 --inputs all --samples 1000 --goal radius --format json"
)
FIT = f"nuts fit {MODELS} {SWEEP} --grid s=0.5:5:3,p=1:3:2,c=-1:0:2 --format json --output fit"
COMMANDS: dict[str, tuple[str, ...]] = {
    "certify": (f"{CERTIFY} --workers 1 --output run",),
    "certify --workers 2": (f"{CERTIFY} --workers 2 --output run",),
    "certify --shard 1/2": (f"{CERTIFY} --workers 1 --shard 1/2 --output first",),
    "merge": (
        *(f"{CERTIFY} --workers 1 --shard {k}/2 --output shard-{k}" for k in (1, 2)),
        "merge shard-1 shard-2 --format json --output run",
    ),
    "nuts fit": (FIT,),
    "nuts evaluate": (
        FIT.replace("inputs all", "inputs 6"),
        f"nuts evaluate fit --run-code --data points.npz {SWEEP} --queries 20 --format json --output run",
    ),
    "mix-sweep": (f"mix-sweep {MODELS} {SWEEP} --alphas 0.5,0.7,0.9 --format json --output run",),
    "attack": (f"attack {MODELS} {SWEEP} --alpha 0.76 --save found.npz --format json --output run",),
    "verify": (
        f"{CERTIFY} --workers 1 --output accepted", "guarantee init accepted --output guarantee.toml",
        "verify guarantee.toml --run-code --runs runs --new-seed 3 --format json --report junit=verify.xml",
    ),
}  # fmt: skip
"""What is run before, undisturbed, and last the command that is disturbed."""
LOADED = (
    "torch", "numba", "scipy.special", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)  # fmt: skip
BLOCKS = "SELECT cell, first, last, dtype, inputs, lengths, data FROM blocks"
SECONDS = 3  # place of the seconds in a vector of the cell 'sampling'
VARYING = {  # what differs from run to run by its nature: times, and how much of a run is of this call
    r"(^|/)(records|inputs)\.tsv$": rb"\d+:\d\d:\d\d(\.\d+)?",
    r"\.json$": rb'"[a-z_]*seconds": [0-9.e-]+|"sampling": \{[^}]*\}',
    r"\.xml$": rb'(time|timestamp)="[^"]*"|sampling: .*',
}
LIMIT = 300  # seconds after which a command is taken to hang


@dataclass
class Found:
    """What came of one command's disturbances."""

    disturbed: int = 0
    repeats: int = 0
    lost: int = 0
    drawn_again: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def warm() -> None:
    """Import what commands need, and start no threads."""
    import certmix_cli

    import certmix

    for name in LOADED:
        importlib.import_module(name)
    for package in (certmix, certmix_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"selftest|pytest_plugin|__main__|ray", module.name):
                importlib.import_module(module.name)


@contextmanager
def small_disk(place: Path, megabytes: int = 256) -> Iterator[bool]:
    """A folder on a disk of its own, where the system lets us mount one that only this process sees."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).unshare(0x00020000)  # CLONE_NEWNS
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    private = ["mount", "--make-rprivate", "/"]
    mounted = os.geteuid() == 0 and all(
        subprocess.run(words, capture_output=True).returncode == 0 for words in (private, mount)
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


def start(words: str, place: Path, told: Path, at: int = 0) -> int:
    """Start a command in a folder; it dies just before its write number `at`, from 1; return its process.

    `told` is the folder of what it prints.
    """
    if pid := os.fork():
        return pid
    code = 97
    try:
        os.setpgid(0, 0)
        os.chdir(place)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(told / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        writes = watch(place, at)
        from certmix_cli.main import main

        sys.argv = ["certmix", *words.split()]
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        sys.stdout.flush()
        sys.stderr.flush()
        (told / "writes").write_text(str(writes()))
    except BaseException as error:
        with suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def watch(place: Path, at: int) -> Callable[[], int]:
    """Count what this process writes, and die at the write number `at`; return how many there were."""
    seen, inside = 0, f"{place.resolve()}{os.sep}"

    def write(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def ours(path: Any) -> bool:
        return isinstance(path, str | bytes | Path) and os.path.abspath(os.fsdecode(path)).startswith(inside)

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if (event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") and ours(given[0])) or (
            event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and ours(given[0])
        ):
            write()

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        database = connect_plainly(*given, **named)
        database.set_trace_callback(write)
        return database

    connect_plainly = sqlite3.connect
    sqlite3.connect = connect  # type: ignore[assignment]
    sys.addaudithook(hear)
    return lambda: seen


def ended(pid: int, how: int = 0, after: float = math.inf) -> int:
    """Wait for a command, sent a signal after so many seconds; return its exit code, or minus a signal."""
    begun, sent = time.monotonic(), False
    while True:
        gone, status, _ = os.wait4(pid, os.WNOHANG)
        if gone:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # workers that were left, if any
            return os.waitstatus_to_exitcode(status)
        spent = time.monotonic() - begun
        if not sent and spent >= after:
            os.kill(pid, how)
            sent = True
        if spent > LIMIT:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)


# what is compared


def rows(database: Path) -> dict[tuple[Any, ...], Any]:
    """Return every stored number of a database that is whole or was left by a killed process, by its key."""
    found: dict[tuple[Any, ...], Any] = {}
    with tempfile.TemporaryDirectory() as copy:
        for path in database.parent.glob(f"{database.name}*"):
            shutil.copy(path, copy)
        with closing(sqlite3.connect(Path(copy, database.name))) as db, suppress(sqlite3.OperationalError):
            found |= {("fact", key): value for key, value in db.execute("SELECT key, value FROM facts")}
            for cell, *block in db.execute(BLOCKS):
                for index, kind, data in Kept.from_block(block).rows():
                    found[cell, index] = (kind, data)
            for cell, index, kind, data in db.execute("SELECT cell, idx, dtype, data FROM cells"):
                found[cell, index] = (kind, data)
    return found


def timeless(found: dict[tuple[Any, ...], Any]) -> dict[tuple[Any, ...], Any]:
    """The same without the seconds that sampling took."""

    def plain(key: tuple[Any, ...], value: Any) -> Any:
        if key[0] != "sampling":
            return value
        return np.delete(np.frombuffer(value[1], "<f8"), SECONDS).tolist()

    return {key: plain(key, value) for key, value in found.items()}


def contents(place: Path) -> dict[str, Any]:
    """Return all that a folder holds: bytes by name, rows of databases, without times."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_dir():
            found[name] = "folder"
        elif path.suffix == ".sqlite":
            found[name] = timeless(rows(path))
        elif not re.search(r"\.sqlite-(wal|shm)$|\.pyc$", name):
            found[name] = without_times(name, path.read_bytes())
    return {name: held for name, held in found.items() if "__pycache__" not in name}


def without_times(name: str, content: bytes) -> bytes:
    """The content of a product without the times in it."""
    for names, pattern in VARYING.items():
        if re.search(names, name):
            content = re.sub(pattern, b"", content)
    return content


def databases(place: Path) -> dict[str, dict[tuple[Any, ...], Any]]:
    return {str(path.relative_to(place)): rows(path) for path in sorted(place.rglob("*.sqlite"))}


def looks(found: dict[tuple[Any, ...], Any], index: int) -> set[Any]:
    return {key[0] for key in found if key[1:] == (index,) and str(key[0]).startswith("votes@")}


# one command


@dataclass
class Undisturbed:
    """A command, the folder before it and where it runs, what it prints and leaves, and how long it takes."""

    words: str
    scratch: Path
    code: int
    left: dict[str, Any]
    seconds: float
    writes: int
    said: bytes

    @property
    def place(self) -> Path:
        return self.scratch / "disk" / "place"


def undisturbed(name: str, scratch: Path) -> Undisturbed:
    """Run a command of the table without disturbance; all its runs take place in one folder."""
    place, before = scratch / "disk" / "place", scratch / "before"
    for folder in (place, before):
        shutil.rmtree(folder, ignore_errors=True)
    sources(place)
    inputs = np.random.default_rng(1).random((POINTS, 2)).astype(np.float32)
    scores = np.stack([4 * inputs[:, 0] - 0.8, 0.8 - 4 * inputs[:, 0] + inputs[:, 1]], 1)
    np.savez(place / "points.npz", inputs=inputs, labels=scores.argmax(1), class_names=list("abc"))
    for words in COMMANDS[name]:
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(place, before)
        begun = time.monotonic()
        code = ended(start(words, place, scratch))
        seconds = time.monotonic() - begun
        if code:
            raise SystemExit(f"{words}: exit code {code}: {(scratch / 'stderr').read_text()}")
    return Undisturbed(
        words, scratch, code, contents(place), seconds, int((scratch / "writes").read_text()), said(scratch)
    )


def said(scratch: Path) -> bytes:
    """Return what a command has printed, without times."""
    return without_times(".json", (scratch / "stdout").read_bytes())


Disturb = Callable[[Undisturbed, random.Random], int]


def killed(of: Undisturbed, rng: random.Random) -> int:
    """Kill the command at a random time, or before a random write of its folder."""
    if rng.random() < 0.5:
        return ended(start(of.words, of.place, of.scratch, at=rng.randint(1, of.writes)))
    return ended(start(of.words, of.place, of.scratch), signal.SIGKILL, rng.uniform(0, of.seconds))


def terminated(of: Undisturbed, rng: random.Random) -> int:
    """Ask the command to end, as systems do that shut down."""
    return ended(start(of.words, of.place, of.scratch), signal.SIGTERM, rng.uniform(0, of.seconds))


def full(of: Undisturbed, rng: random.Random) -> int:
    """Leave few bytes free on the disk, fewer than the command needs."""
    disk = os.statvfs(of.place)
    needed = sum(path.stat().st_size for path in of.place.rglob("*") if path.is_file())
    filling = disk.f_bavail * disk.f_frsize - rng.randrange(max(needed, 1 << 18))
    with tempfile.NamedTemporaryFile(dir=of.place.parent) as filler:
        os.posix_fallocate(filler.fileno(), 0, max(1, filling))
        return ended(start(of.words, of.place, of.scratch))


DISTURBED: dict[str, tuple[Disturb, Callable[[int], bool]]] = {
    "SIGKILL": (killed, lambda code: code == -signal.SIGKILL),
    "SIGTERM": (terminated, lambda code: code in (128 + signal.SIGTERM, -signal.SIGTERM)),
    "full disk": (full, lambda code: code == 2),
}
"""How a command is disturbed, and the exit code of one that was."""


def disturb(name: str, of: Undisturbed, how: str, count: int, seed: int) -> Found:
    """Disturb a command so many times, up to three times before it may end; compare what it leaves."""
    found, rng = Found(), random.Random(f"{seed} {name} {how}")
    act, hit = DISTURBED[how]
    scratch, tries = of.scratch, 0
    while found.disturbed < count and tries < 5 * count + 10:
        for path in of.place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(scratch / "before", of.place, dirs_exist_ok=True)
        kept: list[dict[str, dict[tuple[Any, ...], Any]]] = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            tries += 1
            found.repeats += bool(kept)
            code = act(of, rng)
            if not hit(code):
                break
            found.disturbed += 1
            found.codes[code] += 1
            if how != "SIGKILL" and (told := tail(scratch, whole=True)).startswith("Traceback"):
                found.wrong.append(f"{how}: {told[-200:]}")
            kept.append(databases(of.place))
        if hit(code):
            code = ended(start(of.words, of.place, of.scratch))
            found.repeats += 1
        if code != of.code:
            found.wrong.append(f"exit code {code}: {tail(scratch)}")
        elif said(scratch) != of.said:
            found.wrong.append("stdout")
        compare(of, kept, found)
    return found


def tail(scratch: Path, whole: bool = False) -> str:
    told = (scratch / "stderr").read_text() if (scratch / "stderr").exists() else ""
    return told if whole else told[-300:].replace("\n", " ")


def compare(of: Undisturbed, kept: list[dict[str, dict[tuple[Any, ...], Any]]], found: Found) -> None:
    """Compare what the folder holds with the undisturbed run, and with what its database held between."""
    now, last = contents(of.place), databases(of.place)
    for name in sorted({*now, *of.left}):
        if now.get(name) != of.left.get(name):
            how = "is missing" if name not in now else "is left over" if name not in of.left else "differs"
            found.wrong.append(f"{name} {how}")
    for held in kept:
        for name, earlier in held.items():
            later = last.get(name, {})
            numbers = [key for key in earlier if key[0] not in ("sampling", "fact")]
            found.lost += sum(later.get(key) != earlier[key] for key in numbers)
            for key in (key for key in earlier if key[0] == "sampling" and key in later):
                index = key[1]
                if looks(earlier, index) == looks(later, index):
                    found.drawn_again += later[key][1] != earlier[key][1]


def kill(
    commands: list[str], kills: int, seed: int, scratch: Path, seconds: float
) -> Iterator[tuple[str, str, Found]]:
    """Yield (command, disturbance, what came of it); kills are shared among commands.

    What would be begun after so many seconds is left out.
    """
    warm()
    end = time.monotonic() + seconds
    weights = np.cumsum([0.5 if "workers" in name else 1.0 for name in commands])  # processes begin slowly
    shares = np.diff(np.round(kills * weights / weights[-1]), prepend=0).astype(int).tolist()
    (scratch / "disk").mkdir()
    with small_disk(scratch / "disk") as mounted:
        for k, name in enumerate(commands):
            of = undisturbed(name, scratch)
            for how in DISTURBED:
                if (how == "full disk" and not mounted) or time.monotonic() > end:
                    continue
                count = shares[k] if how == "SIGKILL" else max(1, shares[k] // 10)
                yield name, how, disturb(name, of, how, count, seed)
