"""What a run keeps: an identity, counts in a database, and products beside it."""

from certmix.records.folder import RunFolder, default_folder, read_run
from certmix.records.identity import Identity
from certmix.records.logs import write_log
from certmix.records.store import ImageRecord, Store

__all__ = [
    "Identity",
    "ImageRecord",
    "RunFolder",
    "Store",
    "default_folder",
    "read_run",
    "write_log",
]
