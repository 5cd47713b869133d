"""A file that this user may not read, or whose disk fails, is not called damaged: the remedy is of that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged import certified, sources

import certmix
from certmix.certification.analysis.audit import audit
from certmix.certification.tuned import read_tuned
from certmix.data.scales import _in_file
from certmix.errors import CertmixError
from certmix.runs import read_run
from certmix.runs.logs import read_log
from certmix.studies.nuts_fit import read_logits
from certmix.verification.checks import Outcome
from certmix.verification.falsify.falsify import read_finding
from certmix.verification.guarantees.groups import _names
from certmix.verification.guarantees.guarantee import read_guarantee
from certmix.verification.rederive import rederive

READERS: dict[str, Callable[[Path], Any]] = {
    "run.json": lambda path: read_run(path.parent),
    "guarantee.toml": read_guarantee,
    "finding.json": read_finding,
    "tuned.toml": read_tuned,
    "points.npz": lambda path: certmix.data.load(str(path)),
    "log.tsv": read_log,
    "logits.npz": read_logits,
    "scale.txt": lambda path: _in_file(path, ()),
    "groups.txt": lambda path: _names(path, None, "g"),
}
FAULTS = {
    errno.EACCES: "give this user the right to read it",
    errno.EPERM: "give this user the right to read it",
    errno.EIO: "its disk or file system fails",
    errno.ENAMETOOLONG: "shorten the path",
    errno.ENFILE: "end other programs",
}


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let files of a name not be opened, for that reason: whoever runs the tests may read everything."""
    opened = os.open

    def fails(path: Any, *given: Any, **more: Any) -> int:
        if os.path.basename(os.fspath(path)) == name:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *given, **more)

    monkeypatch.setattr(os, "open", fails)


@pytest.mark.parametrize("number", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", READERS)
def test_what_may_not_be_read_is_told_apart_from_what_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    (tmp_path / name).write_bytes(b"x")
    failing(monkeypatch, name, number)
    with pytest.raises(CertmixError, match=FAULTS[number]) as caught:
        READERS[name](tmp_path / name)
    assert str(tmp_path)[:40] in str(caught.value) and "--fresh" not in str(caught.value)


def test_a_table_that_may_not_be_read_is_not_called_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = certified(tmp_path / "run", sources(tmp_path), inputs=3, samples=200)
    failing(monkeypatch, "certified-accuracy.csv", errno.EACCES)
    with pytest.raises(CertmixError, match=r"accuracy\.csv cannot be read .*: give this user the right"):
        audit(run)
    found = {one.check: one for one in rederive(run, run_code=True)}["published files"]
    assert found.outcome == Outcome.UNCHECKED and "give this user the right" in found.message


def test_a_file_in_place_of_a_run_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertmixError, match="file is no folder: name the folder of a certmix run"):
        read_run(tmp_path / "file")
