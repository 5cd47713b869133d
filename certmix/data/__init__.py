"""Data sets: a name or a path in, inputs in [0, 1] with labels and a checksum out."""

from __future__ import annotations

import difflib
import math
import os
from pathlib import Path
from typing import Any

from certmix.data import arrays, cifar, frames, hugging_face, image_folder, pairs
from certmix.data.dataset import UNIT_RANGE, Request, Source, load_arrays, restrict, spread, stack
from certmix.data.in_memory import from_object
from certmix.data.scales import scaled
from certmix.errors import DataError, ParameterError, describe
from certmix.files import named, remedy_of
from certmix.types import Dataset

__all__ = [
    "DATASETS", "dataset_of", "is_fetched", "load", "load_arrays", "parse_input_range", "restrict", "scaled",
    "spread", "stack",
]  # fmt: skip

DATASETS = {
    **cifar.SOURCES, "images": image_folder.SOURCE, "npz": arrays.SOURCE, "table": frames.SOURCE,
    "npy": pairs.SOURCE, "huggingface": hugging_face.SOURCE,
}  # fmt: skip
"""What there is, by name; one that is found (`Source.find`) is recognised from what a path holds."""


def load(
    spec: str | Path,
    split: str | None = None,
    *,
    default_split: str = "test",
    input_range: tuple[float, float] | None = UNIT_RANGE,
    resize: int | None = None,
    crop: int | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Load a data set by name or path.

    Parameters
    ----------
    spec
        The name ``cifar10-sample`` or ``cifar10-tuning``, or the path of a CIFAR-10 or CIFAR-100 folder (or
        its parent), of a folder of images, of an ``.npz`` file, of a table (``.csv``, ``.tsv``,
        ``.parquet``), of a ``.npy`` file of inputs with its labels beside it, of IDX files, or of a folder
        of Hugging Face's ``datasets``, which is recognised from what is there; or ``hf:NAME`` on its hub.
    split, default_split
        ``"test"``, ``"train"``, or for folders of images the name of a sub-folder; data without splits take
        none.  What None stands for where there are splits.
    input_range
        Smallest and largest value of float inputs, or None if unbounded.  Images are always scaled to (0, 1).
    resize, crop
        Folders of images only: shorter side in pixels, then side of the centre square.
    label_column
        Tables only: the column that holds the labels; by default ``label``, ``target``, ``y`` or ``class``.

    Returns
    -------
    Dataset
        Its `read` returns float32 inputs; those of images have shape (C, H, W) and values in [0, 1].
        DataError if nothing is there, or it is truncated, corrupt, of a wrong shape, or has no such split;
        ParameterError if the range is not increasing, or a size is below 1.

    Examples
    --------
    >>> sample = load("cifar10-sample")
    >>> len(sample), sample.classes, sample.read(0).shape
    (500, 10, (3, 32, 32))
    """
    if not isinstance(spec, str | os.PathLike):
        raise DataError(
            f"data of type {type(spec).__name__} are neither a name nor a path: use certmix.data.dataset_of, "
            "or save arrays with np.savez('mine.npz', inputs=..., labels=...) and give 'mine.npz'"
        )
    request = _request(str(spec), split, default_split, input_range, resize, crop, label_column)
    try:
        source, place = _choose(spec)
        return source.read(place, request)
    except OSError as error:
        reason, remedy = error.strerror or describe(error), remedy_of(error, "mend or replace it")
        raise DataError(
            f"{named(error.filename or spec, error)} cannot be read ({reason}): {remedy}"
        ) from error


def is_fetched(name: object) -> bool:
    """Whether the name of a data set is one on a hub, from which it may be fetched."""
    return isinstance(name, str) and name.startswith(hugging_face.PREFIX)


def dataset_of(
    data: Any,
    split: str | None = None,
    *,
    name: str | None = None,
    input_range: tuple[float, float] | None = UNIT_RANGE,
    resize: int | None = None,
    crop: int | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Return the data set that a program holds, or one that is named, whatever its form.

    Parameters
    ----------
    data
        A `Dataset`, which is returned as it is; a name or a path, as for `load`; a pair (inputs, labels) of
        tensors, arrays, lists or columns, or a dictionary of them; a data frame of pandas with a label
        column; a map-style data set of torch or torchvision, whose items are (input, label), as pairs or
        dictionaries; or a ``DataLoader``, of whose data set each input counts once, in its own order.
    name
        What records and tables call data that have no name, by default their type's.
    split, input_range, resize, crop, label_column
        As for `load`; data in memory have no split.

    Returns
    -------
    Dataset
        Inputs are copied, up to 1 GiB of them; what is larger is read again, item by item.  8-bit images,
        channels first or last, are scaled to [0, 1].  Labels may count from 0 or, where the classes are
        named, from 1, be texts or one-hot: ``settings["labels"]`` says how they were understood.  The
        checksum is of the content.  DataError if the data are of another kind, or cannot be read.

    Examples
    --------
    >>> dataset = dataset_of(([[0.1, 0.2], [0.3, 0.4]], ["low", "high"]))
    >>> dataset.class_names, dataset.labels.tolist(), dataset.read(0).dtype.name
    (('high', 'low'), [1, 0], 'float32')
    """
    if isinstance(data, Dataset):
        return data
    options = (input_range, resize, crop, label_column)
    if isinstance(data, str | Path):
        return load(data, split, input_range=input_range, resize=resize, crop=crop, label_column=label_column)
    called = name or {"tuple": "data", "list": "data", "dict": "data"}.get(type(data).__name__)
    return from_object(data, _request(called or type(data).__name__, split, "test", *options))


def _request(
    name: str, split: str | None, default_split: str, input_range: tuple[float, float] | None,
    resize: int | None, crop: int | None, label_column: str | None,
) -> Request:  # fmt: skip
    for option, value in (("resize", resize), ("crop", crop)):
        if value is not None and value < 1:
            raise ParameterError(f"{option} = {value}: give a number of pixels, at least 1")
    return Request(
        name, default_split if split is None else split, _check_range(input_range), resize, crop,
        split is not None, label_column,
    )  # fmt: skip


def _choose(spec: str | Path) -> tuple[Source, Path]:
    """Return the source that a name or path stands for, and where it is to read."""
    name = str(spec)
    if name in DATASETS and DATASETS[name].find is None:
        return DATASETS[name], Path()
    if is_fetched(name):
        return hugging_face.SOURCE, Path(name)
    try:
        path = Path(os.path.expanduser(spec))
        exists = path.exists()
    except ValueError:  # what no path can be, such as a zero byte in it
        exists = False
    if not exists and name in DATASETS:
        told = DATASETS[name].description
        raise DataError(f"{name} is not part of the package: give its path instead of its name ({told})")
    if not exists:
        is_path = os.sep in name or Path(name).suffix  # no name of a data set looks like that
        close = [] if is_path else difflib.get_close_matches(name.lower(), list(DATASETS), n=1)
        built_in = ", ".join(known for known, source in DATASETS.items() if source.find is None)
        hint = f"did you mean {close[0]}?" if close else f"give an existing path or {built_in}"
        raise DataError(f"no data set is called {name!r} and no such path exists: {hint}")
    places = {known: source.find(path) for known, source in DATASETS.items() if source.find is not None}
    found = {known: place for known, place in places.items() if place is not None}
    if len(found) > 1:
        found.pop("images", None)  # the least specific
    if len(found) > 1:
        told = ", ".join(f"{place} ({known})" for known, place in found.items())
        raise DataError(f"{path} holds several data sets, {told}: name one of them")
    for known, place in found.items():
        return DATASETS[known], place
    if path.is_file():
        kind = path.suffix or "suffix-less"
        raise DataError(
            f"{path} is a {kind} file: give an .npz or .npy file, a table or a folder; unpack archives first"
        )
    entries = sorted(entry.name for entry in path.iterdir())
    told = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "") if entries else "nothing"
    raise DataError(
        f"{path} holds no data set (found {told}): give a CIFAR folder, "
        "or a folder with a sub-folder of images for each class"
    )


def parse_input_range(text: str) -> tuple[float, float] | None:
    """Parse ``LO,HI`` or ``none``; ParameterError if it is neither, or LO < HI does not hold.

    >>> parse_input_range("-1,1")
    (-1.0, 1.0)
    """
    if text.strip().lower() == "none":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ParameterError(f"input range {text!r}: give LO,HI such as 0,1, or none") from error
    return _check_range((low, high))


def _check_range(limits: tuple[float, float] | None) -> tuple[float, float] | None:
    if limits is None:
        return None
    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(
            f"input range {low:g},{high:g}: both must be finite and LO < HI; use none for unbounded inputs"
        )
    return float(low), float(high)
