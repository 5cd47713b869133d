"""What a run keeps: an identity, numbers in a database, and its last table; loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily

if TYPE_CHECKING:
    from certmix.runs.folder import Identity, Run, StudyIdentity, default_folder, read_run
    from certmix.runs.logs import write_log
    from certmix.runs.records import InputRecord
    from certmix.runs.store import Store

__all__ = [
    "Identity", "InputRecord", "Run", "Store", "StudyIdentity", "default_folder", "read_run", "write_log",
]  # fmt: skip

_HOMES = {"InputRecord": "records", "Store": "store", "write_log": "logs"}
__getattr__ = lazily(__name__, {**dict.fromkeys(__all__, "folder"), **_HOMES})
