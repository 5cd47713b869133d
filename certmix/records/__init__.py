"""What a run keeps: an identity, counts in a database, and products beside it."""

from certmix.records.folder import RunFolder, default_folder, read_run
from certmix.records.identity import Identity, StudyIdentity
from certmix.records.logs import write_log
from certmix.records.store import ImageRecord, Store
from certmix.records.vectors import VectorStore

__all__ = [
    "Identity",
    "ImageRecord",
    "RunFolder",
    "Store",
    "StudyIdentity",
    "VectorStore",
    "default_folder",
    "read_run",
    "write_log",
]
