"""What a run keeps: an identity, counts in a database, and products beside it."""

from certmix.runs.folder import Run, default_folder, read_run
from certmix.runs.identity import Identity, StudyIdentity
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
