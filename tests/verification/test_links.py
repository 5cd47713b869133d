"""Links in a received run that lead to private files: nothing of these is read, and nothing is quoted."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from forged import copied

from certmix.errors import CertmixError
from certmix.files import leads_out
from certmix.nuts.folder import read_nuts
from certmix.runs import Store, read_run
from certmix.verification.falsify.falsify import read_finding

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a right there")
SECRET, TOLD = "hunter2", "is a link out of the folder"
NUMBERS = ("run.json", "numbers.sqlite", "numbers.sqlite-wal")
KINDS = ("sequential", "lipschitz")


def names(run: Path) -> list[str]:
    """Return the files of a run, but for its lock."""
    return sorted(path.name for path in run.iterdir() if path.is_file() and path.name != "lock")


def private(own: Path, secret: Path) -> None:
    """Write a private file like one of a run, whose content would be quoted."""
    if own.suffix == ".json":
        secret.write_text(
            json.dumps({**json.loads(own.read_text()), SECRET: SECRET, "format_version": SECRET})
        )
    elif own.suffix == ".sqlite":
        shutil.copy(own, secret)
        with closing(sqlite3.connect(secret)) as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('fixed_samples', ?)", (SECRET,))
            database.commit()
    else:
        secret.write_bytes(f"machine api login alice password {SECRET}\n".encode() + own.read_bytes())


READING = (
    ("verify", "run", "--resample", 0, "--report", "junit=r.xml", "--report", "json=r.json", "--report",
     "markdown=r.md", "--report", "github=r.txt", "--details"),
    ("audit", "run"), ("show", "run"), ("report", "run", "--output", "page.html"), ("audit", "run/{name}"),
    ("recertify", "run/{name}", "--alpha", 0.9), ("recertify", "run", "--alpha", 0.9), ("evidence", "run", "--output", "pack"),
    ("compare", "run", "run"), ("trade-off", "run"), ("plan", "--like", "run", "--throughput", 9),
    ("guarantee", "init", "run", "--force"), ("falsify", "run"), ("reproduce", "run"),
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_command_quotes_what_a_link_leads_to(runs, command, tmp_path, kind):
    (tmp_path / "home").mkdir()
    for name in [*names(runs[kind]), "numbers.sqlite-wal"]:
        run = copied(runs[kind], tmp_path / "run")
        path, secret = run / name, tmp_path / "home" / "netrc"
        private(path if path.exists() else run / "run.json", secret)
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
        for words in READING if path.suffix in (".tsv", ".json", ".sqlite") else READING[:2]:
            found = command(*(str(word).format(name=name) for word in words))
            assert SECRET not in f"{found.out}{found.err}", (name, words)
            if words[:2] == ("verify", "run"):
                assert found.code > 0
                assert f"{name} {TOLD}" in f"{found.out}{found.err}"
                if name not in NUMBERS:
                    assert f"{name} {TOLD}: copy the file there" in found.out
            elif (
                words[:2] == ("audit", "run") and kind == "sequential" and path.suffix not in (".png", ".svg")
            ):
                assert f"{name} {TOLD}" in f"{found.out}{found.err}", name
        for made in tmp_path.rglob("*"):
            if made.is_file() and not made.is_symlink() and "home" not in made.parts:
                assert SECRET.encode() not in made.read_bytes(), (name, made)
        shutil.rmtree(run)


def test_the_folder_may_be_a_link_and_links_may_stay_in_it(runs, command, tmp_path):
    run = copied(runs["sequential"], tmp_path / "kept" / "run")
    (run / "logs").mkdir()
    for name in names(run):
        os.replace(run / name, run / "logs" / name)
        (run / name).symlink_to(Path("logs") / name)
    (tmp_path / "run").symlink_to(run)
    (tmp_path / "way").symlink_to(tmp_path / "kept")
    for way in ("run", "way/run", "way/../run"):
        found = command("verify", way, "--resample", 0, "--details")
        assert "tables, log and plots are what the numbers give" in found.out, found
        assert command("audit", way).code == 0


@pytest.mark.parametrize("there, out", [
    ("../home/netrc", True), ("/etc/passwd", True), ("..", True), ("../run-other/file", True), ("hop", True),
    ("file", False), ("sub/file", False), ("../run/file", False), ("loop", False), ("gone", False), (".", True),
])  # fmt: skip
def test_where_a_link_leads(tmp_path: Path, there: str, out: bool) -> None:
    for name in ("run/sub", "run-other", "home"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run" / "hop").symlink_to(tmp_path / "home")
    (tmp_path / "run" / "loop").symlink_to("loop")
    (tmp_path / "run" / "link").symlink_to(there)
    (tmp_path / "way").symlink_to(tmp_path / "run")
    for folder in ("run", "way", "run/../way"):
        assert leads_out(tmp_path / folder, "link") == out
        assert not leads_out(tmp_path / folder, "file")


def test_a_snapshot_leads_to_the_contents_of_its_cache(tmp_path: Path) -> None:
    rev = tmp_path / "hub" / "snapshots" / "rev"
    rev.mkdir(parents=True)
    (tmp_path / "hub" / "blobs").mkdir()
    for name, there in (
        ("own", "../../blobs/abc"),
        ("out", "../../../netrc"),
        ("beside", "../../snapshots/x"),
    ):
        (rev / name).symlink_to(there)
    assert [leads_out(rev, name) for name in ("own", "out", "beside")] == [False, True, True]
    (tmp_path / "hub" / "run").mkdir()
    (tmp_path / "hub" / "run" / "own").symlink_to("../blobs/abc")
    assert leads_out(tmp_path / "hub" / "run", "own")


OTHERS: dict[str, Callable[[Path], object]] = {
    "run.json": lambda path: read_run(path.parent),
    "nuts.json": lambda path: read_nuts(path.parent),
    "numbers.sqlite": lambda path: Store(path, 3, read_only=True),
    "finding.json": read_finding, "finding.npz": read_finding,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_each_reader_refuses_the_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text(f'{{"{SECRET}": 1, "{SECRET}": 2}}')
    (tmp_path / "run" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CertmixError, match=f"{name} {TOLD}") as caught:
        OTHERS[name](tmp_path / "run" / name)
    assert SECRET not in str(caught.value)
