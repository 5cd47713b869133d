"""Data sets of Hugging Face's library `datasets`: names on the hub, and folders that it saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix import guard
from certmix.data.dataset import Request, Source
from certmix.data.frames import from_frame, optional
from certmix.data.in_memory import of_items
from certmix.data.labels import INPUT_NAMES, LABEL_NAMES, named
from certmix.errors import DataError, describe
from certmix.types import Dataset

PREFIX = "hf:"


def find(path: Path) -> Path | None:
    """Return the folder if `save_to_disk` made it."""
    found = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    return path if path.is_dir() and found else None


@dataclass(frozen=True)
class _Pairs:
    """Inputs and labels of two columns."""

    rows: Any
    inputs: str
    label: str

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        row = self.rows[place]
        return row[self.inputs], row[self.label]


def load(path: Path, request: Request) -> Dataset:
    """Load a split: of images, or other inputs, in a column, or of numbers in several."""
    library = optional("datasets", "Hugging Face's data sets are read by it", "datasets")
    where, saved = request.name, not request.name.startswith(PREFIX)
    try:
        with guard.foreign(where):
            if saved:
                rows = library.load_from_disk(str(path))
            else:
                name, _, config = request.name.removeprefix(PREFIX).partition(":")
                rows = library.load_dataset(name, config or None)
    except Exception as error:
        guard.keep_interrupt(error)
        remedy = "check its name and the connection" if not saved else "save it again with save_to_disk"
        raise DataError(f"{where} cannot be loaded ({describe(error)}): {remedy}") from error
    if isinstance(rows, dict):
        if request.split not in rows:
            raise DataError(f"{where} has no split {request.split!r}: use {' or '.join(rows)}")
        rows = rows[request.split]
    else:
        request.refuse_split(where, "save two")
    columns = list(rows.column_names)
    label = request.label_column or named(columns, LABEL_NAMES)
    if label is None or label not in columns:
        told = f"no column {request.label_column!r}" if request.label_column else "no column called label"
        raise DataError(
            f"{where} has {told} (columns: {', '.join(columns[:8])}): name the label's with --label-column"
        )
    inputs = named([name for name in columns if name != label], INPUT_NAMES)
    if inputs is None:
        return from_frame(rows.to_pandas(), request, where)
    class_names = tuple(map(str, getattr(rows.features[label], "names", None) or ()))
    return of_items(_Pairs(rows, inputs, label), range(len(rows)), request, class_names, "huggingface")


SOURCE = Source(
    description="hf:NAME or a folder saved by Hugging Face's datasets: an image or numbers, and a label",
    load=load,
    find=find,
    options=("input_range", "label_column"),
)
