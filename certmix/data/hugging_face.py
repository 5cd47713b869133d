"""Data sets of Hugging Face's library `datasets`: names on the hub, and folders that it saved."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix import guard
from certmix.data.dataset import Request, Source
from certmix.data.frames import from_frame, optional
from certmix.data.image_folder import FORMATS, refuse_size
from certmix.data.in_memory import of_items
from certmix.data.labels import INPUT_NAMES, LABEL_NAMES, named
from certmix.errors import DataError, brief, describe
from certmix.files import TEXT, parse_json, read_file, refuse_special
from certmix.types import Dataset

PREFIX = "hf:"
AGAIN = "save it again with save_to_disk"


def find(path: Path) -> Path | None:
    """Return the folder if `save_to_disk` made it."""
    found = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    return path if path.is_dir() and found else None


def refuse_strange(folder: Path) -> None:
    """Refuse a folder of `save_to_disk` whose files are not regular, or lie elsewhere: DataError, OSError.

    The library opens whatever the folder names, and would wait for a pipe.
    """
    listed, parts = folder / "dataset_dict.json", [folder]
    if os.path.lexists(listed):
        parts = [folder / _plain(name, listed) for name in _entries(listed, "splits")]
    for part in parts:
        refuse_special(part / "dataset_info.json")
        for data in _entries(state := part / "state.json", "_data_files"):
            name = data.get("filename") if isinstance(data, dict) else data
            refuse_special(part / _plain(name, state))


def _entries(path: Path, key: str) -> list[Any]:
    """Return a list in a JSON file."""
    try:
        found = parse_json(read_file(path, TEXT))
        if not isinstance(found, dict) or not isinstance(found.get(key), list):
            raise ValueError(f"it has no list of {key}")
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({brief(error)}): {AGAIN}") from None
    return list(found[key])


def _plain(name: Any, where: Path) -> str:
    """Return the name of a file or folder beside another, or refuse what leads elsewhere."""
    if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\\", "\0"} & {*name}:
        raise DataError(f"{where} names {brief(repr(name), 40)}, which does not lie beside it: {AGAIN}")
    return name


@dataclass(frozen=True)
class _Pairs:
    """Inputs and labels of two columns; images of folders are decoded `within` the folder alone."""

    rows: Any
    inputs: str
    label: str
    images: Any = None
    where: str = ""

    @classmethod
    def within(cls, rows: Any, inputs: str, label: str, where: str) -> _Pairs:
        """Return those of a folder: nothing that a row names, a file or an address, is opened."""
        feature = rows.features[inputs]
        for name, one in (("", feature), (f" {label}", rows.features[label])):
            if _names_files(one) and (name or type(one).__name__ != "Image"):
                raise DataError(f"{where}: column{name or f' {inputs}'} names files: save arrays or images")
        if not _names_files(feature):
            return cls(rows.select_columns([inputs, label]), inputs, label)
        kept = rows.select_columns([inputs, label]).cast_column(inputs, type(feature)(decode=False))
        return cls(kept, inputs, label, feature, where)

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        row = self.rows[place]
        shown = row[self.inputs]
        return shown if self.images is None else self._decoded(shown, place), row[self.label]

    def _decoded(self, shown: Any, place: int) -> Any:
        """Return an image as the library decodes it, of the forms that folders of images may have."""
        from PIL import Image, UnidentifiedImageError

        raw = shown.get("bytes") if isinstance(shown, dict) else None
        if raw is None:
            raise DataError(f"{self.where}: row {place} holds no image but where one is: {AGAIN}")
        try:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                refuse_size(image.size, len(raw))
            return self.images.decode_example({"bytes": raw, "path": None})
        except Exception as error:  # Pillow's decoders share no base class of errors
            why = "another form" if isinstance(error, UnidentifiedImageError) else describe(error)
            raise DataError(
                f"{self.where}: row {place} is not a readable image of {', '.join(FORMATS)} ({why}): save "
                "the images as PNG"
            ) from error


def _names_files(feature: Any) -> bool:
    """Whether a library's feature reads files or addresses that a row may name: images, sounds, videos."""
    if isinstance(feature, dict):
        return any(map(_names_files, feature.values()))
    if isinstance(feature, list | tuple):
        return any(map(_names_files, feature))
    return hasattr(feature, "decode_example") or _names_files(getattr(feature, "feature", ()))


def load(path: Path, request: Request) -> Dataset:
    """Load a split: of images, or other inputs, in a column, or of numbers in several."""
    library = optional("datasets", "Hugging Face's data sets are read by it", "datasets")
    where, saved = request.name, not request.name.startswith(PREFIX)
    if saved:
        refuse_strange(path)
    try:
        with guard.foreign(where):
            if saved:
                rows = library.load_from_disk(str(path))
            else:
                name, _, config = request.name.removeprefix(PREFIX).partition(":")
                rows = library.load_dataset(name, config or None)
    except Exception as error:
        guard.keep_interrupt(error)
        remedy = AGAIN if saved else "check its name and the connection"
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
    pairs = _Pairs.within(rows, inputs, label, where) if saved else _Pairs(rows, inputs, label)
    return of_items(pairs, range(len(rows)), request, class_names, "huggingface")


SOURCE = Source(
    description="hf:NAME or a folder saved by Hugging Face's datasets: an image or numbers, and a label",
    load=load,
    find=find,
    options=("input_range", "label_column"),
)
