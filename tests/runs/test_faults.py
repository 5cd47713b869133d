"""Faults of disks, locks and kills: each has advice of its own, and none costs what was kept."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from certmix.errors import ModelError, RunError
from certmix.runs import Identity, Run, Store, locking
from certmix.runs import folder as folders
from certmix.runs.folder import ASIDE, BESIDE, DATABASE, FILES
from certmix.runs.locking import HELD, Lock

fcntl = pytest.importorskip("fcntl")
IDENTITY = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")
OTHER = IDENTITY.replace(seed=1)
LOOK = "votes@100"


def put(store: Store, index: int, cell: str = LOOK, length: int = 2) -> None:
    store.write(cell, [index], np.random.default_rng(index).integers(1, 1 << 60, (1, length)))


# faults of disks, and other programs


@contextmanager
def small_files():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def pragma(store: Store, words: str):
    store._db.execute(f"PRAGMA {words}")
    yield


@contextmanager
def used(store: Store):
    store._db.execute("PRAGMA busy_timeout=1")
    with closing(sqlite3.connect(store._path)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def gone(store: Store):
    folder = store._path.parent
    folder.rename(folder.with_name("elsewhere"))
    yield
    folder.with_name("elsewhere").rename(folder)


FAULTS = {
    "full": (lambda store: pragma(store, "max_page_count=1"), "no space is left", "free space and repeat"),
    "limited": (lambda store: small_files(), "the disk, or its file system, fails", "if a quota is used up"),
    "busy": (used, "another program uses it", "close that program and repeat"),
    "read-only": (lambda store: pragma(store, "query_only=1"), "it is read-only", "copy its folder"),
    "deleted": (gone, "moved or deleted while it was in use", "put it back"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_disk_has_its_own_advice_and_costs_no_numbers(tmp_path: Path, name):
    fault, what, remedy = FAULTS[name]
    path = tmp_path / "run" / DATABASE
    path.parent.mkdir()

    def many():
        for index in range(2, 60):
            put(store, index, length=400)

    with closing(Store(path)) as store:
        put(store, 1)
        with fault(store), pytest.raises(RunError, match=f"{what}.*{remedy}") as told:
            many()
        assert "--fresh" not in str(told.value) and str(path.parent) in str(told.value)
        assert 1 in store.known(LOOK)
    with closing(Store(path)) as store:
        assert 1 in store.known(LOOK)
        put(store, 99)


STEPS = {
    "describing": lambda run: run.begin({"request": {}}),
    "writing": lambda run: put(run.store, 2),
    "publishing": lambda run: run.publish(lambda folder: (folder / "table.md").write_text("")),
}


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_moved_at_any_moment_says_so(tmp_path: Path, step, written):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run = Run(folder, IDENTITY)
    if written:
        put(run.store, 1)
    folder.rename(elsewhere)
    with pytest.raises(RunError, match="run was moved or deleted while it was in use: put it back"):
        STEPS[step](run)
    assert not folder.exists()
    elsewhere.rename(folder)
    run.close()
    with Run(folder, IDENTITY) as again:
        assert again.store.known(LOOK) >= ({1} if written else set())


def test_a_run_that_is_moved_before_its_database_is_made_says_so(tmp_path: Path, monkeypatch):
    made = folders.Store

    def moved(*given, **more):
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        return made(*given, **more)

    monkeypatch.setattr(folders, "Store", moved)
    with pytest.raises(RunError, match="run was moved or deleted while it was in use: put it back"):
        Run(tmp_path / "run", IDENTITY)


def test_numbers_that_are_deleted_while_a_run_writes_them_are_missed(tmp_path: Path):
    run = Run(tmp_path / "run", IDENTITY)
    put(run.store, 1)
    for path in (tmp_path / "run").glob(f"{DATABASE}*"):
        path.unlink()
    with pytest.raises(RunError, match=rf"{DATABASE} was moved or deleted while it was in use"):
        put(run.store, 2)
    run.close()


def test_what_cannot_be_opened_for_lack_of_space_is_not_a_matter_of_rights(tmp_path: Path, monkeypatch):
    with pytest.raises(RunError, match="may not be opened .* permit reading and writing"):
        Store(tmp_path / "none" / DATABASE)
    (tmp_path / DATABASE).mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(RunError, match="no space is left .* free space and repeat"):
        Store(tmp_path / DATABASE)


@pytest.mark.parametrize(("begin", "read_only", "remedy"), [
    (0, False, "--fresh or another --output"), (0, True, "restore it from a copy"),
    (4096, False, "--fresh or another --output"),
])  # fmt: skip
def test_damage_alone_advises_to_start_over(tmp_path: Path, begin, read_only, remedy):
    with closing(Store(tmp_path / DATABASE)) as store:
        put(store, 1)
    with (tmp_path / DATABASE).open("r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * 4096)
    with pytest.raises(RunError, match=f"not a readable run database .*: .*{remedy}"):
        Store(tmp_path / DATABASE, read_only=read_only).known(LOOK)


@pytest.mark.parametrize(("number", "told"), [
    (errno.ENOSPC, "free space and repeat the command"), (errno.EROFS, "copy it and name the copy"),
    (errno.EACCES, "copy it and name the copy"), (errno.ENAMETOOLONG, "choose a shorter --output"),
])  # fmt: skip
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch, number, told):
    Run(tmp_path, IDENTITY).close()

    def fail(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders, "Lock", fail)
    with pytest.raises(RunError, match=told):
        Run(tmp_path, IDENTITY)


# a log that went missing


def test_writes_that_went_missing_are_said(tmp_path: Path):
    said: list[str] = []
    with Run(tmp_path / "run", IDENTITY, say=said.append) as run:
        put(run.store, 1)
        shutil.copytree(tmp_path / "run", tmp_path / "whole")
        shutil.copytree(tmp_path / "run", tmp_path / "part", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    assert not said and not list((tmp_path / "run").glob("*-*")), "closed well, it has no log"
    with pytest.raises(RunError, match="1 writes with it: its -wal file was not copied"):
        Store(tmp_path / "part" / DATABASE, read_only=True)
    with Run(tmp_path / "whole", IDENTITY, say=said.append) as run:
        assert run.store.known(LOOK) == {1} and not said
    with Run(tmp_path / "part", IDENTITY, say=said.append) as run:
        assert not run.store.begun()
        (told,) = said
        assert "lacks its last 1 writes: numbers.sqlite-wal is missing or old" in told
        put(run.store, 2)
    with Run(tmp_path / "part", IDENTITY, say=said.append) as run:
        assert run.store.known(LOOK) == {2} and len(said) == 1
        run.describe({"request": {}})
    (tmp_path / "part" / DATABASE).unlink()
    with Run(tmp_path / "part", IDENTITY, say=said.append):
        assert "numbers.sqlite is missing: the run begins from nothing" in said[1]


# locks


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def lacking(monkeypatch, request):
    """A file system without flock."""
    number = getattr(errno, request.param)

    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(number)


def test_without_flock_a_file_keeps_others_out(tmp_path: Path, lacking):
    said: list[str] = []
    with Run(tmp_path, IDENTITY, say=said.append) as run:
        assert said == [
            f"{tmp_path}: its file system has no flock ({lacking}): the file {HELD} keeps others out"
        ]
        put(run.store, 1)
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} on .*: wait for it, or name"):
            Run(tmp_path, IDENTITY)
    assert not (tmp_path / HELD).exists()
    with closing(Store(tmp_path / DATABASE, read_only=True)) as store:
        assert store.known(LOOK) == {1}


def held(folder: Path, **other: object) -> None:
    import json

    (folder / HELD).write_text(json.dumps({**locking._own(), **other}))


@pytest.mark.parametrize("flock", [True, False])
@pytest.mark.parametrize(("other", "refused"), [
    ({"process": 2**22 + 5}, ""), ({"started": "1"}, ""),
    ({}, r"in use by process \d+ on "),
    ({"host": "elsewhere", "place": "elsewhere", "process": 2**22 + 5}, "on elsewhere: .*or delete .*lock.held"),
    ({"place": "an earlier boot", "process": 2**22 + 5}, "or delete .*lock.held once it has ended"),
    ({"process": None}, "a process that cannot be told: .*or delete .*lock.held"),
])  # fmt: skip
def test_a_file_left_behind(tmp_path: Path, monkeypatch, flock, other, refused):
    def fail(file, how):
        raise OSError(errno.ENOLCK, "no locks")

    if not flock:
        monkeypatch.setattr(fcntl, "flock", fail)
    held(tmp_path, **other)
    if refused:
        with pytest.raises(RunError, match=refused):
            Lock(tmp_path, lambda message: None)
        assert (tmp_path / HELD).exists()
    else:
        Lock(tmp_path, lambda message: None).release()
        assert not (tmp_path / HELD).exists()


def test_flock_that_fails_otherwise_is_not_a_process_in_use(tmp_path: Path, monkeypatch):
    first = Lock(tmp_path, print)
    with pytest.raises(RunError, match="in use by another process"):
        Lock(tmp_path, print)
    first.release()

    def fail(file, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(RunError, match=r"cannot be used as a run folder \(Input/output error\)"):
        Run(tmp_path, IDENTITY)


# --fresh


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run of one look, as it was closed, and a product of it."""
    with Run(tmp_path, IDENTITY) as run:
        put(run.store, 1)
    (tmp_path / "table.md").write_text("of the earlier run")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_fresh_takes_the_place_of_a_run_with_its_first_look(earlier: Path):
    before, said = files(earlier), list[str]()
    with Run(earlier, OTHER, fresh=True, say=said.append) as run:
        run.store.put("bound", "x")
        put(run.store, 5, "standard g")
        put(run.store, 5, "selection")
        assert files(earlier) == before
    assert files(earlier) == before and not (earlier / BESIDE).exists()
    assert said == [f"{earlier} keeps its earlier run: nothing of the new one was of use yet"]
    with Run(earlier, OTHER, fresh=True, say=said.append) as run:
        run.store.put("bound", "x")
        put(run.store, 5, "selection")
        put(run.store, 5)
        assert run.described()["identity"]["seed"] == 1
        put(run.store, 6)
    assert len(said) == 1 and {path.name for path in earlier.iterdir()} == {*before}
    with Run(earlier, OTHER) as run:
        assert run.store.known(LOOK) == {5, 6} and run.store.known("selection") == {5}
        assert run.store.get("bound") == "x"


def test_a_new_run_whose_model_is_refused_gives_way_to_the_earlier(earlier: Path):
    before = files(earlier)
    with suppress(ModelError), Run(earlier, OTHER, fresh=True) as run:
        put(run.store, 5)
        assert files(earlier) != before
        raise ModelError("not finite")
    assert files(earlier) == before and not (earlier / ASIDE).exists()


@pytest.mark.parametrize("log", [False, True], ids=["closed", "with a log"])
def test_killed_at_any_step_of_taking_its_place(tmp_path: Path, monkeypatch, log):
    replace, whole = os.replace, set()
    for after in range(20):
        folder = tmp_path / str(after)
        with Run(folder, IDENTITY) as run:
            put(run.store, 1)
            copied = tmp_path / f"copied-{after}"
            shutil.copytree(folder, copied)
        folder = copied if log else folder
        steps = iter(range(after))

        def step(source, target, steps=steps):
            if next(steps, None) is None:
                raise SystemExit("killed")
            replace(source, target)

        run = Run(folder, OTHER, fresh=True)
        put(run.store, 5, "selection")
        monkeypatch.setattr(os, "replace", step)
        with suppress(SystemExit):
            put(run.store, 5)
        monkeypatch.setattr(os, "replace", replace)
        killed = next(steps, None) is None
        run.store._db.close()
        run._lock.release()
        for identity, index in ((IDENTITY, 1), (OTHER, 5)):  # one of them lies there, and whole
            with suppress(RunError), Run(folder, identity) as found:
                assert found.store.known(LOOK) == {index} and found.store.lost == 0
                whole.add((killed, index))
        assert not (folder / BESIDE).exists()
        if not killed:
            break
    assert whole == {(True, 5), (False, 5)} and not killed and after > 3


@pytest.mark.parametrize("at", range(1, 5))
def test_an_interrupt_while_it_takes_its_place_is_raised_after_that(earlier: Path, monkeypatch, at):
    replace, calls = os.replace, []

    def step(source, target):
        calls.append(source)
        if len(calls) == at:
            raise KeyboardInterrupt
        replace(source, target)

    with Run(earlier, OTHER, fresh=True) as run:
        monkeypatch.setattr(os, "replace", step)
        with pytest.raises(KeyboardInterrupt):
            put(run.store, 5)
        monkeypatch.setattr(os, "replace", replace)
        assert run.store.known(LOOK) == {5}
    with Run(earlier, OTHER) as run:
        assert run.store.known(LOOK) == {5}


def test_a_killed_fresh_run_of_no_use_goes_and_the_earlier_stays(earlier: Path):
    before = files(earlier)
    run = Run(earlier, OTHER, fresh=True)
    put(run.store, 5, "selection")
    run.store._db.close()
    run._lock.release()
    assert files(earlier) == before
    with Run(earlier, IDENTITY) as run:
        assert run.store.known(LOOK) == {1}
    assert not (earlier / BESIDE).exists()
    assert set(FILES) & set(files(earlier)) == {DATABASE, "run.json"}
