"""Tables with a label column: CSV and Parquet files, and data frames of pandas."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from certmix.data.arrays import from_arrays
from certmix.data.dataset import Request, Source
from certmix.data.labels import LABEL_NAMES, named
from certmix.errors import DataError, describe, install
from certmix.files import as_argument, read_file, what_it_is
from certmix.types import Dataset

SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (*SEPARATORS, ".parquet")
LARGEST = 1 << 32
"""Bytes of a table."""


def find(path: Path) -> Path | None:
    """Return the file if it is a table."""
    return path if path.is_file() and path.suffix.lower() in TABLES else None


def load(path: Path, request: Request) -> Dataset:
    """Load a table, a row an input."""
    request.refuse_split(str(path), "give two files")
    return from_frame(frame_of(path), request, str(path))


def frame_of(path: Path, as_text: bool = False) -> Any:
    """Return the data frame that a file holds, all of it `as_text` if that is asked for; DataError."""
    pandas = optional("pandas", "tables are read by pandas", "tables")
    raw = read_file(path, LARGEST)
    if wrong := what_it_is(raw):
        raise DataError(f"{path} is not a table: {wrong}")
    try:
        if path.suffix.lower() == ".parquet":
            optional("pyarrow", "Parquet files are read by pyarrow", "tables")
            return pandas.read_parquet(io.BytesIO(raw), engine="pyarrow")
        how = {"dtype": str, "keep_default_na": False} if as_text else {}
        return pandas.read_csv(io.BytesIO(raw), sep=SEPARATORS[path.suffix.lower()], **how)
    except DataError:
        raise
    except Exception as error:  # parsers share no base class of errors
        raise DataError(
            f"{path} cannot be read ({describe(error)}): mend the table, or save an .npz"
        ) from error


def optional(module: str, why: str, extra: str) -> Any:
    """Return a library that not everybody has; DataError names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{module} cannot be imported ({describe(error)}): {why}: {install(extra)}"
        ) from error


def from_frame(frame: Any, request: Request, where: str) -> Dataset:
    """Return the data set of a data frame: one column is the label, those of numbers are features, in order.

    A column of texts, none of them a number, is no feature: it can name the groups of a guarantee.
    """
    columns = [str(name) for name in frame.columns]
    if not len(frame) or len(columns) < 2:
        raise DataError(f"{where} is {len(frame)} rows of {len(columns)} columns: give features and a label")
    if unnamed := [name for name in columns if name.startswith("Unnamed: ") or not name.strip()]:
        raise DataError(
            f"{where}: column {columns.index(unnamed[0]) + 1} has no name, as of an index that was saved: "
            "name it, or save the table with index=False"
        )
    if all(_is_number(name) for name in columns):
        raise DataError(
            f"{where}: the first row holds numbers, not the names of columns: put a line of names before it"
        )
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f"{where}: column {twice!r} comes twice: give each a name of its own")
    label = request.label_column or named(columns, LABEL_NAMES)
    if label not in columns:
        asked = (
            "no column is called label" if request.label_column is None else f"there is no column {label!r}"
        )
        shown = ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")
        raise DataError(f"{where}: {asked} (columns: {shown}): name the label's with --label-column")
    frame = frame.set_axis(columns, axis=1)
    features = [name for name in columns if name != label]
    if empty := [name for name in columns if frame[name].isna().any()]:
        row = int(np.argmax(frame[empty[0]].isna().to_numpy()))
        raise DataError(f"{where}: row {row + 1} has no {empty[0]}: fill it in, or leave such rows out")
    texts = [name for name in features if frame[name].dtype.kind not in "fiub"]
    features = [name for name in features if name not in texts]
    for name in texts:
        if not features or not all(isinstance(one, str) and not _is_number(one) for one in frame[name]):
            option = f" (if it is the label, --label-column {as_argument(name)})"
            raise DataError(
                f"{where}: column {name!r} holds other things than numbers: encode it, or leave it out"
                + (option if request.label_column is None else "")
            )
    told = f"no features, being texts: {', '.join(texts)}; they can name groups of a guarantee"
    kinds = {frame[name].dtype.kind for name in features}
    inputs = frame[features].to_numpy(np.int64 if kinds <= {"i", "u", "b"} else np.float64)
    return from_arrays(
        request, inputs, frame[label].to_numpy(), where, features=features,
        settings={"source": "table", "label_column": label} | ({"texts": told} if texts else {}),
    )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


SOURCE = Source(
    description="PATH.csv, .tsv or .parquet with a label column (--label-column); the others are features",
    load=load,
    find=find,
    options=("input_range", "label_column"),
)
