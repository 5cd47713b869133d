"""An earlier run set aside while another takes its folder, and put back if that comes to nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from certmix.errors import RunError

__all__ = ["ASIDE", "forget", "put_back", "set_aside"]

ASIDE = ".earlier"
"""Folder, inside a run's own, that keeps what ``--fresh`` replaces until the new run has begun."""


def set_aside(folder: Path, files: Sequence[str], subfolder: str) -> None:
    """Move files and a sub-folder of a run out of the way; whatever was set aside before is deleted.

    Raises
    ------
    RunError
        If one cannot be moved; then all are where they were.
    """
    for name in files:
        if (folder / name).is_dir():
            raise _stuck(str(folder / name), "it is a folder")
    forget(folder)
    present = [name for name in (*files, subfolder) if os.path.lexists(folder / name)]
    if not present:
        return
    try:
        (folder / ASIDE).mkdir()
        for name in present:
            os.replace(folder / name, folder / ASIDE / name)
    except OSError as error:
        put_back(folder, ())
        raise _stuck(error.filename, error.strerror) from None


def _stuck(path: object, reason: object) -> RunError:
    return RunError(f"{path} cannot be deleted ({reason}): remove it, or name another --output")


def put_back(folder: Path, names: Sequence[str]) -> None:
    """Delete the new run's files and folders, and move back what was set aside."""
    if not (folder / ASIDE).is_dir():
        return
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted((folder / ASIDE).iterdir()):
        os.replace(path, folder / path.name)
    (folder / ASIDE).rmdir()


def forget(folder: Path) -> None:
    """Delete what was set aside."""
    shutil.rmtree(folder / ASIDE, ignore_errors=True)
