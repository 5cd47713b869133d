"""What a run keeps: an identity, numbers in a database, and its last table beside them.

Names are loaded on first use: settings, which every command's help reads, need no numbers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certmix.runs.folder import Identity, Run, StudyIdentity, default_folder, read_run
    from certmix.runs.logs import write_log
    from certmix.runs.store import ImageRecord, Store

__all__ = [
    "Identity",
    "ImageRecord",
    "Run",
    "Store",
    "StudyIdentity",
    "default_folder",
    "read_run",
    "write_log",
]

_HOMES = {
    "Identity": "folder", "ImageRecord": "store", "Run": "folder", "Store": "store",
    "StudyIdentity": "folder", "default_folder": "folder", "read_run": "folder", "write_log": "logs",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"certmix.runs.{_HOMES[name]}"), name)
