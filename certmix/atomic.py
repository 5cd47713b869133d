"""Writing one file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from certmix.errors import RunError

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write content to a file in one step, replacing what was there; make missing folders.

    Raises
    ------
    RunError
        The file cannot be written.  The one that was there is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror or error}): "
            "choose a folder that can be written to, or free space"
        ) from error
